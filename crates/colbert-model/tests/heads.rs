//! Heads of several layers: against PyLate's, written and read again, trained, and refused where they are damaged. The
//! fixture is `tests/families/stacked`.

use std::fs;
use std::path::{Path, PathBuf};

use burn::backend::Autodiff;
use colbert_config::{ArtifactMetadata, ExportDtype, ExportLayout, TrainOptions, resolve};
use colbert_model::{
    Activation, Colbert, ColbertSettings, EncodeOptions, Encoder, EncoderInput, Export, HeadConfig, ModelError,
    Pretrained, PretrainedEncoder, SelfCheck, Weights, named_parameters, parameter_names, safetensors_bytes,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{B, compare_with_pylate, copied, device, fixture, largest_difference, parity};

/// Spread of float32 arithmetic over two layers and a head of six, with a margin.
const TOLERANCE: f32 = 1e-5;

fn stacked() -> Pretrained {
    Pretrained::read(&fixture("stacked")).unwrap()
}

fn loaded(pretrained: &Pretrained) -> (Colbert<B, PretrainedEncoder<B>>, ColbertSettings) {
    let settings = pretrained.declared_settings().unwrap();
    let (model, report) = pretrained.model::<B>(&settings, None, 0, &device()).unwrap();
    assert!(report.initialised.is_empty() && report.ignored.is_empty(), "{report:?}");
    (model, settings)
}

fn write(pretrained: &Pretrained, settings: &ColbertSettings, path: &Path) -> Result<(), ModelError> {
    let (model, _) = pretrained.model::<B>(settings, None, 0, &device())?;
    let tensors: Vec<_> =
        named_parameters(&model).into_iter().map(|(name, tensor)| (model.tensor_name(&name), tensor)).collect();
    let options = TrainOptions { dim: settings.dim, query_maxlen: 14, doc_maxlen: 30, ..TrainOptions::default() };
    let metadata = ArtifactMetadata::from_training(&options, &resolve(&options, 320).unwrap(), "tiny");
    let files = &pretrained.files;
    let all = Export {
        tensors: &tensors,
        settings,
        files,
        metadata: &metadata,
        layout: ExportLayout::All,
        dtype: ExportDtype::F32,
        onnx: false,
        own_encoder: None,
        extra: &[],
    };
    all.write::<B>(path, false, &device())
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_head_of_several_layers_gives_pylates_vectors() {
    let pretrained = stacked();
    assert_eq!(
        pretrained.files.head.as_ref().unwrap().to_string(),
        "32 -> 48 (bias, GELU, residual) -> 48 (Tanh, residual) -> 40 (bias, SiLU) -> 40 (ReLU) -> 32 (bias, Sigmoid) -> 24"
    );
    assert_eq!((pretrained.declared.dim, pretrained.declared.use_relu), (Some(24), Some(false)));
    let (model, settings) = loaded(&pretrained);
    compare_with_pylate("stacked", &model, &pretrained.tokenizer(&settings).unwrap(), TOLERANCE);
}

#[test]
fn it_is_written_and_read_again() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("exported");
    let (model, settings) = loaded(&stacked());
    write(&stacked(), &settings, &path).unwrap();
    for place in 1..=6 {
        let layer = format!("{place}_Dense");
        let (own, source) = (read(&path.join(&layer).join("config.json")), fixture("stacked").join(&layer));
        assert_eq!(own, read(&source.join("config.json")), "{layer}");
        let tensors = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
        let (own, source) = (tensors(&path.join(&layer)), tensors(&source));
        let header = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize + 8;
        assert_eq!(own[header(&own)..], source[header(&source)..], "{layer}");
    }
    assert_eq!(read(&path.join("modules.json")), read(&fixture("stacked").join("modules.json")));
    // colbert-ai's matrix has the size that its metadata names, and none of the modules is beside it.
    let root = Weights::read(&path.join("model.safetensors")).unwrap();
    assert_eq!(root.shape("linear.weight"), Some([24, 32].as_slice()));
    assert!(root.names().all(|name| name == "linear.weight" || name.starts_with("bert.")));

    let again = Pretrained::read(&path).unwrap();
    let (other, declared) = loaded(&again);
    assert_eq!(declared, settings);
    assert_eq!(named_parameters(&other), named_parameters(&model));
    assert_eq!(SelfCheck::replay::<B>(&path, &device()).unwrap(), 0.0);
}

/// Two matrices and a residual are one matrix to colbert-ai, and the same vectors.
#[test]
fn a_head_of_matrices_alone_is_one_matrix_in_the_root_file() {
    let folder = TempDir::new().unwrap();
    let source = copied(&fixture("stacked"), &folder);
    let modules = read(&source.join("modules.json"));
    fs::write(source.join("modules.json"), json!([modules[0], modules[1], modules[2], modules[3]]).to_string())
        .unwrap();
    for place in 1..=3 {
        let layer = source.join(format!("{place}_Dense"));
        let mut config = read(&layer.join("config.json"));
        config["activation_function"] = json!("torch.nn.modules.linear.Identity");
        config["bias"] = json!(false);
        fs::write(layer.join("config.json"), config.to_string()).unwrap();
        let mut weights = Weights::read(&layer.join("model.safetensors")).unwrap();
        let names: Vec<String> = weights.names().filter(|name| *name != "linear.bias").map(str::to_owned).collect();
        let mut taken = Vec::new();
        for name in names {
            let shape = weights.shape(&name).unwrap().to_vec();
            taken.push((name.clone(), weights.take(&name, &shape).unwrap()));
        }
        fs::write(layer.join("model.safetensors"), safetensors_bytes(&taken).unwrap()).unwrap();
    }
    let pretrained = Pretrained::read(&source).unwrap();
    let head = pretrained.files.head.clone().unwrap();
    assert_eq!(head.to_string(), "32 -> 48 (residual) -> 48 (residual) -> 40");
    assert!(head.is_linear() && !head.is_simple());
    let (model, settings) = loaded(&pretrained);
    let path = folder.path().join("exported");
    write(&pretrained, &settings, &path).unwrap();
    for file in ["modules.json", "config_sentence_transformers.json"] {
        fs::remove_file(path.join(file)).unwrap();
    }
    for place in 1..=3 {
        fs::remove_dir_all(path.join(format!("{place}_Dense"))).unwrap();
    }
    let folded = Pretrained::read(&path).unwrap();
    assert!(folded.files.head.as_ref().unwrap().is_simple());
    let (one, _) = loaded(&folded);
    let tokenizer = pretrained.tokenizer(&settings).unwrap();
    let sequences = tokenizer.documents(&["A tor is a rocky hill.", "naïve ﬁne ① Å"]).unwrap();
    let vectors = |model: &Colbert<B, PretrainedEncoder<B>>| {
        model.encode(&sequences, &device()).vectors.into_data().to_vec().unwrap()
    };
    let (many, one): (Vec<f32>, Vec<f32>) = (vectors(&model), vectors(&one));
    assert!(largest_difference(&many, &one) < TOLERANCE);
}

#[test]
fn every_tensor_of_it_is_trained_and_has_a_name_of_its_own() {
    type A = Autodiff<B>;
    let pretrained = stacked();
    let settings = pretrained.declared_settings().unwrap();
    let (model, _) = pretrained.model::<A>(&settings, None, 0, &device()).unwrap();
    let names: Vec<String> = parameter_names(&model.head).into_iter().map(|name| model.tensor_name(&name)).collect();
    assert_eq!(names.len(), 10, "{names:?}");
    let whole: Vec<String> = parameter_names(&model).into_iter().map(|name| model.tensor_name(&name)).collect();
    for name in ["linear.weight", "linear.bias", "residual.weight", "2_Dense.linear.weight", "5_Dense.linear.bias"] {
        assert_eq!(whole.iter().filter(|own| *own == name).count(), 1, "{name} in {whole:?}");
    }
    let sequences = pretrained.tokenizer(&settings).unwrap().documents(&["A tor is a rocky hill."]).unwrap();
    let vectors = model.encode(&sequences, &device()).vectors;
    let toward = vectors.clone().narrow(0, 0, 1).detach();
    let gradients = (vectors * toward).sum().backward();
    for (place, layer) in model.head.dense.iter().enumerate() {
        let matrices = [Some(&layer.linear), layer.residual.as_ref()].into_iter().flatten();
        for matrix in matrices {
            let gradient = matrix.weight.val().grad(&gradients).unwrap();
            let largest = gradient.abs().max().into_data().to_vec::<f32>().unwrap()[0];
            assert!(largest > 0.0 && largest.is_finite(), "layer {place}: {largest}");
        }
        if let Some(bias) = &layer.linear.bias {
            assert!(bias.val().grad(&gradients).is_some(), "layer {place}");
        }
    }
}

/// A ReLU changes the last layer, in the computation and in the file.
#[test]
fn a_relu_goes_to_the_end() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("exported");
    let settings = ColbertSettings { use_relu: true, ..stacked().declared_settings().unwrap() };
    write(&stacked(), &settings, &path).unwrap();
    let again = Pretrained::read(&path).unwrap();
    assert_eq!(again.declared.use_relu, Some(true));
    let (model, _) = loaded(&again);
    assert_eq!(model.head.dense[5].activation, Activation::Relu);
    let texts = again.tokenizer(&settings).unwrap().documents(&["a fen"]).unwrap();
    let vectors = model.encode(&texts, &device()).vectors.into_data().to_vec::<f32>().unwrap();
    assert!(vectors.iter().all(|value| *value >= 0.0) && vectors.iter().any(|value| *value > 0.0));
}

/// A copy of the tiny encoder without its projection.
fn plain(folder: &TempDir) -> PathBuf {
    let path = copied(&parity("tiny"), folder);
    let file = path.join("model.safetensors");
    let mut weights = Weights::read(&file).unwrap();
    let names: Vec<String> = weights.names().filter(|name| *name != "linear.weight").map(str::to_owned).collect();
    let tensors = names.into_iter().map(|name| {
        let shape = weights.shape(&name).unwrap().to_vec();
        let tensor = weights.take(&name, &shape).unwrap();
        (name, tensor)
    });
    let tensors: Vec<_> = tensors.collect();
    fs::write(file, safetensors_bytes(&tensors).unwrap()).unwrap();
    path
}

fn with_head(head: &str, dim: usize) -> TrainOptions {
    TrainOptions { head: head.parse().unwrap(), dim, query_maxlen: 14, doc_maxlen: 30, ..TrainOptions::default() }
}

#[test]
fn options_give_a_plain_encoder_a_head_of_several_layers() {
    let folder = TempDir::new().unwrap();
    let source = plain(&folder);
    let options = with_head("48 gelu residual, dim bias residual", 24);
    let pretrained = Pretrained::read_for(&source, &options).unwrap();
    assert_eq!(pretrained.declared.dim, None, "nothing of it is the encoder's own");
    let settings = pretrained.settings(&options);
    let head = pretrained.head(&settings).unwrap();
    assert_eq!(head.to_string(), "32 -> 48 (GELU, residual) -> 24 (bias, residual)");
    let model = |seed| pretrained.model::<B>(&settings, None, seed, &device()).unwrap();
    let ((first, report), (same, _), (other, _)) = (model(1), model(1), model(2));
    let names =
        ["linear.weight", "residual.weight", "2_Dense.linear.weight", "2_Dense.linear.bias", "2_Dense.residual.weight"];
    assert_eq!(report.initialised, names);
    assert_eq!(named_parameters(&first), named_parameters(&same));
    assert_ne!(named_parameters(&first.head), named_parameters(&other.head));

    let path = folder.path().join("exported");
    write(&pretrained, &settings, &path).unwrap();
    assert_eq!(
        read(&path.join("2_Dense/config.json")),
        json!({
            "in_features": 48, "out_features": 24, "bias": true, "use_residual": true,
            "activation_function": "torch.nn.modules.linear.Identity",
        })
    );
    let again = Pretrained::read(&path).unwrap();
    assert_eq!(again.files.head.as_ref(), Some(&head));
    let (loaded, declared) = loaded(&again);
    assert_eq!(declared, settings);
    assert_eq!(named_parameters(&loaded), named_parameters(&model(0).0), "what was written is what was drawn");
    let root = Weights::read(&path.join("model.safetensors")).unwrap();
    assert_eq!(root.shape("linear.weight"), Some([24, 32].as_slice()), "one matrix for colbert-ai");
    assert_eq!(SelfCheck::replay::<B>(&path, &device()).unwrap(), 0.0);

    // Training continues with the existing head: options may name the same one, but not another.
    Pretrained::read_for(&path, &options).unwrap();
    Pretrained::read_for(&path, &TrainOptions { head: Default::default(), ..options }).unwrap();
    for other in ["dim", "48 gelu residual, dim bias", "47 gelu residual, dim bias residual"] {
        let error = Pretrained::read_for(&path, &with_head(other, 24)).unwrap_err();
        assert!(matches!(error, ModelError::HeadIsThere { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains("has its head, 32 -> 48 (GELU") && error.contains("leave train.head out"), "{error}");
    }
}

/// The first layer's residual is the input itself, as the sizes agree.
#[test]
fn a_residual_of_one_layer_adds_the_hidden_vector() {
    let folder = TempDir::new().unwrap();
    let source = plain(&folder);
    let options = with_head("dim residual", 32);
    let pretrained = Pretrained::read_for(&source, &options).unwrap();
    let settings = pretrained.settings(&options);
    let (model, report) = pretrained.model::<B>(&settings, None, 1, &device()).unwrap();
    assert_eq!(report.initialised, ["linear.weight"]);
    let texts = pretrained.tokenizer(&settings).unwrap().documents(&["A tor is a rocky hill."]).unwrap();
    let input = EncoderInput::new(&texts, EncodeOptions::default());
    let hidden: Vec<f32> = model.encoder.forward(&input, &device()).into_data().to_vec().unwrap();
    let matrix = named_parameters(&model.head).into_iter().next().unwrap().1.values;
    let found: Vec<f32> = model.encode(&texts, &device()).vectors.into_data().to_vec().unwrap();
    let expected = hidden.chunks(32).flat_map(|hidden| {
        let row = |out: usize| {
            let own: f64 = (0..32).map(|i| f64::from(matrix[out * 32 + i]) * f64::from(hidden[i])).sum();
            own + f64::from(hidden[out])
        };
        let vector: Vec<f64> = (0..32).map(row).collect();
        let length = vector.iter().map(|value| value * value).sum::<f64>().sqrt();
        vector.into_iter().map(move |value| (value / length) as f32)
    });
    assert!(largest_difference(&found, &expected.collect::<Vec<f32>>()) < TOLERANCE);
}

/// Dense modules after a pooling make one vector for each text; they are no head on tokens.
#[test]
fn a_sentence_encoders_dense_modules_are_no_head() {
    let folder = TempDir::new().unwrap();
    let path = copied(&fixture("stacked"), &folder);
    let pooling = json!({"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"});
    let dense = json!({"idx": 2, "name": "2", "path": "1_Dense", "type": "sentence_transformers.models.Dense"});
    let transformer = read(&path.join("modules.json"))[0].clone();
    fs::write(path.join("modules.json"), json!([transformer, pooling, dense]).to_string()).unwrap();
    let pretrained = Pretrained::read(&path).unwrap();
    assert_eq!((pretrained.files.head.as_ref(), pretrained.declared.dim), (None, None));
    assert_eq!(pretrained.head(&settings_of(128)).unwrap(), HeadConfig::linear(32, 128));
}

fn settings_of(dim: usize) -> ColbertSettings {
    ColbertSettings { dim, query_maxlen: 14, doc_maxlen: 30, ..ColbertSettings::default() }
}

#[test]
fn damaged_heads_are_refused_by_name() {
    let error = |change: &dyn Fn(&Path)| -> String {
        let folder = TempDir::new().unwrap();
        let path: PathBuf = copied(&fixture("stacked"), &folder);
        change(&path);
        Pretrained::read(&path).unwrap_err().to_string()
    };
    let set = |place: usize, field: &'static str, value: Value| {
        move |path: &Path| {
            let file = path.join(format!("{place}_Dense/config.json"));
            let mut config = read(&file);
            config[field] = value.clone();
            fs::write(file, config.to_string()).unwrap();
        }
    };
    let softmax = "torch.nn.modules.activation.Softmax";
    let cases: [(String, &[&str]); 9] = [
        (error(&set(3, "activation_function", json!(softmax))), &["3_Dense", softmax, "Identity, ReLU, GELU, Tanh"]),
        (error(&set(2, "activation_function", json!("os.system"))), &["2_Dense", "os.system"]),
        (error(&set(4, "in_features", json!(41))), &["4_Dense/config.json", "in_features = 41", "expected 40"]),
        (error(&set(1, "in_features", json!(64))), &["1_Dense/config.json", "in_features = 64", "expected 32"]),
        (error(&set(4, "out_features", json!(39))), &["4_Dense", "linear.weight", "[40, 40]", "[39, 40]"]),
        (error(&set(1, "bias", json!(false))), &["1_Dense", "bias = false"]),
        (error(&set(2, "bias", json!(true))), &["2_Dense", "linear.bias is missing"]),
        (error(&set(3, "use_residual", json!(true))), &["3_Dense", "residual.weight is missing"]),
        (
            error(&|path| fs::remove_dir_all(path.join("5_Dense")).unwrap()),
            &["5_Dense is missing", "modules.json names"],
        ),
    ];
    for (error, parts) in cases {
        assert!(parts.iter().all(|part| error.contains(part)), "{error}: {parts:?}");
    }
    let replace = |name: &'static str, shape: &'static [usize], value: f32| {
        move |path: &Path| {
            let file = path.join("1_Dense/model.safetensors");
            let mut weights = Weights::read(&file).unwrap();
            let names: Vec<String> = weights.names().map(str::to_owned).collect();
            let tensors = names.into_iter().map(|own| {
                let kept = weights.shape(&own).unwrap().to_vec();
                let mut tensor = weights.take(&own, &kept).unwrap();
                if own == name {
                    tensor.shape = shape.to_vec();
                    tensor.values.resize(shape.iter().product(), 0.0);
                    tensor.values[0] = value;
                }
                (own, tensor)
            });
            let tensors: Vec<_> = tensors.collect();
            fs::write(file, safetensors_bytes(&tensors).unwrap()).unwrap();
        }
    };
    let shape = error(&replace("linear.bias", &[32], 1.0));
    assert!(shape.contains("linear.bias") && shape.contains("[32]") && shape.contains("[48]"), "{shape}");
    let nan = error(&replace("residual.weight", &[48, 32], f32::NAN));
    assert!(nan.contains("1_Dense") && nan.contains("residual.weight") && nan.contains("not finite"), "{nan}");
    for outside in ["../1_Dense", "/tmp", ""] {
        let error = error(&|path| {
            let file = path.join("modules.json");
            let mut modules = read(&file);
            modules[2]["path"] = json!(outside);
            fs::write(file, modules.to_string()).unwrap();
        });
        assert!(error.contains("path = ") && error.contains("a folder of the directory"), "{error}");
    }
    // Another dim than the last layer's, and a ReLU after a residual.
    let wrong = stacked().head(&settings_of(16)).unwrap_err().to_string();
    assert!(wrong.contains("6_Dense.linear.weight") && wrong.contains("set dim = 24"), "{wrong}");
}

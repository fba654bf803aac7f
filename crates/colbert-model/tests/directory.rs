//! Loading and exporting directories: round trip, required files, and clear errors for broken ones.

use std::fs;
use std::path::{Path, PathBuf};

use colbert_model::{ModelError, Pretrained, SelfCheck, Weights, maxsim, named_parameters};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{B, copied, device, export_tiny, fixture, largest_difference, parity, settings, strings, tiny};

/// The change of a named tensor's values; none leaves it out.
type Change<'a> = dyn Fn(&str, Vec<f32>) -> Option<Vec<f32>> + 'a;

fn copy_of_tiny(folder: &TempDir) -> PathBuf {
    let to = folder.path().join("model");
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(parity("tiny")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    to
}

fn read_error(path: &Path) -> String {
    let error = Pretrained::read(path).unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        text.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    text
}

#[test]
fn an_exported_directory_gives_the_same_scores() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("exported");
    export_tiny(&path, false).unwrap();
    let settings = settings(32, 64);
    let (model, tokenizer, _) = tiny(&settings);
    let again = Pretrained::read(&path).unwrap();
    assert_eq!(again.declared_settings().unwrap(), settings);
    let (loaded, report) = again.model::<B>(&settings, None, 99, &device()).unwrap();
    assert!(report.initialised.is_empty() && report.ignored.is_empty(), "{report:?}");
    let loaded_tokenizer = again.tokenizer(&settings).unwrap();
    let texts = crate::support::json("tokenization.json");
    let (queries, docs) = (strings(&texts["queries"]), strings(&texts["docs"]));
    // A marker written out in a text is a marker to the exported tokenizer (it lists them as added tokens).
    let plain = |text: &&String| !text.contains("[unused");
    let docs: Vec<&String> = docs.iter().filter(plain).collect();
    let queries: Vec<&String> = queries.iter().filter(plain).collect();
    let score = |model: &colbert_model::Colbert<B, colbert_model::PretrainedEncoder<B>>,
                 tokenizer: &colbert_model::ColbertTokenizer| {
        let queries = model.encode(&tokenizer.queries(&queries).unwrap(), &device());
        let docs = model.encode(&tokenizer.documents(&docs).unwrap(), &device());
        maxsim(&queries, &docs).into_data().to_vec::<f32>().unwrap()
    };
    assert!(largest_difference(&score(&model, &tokenizer), &score(&loaded, &loaded_tokenizer)) < 1e-6);
}

#[test]
fn an_exported_directory_has_every_file_and_key_that_other_stacks_read() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("exported");
    export_tiny(&path, false).unwrap();
    let read = |file: &str| -> Value { serde_json::from_str(&fs::read_to_string(path.join(file)).unwrap()).unwrap() };

    assert_eq!(read("config.json")["architectures"], json!(["BertModel"]));
    assert_eq!(read("config.json")["model_type"], "bert");
    let weights = Weights::read(&path.join("model.safetensors")).unwrap();
    assert_eq!(weights.shape("linear.weight"), Some([16, 32].as_slice()));
    assert!(weights.names().all(|name| name == "linear.weight" || name.starts_with("bert.")));
    assert!(weights.names().all(|name| !name.ends_with("gamma") && !name.ends_with("beta")));
    assert!(weights.contains("bert.pooler.dense.weight") && weights.contains("bert.embeddings.LayerNorm.weight"));
    let header = fs::read(path.join("model.safetensors")).unwrap();
    assert!(String::from_utf8_lossy(&header[..200]).contains(r#""__metadata__":{"format":"pt"}"#));
    let dense = Weights::read(&path.join("1_Dense/model.safetensors")).unwrap();
    assert_eq!(dense.shape("linear.weight"), Some([16, 32].as_slice()));

    let added = read("tokenizer.json")["added_tokens"].as_array().unwrap().clone();
    for marker in ["[unused0]", "[unused1]"] {
        let token = added.iter().find(|token| token["content"] == marker).unwrap();
        assert_eq!((&token["special"], &token["normalized"]), (&json!(true), &json!(false)));
    }
    assert_eq!(read("tokenizer_config.json")["pad_token"], "[PAD]");
    assert_eq!(read("tokenizer_config.json")["tokenizer_class"], "BertTokenizer");
    assert_eq!(read("special_tokens_map.json")["mask_token"], "[MASK]");
    assert_eq!(fs::read_to_string(path.join("vocab.txt")).unwrap().lines().count(), 6000);
    let modules = read("modules.json");
    assert_eq!(modules[0]["type"], "sentence_transformers.models.Transformer");
    assert_eq!((&modules[1]["path"], &modules[1]["type"]), (&json!("1_Dense"), &json!("pylate.models.Dense.Dense")));
    assert_eq!(read("sentence_bert_config.json"), json!({"max_seq_length": 63, "do_lower_case": false}));
    assert_eq!(
        read("1_Dense/config.json"),
        json!({"in_features": 32, "out_features": 16, "bias": false, "use_residual": false,
               "activation_function": "torch.nn.modules.linear.Identity"})
    );
    let st = read("config_sentence_transformers.json");
    for (key, value) in [
        ("model_type", json!("ColBERT")),
        ("prompts", json!({})),
        ("default_prompt_name", Value::Null),
        ("similarity_fn_name", json!("MaxSim")),
        ("query_prefix", json!("[unused0]")),
        ("document_prefix", json!("[unused1]")),
        ("query_length", json!(32)),
        ("document_length", json!(64)),
        ("attend_to_expansion_tokens", json!(false)),
        ("do_query_expansion", json!(true)),
    ] {
        assert_eq!(st[key], value, "{key}");
    }
    assert_eq!(st["skiplist_words"].as_array().unwrap().len(), 32);
    assert!(st["__version__"]["sentence_transformers"].is_string());
    let metadata = read("artifact.metadata");
    for (key, value) in [
        ("query_token_id", json!("[unused0]")),
        ("doc_token_id", json!("[unused1]")),
        ("query_token", json!("[Q]")),
        ("doc_token", json!("[D]")),
        ("dim", json!(16)),
        ("query_maxlen", json!(32)),
        ("doc_maxlen", json!(64)),
        ("mask_punctuation", json!(true)),
        ("attend_to_mask_tokens", json!(false)),
        ("similarity", json!("cosine")),
        ("interaction", json!("colbert")),
        ("nway", json!(2)),
        ("nbits", json!(2)),
        ("checkpoint", json!("tiny")),
        ("model_name", Value::Null),
    ] {
        assert_eq!(metadata[key], value, "{key}");
    }
    assert_eq!(fs::read_to_string(path.join("README.md")).unwrap(), "a card\n");
}

/// The file has the results of the loaded directory; other token ids or texts are distinguished from other vectors.
#[test]
fn a_selfcheck_is_replayed_and_notices_changes() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("exported");
    export_tiny(&path, false).unwrap();
    assert_eq!(SelfCheck::replay::<B>(&path, &device()).unwrap(), 0.0);
    let file = path.join("selfcheck.json");
    let check: SelfCheck = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert!(check.queries.iter().all(|query| query.ids.len() == 32 && query.vectors.len() == 32));
    let clipped = &check.queries[2];
    assert_eq!((clipped.attended, clipped.vectors[0].len()), (32, 16), "one query is longer than its limit");
    assert!(
        check.documents[1].scored.contains(&false) && check.documents[1].vectors.len() == check.documents[1].ids.len()
    );
    // A score is the sum over query tokens of the best scored document token.
    let (query, document) = (&check.queries[0], &check.documents[1]);
    let best = |token: &Vec<f32>| {
        let scored = document.vectors.iter().zip(&document.scored).filter(|(_, scored)| **scored);
        let products = scored.map(|(other, _)| token.iter().zip(other).map(|(a, b)| f64::from(a * b)).sum::<f64>());
        products.fold(f64::NEG_INFINITY, f64::max)
    };
    let expected: f64 = query.vectors.iter().map(best).sum();
    assert!((f64::from(check.scores[0][1]) - expected).abs() < 1e-4, "{} {expected}", check.scores[0][1]);

    let mut moved = check.clone();
    moved.documents[0].vectors[2][5] += 0.25;
    fs::write(&file, serde_json::to_string(&moved).unwrap()).unwrap();
    assert!((SelfCheck::replay::<B>(&path, &device()).unwrap() - 0.25).abs() < 1e-6);
    let mut other = check;
    other.documents[0].ids[2] += 1;
    fs::write(&file, serde_json::to_string(&other).unwrap()).unwrap();
    let error = SelfCheck::replay::<B>(&path, &device()).unwrap_err().to_string();
    assert!(error.contains("A tor is a rocky hill."), "{error}");
}

#[test]
fn the_same_model_exports_to_the_same_bytes() {
    let folder = TempDir::new().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    export_tiny(&a, false).unwrap();
    export_tiny(&b, false).unwrap();
    for file in ["model.safetensors", "tokenizer.json", "config.json", "artifact.metadata", "selfcheck.json"] {
        assert_eq!(fs::read(a.join(file)).unwrap(), fs::read(b.join(file)).unwrap(), "{file}");
    }
}

#[test]
fn an_existing_folder_is_kept_unless_overwriting_is_asked_for() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("exported");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("precious"), "x").unwrap();
    assert!(matches!(export_tiny(&path, false), Err(ModelError::OutputExists { .. })));
    assert!(path.join("precious").exists());
    export_tiny(&path, true).unwrap();
    assert!(!path.join("precious").exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside the directory");
}

#[test]
fn a_failing_export_leaves_nothing_under_the_final_name() {
    let folder = TempDir::new().unwrap();
    let blocked = folder.path().join("file");
    fs::write(&blocked, "not a folder").unwrap();
    let error = export_tiny(&blocked.join("exported"), false).unwrap_err();
    assert!(error.to_string().contains("create"), "{error}");
    assert!(!blocked.join("exported").exists());
}

#[test]
fn unprefixed_names_gamma_and_beta_and_half_precision_load() {
    let folder = TempDir::new().unwrap();
    let path = copy_of_tiny(&folder);
    let original = fs::read(path.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&original).unwrap();
    let renamed: Vec<(String, Vec<usize>, Vec<u8>)> = file
        .iter()
        .filter(|(name, _)| !name.contains("pooler"))
        .map(|(name, view)| {
            let name = name.trim_start_matches("bert.");
            let name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
            let halves = view.data().as_chunks::<4>().0.iter();
            let bytes = halves.flat_map(|b| half::bf16::from_f32(f32::from_le_bytes(*b)).to_le_bytes()).collect();
            (name, view.shape().to_vec(), bytes)
        })
        .collect();
    let views = renamed.iter().map(|(name, shape, bytes)| {
        (name.as_str(), safetensors::tensor::TensorView::new(safetensors::Dtype::BF16, shape.clone(), bytes).unwrap())
    });
    fs::write(path.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    let (model, report) = Pretrained::read(&path).unwrap().model::<B>(&settings(32, 64), None, 0, &device()).unwrap();
    assert!(report.ignored.is_empty() && report.initialised.is_empty(), "{report:?}");
    let (exact, _, _) = tiny(&settings(32, 64));
    let (a, b) = (named_parameters::<B, _>(&model), named_parameters::<B, _>(&exact));
    let exact = &b.iter().find(|(name, _)| name == "linear.weight").unwrap().1;
    let halved = &a.iter().find(|(name, _)| name == "linear.weight").unwrap().1;
    let difference = largest_difference(&halved.values, &exact.values);
    assert!(difference > 0.0 && difference < 0.02, "{difference}");
}

#[test]
fn a_plain_encoder_gets_a_projection_that_depends_on_the_seed_alone() {
    let folder = TempDir::new().unwrap();
    let path = copy_of_tiny(&folder);
    let mut weights = Weights::read(&path.join("model.safetensors")).unwrap();
    weights.take("linear.weight", &[16, 32]).unwrap();
    let names: Vec<String> = weights.names().map(str::to_owned).collect();
    let tensors: Vec<_> = names
        .into_iter()
        .map(|name| {
            let shape = weights.shape(&name).unwrap().to_vec();
            let tensor = weights.take(&name, &shape).unwrap();
            (name, tensor)
        })
        .collect();
    let bytes = colbert_model::safetensors_bytes(&tensors).unwrap();
    fs::write(path.join("model.safetensors"), bytes).unwrap();
    let pretrained = Pretrained::read(&path).unwrap();
    let projection = |seed, dim| {
        let settings = colbert_model::ColbertSettings { dim, ..settings(32, 64) };
        let (model, report) = pretrained.model::<B>(&settings, None, seed, &device()).unwrap();
        assert_eq!(report.initialised, ["linear.weight"]);
        model.head.dense[0].linear.weight.val().into_data().to_vec::<f32>().unwrap()
    };
    assert_eq!(projection(1, 128), projection(1, 128));
    assert_ne!(projection(1, 128), projection(2, 128));
    let values = projection(1, 128);
    let deviation = (values.iter().map(|v| f64::from(v * v)).sum::<f64>() / values.len() as f64).sqrt();
    assert!((deviation - 0.02).abs() < 0.001, "{deviation}");
}

#[test]
fn broken_directories_say_what_is_wrong() {
    let folder = TempDir::new().unwrap();
    let path = copy_of_tiny(&folder);
    assert!(read_error(&folder.path().join("nowhere")).contains("nowhere"));

    let original = fs::read(path.join("model.safetensors")).unwrap();
    fs::write(path.join("model.safetensors"), &original[..original.len() / 2]).unwrap();
    assert!(read_error(&path).contains("not a whole safetensors file"), "{}", read_error(&path));
    fs::write(path.join("model.safetensors"), b"").unwrap();
    assert!(read_error(&path).contains("not a whole safetensors file"));
    fs::remove_file(path.join("model.safetensors")).unwrap();
    assert!(read_error(&path).contains("model.safetensors is missing"));
    fs::write(path.join("pytorch_model.bin"), b"x").unwrap();
    assert!(read_error(&path).contains("save the model as safetensors"));
    fs::write(path.join("model.safetensors"), &original).unwrap();

    let config = fs::read_to_string(path.join("config.json")).unwrap();
    for (from, to, expected) in [
        ("\"bert\"", "\"deberta\"", vec!["deberta", "supported: bert"]),
        ("\"gelu\"", "\"relu\"", vec!["hidden_act", "relu", "gelu"]),
        ("\"vocab_size\": 6000", "\"vocab_size\": 100", vec!["5999", "100"]),
        ("\"hidden_size\": 32", "\"hidden_size\": 0", vec!["hidden_size", "1 or more"]),
        ("\"type_vocab_size\": 2", "\"type_vocab_size\": 0", vec!["type_vocab_size", "1 or more"]),
    ] {
        assert!(config.contains(from), "{from} is not in the fixture");
        fs::write(path.join("config.json"), config.replace(from, to)).unwrap();
        let error = read_error(&path);
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    }
    fs::write(path.join("config.json"), "{ not json").unwrap();
    assert!(read_error(&path).contains("config.json"));
    fs::write(path.join("config.json"), &config).unwrap();
    fs::remove_file(path.join("tokenizer.json")).unwrap();
    fs::remove_file(path.join("vocab.txt")).unwrap();
    assert!(read_error(&path).contains("tokenizer.json is missing"));
}

#[test]
fn wrong_shapes_and_missing_or_damaged_tensors_are_named() {
    let folder = TempDir::new().unwrap();
    let path = copy_of_tiny(&folder);
    let model_error = |path: &Path, dim| {
        let settings = colbert_model::ColbertSettings { dim, ..settings(32, 64) };
        // Shapes are compared when a directory is read, values when a model is made of it.
        let model = Pretrained::read(path).and_then(|read| read.model::<B>(&settings, None, 0, &device()).map(drop));
        model.unwrap_err().to_string()
    };
    let error = model_error(&path, 128);
    assert!(error.contains("linear.weight") && error.contains("[16, 32]") && error.contains("set dim = 16"), "{error}");

    let original = fs::read(path.join("model.safetensors")).unwrap();
    let rewrite = |change: &Change<'_>| {
        let mut weights = Weights::read(&parity("tiny/model.safetensors")).unwrap();
        let names: Vec<String> = weights.names().map(str::to_owned).collect();
        let tensors: Vec<_> = names
            .into_iter()
            .filter_map(|name| {
                let shape = weights.shape(&name).unwrap().to_vec();
                let mut tensor = weights.take(&name, &shape).unwrap();
                tensor.values = change(&name, tensor.values)?;
                Some((name, tensor))
            })
            .collect();
        fs::write(path.join("model.safetensors"), colbert_model::safetensors_bytes(&tensors).unwrap()).unwrap();
    };
    let target = "bert.encoder.layer.1.output.dense.bias";
    rewrite(&|name, values| (name != target).then_some(values));
    assert!(model_error(&path, 16).contains("encoder.layer.1.output.dense.bias is missing"));
    rewrite(&|name, mut values| {
        if name == target {
            values[3] = f32::NAN;
        }
        Some(values)
    });
    let error = model_error(&path, 16);
    assert!(error.contains("encoder.layer.1.output.dense.bias") && error.contains("element 3"), "{error}");
    fs::write(path.join("model.safetensors"), &original).unwrap();
    let config = fs::read_to_string(path.join("config.json")).unwrap();
    fs::write(path.join("config.json"), config.replace("\"intermediate_size\": 64", "\"intermediate_size\": 128"))
        .unwrap();
    let error = model_error(&path, 16);
    assert!(error.contains("intermediate.dense.weight") && error.contains("[128, 32]"), "{error}");
}

/// The sizes in config.json are only trusted once the tensors are there.
#[test]
fn enormous_claims_take_no_memory() {
    let folder = TempDir::new().unwrap();
    let path = copy_of_tiny(&folder);
    let config = fs::read_to_string(path.join("config.json")).unwrap();
    let enormous = "1000000000000000";
    let claim = |from: &str, name: &str| {
        assert!(config.contains(from), "{from} is not in the fixture");
        fs::write(path.join("config.json"), config.replace(from, &format!("\"{name}\": {enormous}"))).unwrap();
    };
    claim("\"num_hidden_layers\": 2", "num_hidden_layers");
    assert!(read_error(&path).contains("encoder.layer.2."), "{}", read_error(&path));
    claim("\"max_position_embeddings\": 512", "max_position_embeddings");
    assert!(read_error(&path).contains("embeddings.position_embeddings.weight"), "{}", read_error(&path));

    // A family without a table of positions.
    let other = TempDir::new().unwrap();
    let modern = copied(&fixture("modernbert"), &other);
    let config_of_modern = fs::read_to_string(modern.join("config.json")).unwrap();
    let mut json: Value = serde_json::from_str(&config_of_modern).unwrap();
    json["max_position_embeddings"] = json!(1_000_000_000_000_000_u64);
    fs::write(modern.join("config.json"), json.to_string()).unwrap();
    let error = Pretrained::read(&modern).unwrap().tokenizer(&settings(1 << 40, 64)).unwrap_err().to_string();
    assert!(error.contains("query_maxlen") && error.contains("131072"), "{error}");

    // An id within config.json's vocab_size, but beyond the table.
    claim("\"vocab_size\": 6000", "vocab_size");
    let tokenizer = fs::read_to_string(path.join("tokenizer.json")).unwrap();
    let mut tokenizer: Value = serde_json::from_str(&tokenizer).unwrap();
    tokenizer["model"]["vocab"]["!"] = json!(u32::MAX);
    fs::write(path.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let error = read_error(&path);
    assert!(error.contains("4294967295") && error.contains("6000"), "{error}");
}

#[test]
fn lengths_beyond_the_positions_are_refused() {
    let pretrained = Pretrained::read(&parity("tiny")).unwrap();
    let error = pretrained.tokenizer(&settings(32, 513)).unwrap_err().to_string();
    assert!(error.contains("doc_maxlen = 513") && error.contains("512"), "{error}");
}

/// A plain encoder of few positions can be evaluated as it is.
#[test]
fn default_lengths_are_those_that_the_encoder_has_positions_for() {
    for (path, doc_maxlen) in [(parity("tiny"), 256), (fixture("distilbert"), 64), (fixture("roberta"), 64)] {
        let pretrained = Pretrained::read(&path).unwrap();
        let settings = pretrained.default_settings();
        assert_eq!((settings.query_maxlen, settings.doc_maxlen), (32, doc_maxlen), "{}", path.display());
        pretrained.tokenizer(&settings).unwrap();
    }
}

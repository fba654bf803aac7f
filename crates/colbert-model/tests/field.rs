//! Directories as people have them: saved by sentence-transformers 6, in old layouts, with wrappers' names, half
//! downloaded. The fixtures of `tests/field/st6-native` were made by the script beside them.

use std::fs;
use std::path::{Path, PathBuf};

use colbert_model::{HostTensor, Pretrained, SelfCheck, Weights, safetensors_bytes};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{B, copied, device, export_tiny, fixture, largest_difference, parity, settings, strings};

/// float32 in two programs over two layers; issue 15 asks for no more.
pub(crate) const TOLERANCE: f32 = 1e-5;

pub(crate) fn native(variant: &str, folder: &TempDir) -> PathBuf {
    let all = test_backend::crate_folder().join("tests/field/st6-native");
    let path = copied(&all.join("base"), folder);
    fs::copy(parity("tiny/tokenizer.json"), path.join("tokenizer.json")).unwrap();
    fs::create_dir_all(path.join("3_MultiVectorMask")).unwrap();
    for file in ["config_sentence_transformers.json", "sentence_bert_config.json", "3_MultiVectorMask/config.json"] {
        fs::copy(all.join(variant).join(file), path.join(file)).unwrap();
    }
    path
}

pub(crate) fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

pub(crate) fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut json = read(path);
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

pub(crate) fn refused(path: &Path) -> String {
    Pretrained::read(path).unwrap_err().to_string()
}

/// Token ids of a query with the settings that a directory declares, or with defaults.
pub(crate) fn query_ids(path: &Path, text: &str) -> Vec<u32> {
    let pretrained = Pretrained::read(path).unwrap();
    let settings = pretrained.declared_settings().unwrap_or_else(|| settings(32, 64));
    pretrained.tokenizer(&settings).unwrap().queries(&[text]).unwrap().remove(0).ids
}

#[test]
fn models_of_sentence_transformers_6_give_its_vectors_token_by_token() {
    let all = test_backend::crate_folder().join("tests/field/st6-native");
    let texts = read(&all.join("texts.json"));
    for variant in ["plain", "prompts", "fixed", "min-attend"] {
        let folder = TempDir::new().unwrap();
        let pretrained = Pretrained::read(&native(variant, &folder)).unwrap();
        let settings = pretrained.declared_settings().unwrap();
        let tokenizer = pretrained.tokenizer(&settings).unwrap();
        let (model, report) = pretrained.model::<B>(&settings, None, 0, &device()).unwrap();
        assert!(report.initialised.is_empty(), "{variant}: {report:?}");
        let mut expected = Weights::read(&all.join(variant).join("expected.safetensors")).unwrap();
        let sides = [
            ("q", tokenizer.queries(&strings(&texts["queries"])).unwrap()),
            ("d", tokenizer.documents(&strings(&texts["documents"])).unwrap()),
        ];
        for (side, sequences) in sides {
            for (i, found) in model.encode(&sequences, &device()).to_host().into_iter().enumerate() {
                let name = format!("{side}{i}");
                let shape = expected.shape(&name).unwrap().to_vec();
                assert_eq!(found.shape, shape, "{variant} {name}");
                let difference = largest_difference(&found.values, &expected.take(&name, &shape).unwrap().values);
                assert!(difference < TOLERANCE, "{variant} {name}: {difference}");
            }
        }
    }
}

#[test]
fn modules_that_change_vectors_and_are_not_known_are_refused_by_name() {
    for name in ["LambdaTokenPooling", "LayerNorm", "Router", "WeightedLayerPooling"] {
        let folder = TempDir::new().unwrap();
        let path = native("plain", &folder);
        change(&path.join("modules.json"), |modules| {
            let module =
                json!({"idx": 4, "name": "4", "path": format!("4_{name}"), "type": format!("some.module.{name}")});
            modules.as_array_mut().unwrap().push(module);
        });
        let error = refused(&path);
        assert!(error.contains("modules.json") && error.contains(name), "{error}");
    }
    let folder = TempDir::new().unwrap();
    let path = native("plain", &folder);
    change(&path.join("modules.json"), |modules| drop(modules.as_array_mut().unwrap().remove(2)));
    assert!(refused(&path).contains("no Normalize"), "vectors of length 1 are what is computed here");
}

#[test]
fn wrong_types_in_known_keys_are_errors_that_name_file_and_key() {
    for (file, key, value) in [
        ("sentence_bert_config.json", "query_length", json!("32")),
        ("sentence_bert_config.json", "document_length", json!(-1)),
        ("sentence_bert_config.json", "document_length", json!(0)),
        ("sentence_bert_config.json", "query_expansion", json!(true)),
        ("sentence_bert_config.json", "query_expansion", json!({"strategy": "fixed"})),
        ("sentence_bert_config.json", "query_expansion", json!({"strategy": "max", "length": 8})),
        ("sentence_bert_config.json", "query_expansion", json!({"strategy": "min", "length": 8, "token": "the"})),
        ("config_sentence_transformers.json", "prompts", json!(["search: "])),
        ("config_sentence_transformers.json", "model_type", json!(6)),
        ("3_MultiVectorMask/config.json", "skiplist_words", json!(".")),
        ("3_MultiVectorMask/config.json", "skiplist_words", json!([1])),
        ("3_MultiVectorMask/config.json", "keep_only_token_ids", json!([7])),
        ("1_Dense/config.json", "activation_function", json!(5)),
        ("1_Dense/config.json", "in_features", json!("32")),
        ("1_Dense/config.json", "use_residual", json!("no")),
        ("config.json", "model_type", json!(["bert"])),
        ("tokenizer_config.json", "do_lower_case", json!("yes")),
        ("tokenizer_config.json", "model_max_length", json!("512")),
        ("sentence_bert_config.json", "do_lower_case", json!("no")),
        ("sentence_bert_config.json", "transformer_task", json!("fill-mask")),
        ("sentence_bert_config.json", "module_output_name", json!("sentence_embedding")),
        ("sentence_bert_config.json", "modality_config", json!({"text": {"method_output_name": "pooler_output"}})),
        ("sentence_bert_config.json", "query_expansion", json!({"strategy": "min", "length": 8, "width": 4})),
        ("config.json", "is_decoder", json!(true)),
    ] {
        let folder = TempDir::new().unwrap();
        let path = native("plain", &folder);
        change(&path.join(file), |json| json[key] = value.clone());
        let error = refused(&path);
        assert!(error.contains(file) && error.contains(key), "{file} {key} = {value}: {error}");
    }
    for (key, value) in [
        ("query_length", json!(1.5)),
        ("query_length", json!(-1)),
        ("skiplist_words", json!("x")),
        ("query_prefix", json!(7)),
        ("do_query_expansion", json!("true")),
        ("attend_to_expansion_tokens", json!(1)),
    ] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("model");
        export_tiny(&path, false).unwrap();
        change(&path.join("config_sentence_transformers.json"), |json| json[key] = value.clone());
        let error = refused(&path);
        assert!(error.contains(key) && error.contains("config_sentence_transformers.json"), "{key} = {value}: {error}");
    }
}

/// Values that would make training panic or a model of NaN, in every family.
#[test]
fn configuration_out_of_range_is_an_error_of_the_file_in_every_family() {
    let dropouts: [(&str, &[&str]); 11] = [
        ("tiny", &["hidden_dropout_prob", "attention_probs_dropout_prob"]),
        ("roberta", &["hidden_dropout_prob", "attention_probs_dropout_prob"]),
        ("xlm-roberta", &["hidden_dropout_prob", "attention_probs_dropout_prob"]),
        ("electra", &["hidden_dropout_prob", "attention_probs_dropout_prob"]),
        ("distilbert", &["dropout", "attention_dropout"]),
        ("modernbert", &["attention_dropout", "mlp_dropout", "embedding_dropout"]),
        ("nomic_bert", &["hidden_dropout_prob", "attention_probs_dropout_prob"]),
        ("gte", &["hidden_dropout_prob", "attention_probs_dropout_prob"]),
        ("mpnet", &["hidden_dropout_prob", "attention_probs_dropout_prob"]),
        ("eurobert", &["attention_dropout"]),
        ("qwen3", &["attention_dropout"]),
    ];
    for (family, fields) in dropouts {
        let source = if family == "tiny" { parity("tiny") } else { fixture(family) };
        let eps = match family {
            "modernbert" => Some("norm_eps"),
            "distilbert" => None,
            "eurobert" | "qwen3" => Some("rms_norm_eps"),
            _ => Some("layer_norm_eps"),
        };
        let wrong_dropouts = [json!(1.0), json!(2), json!(-0.5)];
        let dropouts = fields.iter().flat_map(|field| wrong_dropouts.iter().map(|value| (*field, value.clone())));
        let wrong_eps = [json!(-1), json!(0), json!(1e300), json!(1e-60)];
        let eps = eps.into_iter().flat_map(|field| wrong_eps.iter().map(move |value| (field, value.clone())));
        let others = [("initializer_range", json!(-1)), ("initializer_range", json!(1e300))];
        for (field, value) in dropouts.chain(eps).chain(others) {
            let folder = TempDir::new().unwrap();
            let path = copied(&source, &folder);
            change(&path.join("config.json"), |json| json[field] = value.clone());
            let error = refused(&path);
            assert!(error.contains("config.json") && error.contains(field), "{family} {field} = {value}: {error}");
        }
    }
}

#[test]
fn an_encoder_in_a_folder_of_its_own_and_a_run_folder_are_read() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("old");
    fs::create_dir(&path).unwrap();
    fs::rename(copied(&parity("tiny"), &folder), path.join("0_Transformer")).unwrap();
    assert_eq!(Pretrained::read(&path).unwrap().declared.dim, Some(16));
    fs::write(
        path.join("modules.json"),
        json!([{"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}])
            .to_string(),
    )
    .unwrap();
    assert_eq!(Pretrained::read(&path).unwrap().declared.dim, Some(16));

    let run = folder.path().join("run");
    export_tiny(&run.join("best"), false).unwrap();
    fs::write(run.join("options.json"), "{}").unwrap();
    let read = Pretrained::read(&run).unwrap();
    assert_eq!(read.directory(), run.join("best"));
}

#[test]
fn one_unknown_prefix_of_tensor_names_is_taken_off() {
    let text = "a tor";
    let folder = TempDir::new().unwrap();
    let original = parity("tiny");
    let weights = Weights::read(&original.join("model.safetensors")).unwrap();
    let vectors = |path: &Path| {
        let pretrained = Pretrained::read(path).unwrap();
        let (model, _) = pretrained.model::<B>(&settings(32, 64), None, 0, &device()).unwrap();
        let tokens = pretrained.tokenizer(&settings(32, 64)).unwrap().queries(&[text]).unwrap();
        model.encode(&tokens, &device()).to_host().remove(0)
    };
    let expected = vectors(&original);
    let path = copied(&original, &folder);
    let save = |prefixes: &[&str]| {
        let mut tensors = Vec::new();
        for prefix in prefixes {
            let mut weights = weights.clone();
            for name in weights.names().map(str::to_owned).collect::<Vec<_>>() {
                let shape = weights.shape(&name).unwrap().to_vec();
                tensors.push((format!("{prefix}{name}"), weights.take(&name, &shape).unwrap()));
            }
        }
        fs::write(path.join("model.safetensors"), safetensors_bytes(&tensors).unwrap()).unwrap();
    };
    for prefix in ["module.", "_orig_mod.", "model.encoder.", "module._orig_mod."] {
        save(&[prefix]);
        assert_eq!(vectors(&path), expected, "{prefix}");
    }
    save(&["query_encoder.", "doc_encoder."]);
    let error = refused(&path);
    assert!(error.contains("query_encoder.") && error.contains("doc_encoder."), "{error}");
}

#[test]
fn byte_order_marks_missing_model_types_and_pointers_of_git_lfs() {
    let folder = TempDir::new().unwrap();
    let path = copied(&parity("tiny"), &folder);
    let config = fs::read_to_string(path.join("config.json")).unwrap();
    fs::write(path.join("config.json"), format!("\u{feff}{config}")).unwrap();
    Pretrained::read(&path).unwrap();

    for class in ["BertModel", "BertForMaskedLM"] {
        change(&copied(&parity("tiny"), &folder).join("config.json"), |json| {
            json.as_object_mut().unwrap().remove("model_type");
            json["architectures"] = json!([class]);
        });
        let read = Pretrained::read(&path).unwrap();
        assert_eq!(read.files.config["model_type"], "bert", "{class}");
    }
    change(&path.join("config.json"), |json| json["architectures"] = json!(["BertweetModel"]));
    assert!(refused(&path).contains("(none)"));

    for file in ["model.safetensors", "tokenizer.json", "config.json"] {
        let path = copied(&parity("tiny"), &folder);
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 440473133\n";
        fs::write(path.join(file), pointer).unwrap();
        let error = refused(&path);
        assert!(error.contains(file) && error.contains("git lfs pull"), "{error}");
    }
}

#[test]
fn weights_that_do_not_fit_are_found_when_a_directory_is_read() {
    let folder = TempDir::new().unwrap();
    let path = copied(&parity("tiny"), &folder);
    change(&path.join("config.json"), |json| json["max_position_embeddings"] = json!(128));
    let error = refused(&path);
    assert!(error.contains("position_embeddings") && error.contains("[512, 32]"), "{error}");
    for family in [
        "distilbert",
        "roberta",
        "xlm-roberta",
        "electra",
        "modernbert",
        "nomic_bert",
        "gte",
        "eurobert",
        "qwen3",
        "qwen3-both",
        "mpnet",
    ] {
        let path = copied(&fixture(family), &folder);
        let config = read(&path.join("config.json"));
        let field = if family == "distilbert" { "hidden_dim" } else { "intermediate_size" };
        let size = config[field].as_u64().unwrap();
        change(&path.join("config.json"), |json| json[field] = json!(size + 2));
        let error = refused(&path);
        assert!(error.contains("has shape"), "{family}: {error}");
        fs::remove_dir_all(path).unwrap();
    }
}

#[test]
fn shards_may_lie_in_subfolders_and_nowhere_else() {
    let folder = TempDir::new().unwrap();
    let path = copied(&parity("tiny"), &folder);
    fs::create_dir(path.join("shards")).unwrap();
    fs::rename(path.join("model.safetensors"), path.join("shards/m.safetensors")).unwrap();
    let weights = Weights::read(&path.join("shards/m.safetensors")).unwrap();
    let index = |file: &str| {
        let map: serde_json::Map<_, _> = weights.names().map(|name| (name.to_owned(), json!(file))).collect();
        fs::write(path.join("model.safetensors.index.json"), json!({"weight_map": map}).to_string()).unwrap();
    };
    index("shards/m.safetensors");
    Pretrained::read(&path).unwrap();
    for outside in ["../model/shards/m.safetensors", "/m.safetensors", ""] {
        index(outside);
        let error = refused(&path);
        assert!(error.contains("weight_map") && error.contains("files of the directory"), "{error}");
    }
}

#[test]
fn parts_that_modules_and_indexes_name_are_not_passed_over() {
    let folder = TempDir::new().unwrap();
    let path = native("fixed", &folder);
    let declared = Pretrained::read(&path).unwrap().declared;
    // The module decides the dialect, even if the file's own name for it is gone.
    change(&path.join("config_sentence_transformers.json"), |json| {
        drop(json.as_object_mut().unwrap().remove("model_type"))
    });
    assert_eq!(Pretrained::read(&path).unwrap().declared, declared);
    change(&path.join("sentence_bert_config.json"), |json| json["query_length"] = json!(4));
    let error = refused(&path);
    assert!(error.contains("query_length = 4") && error.contains("expansion"), "{error}");
    change(&path.join("sentence_bert_config.json"), |json| json["query_length"] = json!(null));
    fs::remove_dir_all(path.join("3_MultiVectorMask")).unwrap();
    let error = refused(&path);
    assert!(error.contains("3_MultiVectorMask") && error.contains("missing"), "{error}");

    let folder = TempDir::new().unwrap();
    let path = copied(&parity("tiny"), &folder);
    let weights = Weights::read(&path.join("model.safetensors")).unwrap();
    let map: serde_json::Map<_, _> = weights.names().map(|name| (name.to_owned(), json!("part-1.bin"))).collect();
    fs::remove_file(path.join("model.safetensors")).unwrap();
    fs::write(path.join("pytorch_model.bin.index.json"), json!({"weight_map": map}).to_string()).unwrap();
    let error = refused(&path);
    assert!(
        error.contains("part-1.bin is missing") && error.contains("pytorch_model.bin.index.json names it"),
        "{error}"
    );
    fs::write(path.join("part-1.bin"), "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n").unwrap();
    assert!(refused(&path).contains("git lfs pull"));
    fs::write(path.join("part-1.bin"), "not torch").unwrap();
    assert!(refused(&path).contains("part-1.bin"));
}

#[test]
fn a_bias_beside_the_projection_is_refused_and_a_byte_order_mark_is_not() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model");
    export_tiny(&path, false).unwrap();
    let metadata = fs::read_to_string(path.join("artifact.metadata")).unwrap();
    fs::write(path.join("artifact.metadata"), format!("\u{feff}{metadata}")).unwrap();
    Pretrained::read(&path).unwrap();
    let folder = TempDir::new().unwrap();
    let path = copied(&parity("tiny"), &folder);
    let file = path.join("model.safetensors");
    let mut weights = Weights::read(&file).unwrap();
    let mut tensors = vec![("linear.bias".to_owned(), HostTensor { shape: vec![16], values: vec![1.0; 16] })];
    for name in weights.names().map(str::to_owned).collect::<Vec<_>>() {
        let shape = weights.shape(&name).unwrap().to_vec();
        tensors.push((name.clone(), weights.take(&name, &shape).unwrap()));
    }
    fs::write(&file, safetensors_bytes(&tensors).unwrap()).unwrap();
    let error = refused(&path);
    assert!(error.contains("linear.bias") && error.contains("Dense module"), "{error}");
}

#[test]
fn a_model_that_is_not_finite_is_neither_exported_nor_checked() {
    let folder = TempDir::new().unwrap();
    for (index, value) in [(0, f32::NAN), (3, f32::INFINITY), (5, f32::NEG_INFINITY)] {
        let path = folder.path().join(format!("model-{index}"));
        let change = |tensors: &mut Vec<(String, colbert_model::HostTensor)>| tensors[2].1.values[index] = value;
        let error = crate::support::export_tiny_as(&path, false, colbert_config::ExportDtype::F32, change);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("not finite") && error.contains(&format!("element {index}")), "{error}");
        assert!(!path.exists());
    }
    // Weights that are finite and vectors that are not.
    let path = folder.path().join("overflowing");
    let change = |tensors: &mut Vec<(String, colbert_model::HostTensor)>| {
        tensors.iter_mut().for_each(|(_, tensor)| tensor.values.iter_mut().for_each(|value| *value *= 1e30));
    };
    let error = crate::support::export_tiny_as(&path, false, colbert_config::ExportDtype::F32, change);
    assert!(error.unwrap_err().to_string().contains("vectors that are not finite"));
    assert!(!path.exists());
    // A record with values that are no numbers (NaN in JSON is null), or with fewer of them, agrees with nothing.
    let path = folder.path().join("sound");
    export_tiny(&path, false).unwrap();
    let sound = fs::read(path.join("selfcheck.json")).unwrap();
    assert!(SelfCheck::replay::<B>(&path, &device()).unwrap() < TOLERANCE);
    let record = path.join("selfcheck.json");
    let mut check = read(&record);
    check["queries"][0]["vectors"][0][0] = Value::Null;
    fs::write(&record, check.to_string()).unwrap();
    assert!(SelfCheck::replay::<B>(&path, &device()).is_err());
    fs::write(&record, &sound).unwrap();
    let mut check = read(&record);
    check["documents"][0]["vectors"].as_array_mut().unwrap().pop();
    fs::write(&record, check.to_string()).unwrap();
    assert!(SelfCheck::replay::<B>(&path, &device()).is_err());
}

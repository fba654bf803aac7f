//! `model.onnx`, decoded and computed by the test's own interpreter, against the vectors that a directory records.

mod interpreter;
// The messages are private to the crate; a test decodes what it wrote with the same definitions.
#[path = "../src/onnx/proto.rs"]
mod proto;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use colbert_config::{ArtifactMetadata, ExportDtype, ExportLayout, TrainOptions, resolve};
use colbert_model::{
    CheckedText, ColbertSettings, Export, HeadConfig, ModelError, Pretrained, SelfCheck, named_parameters, write_onnx,
};
use prost::Message;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{B, copied, device, fixture, parity};
use interpreter::{Array, run};
use proto::ModelProto;

/// float32 here against f64 there, over two to four layers, with a margin.
const TOLERANCE: f64 = 1e-5;

/// Exports a model with its ONNX graph.
fn exported(source: &Path, options: &TrainOptions, dtype: ExportDtype, folder: &TempDir) -> PathBuf {
    let path = folder.path().join("exported");
    let pretrained = Pretrained::read(source).unwrap();
    let settings = pretrained.settings(options);
    let (model, _) = pretrained.model::<B>(&settings, None, 3, &device()).unwrap();
    let tensors: Vec<_> =
        named_parameters(&model).into_iter().map(|(name, tensor)| (model.tensor_name(&name), tensor)).collect();
    let metadata = ArtifactMetadata::from_training(options, &resolve(options, 320).unwrap(), "tiny");
    let files = &pretrained.files;
    let all = Export {
        tensors: &tensors,
        settings: &settings,
        files,
        metadata: &metadata,
        layout: ExportLayout::All,
        dtype,
        onnx: true,
        own_encoder: None,
        extra: &[],
    };
    all.write::<B>(&path, false, &device()).unwrap();
    path
}

fn options(dim: usize) -> TrainOptions {
    TrainOptions { dim, query_maxlen: 24, doc_maxlen: 40, ..TrainOptions::default() }
}

fn read(path: &Path) -> (ModelProto, Value) {
    let model = ModelProto::decode(&fs::read(path.join("model.onnx")).unwrap()[..]).unwrap();
    (model, serde_json::from_str(&fs::read_to_string(path.join("onnx_config.json")).unwrap()).unwrap())
}

/// Largest difference of a number of the texts' vectors, computed at once as next-plaid does: filled up to the longest
/// with padding that is masked. `attended` says how many tokens of a text the mask says can be attended to.
fn difference(path: &Path, texts: &[CheckedText], attended: fn(&CheckedText) -> usize) -> f64 {
    let (model, config) = read(path);
    let graph = model.graph.unwrap();
    let length = texts.iter().map(|text| text.ids.len()).max().unwrap();
    let padding = config["pad_token_id"].as_u64().unwrap() as f64;
    let per_place = |value: &dyn Fn(&CheckedText, usize) -> f64| {
        let values = texts.iter().flat_map(|text| (0..length).map(|i| value(text, i))).collect();
        Array::new(&[texts.len(), length], values)
    };
    let mut inputs = BTreeMap::from([
        ("input_ids".to_owned(), per_place(&|text, i| text.ids.get(i).map_or(padding, |id| f64::from(*id)))),
        ("attention_mask".to_owned(), per_place(&|text, i| f64::from(u8::from(i < attended(text))))),
    ]);
    if config["uses_token_type_ids"] == json!(true) {
        inputs.insert("token_type_ids".to_owned(), per_place(&|_, _| 0.0));
    }
    assert_eq!(graph.input.len(), inputs.len());
    let found = run(&graph, inputs);
    let dim = config["embedding_dim"].as_u64().unwrap() as usize;
    assert_eq!(found.dims, [texts.len(), length, dim]);
    let mut largest: f64 = 0.0;
    for (text, found) in texts.iter().zip(found.values.chunks(length * dim)) {
        for (expected, found) in text.vectors.iter().zip(found.chunks(dim)) {
            expected.iter().zip(found).for_each(|(a, b)| largest = largest.max((f64::from(*a) - b).abs()));
        }
    }
    largest
}

fn recorded(path: &Path) -> SelfCheck {
    serde_json::from_str(&fs::read_to_string(path.join("selfcheck.json")).unwrap()).unwrap()
}

/// As next-plaid masks: every token of a query's expansion is marked as attended.
fn compare(path: &Path, what: &str) {
    let check = recorded(path);
    let is_expanded = |query: &CheckedText| query.ids.ends_with(&[query.ids[query.ids.len() - 1]; 2]);
    let expands = Pretrained::read(path).unwrap().has_mask();
    assert_eq!(check.queries.iter().any(is_expanded), expands, "{what}: some query ends with several [MASK]");
    for texts in [&check.queries, &check.documents] {
        let largest = difference(path, texts, |text| text.ids.len());
        assert!(largest < TOLERANCE, "{what}: {largest}");
    }
}

#[test]
fn the_graph_of_every_family_gives_the_directorys_vectors() {
    for family in [
        "distilbert",
        "electra",
        "roberta",
        "xlm-roberta",
        "modernbert",
        "mmbert",
        "nomic_bert",
        "gte",
        "eurobert",
        "qwen3",
        "qwen3-both",
        "mpnet",
        "deberta-v2",
    ] {
        let folder = TempDir::new().unwrap();
        let path = exported(&fixture(family), &options(16), ExportDtype::F32, &folder);
        compare(&path, family);
        // A mask that leaves the expansion out gives the same result.
        let largest = difference(&path, &recorded(&path).queries, |text| text.attended);
        assert!(largest < TOLERANCE, "{family}: {largest}");
    }
}

#[test]
fn heads_masks_and_half_precision_are_in_the_graph() {
    let tiny = parity("tiny");
    let relu = TrainOptions { use_relu: true, ..options(16) };
    let attending = TrainOptions { attend_to_mask_tokens: true, ..options(16) };
    for (what, source, options, dtype) in [
        ("bert", &tiny, &options(16), ExportDtype::F32),
        ("ReLU", &tiny, &relu, ExportDtype::F32),
        ("attending to [MASK]", &tiny, &attending, ExportDtype::F32),
        ("float16", &tiny, &options(16), ExportDtype::F16),
        ("bfloat16", &tiny, &options(16), ExportDtype::Bf16),
        ("a head of six layers", &fixture("stacked"), &options(24), ExportDtype::F32),
        ("attending ModernBERT", &fixture("modernbert"), &attending, ExportDtype::F32),
    ] {
        let folder = TempDir::new().unwrap();
        let path = exported(source, options, dtype, &folder);
        compare(&path, what);
        let size = |file: &str| fs::metadata(path.join(file)).map_or(0.0, |file| file.len() as f64);
        let modules: f64 = (1..=6).map(|place| size(&format!("{place}_Dense/model.safetensors"))).sum();
        let (size, weights) = (size("model.onnx"), size("model.safetensors") + modules);
        assert!((0.8..1.3).contains(&(size / weights)), "{what}: {size} bytes beside {weights}");
    }
}

/// A typed `[MASK]` is attended to; only those after the text's end are its expansion.
#[test]
fn a_typed_mask_is_no_expansion() {
    let folder = TempDir::new().unwrap();
    let path = exported(&parity("tiny"), &options(16), ExportDtype::F32, &folder);
    let pretrained = Pretrained::read(&path).unwrap();
    let settings = pretrained.declared_settings().unwrap();
    let tokenizer = pretrained.tokenizer(&settings).unwrap();
    let (model, _) = pretrained.model::<B>(&settings, None, 0, &device()).unwrap();
    let query = tokenizer.queries(&["where is [MASK] made?"]).unwrap().remove(0);
    let mask = *query.ids.last().unwrap();
    assert!(query.ids[..query.attended].contains(&mask), "{query:?}");
    let vectors = model.encode(std::slice::from_ref(&query), &device()).vectors.into_data().to_vec::<f32>().unwrap();
    let text = CheckedText {
        text: String::new(),
        attended: query.attended,
        scored: query.scored,
        vectors: vectors.chunks(16).map(<[f32]>::to_vec).collect(),
        ids: query.ids,
    };
    assert!(difference(&path, &[text], |text| text.ids.len()) < TOLERANCE);
}

#[test]
fn the_configuration_says_how_texts_become_inputs() {
    let folder = TempDir::new().unwrap();
    let (model, config) = read(&exported(&parity("tiny"), &options(16), ExportDtype::F32, &folder));
    assert_eq!((model.ir_version, model.opset_import[0].version), (8, 17));
    for (key, value) in [
        ("model_type", json!("ColBERT")),
        ("model_class", json!("BertModel")),
        ("uses_token_type_ids", json!(true)),
        ("query_prefix", json!("[unused0]")),
        ("document_prefix_id", json!(2)),
        ("query_length", json!(24)),
        ("document_length", json!(40)),
        ("do_query_expansion", json!(true)),
        ("attend_to_expansion_tokens", json!(false)),
        ("embedding_dim", json!(16)),
        ("pad_token_id", json!(0)),
        ("do_lower_case", json!(false)),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
    assert_eq!(config["skiplist_words"].as_array().unwrap().len(), 32);
    let folder = TempDir::new().unwrap();
    let path = exported(&fixture("roberta"), &options(16), ExportDtype::F32, &folder);
    let (_, config) = read(&path);
    let tokenizer = Pretrained::read(&path).unwrap();
    let (query, document) = tokenizer.tokenizer(&tokenizer.declared_settings().unwrap()).unwrap().marker_ids();
    assert_eq!((&config["query_prefix_id"], &config["document_prefix_id"]), (&json!(query), &json!(document)));
    assert_eq!((&config["uses_token_type_ids"], &config["pad_token_id"]), (&json!(false), &json!(1)));
}

/// A directory of other programs can be given a graph, and the same directory gets the same bytes.
#[test]
fn a_directory_that_is_there_gets_a_graph() {
    let folder = TempDir::new().unwrap();
    let path = copied(&fixture("pylate"), &folder);
    write_onnx(&path, ExportDtype::F32).unwrap();
    let (first, config) = read(&path);
    assert_eq!((&config["query_prefix"], &config["embedding_dim"]), (&json!("[Q] "), &json!(24)));
    write_onnx(&path, ExportDtype::F32).unwrap();
    assert!(first == read(&path).0);
    let check = SelfCheck::compute::<B>(&path, &device()).unwrap();
    assert!(difference(&path, &check.queries, |text| text.ids.len()) < TOLERANCE);
    assert!(!path.read_dir().unwrap().any(|entry| entry.unwrap().file_name().to_string_lossy().contains("partial")));
}

#[test]
fn what_has_no_graph_is_refused() {
    let folder = TempDir::new().unwrap();
    let plain = copied(&fixture("distilbert"), &folder);
    let error = write_onnx(&plain, ExportDtype::F32).unwrap_err().to_string();
    assert!(error.contains("linear.weight"), "{error}");
    assert!(!plain.join("model.onnx").exists());
    // 2 GiB in float32, 1 GiB in float16.
    let pretrained = Pretrained::read(&plain).unwrap();
    let head = HeadConfig::linear(32, 1 << 24);
    let usual = ColbertSettings::default();
    let error = pretrained.check_onnx(&usual, &head, ExportDtype::F32).unwrap_err();
    assert!(matches!(error, ModelError::TooLargeForOnnx { .. }), "{error}");
    pretrained.check_onnx(&usual, &head, ExportDtype::F16).unwrap();
    pretrained.check_onnx(&usual, &pretrained.head(&usual).unwrap(), ExportDtype::F32).unwrap();
}

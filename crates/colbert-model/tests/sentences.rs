//! Sentence vectors against sentence-transformers' (`sentence/make_sentence.py`).

use std::fs;
use std::path::{Path, PathBuf};

use colbert_model::HostTensor;
use colbert_model::sentence::{Pooling, SentenceEncoder};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{B, device};

fn here(file: &str) -> PathBuf {
    test_backend::crate_folder().join("tests").join(file)
}

fn expected() -> Value {
    serde_json::from_str(&fs::read_to_string(here("sentence/expected.json")).unwrap()).unwrap()
}

/// The tiny BERT with these files beside its own.
fn directory(root: &Path, name: &str, files: &Value) -> PathBuf {
    let directory = root.join(name);
    fs::create_dir_all(&directory).unwrap();
    for entry in fs::read_dir(here("parity/tiny")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, directory.join(path.file_name().unwrap())).unwrap();
    }
    for (path, content) in files.as_object().unwrap() {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content.to_string()).unwrap();
    }
    directory
}

fn read(directory: &Path) -> Result<SentenceEncoder<B>, colbert_model::ModelError> {
    SentenceEncoder::read(directory, &device())
}

fn texts<'a>(value: &'a Value, name: &str) -> Vec<&'a str> {
    value[name].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// float32 sums in another order, on numbers up to 2.
const TOLERANCE: f64 = 1e-5;

fn assert_near(found: &HostTensor, rows: &Value, unit_length: bool, what: &str) {
    let rows = rows.as_array().unwrap();
    assert_eq!(found.shape, [rows.len(), 32], "{what}");
    for (row, (found, expected)) in found.values.chunks(32).zip(rows).enumerate() {
        let expected: Vec<f64> = expected.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        let length = if unit_length { expected.iter().map(|x| x * x).sum::<f64>().sqrt() } else { 1.0 };
        for (found, expected) in found.iter().zip(expected) {
            let expected = expected / length;
            assert!((f64::from(*found) - expected).abs() < TOLERANCE, "{what}, {row}: {found} against {expected}");
        }
    }
}

#[test]
fn vectors_are_those_of_sentence_transformers() {
    let expected = expected();
    let root = TempDir::new().unwrap();
    for (name, variant) in expected["variants"].as_object().unwrap() {
        let encoder = read(&directory(root.path(), name, &variant["files"])).unwrap();
        let settings = &encoder.settings;
        assert_eq!(settings.max_seq_length as u64, variant["max_seq_length"].as_u64().unwrap(), "{name}");
        assert_eq!(settings.unit_length, variant["similarity_fn_name"] == "cosine", "{name}");
        let queries = encoder.queries(&texts(&expected, "queries"), &device()).unwrap();
        assert_near(&queries, &variant["queries"], settings.unit_length, name);
        let documents = encoder.documents(&texts(&expected, "documents"), &device()).unwrap();
        assert_near(&documents, &variant["documents"], settings.unit_length, name);
        // A text has the same vector alone and among others.
        let alone = encoder.documents(&texts(&expected, "documents")[7..8], &device()).unwrap();
        assert_near(&alone, &json!([variant["documents"][7]]), settings.unit_length, name);
    }
}

#[test]
fn what_a_directory_leaves_open_follows_from_its_family() {
    let root = TempDir::new().unwrap();
    let settings = |name: &str, files: Value| read(&directory(root.path(), name, &files)).unwrap().settings;
    let e5 = settings("e5-tiny", json!({}));
    assert_eq!((e5.query_prefix.as_str(), e5.document_prefix.as_str()), ("query: ", "passage: "));
    let bge = settings("bge-tiny-en", json!({}));
    assert!(bge.query_prefix.starts_with("Represent this sentence") && bge.document_prefix.is_empty());
    assert_eq!(bge.pooling, Pooling::Cls);
    // The directory's declaration takes precedence over the name; empty prompts count as none.
    let prompts =
        |query: &str| json!({"config_sentence_transformers.json": {"prompts": {"query": query, "document": ""}}});
    assert_eq!(settings("e5-other", prompts("search: ")).query_prefix, "search: ");
    assert_eq!(settings("e5-empty", prompts("")).query_prefix, "query: ");
    let mean = json!({"1_Pooling/config.json": {"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}});
    assert_eq!(settings("bge-mean-en", mean).pooling, Pooling::Mean);
    assert_eq!(
        settings("named-by-word", json!({"1_Pooling/config.json": {"pooling_mode": "cls"}})).pooling,
        Pooling::Cls
    );
}

#[test]
fn directories_that_cannot_be_followed_are_refused() {
    let root = TempDir::new().unwrap();
    let module =
        |name: &str| json!({"idx": 0, "name": "0", "path": "", "type": format!("sentence_transformers.models.{name}")});
    let both = json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true});
    let cases: [(&str, Value, &[&str]); 7] = [
        (
            "dense",
            json!({"modules.json": [module("Transformer"), module("Dense")]}),
            &["modules.json", "models.Dense", "Pooling"],
        ),
        (
            "max",
            json!({"1_Pooling/config.json": {"pooling_mode_max_tokens": true}}),
            &["1_Pooling", "max_tokens", "mean or cls"],
        ),
        ("both", json!({"1_Pooling/config.json": both}), &["cls_token and mean_tokens"]),
        ("prompt", json!({"1_Pooling/config.json": {"include_prompt": false}}), &["include_prompt = false"]),
        (
            "similarity",
            json!({"config_sentence_transformers.json": {"similarity_fn_name": "manhattan"}}),
            &["manhattan", "cosine"],
        ),
        ("short", json!({"sentence_bert_config.json": {"max_seq_length": 2}}), &["max_seq_length = 2"]),
        ("broken", json!({"modules.json": "no list"}), &["modules.json", "a list of modules"]),
    ];
    for (name, files, parts) in cases {
        let message = read(&directory(root.path(), name, &files)).unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{name}: {message}");
    }
    let message = read(&root.path().join("none")).unwrap_err().to_string();
    assert!(message.contains("no model directory"), "{message}");
}

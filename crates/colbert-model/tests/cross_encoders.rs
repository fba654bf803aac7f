//! Cross-encoders against transformers and sentence-transformers (`cross_encoders/make_cross_encoders.py`).

use std::fs;
use std::path::{Path, PathBuf};

use colbert_model::sentence::CrossEncoder;
use colbert_model::{Activation, ModelError};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{B, copied, device, largest_difference};

const FAMILIES: [&str; 7] =
    ["bert", "distilbert", "electra", "roberta", "xlm-roberta", "modernbert-cls", "modernbert-mean"];

/// Spread of float32 arithmetic over two layers, with a margin.
const TOLERANCE: f32 = 1e-5;

fn fixture(name: &str) -> PathBuf {
    test_backend::crate_folder().join("tests/cross_encoders").join(name)
}

fn expected(name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(fixture(name).join("expected.json")).unwrap()).unwrap()
}

fn pairs(expected: &Value) -> Vec<(&str, &str)> {
    let pairs = expected["pairs"].as_array().unwrap().iter();
    pairs.map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap())).collect()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn read(directory: &Path) -> Result<CrossEncoder<B>, ModelError> {
    CrossEncoder::read(directory, &device())
}

#[test]
fn scores_are_those_of_transformers_and_predictions_those_of_sentence_transformers() {
    for family in FAMILIES {
        let expected = expected(family);
        let model = read(&fixture(family)).unwrap();
        assert_eq!(model.max_length(), 40, "{family}");
        assert_eq!(model.activation().class(), expected["activation"], "{family}");
        let pairs = pairs(&expected);
        let scores = model.scores(&pairs, &device()).unwrap();
        let difference = largest_difference(&scores, &numbers(&expected["logits"]));
        assert!(difference < TOLERANCE, "{family}: {difference}");
        let predicted = model.predict(&pairs, &device()).unwrap();
        let difference = largest_difference(&predicted, &numbers(&expected["predicted"]));
        assert!(difference < TOLERANCE, "{family}, predicted: {difference}");
        // Alone or among others.
        let alone = model.scores(&pairs[7..8], &device()).unwrap();
        assert!((alone[0] - scores[7]).abs() < TOLERANCE, "{family}");
    }
}

#[test]
fn a_directory_says_whether_it_is_a_cross_encoder() {
    assert!(CrossEncoder::<B>::is_one(&fixture("bert")).unwrap());
    assert!(!CrossEncoder::<B>::is_one(&crate::support::fixture("distilbert")).unwrap());
    assert!(!CrossEncoder::<B>::is_one(Path::new("nowhere")).unwrap());
}

#[test]
fn the_fingerprint_follows_the_content_and_not_the_place() {
    let root = TempDir::new().unwrap();
    let copy = copied(&fixture("bert"), &root);
    let original = read(&fixture("bert")).unwrap();
    assert_eq!(read(&copy).unwrap().fingerprint(), original.fingerprint());
    set(&copy.join("tokenizer_config.json"), "model_max_length", &json!(30));
    let shorter = read(&copy).unwrap();
    assert_eq!(shorter.max_length(), 30);
    assert_ne!(shorter.fingerprint(), original.fingerprint());
    assert_ne!(read(&fixture("electra")).unwrap().fingerprint(), original.fingerprint());
}

fn set(path: &Path, field: &str, value: &Value) {
    let mut json: Value = fs::read_to_string(path).map_or(json!({}), |text| serde_json::from_str(&text).unwrap());
    json[field] = value.clone();
    fs::write(path, json.to_string()).unwrap();
}

#[test]
fn what_is_no_teacher_is_refused_by_name() {
    for (file, field, value, words) in [
        ("config.json", "id2label", json!({"0": "no", "1": "yes"}), "2 labels"),
        ("config.json", "id2label", json!({}), "one label"),
        ("config_sentence_transformers.json", "activation_fn", json!("os.system"), "os.system"),
        ("config_sentence_transformers.json", "activation_fn", json!(7), "activation_fn"),
        ("config_sentence_transformers.json", "default_prompt_name", json!("query"), "prompt"),
        ("tokenizer_config.json", "model_max_length", json!(3), "max_seq_length"),
        ("config.json", "model_type", json!("t5"), "t5"),
    ] {
        let root = TempDir::new().unwrap();
        let copy = copied(&fixture("bert"), &root);
        set(&copy.join(file), field, &value);
        let error = read(&copy).unwrap_err().to_string();
        assert!(error.contains(words), "{field} = {value}: {error}");
    }
    let error = read(&crate::support::fixture("electra")).unwrap_err().to_string();
    assert!(error.contains("label") || error.contains("classifier"), "{error}");
    // A known encoder with an unknown head.
    let root = TempDir::new().unwrap();
    let deberta = copied(&crate::support::fixture("deberta-v2"), &root);
    set(&deberta.join("config.json"), "id2label", &json!({"0": "LABEL_0"}));
    let error = read(&deberta).unwrap_err().to_string();
    assert!(error.contains("deberta-v2") && error.contains("for a cross-encoder"), "{error}");
    let root = TempDir::new().unwrap();
    let modern = copied(&fixture("modernbert-cls"), &root);
    set(&modern.join("config.json"), "classifier_pooling", &json!("max"));
    assert!(read(&modern).unwrap_err().to_string().contains("classifier_pooling"));
}

#[test]
fn the_function_over_scores_is_that_of_any_version() {
    let root = TempDir::new().unwrap();
    let older = copied(&fixture("electra"), &root);
    set(&older.join("config.json"), "sentence_transformers", &Value::Null);
    set(&older.join("config.json"), "sbert_ce_default_activation_function", &json!("torch.nn.modules.linear.Identity"));
    assert_eq!(read(&older).unwrap().activation(), Activation::Identity);
    let root = TempDir::new().unwrap();
    let newer = copied(&fixture("bert"), &root);
    set(
        &newer.join("config_sentence_transformers.json"),
        "activation_fn",
        &json!("torch.nn.modules.activation.Sigmoid"),
    );
    assert_eq!(read(&newer).unwrap().activation(), Activation::Sigmoid);
}

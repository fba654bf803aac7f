//! A model directory that loads, a few hundred bytes of weights.

use colbert_model::families::BertConfig;
use colbert_model::{HostTensor, safetensors_bytes};
use serde_json::{Value, json};

use super::scratch::Scratch;

/// Words of the tiny model's vocabulary.
const WORDS: [&str; 12] =
    ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "tor", "##s", "?", "."];

/// `config.json` of a BERT that is as small as can be.
pub(super) fn tiny_config() -> Value {
    json!({
        "model_type": "bert", "vocab_size": WORDS.len(), "hidden_size": 4, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 4, "max_position_embeddings": 16,
    })
}

/// Its `tokenizer.json`.
pub(super) fn tiny_tokenizer() -> Value {
    let vocab: serde_json::Map<_, _> =
        WORDS.iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    json!({
        "version": "1.0", "added_tokens": [],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [4], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [5], "tokens": ["[SEP]"]}}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab},
    })
}

/// Its tensors, and a projection to 2.
pub(super) fn tiny_tensors() -> Vec<(String, HostTensor)> {
    let config: BertConfig = serde_json::from_value(tiny_config()).expect("a BERT");
    let mut weights = config.random_weights(1);
    let names: Vec<(String, Vec<usize>)> =
        weights.names().map(|name| (name.to_owned(), weights.shape(name).unwrap_or_default().to_vec())).collect();
    let mut tensors: Vec<(String, HostTensor)> = names
        .into_iter()
        .map(|(name, shape)| (name.clone(), weights.take(&name, &shape).expect("it is there")))
        .collect();
    let values = (0..8).map(|i| i as f32 / 8.0).collect();
    tensors.push(("linear.weight".to_owned(), HostTensor { shape: vec![2, 4], values }));
    tensors
}

/// A whole model directory that loads.
pub(super) fn write_tiny_model(scratch: &Scratch, folder: &str) {
    scratch.write(&format!("{folder}/config.json"), tiny_config().to_string().as_bytes());
    scratch.write(&format!("{folder}/tokenizer.json"), tiny_tokenizer().to_string().as_bytes());
    let weights = safetensors_bytes(&tiny_tensors()).expect("whole tensors");
    scratch.write(&format!("{folder}/model.safetensors"), &weights);
    let metadata = json!({"query_maxlen": 8, "doc_maxlen": 10, "dim": 2});
    scratch.write(&format!("{folder}/artifact.metadata"), metadata.to_string().as_bytes());
}

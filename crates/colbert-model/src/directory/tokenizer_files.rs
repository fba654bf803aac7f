//! The tokenizer of a directory: `tokenizer.json`, or the older vocabulary files, read as transformers reads them.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

use crate::error::ModelError;
use crate::tokenizer::panics::guarded;
use crate::tokenizer::special_tokens::{SpecialTokens, around};
use crate::weights::json::{Keys, optional_object, read_json, read_text};

/// Classes of transformers that set the normalizer of `tokenizer.json` by the keys of `tokenizer_config.json`.
const BERT_CLASSES: [&str; 6] = [
    "BertTokenizer",
    "BertTokenizerFast",
    "DistilBertTokenizer",
    "DistilBertTokenizerFast",
    "ElectraTokenizer",
    "ElectraTokenizerFast",
];

/// A tokenizer and the files that it was made of.
pub(crate) struct TokenizerFiles {
    pub(crate) tokenizer: Tokenizer,
    /// `tokenizer.json` as it was used: without limits of its own, and with what was repaired.
    pub(crate) json: Value,
    /// `tokenizer_config.json`; null if the directory has none.
    pub(crate) config: Value,
    /// `special_tokens_map.json`; null if the directory has none.
    pub(crate) special_tokens_map: Value,
    /// `vocab.txt`, if the directory has it.
    pub(crate) vocab: Option<String>,
}

impl TokenizerFiles {
    /// Reads the tokenizer of a directory. `word_piece`: the encoder's family uses BERT's tokenizer.
    ///
    /// # Errors
    /// Files that are missing or damaged, or a vocabulary without the tokens that stand around a text.
    pub(crate) fn read(directory: &Path, word_piece: bool) -> Result<Self, ModelError> {
        let path = directory.join("tokenizer.json");
        let config_path = directory.join("tokenizer_config.json");
        let config = optional_object(&config_path)?;
        let special_tokens_map = optional_object(&directory.join("special_tokens_map.json"))?;
        let vocab_path = directory.join("vocab.txt");
        let vocab = if vocab_path.is_file() { Some(read_text(&vocab_path)?) } else { None };
        let keys = Keys { json: &config, path: &config_path };
        let mut json: Value = match &vocab {
            _ if path.is_file() => read_json(&path, "a tokenizer of the tokenizers library")?,
            Some(vocab) if word_piece => word_piece_json(vocab),
            _ => byte_level_json(directory, keys)?,
        };
        // A saved length limit or padding is some other program's; ours are set per side.
        for field in ["truncation", "padding"] {
            json[field] = Value::Null;
        }
        normalize_as_configured(&mut json, keys, word_piece)?;
        let mut tokenizer = guarded(&path, || Tokenizer::from_bytes(json.to_string()))?;
        let special = SpecialTokens::of(&tokenizer, [&special_tokens_map, &config]);
        if let (None, _) | (_, None) = around(&tokenizer) {
            json["post_processor"] = put_around(&tokenizer, &special, &path)?;
            tokenizer = guarded(&path, || Tokenizer::from_bytes(json.to_string()))?;
            tracing::warn!(
                "{} puts no {} and {} around a text, which this encoder needs: they are added",
                path.display(),
                special.cls,
                special.sep
            );
        }
        Ok(Self { tokenizer, json, config, special_tokens_map, vocab })
    }
}

/// A post-processor that puts the special tokens around a text.
fn put_around(tokenizer: &Tokenizer, special: &SpecialTokens, path: &Path) -> Result<Value, ModelError> {
    let id = |token: &str, role| {
        let missing = || ModelError::MissingToken { path: path.to_owned(), token: token.to_owned(), role };
        tokenizer.token_to_id(token).ok_or_else(missing)
    };
    let (cls, sep) = (&special.cls, &special.sep);
    let ids = [(cls, id(cls, "the beginning of a text")?), (sep, id(sep, "the end of a text")?)];
    let tokens: Map<String, Value> = ids
        .iter()
        .map(|(token, id)| ((*token).clone(), json!({"id": token, "ids": [id], "tokens": [token]})))
        .collect();
    let token = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = |name: &str| json!({"Sequence": {"id": name, "type_id": 0}});
    Ok(json!({
        "type": "TemplateProcessing",
        "single": [token(cls), text("A"), token(sep)],
        "pair": [token(cls), text("A"), token(sep), text("B"), token(sep)],
        "special_tokens": tokens,
    }))
}

/// Sets BERT's normalizer by `tokenizer_config.json`, as transformers does: what is trained here is what it reads
/// later.
fn normalize_as_configured(json: &mut Value, config: Keys<'_>, word_piece: bool) -> Result<(), ModelError> {
    let class = config.text("tokenizer_class")?;
    let applies = class.map_or(word_piece, |class| BERT_CLASSES.contains(&class));
    if !applies || json["normalizer"]["type"] != "BertNormalizer" {
        return Ok(());
    }
    let lower_case = config.flag("do_lower_case")?.unwrap_or(true);
    let wanted = [
        ("lowercase", json!(lower_case)),
        ("strip_accents", json!(config.flag("strip_accents")?)),
        ("handle_chinese_chars", json!(config.flag("tokenize_chinese_chars")?.unwrap_or(true))),
    ];
    for (key, value) in wanted {
        let own = &mut json["normalizer"][key];
        // No word about accents follows the case.
        let same = *own == value || (key == "strip_accents" && value.is_null() && *own == json!(lower_case));
        if !same {
            tracing::warn!(
                "{} and tokenizer.json disagree: {key} is {value} there and {own} here; the former counts, as in transformers",
                config.path.display()
            );
            *own = value;
        }
    }
    Ok(())
}

/// Added tokens of a vocabulary: those of the names that it has.
fn special_entries(names: &[&str], id: impl Fn(&str) -> Option<u64>, left_space: &str) -> Vec<Value> {
    let mut entries: Vec<(u64, &str)> = names.iter().filter_map(|name| Some((id(name)?, *name))).collect();
    entries.sort_unstable();
    let entry = |(id, name): (u64, &str)| {
        json!({
            "id": id, "content": name, "single_word": false, "lstrip": name == left_space, "rstrip": false,
            "normalized": false, "special": true,
        })
    };
    entries.into_iter().map(entry).collect()
}

/// BERT's tokenizer of a `vocab.txt`, as transformers' `BertTokenizerFast` makes it; the normalizer is set afterwards.
fn word_piece_json(vocab: &str) -> Value {
    let tokens: Map<String, Value> =
        vocab.lines().zip(0u64..).map(|(token, id)| (token.to_owned(), json!(id))).collect();
    let id = |token: &str| tokens.get(token).and_then(Value::as_u64);
    json!({
        "version": "1.0",
        "added_tokens": special_entries(&["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], id, ""),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": true,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "BertProcessing", "cls": ["[CLS]", id("[CLS]").unwrap_or(0)], "sep": ["[SEP]", id("[SEP]").unwrap_or(0)],
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": tokens,
        },
    })
}

/// RoBERTa's tokenizer of `vocab.json` and `merges.txt`, as transformers' `RobertaTokenizerFast` makes it.
fn byte_level_json(directory: &Path, config: Keys<'_>) -> Result<Value, ModelError> {
    let (vocab_path, merges_path) = (directory.join("vocab.json"), directory.join("merges.txt"));
    if !vocab_path.is_file() || !merges_path.is_file() {
        return Err(missing(directory.join("tokenizer.json")));
    }
    let vocab: Map<String, Value> = read_json(&vocab_path, "ids of tokens")?;
    let merges = read_text(&merges_path)?;
    let merges: Vec<&str> = merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty()).collect();
    let id = |token: &str| vocab.get(token).and_then(Value::as_u64);
    let space = config.flag("add_prefix_space")?.unwrap_or(false);
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": true, "use_regex": true});
    Ok(json!({
        "version": "1.0",
        "added_tokens": special_entries(&["<s>", "<pad>", "</s>", "<unk>", "<mask>"], id, "<mask>"),
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": {
            "type": "RobertaProcessing", "cls": ["<s>", id("<s>").unwrap_or(0)], "sep": ["</s>", id("</s>").unwrap_or(0)],
            "trim_offsets": true, "add_prefix_space": space,
        },
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "", "end_of_word_suffix": "",
            "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges,
        },
    }))
}

fn missing(path: PathBuf) -> ModelError {
    let hint = "a model directory in Hugging Face layout has it; transformers writes it: \
                AutoTokenizer.from_pretrained(DIRECTORY).save_pretrained(DIRECTORY)";
    ModelError::MissingFile { path, hint }
}

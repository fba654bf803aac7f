//! The tokenizer of a directory: `tokenizer.json`, or the older vocabulary files, read as transformers reads them.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

use crate::encoder::families::EncoderConfig;
use crate::error::ModelError;
use crate::tokenizer::panics::guarded;
use crate::tokenizer::special_tokens::{SpecialTokens, around, token_text};
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

/// A tokenizer and the files that it was made from.
pub(crate) struct TokenizerFiles {
    pub(crate) tokenizer: Tokenizer,
    /// `tokenizer.json` as it was used: without limits of its own, and with repairs.
    pub(crate) json: Value,
    /// `tokenizer_config.json`; null if the directory has none.
    pub(crate) config: Value,
    /// `special_tokens_map.json`; null if the directory has none.
    pub(crate) special_tokens_map: Value,
    /// `vocab.txt`, if the directory has it.
    pub(crate) vocab: Option<String>,
}

impl TokenizerFiles {
    /// Reads the tokenizer of a directory for an encoder. `colbert`: the directory is a ColBERT, whose vectors were
    /// made with the tokenizer as it is.
    ///
    /// # Errors
    /// Files that are missing or damaged; a vocabulary without the tokens that stand around a text; a ColBERT whose
    /// tokenizer puts nothing around a text.
    pub(crate) fn read(directory: &Path, encoder: &EncoderConfig, colbert: bool) -> Result<Self, ModelError> {
        let word_piece = encoder.is_word_piece();
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
        // A saved length limit or padding belongs to another program; ours are set for each side.
        for field in ["truncation", "padding"] {
            json[field] = Value::Null;
        }
        normalize_as_configured(&mut json, keys, word_piece, path.is_file())?;
        lower_case(&mut json, directory)?;
        let added = add_listed_tokens(&mut json, directory, keys, &special_tokens_map)?;
        let mut tokenizer = guarded(&path, || Tokenizer::from_bytes(json.to_string()))?;
        check_ids(&tokenizer, &added, directory)?;
        let special = SpecialTokens::of(&tokenizer, by_precedence(&special_tokens_map, &config));
        // A decoder's vocabulary may have no token for the beginning of a text; it is used as it is.
        let complete = !encoder.needs_cls() && tokenizer.token_to_id(&special.cls).is_none();
        if let (false, (None, _) | (_, None)) = (complete, around(&tokenizer)) {
            if colbert {
                return Err(ModelError::NothingAroundTexts { path, cls: special.cls, sep: special.sep });
            }
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

/// The files that name special tokens, the one that takes precedence first: as in transformers, a
/// `tokenizer_config.json` that lists the added tokens needs no `special_tokens_map.json`.
pub(crate) fn by_precedence<'a>(special_tokens_map: &'a Value, config: &'a Value) -> [&'a Value; 2] {
    if config["added_tokens_decoder"].is_object() { [config, special_tokens_map] } else { [special_tokens_map, config] }
}

/// Puts lower case before the normalizer if `sentence_bert_config.json` asks for it and the normalizer does not do it,
/// as sentence-transformers does.
///
/// # Errors
/// A value of the wrong type.
fn lower_case(json: &mut Value, directory: &Path) -> Result<(), ModelError> {
    let path = directory.join("sentence_bert_config.json");
    let settings = optional_object(&path)?;
    let asked = Keys { json: &settings, path: &path }.flag("do_lower_case")?;
    let own = json["normalizer"].take();
    let is_lower = |part: &Value| part["type"] == "Lowercase" || part["lowercase"] == true;
    let parts = match own["normalizers"].as_array() {
        Some(parts) => parts.clone(),
        None if own.is_null() => Vec::new(),
        None => vec![own.clone()],
    };
    if asked != Some(true) || parts.iter().any(is_lower) {
        json["normalizer"] = own;
        return Ok(());
    }
    tracing::info!("{}: do_lower_case: texts become lower case before they are split", path.display());
    let all: Vec<Value> = std::iter::once(json!({"type": "Lowercase"})).chain(parts).collect();
    json["normalizer"] = json!({"type": "Sequence", "normalizers": all});
    Ok(())
}

/// A token that a file beside `tokenizer.json` adds to the vocabulary, and its id.
type ListedToken = (String, u64);

/// Adds the tokens that `tokenizer_config.json`, or without its list `added_tokens.json`, names and `tokenizer.json`
/// lacks; and marks the special tokens of the vocabulary that the files name, so that no text splits them. As
/// transformers does. Returns those that were added.
///
/// # Errors
/// A value of the wrong type.
fn add_listed_tokens(
    json: &mut Value,
    directory: &Path,
    config: Keys<'_>,
    special_tokens_map: &Value,
) -> Result<Vec<ListedToken>, ModelError> {
    let named = special_names([special_tokens_map, config.json]);
    let mut listed: Vec<(u64, Value)> = Vec::new();
    if let Some(decoder) = config.object("added_tokens_decoder")? {
        for (id, token) in decoder.as_object().into_iter().flatten() {
            let (Ok(id), Some(content)) = (id.parse(), token["content"].as_str()) else {
                return Err(config.unsupported("added_tokens_decoder", token, "tokens with content by their ids"));
            };
            let flag = |name: &str, otherwise: bool| token[name].as_bool().unwrap_or(otherwise);
            let special = flag("special", false) || named.iter().any(|name| name == content);
            listed.push((
                id,
                json!({
                    "id": id, "content": content, "single_word": flag("single_word", false),
                    "lstrip": flag("lstrip", false), "rstrip": flag("rstrip", false),
                    "normalized": flag("normalized", !special), "special": special,
                }),
            ));
        }
    } else {
        let path = directory.join("added_tokens.json");
        let added = optional_object(&path)?;
        for (content, id) in added.as_object().into_iter().flatten() {
            let Some(id) = id.as_u64() else {
                let keys = Keys { json: &added, path: &path };
                return Err(keys.unsupported("added_tokens", id, "ids of tokens"));
            };
            listed.push((id, added_token(id, content, named.contains(content))));
        }
    }
    listed.sort_by_key(|(id, _)| *id);
    for name in &named {
        if let Some(id) = vocabulary_id(json, name) {
            listed.push((id, added_token(id, name, true)));
        }
    }
    if !json["added_tokens"].is_array() {
        json["added_tokens"] = json!([]);
    }
    let mut new = Vec::new();
    let own = json["added_tokens"].as_array_mut().expect("it was made an array if it was none");
    for (id, token) in listed {
        if !own.iter().any(|known| known["content"] == token["content"]) {
            new.push((token["content"].as_str().unwrap_or_default().to_owned(), id));
            own.push(token);
        }
    }
    Ok(new)
}

fn added_token(id: u64, content: &str, special: bool) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": !special,
        "special": special,
    })
}

/// Returns the texts of the special tokens that files name.
fn special_names(files: [&Value; 2]) -> Vec<String> {
    const KEYS: [&str; 7] =
        ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
    let mut names = Vec::new();
    for file in files {
        let further = file["additional_special_tokens"].as_array().into_iter().flatten();
        for token in KEYS.iter().map(|key| &file[*key]).chain(further) {
            let name = token_text(token).filter(|name| !name.is_empty() && !names.iter().any(|own| own == name));
            names.extend(name.map(str::to_owned));
        }
    }
    names
}

/// Finds the id of a vocabulary entry: of words by their ids, or of words with scores in the order of their ids.
fn vocabulary_id(json: &Value, name: &str) -> Option<u64> {
    match &json["model"]["vocab"] {
        Value::Object(vocab) => vocab.get(name).and_then(Value::as_u64),
        Value::Array(vocab) => vocab.iter().position(|entry| entry[0] == *name).map(|id| id as u64),
        _ => None,
    }
}

/// Checks that added tokens have the ids in their files: a gap would change them.
fn check_ids(tokenizer: &Tokenizer, added: &[ListedToken], directory: &Path) -> Result<(), ModelError> {
    for (token, id) in added {
        let found = tokenizer.token_to_id(token).map(u64::from);
        if found != Some(*id) {
            let found = found.map_or_else(|| "none".to_owned(), |found| found.to_string());
            let message = format!(
                "the added token {token} has the id {id}, and the vocabulary leaves {found} for it; expected ids that \
                 follow the vocabulary without a gap"
            );
            return Err(ModelError::Tokenizer { path: directory.to_owned(), message });
        }
    }
    Ok(())
}

/// Makes a post-processor that puts the special tokens around a text.
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
fn normalize_as_configured(
    json: &mut Value,
    config: Keys<'_>,
    word_piece: bool,
    has_file: bool,
) -> Result<(), ModelError> {
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
        // Without a setting for accents, they follow the case.
        let same = *own == value || (key == "strip_accents" && value.is_null() && *own == json!(lower_case));
        if !same && has_file {
            tracing::warn!(
                "{} and tokenizer.json disagree: {key} is {value} there and {own} here; the former counts, as in transformers",
                config.path.display()
            );
        }
        if !same {
            *own = value;
        }
    }
    Ok(())
}

/// Returns the added tokens of a vocabulary: those of the names that it has.
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

/// Makes BERT's tokenizer from a `vocab.txt`, as transformers' `BertTokenizerFast` does; the normalizer is set
/// afterwards.
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

/// Makes RoBERTa's tokenizer from `vocab.json` and `merges.txt`, as transformers' `RobertaTokenizerFast` does.
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

//! The special tokens of a vocabulary, and its punctuation.
//!
//! The tokenizer itself decides the special tokens: its post-processor has those around a text,
//! `special_tokens_map.json` and `tokenizer_config.json` name the others, and otherwise the usual names in the
//! vocabulary count.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use tokenizers::{ModelWrapper, Tokenizer};

use crate::error::ModelError;
use crate::settings::punctuation;
use crate::tokenizer::panics::guarded;

/// Special tokens of a tokenizer; one that the vocabulary lacks has BERT's name, so that messages can name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpecialTokens {
    pub(crate) pad: String,
    pub(crate) mask: String,
    /// Token before a text.
    pub(crate) cls: String,
    /// Token after a text.
    pub(crate) sep: String,
    pub(crate) unk: String,
}

/// A role, its key in the files, and the names that vocabularies give it, the likeliest first. The first is BERT's.
struct Role {
    key: &'static str,
    names: &'static [&'static str],
}

const PAD: Role = Role { key: "pad_token", names: &["[PAD]", "<pad>", "<|pad|>", "<|padding|>"] };
const MASK: Role = Role { key: "mask_token", names: &["[MASK]", "<mask>", "<|mask|>", "[MSK]", "<MASK>"] };
const CLS: Role = Role { key: "cls_token", names: &["[CLS]", "<s>", "<bos>", "<|cls|>", "<cls>", "<|startoftext|>"] };
const SEP: Role = Role { key: "sep_token", names: &["[SEP]", "</s>", "<eos>", "<|sep|>", "<sep>", "<|endoftext|>"] };
const UNK: Role = Role { key: "unk_token", names: &["[UNK]", "<unk>", "<|unk|>"] };

impl SpecialTokens {
    /// Finds the special tokens of a tokenizer. `files` are `special_tokens_map.json` and `tokenizer_config.json`, or
    /// `Value::Null` for one that is not there.
    pub(crate) fn of(tokenizer: &Tokenizer, files: [&Value; 2]) -> Self {
        let known = |token: &str| tokenizer.token_to_id(token).is_some();
        let written = |key: &str| files.iter().filter_map(|file| token_text(&file[key])).find(|token| known(token));
        let usual = |role: &Role| role.names.iter().copied().find(|name| known(name)).unwrap_or(role.names[0]);
        let of = |role: &Role| written(role.key).unwrap_or_else(|| usual(role)).to_owned();
        let mask = of(&MASK);
        // PyLate writes the mask as padding token.
        let pad = written(PAD.key).filter(|pad| *pad != mask).unwrap_or_else(|| usual(&PAD)).to_owned();
        let (cls, sep) = around(tokenizer);
        // Gemma's vocabularies, and others made for decoders, have tokens for the beginning and the end of a text
        // instead.
        let or = |found: Option<String>, role: &Role, other: &str| {
            found.unwrap_or_else(|| {
                written(role.key).or_else(|| written(other)).unwrap_or_else(|| usual(role)).to_owned()
            })
        };
        Self { pad, mask, cls: or(cls, &CLS, "bos_token"), sep: or(sep, &SEP, "eos_token"), unk: of(&UNK) }
    }
}

impl SpecialTokens {
    /// Returns the special tokens that the vocabulary has, by their keys in `special_tokens_map.json`.
    pub(crate) fn entries<'a>(&'a self, tokenizer: &Tokenizer) -> [(&'static str, Option<&'a str>); 5] {
        let Self { pad, mask, cls, sep, unk } = self;
        let entry =
            |key, token: &'a String| (key, Some(token.as_str()).filter(|own| tokenizer.token_to_id(own).is_some()));
        [
            entry("cls_token", cls),
            entry("mask_token", mask),
            entry("pad_token", pad),
            entry("sep_token", sep),
            entry("unk_token", unk),
        ]
    }
}

/// Returns the text of a token in a file: a string, or an object with `content`.
pub(crate) fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

/// Finds the tokens that the post-processor puts before and after a text, by tokenizing an empty text.
pub(crate) fn around(tokenizer: &Tokenizer) -> (Option<String>, Option<String>) {
    let Ok(encoding) = guarded(Path::new(""), || tokenizer.encode("", true)) else { return (None, None) };
    let count = |side: bool| {
        let template = tokenizer.get_post_processor().and_then(|processor| serde_json::to_value(processor).ok());
        template.map_or(0, |template| tokens_beside(&template, side))
    };
    // A tokenizer that pads adds its padding at the end.
    let attended = encoding.get_tokens().iter().zip(encoding.get_attention_mask());
    let tokens: Vec<&String> = attended.filter(|(_, attended)| **attended == 1).map(|(token, _)| token).collect();
    let (before, behind) = (count(true), count(false));
    let first = (before > 0).then(|| tokens.first().copied().cloned()).flatten();
    let last = (behind > 0).then(|| tokens.last().copied().cloned()).flatten();
    (first, last)
}

/// Counts the special tokens that a post-processor puts before a text, or after it.
fn tokens_beside(processor: &Value, before: bool) -> usize {
    match processor["type"].as_str() {
        Some("BertProcessing" | "RobertaProcessing") => 1,
        Some("TemplateProcessing") => {
            let pieces: Vec<&Value> = processor["single"].as_array().into_iter().flatten().collect();
            let text = pieces.iter().position(|piece| piece.get("Sequence").is_some()).unwrap_or(pieces.len());
            if before { text } else { pieces.len().saturating_sub(text + 1) }
        }
        Some("Sequence") => {
            let all = processor["processors"].as_array().into_iter().flatten();
            all.map(|inner| tokens_beside(inner, before)).sum()
        }
        _ => 0,
    }
}

/// Returns the ids of the tokens that are punctuation.
///
/// In a WordPiece vocabulary every symbol is a token of its own wherever it stands: the first id of its encoding, as
/// colbert-ai takes it. In the others a symbol may be another token after a space, and several may be one: every token
/// that consists of ASCII punctuation, with or without the sign for a space before it.
pub(crate) fn punctuation_ids(tokenizer: &Tokenizer) -> Result<BTreeSet<u32>, tokenizers::Error> {
    let mut ids = BTreeSet::new();
    if matches!(tokenizer.get_model(), ModelWrapper::WordPiece(_)) {
        for symbol in punctuation() {
            ids.extend(tokenizer.encode(symbol, false)?.get_ids().first());
        }
        return Ok(ids);
    }
    for (token, id) in tokenizer.get_vocab(false) {
        let bare = token.trim_start_matches(['\u{120}', '\u{2581}']);
        if !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_punctuation()) {
            ids.insert(id);
        }
    }
    Ok(ids)
}

/// Returns the ids of vocabulary entries; missing entries are left out.
pub(crate) fn listed_ids(tokenizer: &Tokenizer, words: &[String]) -> BTreeSet<u32> {
    words.iter().filter_map(|word| tokenizer.token_to_id(word)).collect()
}

/// Lists the vocabulary entries that are punctuation, as PyLate lists them: the symbols of a WordPiece vocabulary, and
/// the entries of another.
///
/// # Errors
/// The tokenizers library refuses a text.
pub(crate) fn skiplist_words(tokenizer: &Tokenizer, path: &Path) -> Result<Vec<String>, ModelError> {
    if matches!(tokenizer.get_model(), ModelWrapper::WordPiece(_)) {
        return Ok(punctuation().collect());
    }
    let ids = guarded(path, || punctuation_ids(tokenizer))?;
    Ok(ids.into_iter().filter_map(|id| tokenizer.id_to_token(id)).collect())
}

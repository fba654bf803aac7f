//! The special tokens of a vocabulary, and its punctuation, by the kind of vocabulary it is.

use std::collections::BTreeSet;
use std::path::Path;

use tokenizers::{ModelWrapper, Tokenizer};

use crate::error::ModelError;
use crate::settings::punctuation;
use crate::tokenizer::panics::guarded;

/// Names of special tokens: BERT's, or else RoBERTa's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpecialTokens {
    pub(crate) pad: &'static str,
    pub(crate) mask: &'static str,
    pub(crate) cls: &'static str,
    pub(crate) sep: &'static str,
    pub(crate) unk: &'static str,
}

const BERT: SpecialTokens = SpecialTokens { pad: "[PAD]", mask: "[MASK]", cls: "[CLS]", sep: "[SEP]", unk: "[UNK]" };

const ROBERTA: SpecialTokens = SpecialTokens { pad: "<pad>", mask: "<mask>", cls: "<s>", sep: "</s>", unk: "<unk>" };

impl SpecialTokens {
    /// The vocabulary decides, and not what a configuration says: PyLate writes the mask as padding token there.
    pub(crate) fn of(tokenizer: &Tokenizer) -> Self {
        if tokenizer.token_to_id(BERT.mask).is_none() && tokenizer.token_to_id(ROBERTA.mask).is_some() {
            ROBERTA
        } else {
            BERT
        }
    }
}

/// Ids of the tokens that are punctuation.
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

/// Ids of vocabulary entries; entries that are not there are left out.
pub(crate) fn listed_ids(tokenizer: &Tokenizer, words: &[String]) -> BTreeSet<u32> {
    words.iter().filter_map(|word| tokenizer.token_to_id(word)).collect()
}

/// The vocabulary entries that are punctuation, as PyLate lists them: the symbols of a WordPiece vocabulary, and the
/// entries of another.
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

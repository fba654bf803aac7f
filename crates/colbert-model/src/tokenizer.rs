//! Conversion of texts to token sequences, exactly as in colbert-ai (0.2.22, `query_tokenization.py`,
//! `doc_tokenization.py`).

pub(crate) mod panics;
pub(crate) mod sequence;
pub(crate) mod special_tokens;

use std::hash::Hasher;
use std::ops::Range;
use std::path::{Path, PathBuf};

use fnv::FnvHasher;
use serde_json::Value;
use tokenizers::{Encoding, Tokenizer, TruncationParams};

use crate::error::ModelError;
use crate::settings::ColbertSettings;
use crate::tokenizer::panics::guarded;
use crate::tokenizer::sequence::TokenSequence;
use crate::tokenizer::special_tokens::{SpecialTokens, around, listed_ids, punctuation_ids};

/// Room that a text needs besides its own tokens and its marker: `[CLS]` and `[SEP]`.
const AROUND: usize = 2;

/// Tokenizer of queries and documents. Queries: `[CLS] [Q] tokens [SEP] [MASK]…`, always `query_maxlen` long unless
/// `query_expansion` is off or has a length of its own; documents: `[CLS] [D] tokens [SEP]`, at most `doc_maxlen` long.
/// A side without a marker has its prompt before the text.
#[derive(Debug, Clone)]
pub struct ColbertTokenizer {
    path: PathBuf,
    for_queries: Tokenizer,
    for_documents: Tokenizer,
    uncut: Tokenizer,
    settings: ColbertSettings,
    ids: SpecialIds,
    /// By id: true for tokens that are not scored in a document.
    skipped: Vec<bool>,
}

#[derive(Debug, Clone, Copy)]
struct SpecialIds {
    /// None if the token at a text's end is the padding, as in vocabularies of decoders.
    pad: Option<u32>,
    /// None in a vocabulary without a mask, where there is no expansion.
    mask: Option<u32>,
    query_marker: Option<u32>,
    doc_marker: Option<u32>,
    unknown: Option<u32>,
}

impl SpecialIds {
    /// Looks the special tokens up in the vocabulary.
    fn find(
        tokenizer: &Tokenizer,
        special: &SpecialTokens,
        settings: &ColbertSettings,
        path: &Path,
    ) -> Result<Self, ModelError> {
        let id = |token: &str, role| {
            tokenizer.token_to_id(token).ok_or_else(|| ModelError::MissingToken {
                path: path.to_owned(),
                token: token.to_owned(),
                role,
            })
        };
        let marker = |token: &str, role| if token.is_empty() { Ok(None) } else { id(token, role).map(Some) };
        Ok(Self {
            pad: Some(id(&special.pad, "padding")?)
                .filter(|_| special.pad != special.sep && special.pad != special.cls),
            mask: match settings.query_expansion {
                true => Some(id(&special.mask, "query expansion")?),
                false => tokenizer.token_to_id(&special.mask),
            },
            query_marker: marker(&settings.query_token_id, "query marker")?,
            doc_marker: marker(&settings.doc_token_id, "document marker")?,
            unknown: tokenizer.token_to_id(&special.unk),
        })
    }
}

/// Checks that texts have room beside their special tokens, marker and prompt.
fn check_room(
    tokenizer: &Tokenizer,
    ids: SpecialIds,
    settings: &ColbertSettings,
    path: &Path,
) -> Result<(), ModelError> {
    for (option, length, marker, prompt) in [
        ("query_maxlen", settings.query_maxlen, ids.query_marker, &settings.query_prompt),
        ("doc_maxlen", settings.doc_maxlen, ids.doc_marker, &settings.document_prompt),
    ] {
        let room = AROUND + usize::from(marker.is_some()) + tokens_of(tokenizer, prompt, path)?;
        if length <= room {
            let (minimum, maximum) = (room + 1, usize::MAX);
            return Err(ModelError::LengthOutOfRange { option, found: length, minimum, maximum });
        }
    }
    Ok(())
}

/// Returns the tokenizer without padding, and with truncation to this length if there is one.
fn truncating(tokenizer: &Tokenizer, length: Option<usize>, path: &Path) -> Result<Tokenizer, ModelError> {
    let mut tokenizer = tokenizer.clone();
    tokenizer.with_padding(None);
    let truncation = length.map(|max_length| TruncationParams { max_length, ..Default::default() });
    guarded(path, || tokenizer.with_truncation(truncation).map(drop))?;
    Ok(tokenizer)
}

/// Returns by id whether a document's token is left out of its score.
fn skipped(tokenizer: &Tokenizer, settings: &ColbertSettings, path: &Path) -> Result<Vec<bool>, ModelError> {
    let mut skipped = vec![false; tokenizer.get_vocab_size(true)];
    if !settings.mask_punctuation {
        return Ok(skipped);
    }
    let ids = match &settings.skiplist_words {
        Some(words) => listed_ids(tokenizer, words),
        None => guarded(path, || punctuation_ids(tokenizer))?,
    };
    for id in ids {
        let at = id as usize;
        if at >= skipped.len() {
            skipped.resize(at + 1, false);
        }
        skipped[at] = true;
    }
    Ok(skipped)
}

impl ColbertTokenizer {
    /// Makes a tokenizer with `settings`; `path` appears in messages.
    ///
    /// # Errors
    /// A length without room for the markers, or a token that the vocabulary lacks.
    pub fn new(tokenizer: Tokenizer, settings: &ColbertSettings, path: &Path) -> Result<Self, ModelError> {
        let special = SpecialTokens::of(&tokenizer, [&Value::Null, &Value::Null]);
        Self::with_special_tokens(tokenizer, &special, settings, path)
    }

    /// Makes a tokenizer with special tokens that files beside it name.
    pub(crate) fn with_special_tokens(
        tokenizer: Tokenizer,
        special: &SpecialTokens,
        settings: &ColbertSettings,
        path: &Path,
    ) -> Result<Self, ModelError> {
        let ids = SpecialIds::find(&tokenizer, special, settings, path)?;
        check_room(&tokenizer, ids, settings, path)?;
        // The marker is inserted afterwards, so the tokenizer leaves one place for it.
        let length = |length: usize, marker: Option<u32>| Some(length - usize::from(marker.is_some()));
        Ok(Self {
            path: path.to_owned(),
            for_queries: truncating(&tokenizer, length(settings.query_maxlen, ids.query_marker), path)?,
            for_documents: truncating(&tokenizer, length(settings.doc_maxlen, ids.doc_marker), path)?,
            uncut: truncating(&tokenizer, None, path)?,
            settings: settings.clone(),
            ids,
            skipped: skipped(&tokenizer, settings, path)?,
        })
    }

    /// Tokenizes queries.
    ///
    /// # Errors
    /// The tokenizers library refuses a text.
    pub fn queries<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<TokenSequence>, ModelError> {
        let encodings = self.encode(&self.for_queries, &self.settings.query_prompt, texts)?;
        Ok(encodings.iter().map(|encoding| self.query(encoding.get_ids())).collect())
    }

    /// Tokenizes documents.
    ///
    /// # Errors
    /// The tokenizers library refuses a text.
    pub fn documents<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<TokenSequence>, ModelError> {
        let encodings = self.encode(&self.for_documents, &self.settings.document_prompt, texts)?;
        Ok(encodings.iter().map(|encoding| self.document(encoding.get_ids())).collect())
    }

    /// Counts how long queries are if nothing is cut off or filled up, marker and prompt included, and how many of
    /// those tokens the vocabulary lacks.
    ///
    /// # Errors
    /// The tokenizers library refuses a text.
    pub fn query_lengths<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<(usize, usize)>, ModelError> {
        self.lengths(&self.settings.query_prompt, self.ids.query_marker, texts)
    }

    /// Counts how long documents are, as for queries.
    ///
    /// # Errors
    /// The tokenizers library refuses a text.
    pub fn document_lengths<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<(usize, usize)>, ModelError> {
        self.lengths(&self.settings.document_prompt, self.ids.doc_marker, texts)
    }

    fn lengths<S: AsRef<str> + Sync>(
        &self,
        prompt: &str,
        marker: Option<u32>,
        texts: &[S],
    ) -> Result<Vec<(usize, usize)>, ModelError> {
        let count = |encoding: &Encoding| {
            let ids = encoding.get_ids();
            let unknown = ids.iter().filter(|id| Some(**id) == self.ids.unknown).count();
            (ids.len() + usize::from(marker.is_some()), unknown)
        };
        Ok(self.encode(&self.uncut, prompt, texts)?.iter().map(count).collect())
    }

    /// Returns how many tokens of a document's own text are kept at most: `doc_maxlen` without marker, special tokens
    /// and prompt.
    ///
    /// # Errors
    /// The tokenizers library refuses the prompt.
    pub fn room_for_text(&self) -> Result<usize, ModelError> {
        let prompt = self.settings.document_prompt.as_str();
        let prompt = guarded(&self.path, || self.uncut.encode_fast(prompt, false))?.len();
        let around = AROUND + usize::from(self.ids.doc_marker.is_some()) + prompt;
        Ok(self.settings.doc_maxlen.saturating_sub(around))
    }

    /// Returns the byte range of each token of each text, in order, without special tokens and prompts; nothing is
    /// truncated. Ranges end between characters.
    ///
    /// # Errors
    /// The tokenizers library refuses a text.
    pub fn spans(&self, texts: &[&str]) -> Result<Vec<Vec<Range<usize>>>, ModelError> {
        let encodings = guarded(&self.path, || self.uncut.encode_batch(texts.to_vec(), false))?;
        let spans = |(text, encoding): (&&str, &Encoding)| {
            let offsets = encoding.get_offsets().iter();
            offsets.map(|(start, end)| text.floor_char_boundary(*start)..text.ceil_char_boundary(*end)).collect()
        };
        Ok(texts.iter().zip(&encodings).map(spans).collect())
    }

    /// Returns the text of a token as it is decoded alone, or its name in the vocabulary where that is nothing.
    ///
    /// # Errors
    /// The tokenizers library refuses the id.
    pub fn token(&self, id: u32) -> Result<String, ModelError> {
        let decoded = guarded(&self.path, || self.uncut.decode(&[id], false))?;
        let decoded = decoded.trim();
        if decoded.is_empty() {
            return Ok(self.uncut.id_to_token(id).unwrap_or_else(|| id.to_string()));
        }
        Ok(decoded.to_owned())
    }

    /// Returns the ids of the tokens that take no part in a document's score.
    pub fn skiplist(&self) -> Vec<u32> {
        (0..self.skipped.len() as u32).filter(|id| self.skipped[*id as usize]).collect()
    }

    /// Returns the ids of the query marker and the document marker; none for a side without one.
    pub fn marker_ids(&self) -> (Option<u32>, Option<u32>) {
        (self.ids.query_marker, self.ids.doc_marker)
    }

    /// Returns whether texts begin with a special token; the marker follows it. Without one, as in Qwen3's tokenizers,
    /// the marker follows the first token of the text itself.
    pub fn begins_texts(&self) -> bool {
        around(&self.uncut).0.is_some()
    }

    /// Computes a hash (64-bit FNV-1a) of everything that tokens depend on besides the text.
    ///
    /// # Errors
    /// The tokenizers library cannot write this tokenizer down.
    pub fn fingerprint(&self) -> Result<u64, ModelError> {
        let mut hash = FnvHasher::default();
        hash.write(guarded(&self.path, || self.uncut.to_string(false))?.as_bytes());
        hash.write(format!("{:?}", self.settings).as_bytes());
        Ok(hash.finish())
    }

    /// Returns the settings it was made with.
    pub fn settings(&self) -> &ColbertSettings {
        &self.settings
    }

    fn encode<S: AsRef<str> + Sync>(
        &self,
        tokenizer: &Tokenizer,
        prompt: &str,
        texts: &[S],
    ) -> Result<Vec<Encoding>, ModelError> {
        if !prompt.is_empty() {
            let texts: Vec<String> = texts.iter().map(|text| format!("{prompt}{}", text.as_ref())).collect();
            return guarded(&self.path, || tokenizer.encode_batch_fast(texts, true));
        }
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        guarded(&self.path, || tokenizer.encode_batch_fast(texts, true))
    }

    fn query(&self, text: &[u32]) -> TokenSequence {
        let mut ids = with_marker(text, self.ids.query_marker);
        let real = ids.len();
        if let Some(mask) = self.ids.mask {
            for id in &mut ids {
                // A literal "[PAD]" in the text becomes a mask, as in colbert-ai.
                if Some(*id) == self.ids.pad {
                    *id = mask;
                }
            }
        }
        let full = self.settings.query_maxlen;
        let length = match self.settings.query_expansion_length {
            _ if !self.settings.query_expansion => real,
            Some(least) => real.max(least.min(full)),
            None => full,
        };
        if let Some(mask) = self.ids.mask {
            ids.resize(length, mask);
        }
        let attended = if self.settings.attend_to_mask_tokens { length } else { real };
        let counts = |id: &u32| !self.settings.mask_query_punctuation || !self.is_skipped(*id);
        TokenSequence { scored: scored(&ids, counts), attended, ids }
    }

    fn document(&self, text: &[u32]) -> TokenSequence {
        let ids = with_marker(text, self.ids.doc_marker);
        let counts = |id: &u32| Some(*id) != self.ids.pad && !self.is_skipped(*id);
        TokenSequence { attended: ids.len(), scored: scored(&ids, counts), ids }
    }

    fn is_skipped(&self, id: u32) -> bool {
        self.skipped.get(id as usize).is_some_and(|skip| *skip)
    }
}

/// Counts the tokens of a prompt.
fn tokens_of(tokenizer: &Tokenizer, prompt: &str, path: &Path) -> Result<usize, ModelError> {
    if prompt.is_empty() {
        return Ok(0);
    }
    guarded(path, || Ok(tokenizer.encode(prompt, false)?.get_ids().len()))
}

/// Returns which tokens take part in MaxSim. If all tokens of a text are left out, the first one counts: a text without
/// any vector could be neither scored nor stored.
fn scored(ids: &[u32], counts: impl Fn(&u32) -> bool) -> Vec<bool> {
    let mut scored: Vec<bool> = ids.iter().map(counts).collect();
    if !scored.contains(&true)
        && let Some(first) = scored.first_mut()
    {
        *first = true;
    }
    scored
}

/// Inserts a marker after the first token (`[CLS]`).
fn with_marker(text: &[u32], marker: Option<u32>) -> Vec<u32> {
    let mut ids = Vec::with_capacity(text.len() + 1);
    let (first, rest) = text.split_at(text.len().min(1));
    ids.extend_from_slice(first);
    ids.extend(marker);
    ids.extend_from_slice(rest);
    ids
}

//! Settings that make an encoder a ColBERT: sizes, lengths, markers, masks.

pub(crate) mod token_pooling;

use colbert_config::TrainOptions;
use serde::{Deserialize, Serialize};

use crate::settings::token_pooling::TokenPooling;

/// Settings that a trained model carries with it. Lengths are in tokens, markers included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColbertSettings {
    /// Size of a token embedding.
    pub dim: usize,
    /// Sizes that vectors can be cut to, from `dim` down; empty if only `dim` was trained.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dims: Vec<usize>,
    /// Longest query, and with `query_expansion` the length of every query, truncated or filled with `[MASK]`.
    pub query_maxlen: usize,
    /// Longest document; longer ones are truncated.
    pub doc_maxlen: usize,
    /// `[MASK]` tokens of a query may be attended to.
    pub attend_to_mask_tokens: bool,
    /// Queries are filled with `[MASK]` to `query_maxlen`; otherwise that is only their limit.
    pub query_expansion: bool,
    /// Punctuation tokens of a document take no part in MaxSim.
    pub mask_punctuation: bool,
    /// Vocabulary entries that take no part in it, in place of the punctuation. None: the punctuation.
    pub skiplist_words: Option<Vec<String>>,
    /// ReLU after the projection.
    pub use_relu: bool,
    /// Vocabulary token inserted after `[CLS]` in a query; empty: none.
    pub query_token_id: String,
    /// Vocabulary token inserted after `[CLS]` in a document; empty: none.
    pub doc_token_id: String,
    /// Text before every query, such as `search_query: `.
    #[serde(default)]
    pub query_prompt: String,
    /// Text before every document.
    #[serde(default)]
    pub document_prompt: String,
    /// Length to which shorter queries are filled up; longer ones stay as they are up to `query_maxlen`. None: all
    /// queries are filled up to `query_maxlen`.
    #[serde(default)]
    pub query_expansion_length: Option<usize>,
    /// The tokens that take no part in MaxSim are left out of queries too.
    #[serde(default)]
    pub mask_query_punctuation: bool,
    /// Vectors of documents are pooled after they are encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_pooling: Option<TokenPooling>,
}

impl Default for ColbertSettings {
    fn default() -> Self {
        Self::from(&TrainOptions::default())
    }
}

impl From<&TrainOptions> for ColbertSettings {
    fn from(options: &TrainOptions) -> Self {
        Self {
            dim: options.dim,
            dims: options.dims.0.clone(),
            query_maxlen: options.query_maxlen,
            doc_maxlen: options.doc_maxlen,
            attend_to_mask_tokens: options.attend_to_mask_tokens,
            query_expansion: options.query_expansion,
            mask_punctuation: options.mask_punctuation,
            skiplist_words: None,
            use_relu: options.use_relu,
            query_token_id: options.query_token_id.clone().unwrap_or_else(|| "[unused0]".to_owned()),
            doc_token_id: options.doc_token_id.clone().unwrap_or_else(|| "[unused1]".to_owned()),
            query_prompt: options.query_prompt.clone().unwrap_or_default(),
            document_prompt: options.document_prompt.clone().unwrap_or_default(),
            query_expansion_length: options.query_expansion_length,
            mask_query_punctuation: false,
            token_pooling: options.pool_factor.and_then(|factor| TokenPooling::new(factor).ok()),
        }
    }
}

/// Iterates over the ASCII punctuation, one symbol each.
pub(crate) fn punctuation() -> impl Iterator<Item = String> {
    (0u8..128).map(char::from).filter(char::is_ascii_punctuation).map(String::from)
}

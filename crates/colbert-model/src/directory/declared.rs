//! Settings that a directory declares: `artifact.metadata` of colbert-ai, `config_sentence_transformers.json` of
//! PyLate and sentence-transformers, `1_Dense/config.json`, and the size of its head.

use std::path::Path;

use colbert_config::ArtifactMetadata;
use serde_json::Value;

use crate::error::ModelError;
use crate::head::config::HeadConfig;
use crate::settings::{ColbertSettings, punctuation};
use crate::weights::json::read_json;

/// Settings that a directory declares; none where it says nothing. Lengths are in tokens, markers included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Declared {
    /// The files that say something, in the order in which they are believed.
    pub files: Vec<&'static str>,
    /// Size of a token embedding.
    pub dim: Option<usize>,
    /// Length of a query.
    pub query_maxlen: Option<usize>,
    /// Longest document.
    pub doc_maxlen: Option<usize>,
    /// `[MASK]` expansion may be attended to.
    pub attend_to_mask_tokens: Option<bool>,
    /// Queries are filled up with `[MASK]`.
    pub query_expansion: Option<bool>,
    /// Some tokens of a document take no part in scoring.
    pub mask_punctuation: Option<bool>,
    /// Which, where it is not the ASCII punctuation.
    pub skiplist_words: Option<Vec<String>>,
    /// ReLU after the projection.
    pub use_relu: Option<bool>,
    /// Token that marks a query.
    pub query_token_id: Option<String>,
    /// Token that marks a document.
    pub doc_token_id: Option<String>,
}

impl Declared {
    /// Reads what a directory declares; `modules` are its Dense modules, if it has some. `dim` is left open.
    ///
    /// # Errors
    /// A file that does not parse, or asks for something that is not done here.
    pub(crate) fn read(
        directory: &Path,
        metadata: Option<&ArtifactMetadata>,
        modules: Option<&HeadConfig>,
    ) -> Result<Self, ModelError> {
        let mut declared = Self::default();
        let path = directory.join("config_sentence_transformers.json");
        if path.is_file() {
            declared.sentence_transformers(&read_json(&path, "a JSON object")?, &path)?;
        }
        if let Some(metadata) = metadata {
            declared.colbert_ai(metadata);
        }
        if let Some(modules) = modules {
            let usual = "1_Dense/config.json";
            declared.files.push(if directory.join(usual).is_file() { usual } else { "modules.json" });
            declared.use_relu = Some(modules.ends_with_relu());
        }
        Ok(declared)
    }

    /// Whether the directory is a ColBERT at all.
    pub fn is_colbert(&self) -> bool {
        self.dim.is_some() || self.query_maxlen.is_some() || self.query_token_id.is_some()
    }

    /// Settings with what is declared in place of `base`'s.
    pub fn over(&self, base: ColbertSettings) -> ColbertSettings {
        ColbertSettings {
            dim: self.dim.unwrap_or(base.dim),
            query_maxlen: self.query_maxlen.unwrap_or(base.query_maxlen),
            doc_maxlen: self.doc_maxlen.unwrap_or(base.doc_maxlen),
            attend_to_mask_tokens: self.attend_to_mask_tokens.unwrap_or(base.attend_to_mask_tokens),
            query_expansion: self.query_expansion.unwrap_or(base.query_expansion),
            mask_punctuation: self.mask_punctuation.unwrap_or(base.mask_punctuation),
            use_relu: self.use_relu.unwrap_or(base.use_relu),
            ..self.tokens_over(base)
        }
    }

    /// Only the markers and the skiplist, which no option names.
    pub fn tokens_over(&self, base: ColbertSettings) -> ColbertSettings {
        ColbertSettings {
            query_token_id: self.query_token_id.clone().unwrap_or(base.query_token_id),
            doc_token_id: self.doc_token_id.clone().unwrap_or(base.doc_token_id),
            skiplist_words: self.skiplist_words.clone().or(base.skiplist_words),
            ..base
        }
    }

    fn sentence_transformers(&mut self, json: &Value, path: &Path) -> Result<(), ModelError> {
        let length = |key: &str| json[key].as_u64().map(|length| length as usize);
        self.query_maxlen = length("query_length");
        self.doc_maxlen = length("document_length");
        self.attend_to_mask_tokens = json["attend_to_expansion_tokens"].as_bool();
        self.query_expansion = json["do_query_expansion"].as_bool();
        for (field, key) in [(&mut self.query_token_id, "query_prefix"), (&mut self.doc_token_id, "document_prefix")] {
            *field = json[key].as_str().map(str::to_owned);
            if field.as_deref() == Some("") {
                let field = if key == "query_prefix" { "query_prefix" } else { "document_prefix" };
                let (found, expected) = ("\"\"".to_owned(), "a token that marks the side".to_owned());
                return Err(ModelError::UnsupportedConfig { path: path.to_owned(), field, found, expected });
            }
        }
        if let Some(words) = json["skiplist_words"].as_array() {
            let words: Vec<String> = words.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            self.mask_punctuation = Some(!words.is_empty());
            let usual = words.len() == punctuation().count() && punctuation().all(|symbol| words.contains(&symbol));
            self.skiplist_words = (!words.is_empty() && !usual).then_some(words);
        }
        let empty = Self::default();
        if *self != empty {
            self.files.push("config_sentence_transformers.json");
        }
        Ok(())
    }

    /// Fills in what is not declared yet. `relu` is left out: colbert-ai writes it and never applies it.
    fn colbert_ai(&mut self, metadata: &ArtifactMetadata) {
        self.files.push("artifact.metadata");
        self.query_maxlen.get_or_insert(metadata.query_maxlen);
        self.doc_maxlen.get_or_insert(metadata.doc_maxlen);
        self.attend_to_mask_tokens.get_or_insert(metadata.attend_to_mask_tokens);
        self.mask_punctuation.get_or_insert(metadata.mask_punctuation);
        self.query_token_id.get_or_insert_with(|| metadata.query_token_id.clone());
        self.doc_token_id.get_or_insert_with(|| metadata.doc_token_id.clone());
    }
}

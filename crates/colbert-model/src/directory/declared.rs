//! Settings that a directory declares: `artifact.metadata` of colbert-ai, `config_sentence_transformers.json` of
//! PyLate and sentence-transformers, `1_Dense/config.json`, and the size of its head.

use std::path::Path;

use colbert_config::ArtifactMetadata;
use serde_json::Value;

use crate::error::ModelError;
use crate::head::config::HeadConfig;
use crate::settings::token_pooling::{POOLING, TokenPooling};
use crate::settings::{ColbertSettings, punctuation};
use crate::weights::json::{Keys, optional_object};
use crate::weights::layout::Layout;

/// Name of the file that PyLate and sentence-transformers write.
const CONFIG: &str = "config_sentence_transformers.json";

/// Key of this file for the sizes that vectors can be cut to; a key of our own, which other programs ignore.
pub(crate) const DIMS: &str = "matryoshka_dims";

/// Settings that a directory declares; none for those that it does not. Lengths are in tokens, markers included.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Declared {
    /// The files that declare something, the one that takes precedence first.
    pub files: Vec<&'static str>,
    /// Size of a token embedding.
    pub dim: Option<usize>,
    /// Sizes that vectors can be cut to, the largest first.
    pub dims: Option<Vec<usize>>,
    /// Length of a query.
    pub query_maxlen: Option<usize>,
    /// Longest document.
    pub doc_maxlen: Option<usize>,
    /// `[MASK]` expansion may be attended to.
    pub attend_to_mask_tokens: Option<bool>,
    /// Queries are filled up with `[MASK]`.
    pub query_expansion: Option<bool>,
    /// Length to which shorter queries are filled up, if it is not `query_maxlen`.
    pub query_expansion_length: Option<usize>,
    /// Some tokens of a document take no part in scoring.
    pub mask_punctuation: Option<bool>,
    /// Vocabulary entries that take no part, if they are not the ASCII punctuation.
    pub skiplist_words: Option<Vec<String>>,
    /// They take no part in queries either.
    pub mask_query_punctuation: Option<bool>,
    /// Vectors of documents are pooled.
    pub token_pooling: Option<TokenPooling>,
    /// ReLU after the projection.
    pub use_relu: Option<bool>,
    /// Token that marks a query; empty: none.
    pub query_token_id: Option<String>,
    /// Token that marks a document; empty: none.
    pub doc_token_id: Option<String>,
    /// Text before a query.
    pub query_prompt: Option<String>,
    /// Text before a document.
    pub document_prompt: Option<String>,
}

impl Declared {
    /// Reads what a directory declares. `modules` are its Dense modules, if it has some, and `positions` the longest
    /// text of its encoder. `dim` is left open.
    ///
    /// # Errors
    /// A file that does not parse, holds a value of the wrong type, or requires something unsupported.
    pub(crate) fn read(
        layout: &Layout,
        metadata: Option<&ArtifactMetadata>,
        modules: Option<&HeadConfig>,
        positions: usize,
    ) -> Result<Self, ModelError> {
        let mut declared = Self::default();
        let path = layout.root.join(CONFIG);
        let json = optional_object(&path)?;
        let keys = Keys { json: &json, path: &path };
        let listed = layout.modules.iter().flatten();
        let mask = listed.into_iter().find(|module| module.class == "MultiVectorMask");
        // No other program writes that module.
        if keys.text("model_type")? == Some("MultiVectorEncoder") || mask.is_some() {
            declared.prompts(keys, ["", ""])?;
            declared.native(layout, positions)?;
            // Without the module every token is scored.
            declared.mask_punctuation = Some(false);
            (declared.query_token_id, declared.doc_token_id) = (Some(String::new()), Some(String::new()));
            declared.files.push(CONFIG);
        } else {
            declared.pylate(keys, positions)?;
        }
        declared.dims = keys.counts(DIMS)?.map(|mut dims| {
            dims.sort_unstable_by(|one, other| other.cmp(one));
            dims.dedup();
            dims
        });
        if let Some(mask) = mask {
            declared.mask(&mask.folder)?;
        }
        if let Some(module) = layout.modules.iter().flatten().find(|module| module.class == POOLING) {
            declared.token_pooling = Some(pooling(&module.folder)?);
        }
        if let Some(metadata) = metadata {
            declared.colbert_ai(metadata);
        }
        if let Some(modules) = modules {
            let usual = "1_Dense/config.json";
            declared.files.push(if layout.root.join(usual).is_file() { usual } else { "modules.json" });
            declared.use_relu = Some(modules.ends_with_relu());
        }
        Ok(declared)
    }

    /// Returns whether the directory is a ColBERT at all.
    pub fn is_colbert(&self) -> bool {
        self.dim.is_some() || self.query_maxlen.is_some() || self.query_token_id.is_some()
    }

    /// Returns `base` with what is declared in place of its own.
    pub fn over(&self, base: ColbertSettings) -> ColbertSettings {
        ColbertSettings {
            dim: self.dim.unwrap_or(base.dim),
            dims: self.dims.clone().unwrap_or_else(|| base.dims.clone()),
            query_maxlen: self.query_maxlen.unwrap_or(base.query_maxlen),
            doc_maxlen: self.doc_maxlen.unwrap_or(base.doc_maxlen),
            attend_to_mask_tokens: self.attend_to_mask_tokens.unwrap_or(base.attend_to_mask_tokens),
            query_expansion: self.query_expansion.unwrap_or(base.query_expansion),
            mask_punctuation: self.mask_punctuation.unwrap_or(base.mask_punctuation),
            use_relu: self.use_relu.unwrap_or(base.use_relu),
            ..self.tokens_over(base)
        }
    }

    /// Returns `base` with the declared markers, prompts, skiplist and expansion, which the options leave to the model.
    pub fn tokens_over(&self, base: ColbertSettings) -> ColbertSettings {
        ColbertSettings {
            query_token_id: self.query_token_id.clone().unwrap_or(base.query_token_id),
            doc_token_id: self.doc_token_id.clone().unwrap_or(base.doc_token_id),
            query_prompt: self.query_prompt.clone().unwrap_or(base.query_prompt),
            document_prompt: self.document_prompt.clone().unwrap_or(base.document_prompt),
            query_expansion_length: self.query_expansion_length.or(base.query_expansion_length),
            mask_query_punctuation: self.mask_query_punctuation.unwrap_or(base.mask_query_punctuation),
            skiplist_words: self.skiplist_words.clone().or(base.skiplist_words),
            token_pooling: base.token_pooling.or(self.token_pooling),
            ..base
        }
    }

    /// Reads PyLate's dialect, which sentence-transformers 6 reads too.
    fn pylate(&mut self, keys: Keys<'_>, positions: usize) -> Result<(), ModelError> {
        self.query_maxlen = keys.count("query_length")?;
        self.doc_maxlen = keys.count("document_length")?;
        self.attend_to_mask_tokens = keys.flag("attend_to_expansion_tokens")?;
        self.query_expansion = keys.flag("do_query_expansion")?;
        self.query_token_id = keys.text("query_prefix")?.map(str::to_owned);
        self.doc_token_id = keys.text("document_prefix")?.map(str::to_owned);
        if let Some(words) = keys.texts("skiplist_words")? {
            self.skiplist(words);
        }
        let markers = [self.query_token_id.clone(), self.doc_token_id.clone()].map(Option::unwrap_or_default);
        if *self != Self::default() {
            self.prompts(keys, [&markers[0], &markers[1]])?;
            // sentence-transformers 6 reads the key here too, and writes null for none.
            if keys.json.get("query_expansion").is_some() {
                self.expansion(keys, positions)?;
            }
            self.files.push(CONFIG);
        }
        Ok(())
    }

    /// Reads the prompts of both sides, without the marker that one may repeat.
    fn prompts(&mut self, keys: Keys<'_>, markers: [&str; 2]) -> Result<(), ModelError> {
        let Some(prompts) = keys.object("prompts")? else { return Ok(()) };
        let prompts = Keys { json: prompts, path: keys.path };
        let bare = |prompt: &str, marker: &str| prompt.strip_prefix(marker).unwrap_or(prompt).to_owned();
        self.query_prompt = prompts.text("query")?.map(|prompt| bare(prompt, markers[0]));
        for name in ["document", "passage", "corpus"] {
            if self.document_prompt.is_none() {
                self.document_prompt = prompts.text(name)?.map(|prompt| bare(prompt, markers[1]));
            }
        }
        Ok(())
    }

    /// Reads the file that sentence-transformers 6 writes beside the encoder, `sentence_bert_config.json`.
    fn native(&mut self, layout: &Layout, positions: usize) -> Result<(), ModelError> {
        let path = layout.encoder.join("sentence_bert_config.json");
        let json = optional_object(&path)?;
        let keys = Keys { json: &json, path: &path };
        let own_path = layout.encoder.join("tokenizer_config.json");
        let tokenizer = optional_object(&own_path)?;
        // A tokenizer without a limit of its own declares an enormous one, as a float.
        let limit = match &tokenizer["model_max_length"] {
            Value::Null => positions,
            Value::Number(limit) => limit.as_u64().map_or(positions, |limit| limit as usize),
            other => {
                let own = Keys { json: &tokenizer, path: &own_path };
                return Err(own.unsupported("model_max_length", other, "a number"));
            }
        };
        for (field, expected) in
            [("transformer_task", "feature-extraction"), ("module_output_name", "token_embeddings")]
        {
            if let Some(found) = keys.text(field)?.filter(|found| *found != expected) {
                let expected = format!("\"{expected}\": vectors are those of tokens");
                return Err(keys.unsupported(field, &Value::from(found), &expected));
            }
        }
        let output = &json["modality_config"]["text"]["method_output_name"];
        if !output.is_null() && output != "last_hidden_state" {
            return Err(keys.unsupported("modality_config", output, "\"last_hidden_state\" as the encoder's output"));
        }
        let limit = keys.count("max_seq_length")?.unwrap_or(limit).min(positions);
        self.query_maxlen = Some(keys.count("query_length")?.unwrap_or(limit));
        self.doc_maxlen = Some(keys.count("document_length")?.unwrap_or(limit));
        self.files.push("sentence_bert_config.json");
        self.expansion(keys, limit)
    }

    /// Reads query expansion in the keys of sentence-transformers 6. `limit` is the longest query if no length is
    /// given.
    fn expansion(&mut self, keys: Keys<'_>, limit: usize) -> Result<(), ModelError> {
        let Some(json) = keys.object("query_expansion")? else {
            (self.query_expansion, self.attend_to_mask_tokens) = (Some(false), Some(false));
            return Ok(());
        };
        let inner = Keys { json, path: keys.path };
        let known = ["strategy", "length", "attend", "token"];
        if json.as_object().is_some_and(|keys| keys.keys().any(|key| !known.contains(&key.as_str()))) {
            return Err(keys.unsupported("query_expansion", json, "strategy, length, attend and token alone"));
        }
        let Some(length) = inner.count("length")? else {
            return Err(keys.unsupported("query_expansion", json, "a length"));
        };
        if keys.count("query_length")?.is_some_and(|longest| longest < length) {
            return Err(keys.unsupported("query_length", &keys.json["query_length"], "the expansion's length or more"));
        }
        if let Some(token) = inner.text("token")?
            && !["[MASK]", "<mask>"].contains(&token)
        {
            return Err(keys.unsupported("query_expansion", json, "the mask as token"));
        }
        match inner.text("strategy")? {
            Some("fixed") => self.query_maxlen = Some(length),
            Some("min") => {
                let longest = self.query_maxlen.unwrap_or(limit);
                (self.query_maxlen, self.query_expansion_length) = (Some(longest.max(length)), Some(length));
            }
            _ => return Err(keys.unsupported("query_expansion", json, "the strategy \"fixed\" or \"min\"")),
        }
        self.query_expansion = Some(true);
        self.attend_to_mask_tokens = Some(inner.flag("attend")?.unwrap_or(false));
        Ok(())
    }

    /// Reads the MultiVectorMask module of sentence-transformers 6: tokens that take no part in scoring.
    fn mask(&mut self, folder: &Path) -> Result<(), ModelError> {
        let path = folder.join("config.json");
        let json = module_config(&path)?;
        let keys = Keys { json: &json, path: &path };
        let kept = keys.json["keep_only_token_ids"].as_array().is_some_and(|ids| !ids.is_empty());
        if kept || !matches!(keys.json["keep_only_token_ids"], Value::Null | Value::Array(_)) {
            return Err(keys.unsupported("keep_only_token_ids", &keys.json["keep_only_token_ids"], "null"));
        }
        let tasks = match &keys.json["skiplist_tasks"] {
            Value::String(task) => vec![task.clone()],
            _ => keys.texts("skiplist_tasks")?.unwrap_or_else(|| vec!["document".to_owned()]),
        };
        let words = keys.texts("skiplist_words")?.unwrap_or_default();
        let (of_queries, of_documents) = (tasks.iter().any(|t| t == "query"), tasks.iter().any(|t| t == "document"));
        if of_queries && !of_documents && !words.is_empty() {
            return Err(keys.unsupported("skiplist_tasks", &keys.json["skiplist_tasks"], "documents among them"));
        }
        self.skiplist(if of_documents { words } else { Vec::new() });
        self.mask_query_punctuation = Some(of_queries && self.mask_punctuation == Some(true));
        Ok(())
    }

    fn skiplist(&mut self, words: Vec<String>) {
        self.mask_punctuation = Some(!words.is_empty());
        let usual = words.len() == punctuation().count() && punctuation().all(|symbol| words.contains(&symbol));
        self.skiplist_words = (!words.is_empty() && !usual).then_some(words);
    }

    /// Fills in what is not declared yet. `relu` is left out: colbert-ai writes it and never applies it.
    fn colbert_ai(&mut self, metadata: &ArtifactMetadata) {
        self.files.push("artifact.metadata");
        let shown = |own: Option<usize>| own.map(|own| own.to_string());
        let flag = |own: Option<bool>| own.map(|own| own.to_string());
        for (key, own, here) in [
            ("query_maxlen", shown(self.query_maxlen), metadata.query_maxlen.to_string()),
            ("doc_maxlen", shown(self.doc_maxlen), metadata.doc_maxlen.to_string()),
            ("attend_to_mask_tokens", flag(self.attend_to_mask_tokens), metadata.attend_to_mask_tokens.to_string()),
            ("mask_punctuation", flag(self.mask_punctuation), metadata.mask_punctuation.to_string()),
        ] {
            if let Some(own) = own.filter(|own| *own != here) {
                tracing::warn!(
                    "{CONFIG} and artifact.metadata disagree: {key} is {own} there and {here} here; the former counts"
                );
            }
        }
        self.query_maxlen.get_or_insert(metadata.query_maxlen);
        self.doc_maxlen.get_or_insert(metadata.doc_maxlen);
        self.attend_to_mask_tokens.get_or_insert(metadata.attend_to_mask_tokens);
        self.mask_punctuation.get_or_insert(metadata.mask_punctuation);
        self.query_token_id.get_or_insert_with(|| metadata.query_token_id.clone());
        self.doc_token_id.get_or_insert_with(|| metadata.doc_token_id.clone());
    }
}

/// Reads the `config.json` of a module that has nothing else.
fn module_config(path: &Path) -> Result<Value, ModelError> {
    if !path.is_file() {
        return Err(ModelError::MissingFile { path: path.to_owned(), hint: "modules.json names its folder" });
    }
    optional_object(path)
}

/// Reads the module's `config.json`. As in sentence-transformers, a file that does not say whether means have length 1
/// is an older one, whose means are shorter.
fn pooling(folder: &Path) -> Result<TokenPooling, ModelError> {
    let path = folder.join("config.json");
    let json = module_config(&path)?;
    let keys = Keys { json: &json, path: &path };
    let factor = match &json["pool_factor"] {
        Value::Null => 1.0,
        value => match value.as_f64().filter(|factor| *factor >= 1.0) {
            Some(factor) => factor,
            None => return Err(keys.unsupported("pool_factor", value, "a number, 1 or more")),
        },
    };
    let protected = match &json["num_protected_tokens"] {
        Value::Null => 1,
        value => match value.as_u64().and_then(|count| usize::try_from(count).ok()) {
            Some(count) => count,
            None => return Err(keys.unsupported("num_protected_tokens", value, "a whole number, 0 or more")),
        },
    };
    let tasks = match &json["tasks"] {
        Value::String(task) => vec![task.clone()],
        _ => keys.texts("tasks")?.unwrap_or_else(|| vec!["document".to_owned()]),
    };
    if tasks.iter().any(|task| task != "document") {
        return Err(keys.unsupported("tasks", &json["tasks"], "documents alone: queries are not pooled here"));
    }
    let factor = if tasks.is_empty() { 1.0 } else { factor };
    Ok(TokenPooling { factor, protected, unit_length: keys.flag("normalize_embeddings")?.unwrap_or(false) })
}

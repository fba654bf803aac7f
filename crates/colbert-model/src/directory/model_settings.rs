//! The settings of a model of a directory, and its tokenizer with them.

use colbert_config::TrainOptions;

use crate::directory::load::{MAX_LENGTH, Pretrained};
use crate::error::ModelError;
use crate::settings::ColbertSettings;
use crate::tokenizer::ColbertTokenizer;

impl Pretrained {
    /// Returns the settings that the directory declares, over the defaults. None for a plain encoder.
    pub fn declared_settings(&self) -> Option<ColbertSettings> {
        self.declared.is_colbert().then(|| self.expandable(self.declared.over(self.default_settings())))
    }

    /// Returns the settings of a directory that declares none: the defaults, with lengths that the encoder has
    /// positions for.
    pub fn default_settings(&self) -> ColbertSettings {
        let maximum = self.config.max_length().min(MAX_LENGTH);
        let ColbertSettings { query_maxlen, doc_maxlen, .. } = ColbertSettings::default();
        ColbertSettings {
            query_maxlen: query_maxlen.min(maximum),
            doc_maxlen: doc_maxlen.min(maximum),
            ..ColbertSettings::default()
        }
    }

    /// Returns the settings for training: lengths and masks from the options, the skiplist from the directory, and
    /// markers, prompts and the length of expansion from the directory where the options set none. A vocabulary without
    /// a mask token turns the expansion of queries off.
    pub fn settings(&self, options: &TrainOptions) -> ColbertSettings {
        let declared = self.declared.tokens_over(ColbertSettings::from(options));
        let or = |option: &Option<String>, declared: String| option.clone().unwrap_or(declared);
        let settings = ColbertSettings {
            query_token_id: or(&options.query_token_id, declared.query_token_id),
            doc_token_id: or(&options.doc_token_id, declared.doc_token_id),
            query_prompt: or(&options.query_prompt, declared.query_prompt),
            document_prompt: or(&options.document_prompt, declared.document_prompt),
            query_expansion_length: options.query_expansion_length.or(declared.query_expansion_length),
            ..declared
        };
        if settings.query_expansion && !self.has_mask() {
            tracing::warn!(
                "{} has no mask token: queries are not filled up (query_expansion is off)",
                self.tokenizer_path.display()
            );
        }
        self.expandable(settings)
    }

    /// Returns the longest query or document that the encoder accepts, in tokens.
    pub fn max_length(&self) -> usize {
        self.config.max_length().min(MAX_LENGTH)
    }

    /// Returns whether the vocabulary has a mask token, which queries are filled up with.
    pub fn has_mask(&self) -> bool {
        self.tokenizer.token_to_id(&self.special.mask).is_some()
    }

    /// Returns the same settings, without query expansion if the vocabulary has no mask to fill queries up with.
    fn expandable(&self, settings: ColbertSettings) -> ColbertSettings {
        match self.has_mask() {
            true => settings,
            false => ColbertSettings { query_expansion: false, query_expansion_length: None, ..settings },
        }
    }

    /// Returns the tokenizer with these settings.
    ///
    /// # Errors
    /// A length that the encoder has no positions for, or a marker that the vocabulary lacks.
    pub fn tokenizer(&self, settings: &ColbertSettings) -> Result<ColbertTokenizer, ModelError> {
        let maximum = self.max_length();
        for (option, found) in [("query_maxlen", settings.query_maxlen), ("doc_maxlen", settings.doc_maxlen)] {
            if found > maximum {
                return Err(ModelError::LengthOutOfRange { option, found, minimum: 4, maximum });
            }
        }
        ColbertTokenizer::with_special_tokens(self.tokenizer.clone(), &self.special, settings, &self.tokenizer_path)
    }
}

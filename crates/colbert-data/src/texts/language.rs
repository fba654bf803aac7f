//! How a text becomes search terms, by language.

use tantivy::tokenizer::{
    Language, LowerCaser, NgramTokenizer, RemoveLongFilter, SimpleTokenizer, Stemmer, StopWordFilter, TextAnalyzer,
    Token,
};

use crate::texts::normalise::searchable;

/// The rules by which a text becomes search terms: splitting, stop words and stemming for BM25, chosen by language
/// code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextAnalysis {
    code: String,
    scheme: Scheme,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Stemmed(Language),
    Plain,
    /// Single characters and pairs of them, for scripts that put no spaces between words.
    Characters,
}

/// Terms longer than this many bytes are dropped: they are data, not words.
const LONGEST_TERM: usize = 255;

impl TextAnalysis {
    /// Analysis for an ISO 639-1 code, with or without a region (`en`, `pt-BR`). A language without a stemmer is split
    /// at everything that is neither letter nor digit, and lower-cased; [`TextAnalysis::is_stemmed`] tells.
    #[must_use]
    pub fn for_language(code: &str) -> Self {
        let base = code.split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase();
        let scheme = match base.as_str() {
            "ar" => Scheme::Stemmed(Language::Arabic),
            "da" => Scheme::Stemmed(Language::Danish),
            "nl" => Scheme::Stemmed(Language::Dutch),
            "en" => Scheme::Stemmed(Language::English),
            "fi" => Scheme::Stemmed(Language::Finnish),
            "fr" => Scheme::Stemmed(Language::French),
            "de" => Scheme::Stemmed(Language::German),
            "el" => Scheme::Stemmed(Language::Greek),
            "hu" => Scheme::Stemmed(Language::Hungarian),
            "it" => Scheme::Stemmed(Language::Italian),
            "no" | "nb" | "nn" => Scheme::Stemmed(Language::Norwegian),
            "pt" => Scheme::Stemmed(Language::Portuguese),
            "ro" => Scheme::Stemmed(Language::Romanian),
            "ru" => Scheme::Stemmed(Language::Russian),
            "es" => Scheme::Stemmed(Language::Spanish),
            "sv" => Scheme::Stemmed(Language::Swedish),
            "ta" => Scheme::Stemmed(Language::Tamil),
            "tr" => Scheme::Stemmed(Language::Turkish),
            "zh" | "ja" | "th" | "lo" | "km" | "my" => Scheme::Characters,
            _ => Scheme::Plain,
        };
        Self { code: code.to_owned(), scheme }
    }

    /// The code it was made from.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// Whether words are reduced to their stems.
    #[must_use]
    pub fn is_stemmed(&self) -> bool {
        matches!(self.scheme, Scheme::Stemmed(_))
    }

    pub(crate) fn analyzer(&self) -> Result<Analyzer, tantivy::TantivyError> {
        let words = || {
            TextAnalyzer::builder(SimpleTokenizer::default())
                .filter(RemoveLongFilter::limit(LONGEST_TERM))
                .filter(LowerCaser)
        };
        Ok(Analyzer(match self.scheme {
            Scheme::Plain => words().build(),
            Scheme::Stemmed(language) => match StopWordFilter::new(language) {
                Some(stop_words) => words().filter(stop_words).filter(Stemmer::new(language)).build(),
                None => words().filter(Stemmer::new(language)).build(),
            },
            Scheme::Characters => TextAnalyzer::builder(NgramTokenizer::all_ngrams(1, 2)?).filter(LowerCaser).build(),
        }))
    }
}

/// Splits texts into search terms; [`searchable`] is the form that they are split in.
#[derive(Clone)]
pub(crate) struct Analyzer(TextAnalyzer);

impl Analyzer {
    /// Returns the terms of a text in their order.
    pub(crate) fn tokens(&mut self, text: &str) -> Vec<Token> {
        let mut tokens = Vec::new();
        self.0.token_stream(&searchable(text)).process(&mut |token| tokens.push(token.clone()));
        tokens
    }
}

impl Default for TextAnalysis {
    /// English.
    fn default() -> Self {
        Self::for_language("en")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(code: &str, text: &str) -> Vec<String> {
        let mut analyzer = TextAnalysis::for_language(code).analyzer().unwrap();
        analyzer.tokens(text).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn each_language_has_terms() {
        assert_eq!(terms("en", "The causes of Diseases"), ["caus", "diseas"]);
        assert_eq!(terms("en-GB", "running"), ["run"]);
        assert_eq!(terms("de", "die Krankheiten"), ["krankheit"]);
        assert_eq!(terms("xx", "The causes"), ["the", "causes"]);
        assert!(terms("zh", "糖尿病").contains(&"糖尿".to_owned()));
        assert!(!TextAnalysis::for_language("xx").is_stemmed());
    }
}

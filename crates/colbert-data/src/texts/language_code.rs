//! Codes of languages: which there are, and which one is meant by another word for a language.

use isolang::{Language, languages};

use crate::error::DataError;

/// Codes of countries and old codes that are taken for codes of languages, with the right one.
const ALIASES: [(&str, &str); 44] = [
    ("jp", "ja"),
    ("cn", "zh"),
    ("tw", "zh"),
    ("hk", "zh"),
    ("cmn", "zh"),
    ("cz", "cs"),
    ("dk", "da"),
    ("gr", "el"),
    ("ua", "uk"),
    ("vn", "vi"),
    ("us", "en"),
    ("gb", "en"),
    ("ir", "fa"),
    ("pk", "ur"),
    ("il", "he"),
    ("iw", "he"),
    ("in", "id"),
    ("ji", "yi"),
    ("mx", "es"),
    ("rs", "sr"),
    ("mo", "ro"),
    ("al", "sq"),
    // Words that people write for a language.
    ("jap", "ja"),
    ("sp", "es"),
    ("mandarin", "zh"),
    ("cantonese", "yue"),
    ("farsi", "fa"),
    ("deutsch", "de"),
    ("español", "es"),
    ("espanol", "es"),
    ("français", "fr"),
    ("francais", "fr"),
    ("português", "pt"),
    // The bibliographic codes of ISO 639-2.
    ("ger", "de"),
    ("fre", "fr"),
    ("dut", "nl"),
    ("chi", "zh"),
    ("cze", "cs"),
    ("gre", "el"),
    ("per", "fa"),
    ("rum", "ro"),
    ("slo", "sk"),
    ("ice", "is"),
    ("may", "ms"),
];

/// Checks a language code: ISO 639-1, or ISO 639-3 for a language that has no code of two letters, with or without a
/// region (`pt-BR`).
///
/// # Errors
/// [`DataError::LanguageCode`] with the right code, where one is meant by what is there (`jp`, `japanese`, `jpn`).
pub fn check_language_code(code: &str) -> Result<(), DataError> {
    let base = base_of(code);
    let two = (base.len() == 2).then(|| Language::from_639_1(&base)).flatten();
    let three = (base.len() == 3).then(|| Language::from_639_3(&base)).flatten();
    if two.is_some() || three.is_some_and(|language| language.to_639_1().is_none() && alias(&base).is_none()) {
        return Ok(());
    }
    let meant = alias(&base).or_else(|| three?.to_639_1()).or_else(|| by_name(code));
    let advice = meant.map_or("expected an ISO 639-1 code such as en, de or ja".to_owned(), |meant| {
        let name = name_of(meant).map(|name| format!(" ({name})")).unwrap_or_default();
        format!("expected {meant}{name}")
    });
    Err(DataError::LanguageCode { found: code.to_owned(), advice })
}

/// The code without its region, in lower case.
pub(crate) fn base_of(code: &str) -> String {
    code.split(['-', '_']).next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The English name of the language with a code of two letters.
pub(crate) fn name_of(code: &str) -> Option<&'static str> {
    // ISO's names say more than people do: "Modern Greek (1453-)".
    let name = Language::from_639_1(code)?.to_name();
    Some(name.split(" (").next().unwrap_or(name))
}

fn alias(base: &str) -> Option<&'static str> {
    ALIASES.iter().find(|(alias, _)| *alias == base).map(|(_, code)| *code)
}

fn by_name(text: &str) -> Option<&'static str> {
    let text = text.trim().to_lowercase();
    let is_meant = |language: &Language| {
        let name = language.to_name().to_lowercase();
        name == text || name.split(" (").next() == Some(&text) || name.strip_prefix("modern ") == Some(&text)
    };
    languages().filter(|language| language.to_639_1().is_some()).find(is_meant)?.to_639_1()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_known_and_other_words_are_refused_with_the_right_code() {
        for code in ["en", "ja", "pt-BR", "zh_Hant", "EN", "yue", "nb", "no", "sw", "gl"] {
            check_language_code(code).unwrap_or_else(|error| panic!("{code}: {error}"));
        }
        for (code, meant) in [
            ("jp", "expected ja (Japanese)"),
            ("japanese", "expected ja"),
            ("Japanese", "expected ja"),
            ("jpn", "expected ja"),
            ("cn", "expected zh"),
            ("english", "expected en (English)"),
            ("deu", "expected de"),
            ("Deutsch", "expected de"),
            ("mandarin", "expected zh"),
            ("ger", "expected de"),
            ("xx", "ISO 639-1"),
            ("", "ISO 639-1"),
            ("klingonish", "ISO 639-1"),
        ] {
            let message = check_language_code(code).unwrap_err().to_string();
            assert!(message.contains(meant) && message.contains("language_code"), "{code}: {message}");
        }
    }
}

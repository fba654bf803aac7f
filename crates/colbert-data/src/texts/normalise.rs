//! The Unicode forms in which texts are compared: one for equality, one for search terms.

use std::borrow::Cow;

use caseless::Caseless;
use unicode_normalization::UnicodeNormalization;

/// A text in the form that decides whether two texts are the same: case folded, in Unicode form NFC, with every run of
/// white space as one space and none at the ends.
///
/// NFC makes one of letters that differ only in how they are put together (`é` as one character or as two). It keeps
/// apart what is written differently on purpose (`x²` and `x2`), which NFKC would not.
#[must_use]
pub fn normalised(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let fold = |word: &str, out: &mut String| {
        if word.is_ascii() {
            out.extend(word.chars().map(|letter| letter.to_ascii_lowercase()));
        } else {
            // Folding after composing, and composing once more: folding may take a letter apart.
            out.extend(word.nfc().default_case_fold().nfc());
        }
    };
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        fold(word, &mut out);
    }
    out
}

/// A text in the form that search terms are made from: Unicode form NFKC, case folded.
///
/// ASCII stays as it is, for the analysis of each language folds case as well. NFKC is wider than the form for
/// equality: full-width letters, ligatures and half-width kana are searched for under their ordinary spelling.
pub(crate) fn searchable(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.nfkc().default_case_fold().nfkc().collect())
}

/// Whether two texts are the same but for case, white space and Unicode form.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    one == other || normalised(one) == normalised(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_case_and_unicode_form_do_not_count() {
        assert_eq!(normalised("  Ärzte\tund\r\nPFLEGER "), "ärzte und pfleger");
        assert_eq!(normalised(" \n"), "");
        for (one, other) in [
            ("Cafe\u{301}", "CAFÉ"),
            ("STRASSE", "Straße"),
            ("ΣΟΦΟΣ", "σοφος"),
            ("ΣΟΦΟΣ", "σοφο\u{3c2}"),
            ("a\u{a0}b", "A  b"),
            ("\u{1100}\u{1161}", "가"),
        ] {
            assert!(is_same(one, other), "{one} | {other}");
        }
        for (one, other) in [("x²", "x2"), ("ﬁsh", "fish2"), ("résumé", "resume"), ("ａ", "a")] {
            assert!(!is_same(one, other), "{one} | {other}");
        }
    }

    #[test]
    fn search_terms_have_one_spelling() {
        for (one, other) in [("ﬁsh", "Fish"), ("ＡＢＣ", "abc"), ("ｶﾞ", "ガ"), ("cafe\u{301}", "CAFÉ"), ("x²", "X2")]
        {
            assert_eq!(searchable(one).to_lowercase(), searchable(other).to_lowercase(), "{one} | {other}");
        }
        assert!(matches!(searchable("plain"), Cow::Borrowed(_)));
    }
}

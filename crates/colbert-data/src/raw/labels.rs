//! The labels that mark positives and negatives.

use serde_json::Value;

/// The two labels of labelled pairs. Labels are compared as text; a number and its spelling are the same label, so that
/// `1`, `1.0` and `"1"` all match `"1"`; and `true`, in any case, is `1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// Marks a positive.
    pub positive: String,
    /// Marks a negative.
    pub negative: String,
}

impl Default for Labels {
    /// `1` and `0`. Source: `RAGTrainer.prepare_training_data`.
    fn default() -> Self {
        Self { positive: "1".to_owned(), negative: "0".to_owned() }
    }
}

impl Labels {
    /// Whether `label` is the positive one; `None` when it is neither.
    #[must_use]
    pub fn is_positive(&self, label: &str) -> Option<bool> {
        let label = canonical(label);
        if label == canonical(&self.positive) {
            Some(true)
        } else if label == canonical(&self.negative) {
            Some(false)
        } else {
            None
        }
    }
}

/// A JSON value as a label, if it can be one.
pub(crate) fn label_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(if *truth { "1" } else { "0" }.to_owned()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The number that a text is. A single comma stands for the decimal point, as in exports of spreadsheets in many
/// languages, unless it may as well separate thousands (`1,234`).
pub(crate) fn number_of(text: &str) -> Option<f64> {
    let text = text.trim();
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let (whole, part) = text.split_once(',')?;
    let digits = whole.strip_prefix(['-', '+']).unwrap_or(whole);
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let may_be_thousands = part.len() == 3 && digits != "0";
    (are_digits(digits) && are_digits(part) && !may_be_thousands).then(|| format!("{whole}.{part}").parse().ok())?
}

fn canonical(label: &str) -> String {
    let label = label.trim();
    // A cell holds a truth value as a word.
    if label.eq_ignore_ascii_case("true") || label.eq_ignore_ascii_case("false") {
        return if label.eq_ignore_ascii_case("true") { "1" } else { "0" }.to_owned();
    }
    match number_of(label) {
        Some(number) if number.is_finite() => number.to_string(),
        _ => label.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_number_and_its_spelling_are_the_same_label() {
        let labels = Labels::default();
        for value in [json!(1), json!(1.0), json!("1"), json!(" 1.0 "), json!(true), json!("True"), json!("1,0")] {
            assert_eq!(label_of(&value).and_then(|label| labels.is_positive(&label)), Some(true), "{value}");
        }
        assert_eq!(labels.is_positive("0"), Some(false));
        assert_eq!(labels.is_positive("2"), None);
        let words = Labels { positive: "yes".to_owned(), negative: "-1".to_owned() };
        assert_eq!(words.is_positive("yes"), Some(true));
        assert_eq!(words.is_positive("-1.0"), Some(false));
        assert_eq!(words.is_positive("Yes"), None);
        let truth = Labels { positive: "true".to_owned(), negative: "FALSE".to_owned() };
        assert_eq!(truth.is_positive("True"), Some(true));
        assert_eq!(label_of(&json!(false)).and_then(|label| truth.is_positive(&label)), Some(false));
    }

    #[test]
    fn a_comma_is_a_decimal_point_only_where_it_cannot_separate_thousands() {
        for (text, number) in [("0,5", 0.5), (" -3,25", -3.25), ("0,123", 0.123), ("7", 7.0), ("1e-3", 0.001)] {
            assert_eq!(number_of(text), Some(number), "{text}");
        }
        for text in ["1,234", "-12,345", "1,2,3", "a,5", ",5", "5,", ""] {
            assert_eq!(number_of(text), None, "{text}");
        }
    }
}

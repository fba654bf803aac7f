//! The labels that mark positives and negatives.

use serde_json::Value;

/// The two labels of labelled pairs. Labels are compared as text; a number and its spelling are the same label, so that
/// `1`, `1.0` and `"1"` all match `"1"`, and `true` is `1`.
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

fn canonical(label: &str) -> String {
    let label = label.trim();
    match label.parse::<f64>() {
        Ok(number) if number.is_finite() => number.to_string(),
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
        for value in [json!(1), json!(1.0), json!("1"), json!(" 1.0 "), json!(true)] {
            assert_eq!(label_of(&value).and_then(|label| labels.is_positive(&label)), Some(true), "{value}");
        }
        assert_eq!(labels.is_positive("0"), Some(false));
        assert_eq!(labels.is_positive("2"), None);
        let words = Labels { positive: "yes".to_owned(), negative: "-1".to_owned() };
        assert_eq!(words.is_positive("yes"), Some(true));
        assert_eq!(words.is_positive("-1.0"), Some(false));
        assert_eq!(words.is_positive("Yes"), None);
    }
}

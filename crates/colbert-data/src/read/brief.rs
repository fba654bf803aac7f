//! JSON values in error messages.

use serde_json::Value;

use crate::error::{DataError, Place};

/// A value in a message: its kind, and itself if it is short.
pub(super) fn brief(value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().count() > 40 => {
            format!("the text \"{}...\"", text.chars().take(40).collect::<String>())
        }
        Value::Array(members) => format!("an array of {}", members.len()),
        Value::Object(_) => "an object".to_owned(),
        short => short.to_string(),
    }
}

pub(super) fn malformed(place: &Place, expected: &str, found: String) -> DataError {
    DataError::Malformed { place: place.clone(), expected: expected.to_owned(), found }
}

//! The text of a document that is a JSON value.

use serde_json::Value;

use super::brief::{brief, malformed};
use crate::error::{DataError, Place};

/// Columns and fields that may hold a document's text.
pub(super) const TEXT_FIELDS: [&str; 8] =
    ["content", "text", "document", "passage", "passage_text", "page_content", "contents", "body"];

/// A document: a text, or an object with `content` or `text`, and with a title in front if it has one.
pub(super) fn document_text(value: &Value, field: &str, place: &Place) -> Result<String, DataError> {
    let found = match value {
        Value::String(text) => return Ok(text.clone()),
        Value::Object(fields) => match TEXT_FIELDS.iter().find_map(|name| fields.get(*name)?.as_str()) {
            Some(text) => {
                let title = fields.get("title").and_then(Value::as_str).unwrap_or_default();
                return Ok(with_title(title, text));
            }
            None => format!("an object with {}", fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ")),
        },
        other => brief(other),
    };
    Err(malformed(place, &format!("{field}: a text, or an object with `content` or `text`"), found))
}

/// BEIR's rule: title, space, text, without white space at the ends.
pub(super) fn with_title(title: &str, text: &str) -> String {
    if title.is_empty() { text.to_owned() } else { format!("{title} {text}").trim().to_owned() }
}

//! Documents to be encoded.

use colbert_data::TextRecord;
use serde_json::{Map, Value};

/// A document to be added to a folder.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Document {
    /// Its id; a document without one gets its number.
    pub id: Option<String>,
    /// Its text.
    pub text: String,
    /// Metadata that is kept beside it and returned with every hit, such as its source.
    pub metadata: Map<String, Value>,
}

impl From<&str> for Document {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<String> for Document {
    fn from(text: String) -> Self {
        Self { text, ..Self::default() }
    }
}

impl From<(Option<String>, String)> for Document {
    fn from((id, text): (Option<String>, String)) -> Self {
        Self { id, text, ..Self::default() }
    }
}

impl From<TextRecord> for Document {
    fn from(record: TextRecord) -> Self {
        Self { id: record.id, text: record.text, metadata: record.metadata }
    }
}

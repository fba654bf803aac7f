//! Reading the JSON and text files of a model directory.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::ModelError;

/// Reads a JSON file; `expected` says in messages what it should hold.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, expected: &'static str) -> Result<T, ModelError> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|source| ModelError::Json { path: path.to_owned(), expected, source })
}

/// Reads a text file.
pub(crate) fn read_text(path: &Path) -> Result<String, ModelError> {
    std::fs::read_to_string(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => {
            ModelError::MissingFile { path: path.to_owned(), hint: "a model directory in Hugging Face layout has it" }
        }
        _ => ModelError::Io { action: "read", path: path.to_owned(), source },
    })
}

//! Reading of the JSON and text files of a model directory, and of the values of their known keys.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::ModelError;

/// First bytes of a pointer that Git LFS left in place of the real file.
pub(crate) const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Reads a JSON file, with or without a byte order mark; `expected` describes its content in messages.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, expected: &'static str) -> Result<T, ModelError> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|source| ModelError::Json { path: path.to_owned(), expected, source })
}

/// Reads a JSON object if its file is there; `Value::Null` otherwise.
pub(crate) fn optional_object(path: &Path) -> Result<Value, ModelError> {
    if !path.is_file() {
        return Ok(Value::Null);
    }
    read_json(path, "a JSON object").map(Value::Object)
}

/// Reads a text file, without its byte order mark.
pub(crate) fn read_text(path: &Path) -> Result<String, ModelError> {
    let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => {
            ModelError::MissingFile { path: path.to_owned(), hint: "a model directory in Hugging Face layout has it" }
        }
        _ => ModelError::Io { action: "read", path: path.to_owned(), source },
    })?;
    if text.as_bytes().starts_with(LFS_POINTER) {
        return Err(ModelError::GitLfsPointer { path: path.to_owned() });
    }
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// The known keys of a JSON object: each is absent, null, or of the right type, and anything else is an error of the
/// file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys<'a> {
    pub(crate) json: &'a Value,
    pub(crate) path: &'a Path,
}

impl<'a> Keys<'a> {
    fn get<T>(
        self,
        field: &'static str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let Some(value) = self.json.get(field).filter(|value| !value.is_null()) else { return Ok(None) };
        match convert(value) {
            Some(value) => Ok(Some(value)),
            None => Err(self.unsupported(field, value, expected)),
        }
    }

    /// Makes an error that names a field and its value.
    pub(crate) fn unsupported(self, field: &'static str, value: &Value, expected: &str) -> ModelError {
        let (path, found, expected) = (self.path.to_owned(), value.to_string(), expected.to_owned());
        ModelError::UnsupportedConfig { path, field, found, expected }
    }

    /// Reads a size or a length.
    pub(crate) fn count(self, field: &'static str) -> Result<Option<usize>, ModelError> {
        self.get(field, "a whole number above 0", |value| value.as_u64().filter(|count| *count > 0))
            .map(|count| count.map(|count| usize::try_from(count).unwrap_or(usize::MAX)))
    }

    /// Reads a truth value.
    pub(crate) fn flag(self, field: &'static str) -> Result<Option<bool>, ModelError> {
        self.get(field, "true or false", Value::as_bool)
    }

    /// Reads a text.
    pub(crate) fn text(self, field: &'static str) -> Result<Option<&'a str>, ModelError> {
        self.get(field, "a string", Value::as_str)
    }

    /// Reads a list of texts.
    pub(crate) fn texts(self, field: &'static str) -> Result<Option<Vec<String>>, ModelError> {
        let convert = |value: &Value| {
            value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect::<Option<Vec<String>>>()
        };
        self.get(field, "a list of strings", convert)
    }

    /// Reads a list of sizes.
    pub(crate) fn counts(self, field: &'static str) -> Result<Option<Vec<usize>>, ModelError> {
        let size = |value: &Value| usize::try_from(value.as_u64().filter(|size| *size > 0)?).ok();
        self.get(field, "a list of whole numbers above 0", |value| value.as_array()?.iter().map(size).collect())
    }

    /// Reads an object.
    pub(crate) fn object(self, field: &'static str) -> Result<Option<&'a Value>, ModelError> {
        self.get(field, "an object", |value| value.is_object().then_some(value))
    }
}

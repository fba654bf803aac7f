//! Calls into the tokenizers library. A `tokenizer.json` can make it panic; such a panic becomes an error of the file.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::error::ModelError;

/// Runs `call`; its error, or the message of its panic, names the file at `path`.
pub(crate) fn guarded<T>(path: &Path, call: impl FnOnce() -> Result<T, tokenizers::Error>) -> Result<T, ModelError> {
    let message = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason");
            format!("the tokenizers library gave up: {words}")
        }
    };
    Err(ModelError::Tokenizer { path: path.to_owned(), message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_that_names_the_file() {
        let path = Path::new("tokenizer.json");
        assert_eq!(guarded(path, || Ok(1)).unwrap(), 1);
        let fails = || Err::<(), _>("no".into());
        assert!(guarded(path, fails).unwrap_err().to_string().contains("tokenizer.json"));
        let empty: Vec<u8> = Vec::new();
        let error = guarded(path, || Ok(empty[empty.len()])).unwrap_err().to_string();
        assert!(error.contains("gave up: index out of bounds"), "{error}");
    }
}

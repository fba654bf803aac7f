//! Tables in folders: `train.jsonl`, its parts `train-00000-of-00002.parquet`, or a folder `train` of parts.

use std::path::{Path, PathBuf};

use super::input::extension;
use crate::error::DataError;

/// Extensions of files that may hold a table.
const EXTENSIONS: [&str; 5] = ["jsonl", "json", "csv", "tsv", "parquet"];

/// Files of the table `name` in `folder`, in the order of their names; none if it is not there. `folder/data` is
/// searched too, where the Hugging Face hub keeps its files.
pub(super) fn table(folder: &Path, name: &str) -> Result<Vec<PathBuf>, DataError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    for place in [folder.to_owned(), folder.join("data")] {
        let is_part = |stem: &str| stem == name || is_numbered(stem, name);
        let parts = files(&place, is_part)?;
        if !parts.is_empty() {
            return Ok(parts);
        }
    }
    files(&folder.join(name), |_| true)
}

/// `train-00000-of-00002`.
fn is_numbered(stem: &str, name: &str) -> bool {
    let numbers =
        stem.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')).and_then(|rest| rest.split_once("-of-"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.is_some_and(|(part, all)| is_number(part) && is_number(all))
}

fn files(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, DataError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let failed = |source| DataError::Read { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stem = name.strip_suffix(".gz").unwrap_or(&name);
        let stem = stem.rsplit_once('.').map_or(stem, |(stem, _)| stem);
        if path.is_file() && EXTENSIONS.contains(&extension(&path).as_str()) && wanted(stem) {
            found.push(path);
        }
    }
    found.sort();
    let kinds: std::collections::BTreeSet<_> = found.iter().map(|path| extension(path)).collect();
    if kinds.len() > 1 {
        return Err(DataError::WrongKind {
            path: folder.to_owned(),
            expected: "files of one kind; name the one that is meant".to_owned(),
            found: found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
        });
    }
    Ok(found)
}

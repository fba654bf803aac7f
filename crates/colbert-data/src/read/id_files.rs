//! Files of texts beside a table, whose ids the table may hold in place of texts.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::kind::RowKind;
use super::lines::Lines;
use super::read_options::ReadOptions;
use crate::error::DataError;

/// Files with an id and a text on every line, as BEIR, MS MARCO, the reference and PyLate call them.
const NAMES: [&str; 10] = [
    "corpus.jsonl",
    "queries.jsonl",
    "documents.jsonl",
    "collection.tsv",
    "corpus.tsv",
    "queries.tsv",
    "queries.train.tsv",
    "queries.dev.tsv",
    "corpus.train.colbert.tsv",
    "queries.train.colbert.tsv",
];

/// Lines of a file of texts that are looked at.
const LINES: u64 = 200_000;

/// Share of known ids from which a column counts as one of ids.
const NEARLY_ALL: f64 = 0.9;

/// Looks up the texts of the first rows among the ids of the files beside the table and one folder up, and returns
/// where they were found. Only single words are looked up, so that this costs next to nothing for most tables.
pub(super) fn id_file(
    path: &Path,
    rows: &[&Value],
    kind: &RowKind,
    options: &ReadOptions,
) -> Result<Option<String>, DataError> {
    let Some(folder) = path.parent() else { return Ok(None) };
    for cells in kind.text_cells(rows, options) {
        let words: HashSet<&str> = cells.iter().filter_map(|cell| cell.as_str()).map(str::trim).collect();
        if words.len() < 2 || words.iter().any(|word| word.contains(char::is_whitespace)) {
            continue;
        }
        for file in candidates(folder).into_iter().filter(|file| file != path) {
            let known = known_ids(&file, &words)?;
            if known as f64 >= NEARLY_ALL * words.len() as f64 {
                let folder = file.parent().unwrap_or(folder);
                return Ok(Some(format!(
                    "these are ids of {}; name the folder {} as the data if it has qrels or triples",
                    file.display(),
                    folder.display()
                )));
            }
        }
    }
    Ok(None)
}

fn candidates(folder: &Path) -> Vec<PathBuf> {
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
    let folders = [Some(folder), above].into_iter().flatten();
    folders.flat_map(|folder| NAMES.map(|name| folder.join(name))).filter(|file| file.is_file()).collect()
}

/// How many of the words are ids in a file.
fn known_ids(file: &Path, words: &HashSet<&str>) -> Result<usize, DataError> {
    let mut lines = Lines::open(file, "an id and a text on every line")?;
    let mut found = HashSet::new();
    while lines.number() < LINES && lines.advance()? {
        // Whoever reads that file reports what is wrong with it.
        let Ok(text) = lines.text() else { continue };
        let id = if text.trim_start().starts_with('{') {
            let Ok(value) = lines.json() else { continue };
            let id = ["_id", "id", "query_id", "document_id"].iter().find_map(|name| value.get(*name).cloned());
            id.map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned))
        } else {
            text.split_once('\t').map(|(id, _)| id.trim().to_owned())
        };
        if let Some(word) = id.and_then(|id| words.get(id.as_str()).copied()) {
            found.insert(word);
            if found.len() == words.len() {
                break;
            }
        }
    }
    Ok(found.len())
}

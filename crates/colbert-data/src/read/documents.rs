//! Files of documents, one a line, that negatives may be drawn from.

use std::path::Path;

use super::values::document_text;
use super::{Lines, ReadOptions, keep_going, parse_json};
use crate::error::DataError;
use crate::raw::RawData;

const EXPECTED: &str = "one document a line, as JSON (a text, or an object with `content` or `text`) or as TSV (text; or id, text; or id, text, title)";

/// Adds the documents of a JSONL or TSV file to raw data, and returns one line that says what was found.
///
/// # Errors
/// [`DataError::Malformed`], [`DataError::EmptyText`] and the others of a bad line, with file and line.
pub fn read_documents(path: &Path, options: &ReadOptions, raw: &mut RawData) -> Result<String, DataError> {
    let mut lines = Lines::open(path, EXPECTED)?;
    let (before, distinct_before) = (raw.counts.documents, raw.collection.len());
    let mut is_json = None;
    while lines.advance()? {
        let outcome = read_document(&lines, &mut is_json, raw);
        keep_going(outcome, options, &mut raw.bad_rows)?;
    }
    raw.counts.blank_lines += lines.blank();
    let Some(is_json) = is_json else {
        return Err(DataError::NoRows { origin: path.display().to_string(), expected: EXPECTED.to_owned() });
    };
    let (read, new) = (raw.counts.documents - before, raw.collection.len() - distinct_before);
    let syntax = if is_json { "JSONL" } else { "TSV" };
    let announcement =
        format!("{}: {syntax}, {read} documents to draw negatives from, {new} of them new", path.display());
    tracing::info!("{announcement}");
    Ok(announcement)
}

fn read_document(lines: &Lines, is_json: &mut Option<bool>, raw: &mut RawData) -> Result<(), DataError> {
    let text = lines.text()?;
    let starts_as_json = || {
        let is_tsv = lines.place_path_is_tsv();
        !is_tsv && text.trim_start().starts_with(['{', '"', '['])
    };
    let document = if *is_json.get_or_insert_with(starts_as_json) {
        document_text(&parse_json(lines)?, "document", &lines.place())?
    } else {
        let cells: Vec<&str> = text.split('\t').collect();
        match cells[..] {
            [text] | [_, text] => text.to_owned(),
            [_, text, title] => format!("{title} | {text}"),
            _ => {
                return Err(DataError::Malformed {
                    place: lines.place(),
                    expected: EXPECTED.to_owned(),
                    found: format!("{} columns", cells.len()),
                });
            }
        }
    };
    raw.add_document(&document, &lines.place()).map(|_| ())
}

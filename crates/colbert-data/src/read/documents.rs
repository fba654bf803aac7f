//! Files of documents that negatives may be drawn from.

use std::path::Path;

use serde_json::Value;

use super::records::{Content, Records};
use super::values::document_text;
use super::{ReadOptions, keep_going};
use crate::error::DataError;
use crate::raw::RawData;

const EXPECTED: &str = "one document a line, as JSON (a text, or an object with `content` or `text`) or as TSV (text; or id, text; or id, text, title)";

/// Adds the documents of a file to raw data, and returns one line that says what was found: JSONL, a JSON list, TSV
/// without a header, CSV or Parquet with a column `text`, `content`, `document` or `passage` (and `title`).
///
/// # Errors
/// [`DataError::Malformed`], [`DataError::EmptyText`] and the others of a bad line, with file and line.
pub fn read_documents(path: &Path, options: &ReadOptions, raw: &mut RawData) -> Result<String, DataError> {
    let no_rows = || DataError::NoRows { origin: path.display().to_string(), expected: EXPECTED.to_owned() };
    let mut records = Records::open(path, EXPECTED, Content::Documents, options)?.ok_or_else(no_rows)?;
    let (before, distinct_before) = (raw.counts.documents, raw.collection.len());
    let bad_before = raw.bad_rows.total();
    while {
        let outcome = read_document(&mut records, raw);
        keep_going(outcome, true, options, &mut raw.bad_rows)?
    } {}
    raw.counts.blank_lines += records.blank();
    let (read, new) = (raw.counts.documents - before, raw.collection.len() - distinct_before);
    if read == 0 && raw.bad_rows.total() == bad_before {
        return Err(no_rows());
    }
    let syntax = records.syntax();
    let announcement =
        format!("{}: {syntax}, {read} documents to draw negatives from, {new} of them new", path.display());
    tracing::info!("{announcement}");
    Ok(announcement)
}

fn read_document(records: &mut Records, raw: &mut RawData) -> Result<bool, DataError> {
    let Some(value) = records.next()? else { return Ok(false) };
    let place = records.place();
    let document = match &value {
        Value::Array(cells) => match &cells.iter().filter_map(Value::as_str).collect::<Vec<_>>()[..] {
            [text] | [_, text] => (*text).to_owned(),
            [_, text, title] => format!("{title} | {text}"),
            _ => {
                let (expected, found) = (EXPECTED.to_owned(), format!("{} columns", cells.len()));
                return Err(DataError::Malformed { place, expected, found });
            }
        },
        other => document_text(other, "document", &place)?,
    };
    raw.add_document(&document, &place)?;
    Ok(true)
}

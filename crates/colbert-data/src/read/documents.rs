//! Files of texts: documents that negatives may be drawn from, and texts to encode.

use std::path::Path;

use serde_json::Value;

use super::records::{Content, Records};
use super::values::document_text;
use super::{ReadOptions, keep_going};
use crate::error::{DataError, Place};
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

/// A text of a file, with the id that the file gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextRecord {
    /// `_id`, `id`, `docid` or `query_id` of an object, or the first cell of several.
    pub id: Option<String>,
    /// The text.
    pub text: String,
}

/// The texts of a file as they stand, one by one and in order, repeated ones too: whatever [`read_documents`] reads, and
/// objects with `query` or `question`.
///
/// # Errors
/// As [`read_documents`]; the first bad row ends reading.
pub fn read_texts(path: &Path) -> Result<Vec<TextRecord>, DataError> {
    let no_rows = || DataError::NoRows { origin: path.display().to_string(), expected: EXPECTED.to_owned() };
    let options = ReadOptions::default();
    let mut records = Records::open(path, EXPECTED, Content::Documents, &options)?.ok_or_else(no_rows)?;
    let mut texts = Vec::new();
    while let Some(value) = records.next()? {
        let place = records.place();
        let record = match &value {
            Value::Object(fields) => {
                let question = ["query", "question"].iter().find_map(|name| fields.get(*name)?.as_str());
                let text =
                    question.map_or_else(|| document_text(&value, "text", &place), |text| Ok(text.to_owned()))?;
                let id = ["_id", "id", "docid", "query_id"].iter().find_map(|name| match fields.get(*name)? {
                    Value::String(id) => Some(id.clone()),
                    Value::Number(id) => Some(id.to_string()),
                    _ => None,
                });
                TextRecord { id, text }
            }
            Value::Array(cells) if cells.len() > 1 => {
                let id = cells[0].as_str().map(str::to_owned);
                TextRecord { id, text: text_of(&value, &place)? }
            }
            other => TextRecord { id: None, text: text_of(other, &place)? },
        };
        if record.text.trim().is_empty() {
            return Err(DataError::EmptyText { place, field: "text".to_owned() });
        }
        texts.push(record);
    }
    if texts.is_empty() { Err(no_rows()) } else { Ok(texts) }
}

fn read_document(records: &mut Records, raw: &mut RawData) -> Result<bool, DataError> {
    let Some(value) = records.next()? else { return Ok(false) };
    let place = records.place();
    raw.add_document(&text_of(&value, &place)?, &place)?;
    Ok(true)
}

/// A document as a text, an object, or the cells of a line.
fn text_of(value: &Value, place: &Place) -> Result<String, DataError> {
    let Value::Array(cells) = value else { return document_text(value, "document", place) };
    match &cells.iter().filter_map(Value::as_str).collect::<Vec<_>>()[..] {
        [text] | [_, text] => Ok((*text).to_owned()),
        [_, text, title] => Ok(format!("{title} | {text}")),
        _ => {
            let (expected, found) = (EXPECTED.to_owned(), format!("{} columns", cells.len()));
            Err(DataError::Malformed { place: place.clone(), expected, found })
        }
    }
}

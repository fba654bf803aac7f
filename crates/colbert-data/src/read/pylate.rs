//! PyLate's three tables for distillation: `train` (`query_id`, `document_ids`, `scores`), `queries` (`query_id`,
//! `text`) and `documents` (`document_id`, `text`), each a file, a set of parts, or a folder of parts.
//!
//! `scores` may be absent: then the first document is the positive and the others are negatives. A list may be written
//! as text, as PyLate's own data has it. Our own export is in this layout, as texts survive in it unchanged.
//!
//! Source: PyLate 1.6, `utils/processing.py`, `KDProcessing`. There an unknown id becomes an empty text; here it is an
//! error.

use std::path::Path;

use serde_json::Value;

use super::brief::{brief, malformed};
use super::content::Content;
use super::document_text::with_title;
use super::folder;
use super::read_options::ReadOptions;
use super::records::Records;
use crate::error::{DataError, Place};
use crate::raw::RawData;
use crate::raw::row::check_scores;
use crate::sets::training_set::Example;
use crate::texts::Texts;

const TRAIN: &str = "`query_id`, `document_ids` and `scores` in every row";

/// Whether all three tables are there.
pub(super) fn has_tables(path: &Path) -> Result<bool, DataError> {
    for name in ["queries", "documents", "train"] {
        if folder::table(path, name)?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn read_tables(path: &Path, options: &ReadOptions) -> Result<RawData, DataError> {
    let mut raw = RawData::default();
    each(path, "queries", "`query_id` and `text` in every row", options, &mut raw, |value, place, raw| {
        add(&mut raw.queries, value, "query_id", ["text", "query"], place)
    })?;
    each(path, "documents", "`document_id` and `text` in every row", options, &mut raw, |value, place, raw| {
        add(&mut raw.collection, value, "document_id", ["text", "document"], place)
    })?;
    let mut scored = None;
    let syntax = each(path, &options.split, TRAIN, options, &mut raw, |value, place, raw| {
        let example = example(value, raw, &mut scored, place)?;
        raw.push_ready(example);
        Ok(())
    })?;
    if raw.ready.is_empty() && raw.bad_rows.total() == 0 {
        let origin = path.join(&options.split).display().to_string();
        return Err(DataError::NoRows { origin, expected: TRAIN.to_owned() });
    }
    raw.announcement = format!(
        "{}: tables queries, documents and {} ({syntax}), {} ready-made examples{}, the first document of each its positive, \
         {} queries, {} documents",
        path.display(),
        options.split,
        raw.ready.len(),
        if scored == Some(true) { " with teacher scores" } else { "" },
        raw.queries.len(),
        raw.collection.len()
    );
    Ok(raw)
}

/// Calls `read` with every row of a table; the result names the table's syntax.
fn each(
    path: &Path,
    name: &str,
    expected: &str,
    options: &ReadOptions,
    raw: &mut RawData,
    mut read: impl FnMut(&Value, &Place, &mut RawData) -> Result<(), DataError>,
) -> Result<String, DataError> {
    let parts = folder::table(path, name)?;
    if parts.is_empty() {
        let expected = format!("a table {name} (.jsonl or .parquet) with {expected}");
        return Err(DataError::Missing { path: path.join(name), expected });
    }
    let mut syntax = "empty".to_owned();
    for part in parts {
        let Some(mut records) = Records::open(&part, expected, Content::Table, options)? else { continue };
        loop {
            let mut one = |raw: &mut RawData| {
                let Some(value) = records.next()? else { return Ok(false) };
                read(&value, &records.place(), raw).map(|()| true)
            };
            let outcome = one(raw);
            if !options.keep_going(outcome, true, &mut raw.bad_rows)? {
                break;
            }
        }
        raw.counts.blank_lines += records.blank();
        syntax = records.syntax();
    }
    Ok(syntax)
}

fn add<Kind>(
    texts: &mut Texts<Kind>,
    value: &Value,
    id: &str,
    text: [&str; 2],
    place: &Place,
) -> Result<(), DataError> {
    let known = value.get(id).and_then(id_of).zip(text.iter().find_map(|name| value.get(*name)?.as_str()));
    let Some((id_text, text)) = known else {
        return Err(malformed(place, &format!("fields `{id}` and `{}`", text[0]), fields(value)));
    };
    let title = value.get("title").and_then(Value::as_str).unwrap_or_default();
    let text = with_title(title, text);
    if text.trim().is_empty() {
        return Err(DataError::EmptyText { place: place.clone(), field: format!("text of {id} {id_text}") });
    }
    match texts.add_with_id(&id_text, &text)? {
        Some(_) => Ok(()),
        None => Err(DataError::DuplicateId { place: place.clone(), field: id.to_owned(), id: id_text }),
    }
}

fn example(value: &Value, raw: &RawData, scored: &mut Option<bool>, place: &Place) -> Result<Example, DataError> {
    let (Some(query), Some(documents)) =
        (value.get("query_id").and_then(id_of), value.get("document_ids").and_then(list_of))
    else {
        return Err(malformed(place, "fields `query_id` and `document_ids`", fields(value)));
    };
    let unknown = |field: &str, id: String, searched: &str| DataError::UnknownId {
        place: place.clone(),
        field: field.to_owned(),
        id,
        searched: format!("the table {searched}"),
    };
    let query = raw.queries.find_id(&query).ok_or_else(|| unknown("query_id", query, "queries"))?;
    let mut pids = Vec::with_capacity(documents.len());
    for document in &documents {
        let id = id_of(document).ok_or_else(|| malformed(place, "document_ids: a list of ids", brief(document)))?;
        pids.push(raw.collection.find_id(&id).ok_or_else(|| unknown("document_ids", id, "documents"))?);
    }
    if pids.is_empty() {
        return Err(malformed(place, "document_ids: at least one", "an empty list".to_owned()));
    }
    let scores = match value.get("scores").filter(|scores| !scores.is_null()) {
        None => None,
        Some(scores) => {
            let members =
                list_of(scores).ok_or_else(|| malformed(place, "scores: a list of numbers", brief(scores)))?;
            let number = |score: &Value| {
                score.as_f64().map(|score| score as f32).ok_or_else(|| DataError::NonFinite {
                    place: place.clone(),
                    field: "scores".to_owned(),
                    found: brief(score),
                })
            };
            let scores = members.iter().map(number).collect::<Result<Vec<_>, _>>()?;
            check_scores(&scores, pids.len(), place)?;
            Some(scores)
        }
    };
    if *scored.get_or_insert(scores.is_some()) != scores.is_some() {
        let name = |scored| if scored { "a row with scores" } else { "a row without scores" }.to_owned();
        let (expected, found) = (name(scores.is_none()), name(scores.is_some()));
        return Err(DataError::MixedRows { place: place.clone(), expected, found });
    }
    Ok(Example { query, documents: pids, scores })
}

/// A list, or a list written as text.
fn list_of(value: &Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(members) => Some(members.clone()),
        Value::String(text) => serde_json::from_str(text).ok(),
        _ => None,
    }
}

fn id_of(value: &Value) -> Option<String> {
    match value {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

fn fields(value: &Value) -> String {
    match value.as_object() {
        Some(fields) => format!("an object with {}", fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ")),
        None => brief(value),
    }
}

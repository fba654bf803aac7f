//! Files that are one JSON object: SQuAD, LlamaIndex's pairs, pandas' layouts by column, and rows under one name.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::brief::brief;
use super::input::Input;
use super::json_values::JsonValues;
use super::names::{is_id_name, role_of};
use crate::error::{DataError, Place};

/// The rows of such a file, and documents that are in no row.
#[derive(Debug)]
pub(super) struct Whole {
    /// The layout in words.
    pub(super) layout: &'static str,
    pub(super) rows: Vec<Value>,
    pub(super) documents: Vec<String>,
}

/// Kind of a file that begins with an object.
#[derive(Debug)]
pub(super) enum Objects {
    /// One object in a layout that is known.
    Whole(Whole),
    /// Objects over several lines.
    Stream,
    /// Objects one a line.
    Lines,
}

/// Looks at the first object of a file, and whether another follows it.
pub(super) fn look(path: &Path, expected: &str) -> Result<Objects, DataError> {
    let mut values = JsonValues::stream(Input::open(path, expected)?);
    // Text that is not JSON is left to the reader of lines, which reports the errors.
    if !values.advance().unwrap_or(false) {
        return Ok(Objects::Lines);
    }
    let Ok(first) = values.text().map(str::to_owned) else { return Ok(Objects::Lines) };
    let Ok(Value::Object(fields)) = serde_json::from_str(&first) else { return Ok(Objects::Lines) };
    let (lines, place) = (values.lines(), values.place());
    let is_alone = !values.advance().unwrap_or(true);
    drop(first);
    if is_alone && let Some(whole) = rows(fields, &place)? {
        return Ok(Objects::Whole(whole));
    }
    Ok(if lines > 1 { Objects::Stream } else { Objects::Lines })
}

/// The rows of an object in a known layout; `None` if it is none of these.
fn rows(mut fields: Map<String, Value>, place: &Place) -> Result<Option<Whole>, DataError> {
    let whole = |layout, rows| Some(Whole { layout, rows, documents: Vec::new() });
    let is_object = |name: &str| fields.get(name).is_some_and(Value::is_object);
    if ["queries", "corpus", "relevant_docs"].iter().all(|name| is_object(name)) {
        return llama_index(&fields, place).map(Some);
    }
    let is_squad = |article: &Value| article.get("paragraphs").is_some_and(Value::is_array);
    if let Some(Value::Array(articles)) = fields.get("data")
        && articles.first().is_some_and(is_squad)
    {
        return squad(articles, place).map(Some);
    }
    if let (Some(Value::Array(columns)), Some(Value::Array(data))) = (fields.get("columns"), fields.get("data"))
        && data.iter().all(|row| row.as_array().is_some_and(|cells| cells.len() == columns.len()))
    {
        let name = |column: &Value| column.as_str().map_or_else(|| column.to_string(), str::to_owned);
        let row = |cells: &Value| {
            columns.iter().map(name).zip(cells.as_array().into_iter().flatten().cloned()).collect::<Map<_, _>>()
        };
        return Ok(whole("JSON by pandas (split)", data.iter().map(|cells| Value::Object(row(cells))).collect()));
    }
    // Rows under one name, beside a version or other descriptions; not under the name of a role.
    let lists: Vec<String> = fields
        .iter()
        .filter(|(_, value)| value.as_array().is_some_and(|rows| rows.iter().any(Value::is_object) || is_rows(rows)))
        .map(|(name, _)| name.clone())
        .collect();
    let has_role = fields.keys().any(|name| role_of(name).is_some());
    if let ([name], false) = (&lists[..], has_role)
        && let Some(Value::Array(rows)) = fields.remove(name)
    {
        return Ok(whole("JSON with a list of rows", rows));
    }
    Ok(by_columns(&fields).and_then(|rows| whole("JSON by columns (pandas)", rows)))
}

fn is_rows(rows: &[Value]) -> bool {
    !rows.is_empty() && rows.iter().all(|row| row.as_array().is_some_and(|cells| cells.len() > 1))
}

/// pandas' `orient` columns and index, and columns as lists.
fn by_columns(fields: &Map<String, Value>) -> Option<Vec<Value>> {
    if fields.len() < 2 {
        return None;
    }
    if fields.values().all(|column| column.as_array().is_some_and(|cells| !cells.is_empty())) {
        let columns: Vec<(&String, &Vec<Value>)> =
            fields.iter().filter_map(|(name, column)| Some((name, column.as_array()?))).collect();
        let rows = columns[0].1.len();
        let row = |index: usize| columns.iter().map(|(name, cells)| ((*name).clone(), cells[index].clone())).collect();
        return columns
            .iter()
            .all(|(_, cells)| cells.len() == rows)
            .then(|| (0..rows).map(|index| Value::Object(row(index))).collect());
    }
    let inner: Vec<&Map<String, Value>> = fields.values().filter_map(Value::as_object).collect();
    let same = inner.iter().all(|map| !map.is_empty() && map.keys().eq(inner[0].keys()));
    if inner.len() != fields.len() || !same {
        return None;
    }
    let names_columns = |name: &String| role_of(name).is_some() || (is_id_name(name) && name.parse::<u64>().is_err());
    let are_numbers = |map: &Map<String, Value>| map.keys().all(|name| name.parse::<u64>().is_ok());
    let by_column = are_numbers(inner[0]) && !are_numbers(fields);
    let by_row = !by_column && (are_numbers(fields) || inner[0].keys().any(names_columns));
    if by_row {
        return Some(fields.values().cloned().collect());
    }
    // The order of rows is that of their names as numbers, which JSON objects do not keep.
    let mut rows: Vec<&String> = inner[0].keys().collect();
    rows.sort_by_key(|name| name.parse::<u64>().unwrap_or(u64::MAX));
    let row = |key: &String| fields.iter().map(|(name, column)| (name.clone(), column[key].clone())).collect();
    by_column.then(|| rows.iter().map(|key| Value::Object(row(key))).collect())
}

/// SQuAD: a question and the paragraph that answers it; one that is impossible to answer has the paragraph as a
/// negative.
///
/// Source: rajpurkar.github.io/SQuAD-explorer, versions 1.1 and 2.0.
fn squad(articles: &[Value], place: &Place) -> Result<Whole, DataError> {
    let (mut rows, mut documents) = (Vec::new(), Vec::new());
    let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    for article in articles {
        for paragraph in list(article, "paragraphs") {
            let Some(context) = paragraph.get("context").and_then(Value::as_str) else {
                return Err(malformed(place, "SQuAD: `context` in every paragraph", &paragraph));
            };
            documents.push(context.to_owned());
            for question in list(&paragraph, "qas") {
                let Some(query) = question.get("question").and_then(Value::as_str) else {
                    return Err(malformed(place, "SQuAD: `question` in every member of `qas`", &question));
                };
                let is_answered = !question.get("is_impossible").and_then(Value::as_bool).unwrap_or(false);
                let document = json!([{ "text": context, "label": u8::from(is_answered) }]);
                rows.push(json!({ "query": query, "document": document }));
            }
        }
    }
    Ok(Whole { layout: "JSON in SQuAD's layout", rows, documents })
}

/// LlamaIndex's `EmbeddingQAFinetuneDataset`: texts by id, and for each query the ids of its documents.
fn llama_index(fields: &Map<String, Value>, place: &Place) -> Result<Whole, DataError> {
    let texts = |name: &str| fields.get(name).and_then(Value::as_object).into_iter().flatten();
    let unknown = |field: &str, id: &str, searched: &str| DataError::UnknownId {
        place: place.clone(),
        field: field.to_owned(),
        id: id.to_owned(),
        searched: format!("`{searched}` of the file"),
    };
    let mut rows = Vec::new();
    for (qid, documents) in texts("relevant_docs") {
        let Some(query) = fields["queries"].get(qid).and_then(Value::as_str) else {
            return Err(unknown("relevant_docs", qid, "queries"));
        };
        let mut positives = Vec::new();
        for id in documents.as_array().into_iter().flatten() {
            let id = id.as_str().ok_or_else(|| malformed(place, "relevant_docs: lists of ids", id))?;
            let Some(text) = fields["corpus"].get(id).and_then(Value::as_str) else {
                return Err(unknown("relevant_docs", id, "corpus"));
            };
            positives.push(text);
        }
        rows.push(json!({ "query": query, "positive": positives }));
    }
    let documents = texts("corpus").filter_map(|(_, text)| text.as_str()).map(str::to_owned).collect();
    Ok(Whole { layout: "JSON in LlamaIndex's layout", rows, documents })
}

fn malformed(place: &Place, expected: &str, found: &Value) -> DataError {
    super::brief::malformed(place, expected, brief(found))
}

//! Files of texts: documents that negatives may be drawn from or that are ranked, and texts to encode or to search
//! with.

use std::path::Path;

use serde_json::{Map, Value};

use super::columns::{in_ticks, listed};
use super::content::Content;
use super::document_text::{TEXT_FIELDS, document_text, with_title};
use super::facts::Named;
use super::names::{is_id_name, is_name, plain};
use super::read_options::ReadOptions;
use super::sampled::Sampled;
use crate::error::{DataError, Place};
use crate::raw::RawData;
use crate::texts::side::Side;

const EXPECTED: &str = "texts as JSON (a text, or an object with `text` or `content`), CSV with a header, Parquet, or \
     TSV (text; or id, text; or id, text, title; or with a header)";

/// Columns and fields that hold a query, which go before the names of documents.
const QUERIES: [&str; 2] = ["query", "question"];
/// Columns and fields that hold a text's id, the likeliest first.
const IDS: [&str; 11] =
    ["_id", "id", "docid", "doc_id", "document_id", "passage_id", "pid", "docno", "query_id", "qid", "uid"];

/// A text of a file, with the id that the file gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextRecord {
    /// `_id`, `id`, `docid`, `query_id` or the like of an object or a column, or the first cell of several.
    pub id: Option<String>,
    /// The text; a document's title and text as one.
    pub text: String,
    /// The object `metadata` of an object, such as a document's source; empty without one.
    pub metadata: Map<String, Value>,
}

/// The texts of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFile {
    /// A note on the column that was taken, if its content and not its name says that it holds the texts.
    pub note: Option<String>,
    /// The texts unchanged and in order, including repeated ones.
    pub records: Vec<TextRecord>,
}

/// Adds the documents of a file (JSONL, a JSON list, TSV, CSV or Parquet) to raw data, and returns one line that
/// describes what was read. Of named columns the text is `text`, `content`, `document`, `passage` or the like, or the
/// only one that holds texts, with `title` before it; if two could be meant, the file is refused.
///
/// # Errors
/// [`DataError::TextColumn`], [`DataError::Malformed`], [`DataError::EmptyText`] and the others of a bad line, with
/// file and line.
pub fn read_documents(path: &Path, options: &ReadOptions, raw: &mut RawData) -> Result<String, DataError> {
    let mut texts = Texts::open(path, Side::Document, options)?;
    let (before, distinct_before) = (raw.counts.documents, raw.collection.len());
    let bad_before = raw.bad_rows.total();
    while {
        let outcome = texts.next().and_then(|record| match record {
            Some(record) => raw.add_document(&record.text, &texts.records.place()).map(|_| true),
            None => Ok(false),
        });
        options.keep_going(outcome, true, &mut raw.bad_rows)?
    } {}
    raw.counts.blank_lines += texts.records.records().blank();
    let (read, new) = (raw.counts.documents - before, raw.collection.len() - distinct_before);
    if read == 0 && raw.bad_rows.total() == bad_before {
        return Err(no_rows(path));
    }
    let (syntax, column) = texts.layout();
    let announcement =
        format!("{}: {syntax}, {read} documents to draw negatives from, {new} of them new{column}", path.display());
    tracing::info!("{announcement}");
    Ok(announcement)
}

/// The texts of a file, by the same rules as [`read_documents`]. Of queries, a column `query` or `question` goes before
/// others; of documents, it is never taken.
///
/// # Errors
/// As [`read_documents`]; the first bad row ends reading.
pub fn read_texts(path: &Path, side: Side) -> Result<TextFile, DataError> {
    let mut texts = Texts::open(path, side, &ReadOptions::default())?;
    let mut records = Vec::new();
    while let Some(record) = texts.next()? {
        if record.text.trim().is_empty() {
            return Err(DataError::EmptyText { place: texts.records.place(), field: "text".to_owned() });
        }
        records.push(record);
    }
    if records.is_empty() {
        return Err(no_rows(path));
    }
    let (syntax, column) = texts.layout();
    tracing::info!("{}: {syntax}, {} texts{column}", path.display(), records.len());
    let unknown = texts.column.filter(|_| !texts.is_known);
    let note = unknown.map(|column| format!("{}: the texts are those of the column `{column}`", path.display()));
    Ok(TextFile { note, records })
}

fn no_rows(path: &Path) -> DataError {
    DataError::NoRows { origin: path.display().to_string(), expected: EXPECTED.to_owned() }
}

/// The one reader of such files.
struct Texts {
    records: Sampled,
    side: Side,
    /// The column of the text, if columns have names and this one was found.
    column: Option<String>,
    /// Whether it is recognised by its name.
    is_known: bool,
    /// The columns of ids and titles.
    id: Option<String>,
    title: Option<String>,
    /// Of three cells without names the second is the title, and the third the text.
    has_title_second: bool,
}

impl Texts {
    fn open(path: &Path, side: Side, options: &ReadOptions) -> Result<Self, DataError> {
        let records = Sampled::open(path, EXPECTED, Content::Documents, options)?.ok_or_else(|| no_rows(path))?;
        let mut texts =
            Self { records, side, column: None, is_known: true, id: None, title: None, has_title_second: false };
        texts.choose(options)?;
        if let Some(column) = &texts.column {
            let others = [&texts.id, &texts.title];
            let is_used = |name: &str| {
                name == column || name == "metadata" || others.into_iter().flatten().any(|other| other == name)
            };
            texts.records.read_again(&is_used)?;
        }
        Ok(texts)
    }

    /// Finds the column of the texts, and refuses a file in which two could be meant.
    fn choose(&mut self, options: &ReadOptions) -> Result<(), DataError> {
        let header = self.records.records().header().map(<[String]>::to_vec);
        let place = self.records.names_place();
        let rows = self.records.sample();
        let Some(first) = rows.first() else { return Ok(()) };
        if let Value::Array(cells) = first
            && cells.len() == 2
            && rows.iter().filter(|row| has_spaces(row.get(0))).count() * 2 > rows.len()
        {
            let problem = "the first cell of most lines is not an id but a text of several words".to_owned();
            return Err(DataError::TextColumn { place, problem, columns: "without names".to_owned() });
        }
        if first.as_array().is_some_and(|cells| cells.len() == 3) {
            let length = |index: usize| {
                let cells = rows.iter().filter_map(|row| row.get(index)?.as_str());
                cells.map(|cell| cell.chars().count()).sum::<usize>()
            };
            self.has_title_second = length(2) > 2 * length(1);
        }
        let Value::Object(fields) = first else { return Ok(()) };
        let names: Vec<&str> = match &header {
            Some(header) => header.iter().map(String::as_str).collect(),
            None => fields.keys().map(String::as_str).collect(),
        };
        let named = Named {
            names: &names,
            rows: &rows,
            labels: &options.labels,
            roles: &options.roles,
            has_header: header.is_some(),
        };
        let unclear =
            |problem: String| DataError::TextColumn { place: place.clone(), problem, columns: listed(&names) };
        let find = |meant: &str| names.iter().find(|name| plain(name) == meant).map(|name| (*name).to_owned());
        let (id, title) = (IDS.iter().find_map(|id| find(id)), find("title"));
        let among = |known: &[&str]| -> Vec<&str> {
            names
                .iter()
                .copied()
                .filter(|name| known.contains(&plain(name).as_str()) && !named.facts(name).is_empty())
                .collect()
        };
        let mut known = if self.side == Side::Query { among(&QUERIES) } else { Vec::new() };
        if known.is_empty() {
            known = among(&TEXT_FIELDS);
        }
        let is_known = !known.is_empty();
        if known.is_empty() {
            let is_candidate = |name: &&str| {
                let is_query = QUERIES.contains(&plain(name).as_str());
                let is_query = self.side == Side::Document && is_query && names.len() > 2;
                !is_query && !is_id_name(name) && plain(name) != "title" && named.facts(name).is_text() && is_name(name)
            };
            known = names.iter().copied().filter(is_candidate).collect();
        }
        (self.id, self.title) = (id, title);
        match known[..] {
            [column] => {
                let column = column.to_owned();
                (self.column, self.is_known) = (Some(column), is_known);
                Ok(())
            }
            [] if header.is_none() => Ok(()),
            [] => Err(unclear("none of the columns holds texts".to_owned())),
            _ => {
                let more = if known.len() > 6 { format!(" and {} more", known.len() - 6) } else { String::new() };
                Err(unclear(format!("{}{more} could each be the text", in_ticks(&known[..known.len().min(6)]))))
            }
        }
    }

    /// The syntax, and the column that was taken.
    fn layout(&mut self) -> (String, String) {
        let column = self.column.as_ref().map(|column| format!(", text = {column}")).unwrap_or_default();
        (self.records.records().syntax(), column)
    }

    fn next(&mut self) -> Result<Option<TextRecord>, DataError> {
        let Some(value) = self.records.next()? else { return Ok(None) };
        let place = self.records.place();
        let record = |id, text| TextRecord { id, text, metadata: metadata_of(&value) };
        let record = match &value {
            Value::Object(fields) => record(self.id_of(fields), self.text_of(fields, &value, &place)?),
            Value::Array(cells) if cells.len() > 1 => {
                let id = cells[0].as_str().map(str::to_owned);
                record(id, cells_text(cells, self.has_title_second, &place)?)
            }
            Value::Array(cells) => record(None, cells_text(cells, false, &place)?),
            other => record(None, document_text(other, "document", &place)?),
        };
        Ok(Some(record))
    }

    fn text_of(&self, fields: &Map<String, Value>, value: &Value, place: &Place) -> Result<String, DataError> {
        let Some(text) = self.column.as_ref().and_then(|column| fields.get(column)?.as_str()) else {
            return document_text(value, "document", place);
        };
        let title = self.title.as_ref().and_then(|title| fields.get(title)?.as_str());
        Ok(with_title(title.unwrap_or_default(), text))
    }

    fn id_of(&self, fields: &Map<String, Value>) -> Option<String> {
        let names = self.id.as_deref().into_iter().chain(IDS);
        names.filter_map(|name| fields.get(name)).find_map(|id| match id {
            Value::String(id) => Some(id.clone()),
            Value::Number(id) => Some(id.to_string()),
            _ => None,
        })
    }
}

fn has_spaces(cell: Option<&Value>) -> bool {
    cell.and_then(Value::as_str).is_some_and(|text| text.trim().contains(char::is_whitespace))
}

fn metadata_of(value: &Value) -> Map<String, Value> {
    value.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default()
}

/// The text among the cells of a line without names.
fn cells_text(cells: &[Value], has_title_second: bool, place: &Place) -> Result<String, DataError> {
    match &cells.iter().filter_map(Value::as_str).collect::<Vec<_>>()[..] {
        [text] | [_, text] => Ok((*text).to_owned()),
        [_, title, text] if has_title_second => Ok(format!("{title} | {text}")),
        [_, text, title] => Ok(format!("{title} | {text}")),
        _ => {
            let (expected, found) = (EXPECTED.to_owned(), format!("{} columns", cells.len()));
            Err(DataError::Malformed { place: place.clone(), expected, found })
        }
    }
}

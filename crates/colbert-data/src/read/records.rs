//! Records of a file, one at a time as JSON values, whatever the file's syntax. The content decides which it is; an
//! extension `.tsv` or `.csv` is believed.

use std::path::Path;

#[cfg(feature = "parquet")]
use colbert_config::ColumnRole;
use serde_json::{Map, Value};

#[cfg(feature = "parquet")]
use super::columns::Columns;
use super::columns::is_header;
use super::csv_records::CsvRecords;
use super::input::Input;
use super::list::List;
#[cfg(feature = "parquet")]
use super::values::DOCUMENT_COLUMNS;
use super::{Lines, ReadOptions, parse_json, reason};
use crate::error::{DataError, Place};

/// The kind of records that a file is searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Training rows. A list at the start of a line is one row.
    Rows,
    /// Rows of a table, whose columns have names.
    Table,
    /// Documents. A list at the start of a file holds all of them.
    Documents,
}

#[derive(Debug)]
enum Source {
    Lines(Lines),
    List(List),
    /// Cells separated by tabs, never quoted; with names if the first line has them.
    Tabs {
        lines: Lines,
        header: Option<Vec<String>>,
    },
    Csv(Box<CsvRecords>),
    #[cfg(feature = "parquet")]
    Parquet(super::parquet::records::ParquetRecords),
}

/// A file's records.
#[derive(Debug)]
pub(crate) struct Records {
    source: Source,
    is_gzip: bool,
}

impl Records {
    /// Opens a file and finds out its syntax. `None`: the file has no line that is not blank.
    pub(crate) fn open(
        path: &Path,
        expected: &str,
        content: Content,
        options: &ReadOptions,
    ) -> Result<Option<Self>, DataError> {
        let mut input = Input::open(path, expected)?;
        let is_gzip = input.is_gzip();
        let source = if input.peek()?.starts_with(b"PAR1") {
            parquet(path, is_gzip, content, options)?
        } else if input.extension() == "csv" {
            match CsvRecords::of(input)? {
                Some(records) => Source::Csv(Box::new(records)),
                None => return Ok(None),
            }
        } else if input.extension() != "tsv" && is_list(input.peek()?, content) {
            Source::List(List::of(input))
        } else {
            let mut lines = Lines::of(input);
            if !lines.advance()? {
                return Ok(None);
            }
            lines.stay();
            by_line(lines, expected, content, options)?
        };
        Ok(Some(Self { source, is_gzip }))
    }

    /// The next record. An error that [is a bad row](DataError::is_bad_row) leaves the records after it readable.
    pub(crate) fn next(&mut self) -> Result<Option<Value>, DataError> {
        match &mut self.source {
            Source::Lines(lines) => Ok(if lines.advance()? { Some(parse_json(lines)?) } else { None }),
            Source::List(list) => {
                if !list.advance()? {
                    return Ok(None);
                }
                let parsed = serde_json::from_str(list.text()?);
                parsed.map(Some).map_err(|error| DataError::Malformed {
                    place: list.place(),
                    expected: "a JSON value".to_owned(),
                    found: reason(&error),
                })
            }
            Source::Tabs { lines, header } => {
                if !lines.advance()? {
                    return Ok(None);
                }
                let cells = lines.text()?.split('\t').map(str::to_owned).collect();
                named(header.as_deref(), cells, lines.place()).map(Some)
            }
            Source::Csv(records) => records.next(),
            #[cfg(feature = "parquet")]
            Source::Parquet(records) => records.next(),
        }
    }

    /// Where the latest record is.
    pub(crate) fn place(&self) -> Place {
        match &self.source {
            Source::Lines(lines) | Source::Tabs { lines, .. } => lines.place(),
            Source::List(list) => list.place(),
            Source::Csv(records) => records.place(),
            #[cfg(feature = "parquet")]
            Source::Parquet(records) => records.place(),
        }
    }

    /// The syntax in words.
    pub(crate) fn syntax(&self) -> String {
        let name = match &self.source {
            Source::Lines(_) => "JSONL".to_owned(),
            Source::List(_) => "JSON list".to_owned(),
            Source::Tabs { header: Some(_), .. } => "TSV with a header".to_owned(),
            Source::Tabs { header: None, .. } => "TSV".to_owned(),
            Source::Csv(records) => format!("CSV separated by `{}`", records.delimiter()),
            #[cfg(feature = "parquet")]
            Source::Parquet(_) => "Parquet".to_owned(),
        };
        if self.is_gzip { format!("{name} (gzip)") } else { name }
    }

    /// Whether an empty cell is the only way to leave a column out.
    pub(crate) fn has_cells(&self) -> bool {
        matches!(self.source, Source::Tabs { header: Some(_), .. } | Source::Csv(_))
    }

    /// Names of the columns in their order, where the syntax has an order.
    pub(crate) fn header(&self) -> Option<&[String]> {
        match &self.source {
            Source::Tabs { header, .. } => header.as_deref(),
            Source::Csv(records) => Some(records.header()),
            #[cfg(feature = "parquet")]
            Source::Parquet(records) => Some(records.header()),
            Source::Lines(_) | Source::List(_) => None,
        }
    }

    /// Blank lines so far.
    pub(crate) fn blank(&self) -> u64 {
        match &self.source {
            Source::Lines(lines) | Source::Tabs { lines, .. } => lines.blank(),
            _ => 0,
        }
    }
}

#[cfg(feature = "parquet")]
fn parquet(path: &Path, is_gzip: bool, content: Content, options: &ReadOptions) -> Result<Source, DataError> {
    if is_gzip {
        let what = "Parquet within gzip".to_owned();
        return Err(DataError::Unsupported { path: path.to_owned(), what, advice: "unpack the file".to_owned() });
    }
    let is_used = |name: &str| match (content, options.roles.get(name)) {
        (Content::Rows, Some(role)) => *role != ColumnRole::Ignore,
        (Content::Rows, None) => Columns::knows(name),
        (Content::Table, _) => true,
        (Content::Documents, _) => name == "title" || DOCUMENT_COLUMNS.contains(&name),
    };
    super::parquet::records::ParquetRecords::open(path, &is_used).map(Source::Parquet)
}

#[cfg(not(feature = "parquet"))]
fn parquet(path: &Path, _: bool, _: Content, _: &ReadOptions) -> Result<Source, DataError> {
    let advice = "build with the cargo feature `parquet`, or write the data as JSONL".to_owned();
    Err(DataError::Unsupported { path: path.to_owned(), what: "Parquet".to_owned(), advice })
}

/// Whether a file is one JSON list. A row never starts with a list or an object, so that `[[` and `[{` open a list of
/// rows; a line `[` alone does too.
fn is_list(start: &[u8], content: Content) -> bool {
    let mut bytes = start.iter().copied().skip_while(u8::is_ascii_whitespace);
    if bytes.next() != Some(b'[') {
        return false;
    }
    if content == Content::Documents {
        return true;
    }
    let rest = &start[start.iter().position(|byte| *byte == b'[').unwrap_or(0) + 1..];
    match rest.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(byte) => matches!(byte, b'[' | b'{' | b']'),
        None => true,
    }
}

/// JSON or cells separated by tabs, by the first line.
fn by_line(mut lines: Lines, expected: &str, content: Content, options: &ReadOptions) -> Result<Source, DataError> {
    let Ok(first) = lines.text() else { return Ok(Source::Lines(lines)) };
    let is_tsv = lines.is_tsv();
    if !is_tsv && first.trim_start().starts_with(['[', '{', '"']) {
        return Ok(Source::Lines(lines));
    }
    if content == Content::Documents {
        return Ok(Source::Tabs { lines, header: None });
    }
    if !first.contains('\t') {
        return Err(DataError::Malformed {
            place: lines.place(),
            expected: expected.to_owned(),
            found: "a line that is neither".to_owned(),
        });
    }
    let cells: Vec<&str> = first.split('\t').collect();
    let named = |cell: &&str| options.roles.contains_key(cell.trim());
    let is_header = match content {
        Content::Rows => is_header(&cells) || cells.iter().any(named),
        Content::Table => true,
        Content::Documents => false,
    };
    let header = is_header.then(|| cells.iter().map(|cell| cell.trim().to_owned()).collect());
    if is_header {
        lines.pass();
    }
    Ok(Source::Tabs { lines, header })
}

/// Cells as an object under the header's names, or as a list.
pub(super) fn named(header: Option<&[String]>, cells: Vec<String>, place: Place) -> Result<Value, DataError> {
    let Some(header) = header else { return Ok(Value::Array(cells.into_iter().map(Value::String).collect())) };
    if cells.len() != header.len() {
        return Err(DataError::Malformed {
            place,
            expected: format!("{} columns, as the header has", header.len()),
            found: cells.len().to_string(),
        });
    }
    Ok(Value::Object(header.iter().cloned().zip(cells.into_iter().map(Value::String)).collect::<Map<_, _>>()))
}

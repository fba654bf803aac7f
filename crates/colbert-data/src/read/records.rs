//! Records of a file, one at a time as JSON values, whatever the file's syntax. The content decides the syntax, unless
//! the extension is `.tsv` or `.csv`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::columns::WHERE_TEXTS_ARE;
use super::content::Content;
use super::csv_records::CsvRecords;
use super::dialect::Dialect;
use super::header::{are_known_names, is_header, is_row, named};
use super::input::Input;
use super::json_values::JsonValues;
use super::lines::{Lines, reason};
use super::names::is_name;
use super::read_options::ReadOptions;
use super::whole::{self, Objects, Whole};
use crate::error::{DataError, Place};
use crate::texts::ids::is_id_like;

#[derive(Debug)]
enum Source {
    Lines(Lines),
    Values(JsonValues),
    /// Rows of a file that is one object.
    Whole {
        layout: &'static str,
        path: PathBuf,
        rows: std::vec::IntoIter<Value>,
        number: u64,
    },
    /// Cells separated by tabs, not quoted; with names if the first line has them.
    Tabs {
        lines: Lines,
        header: Option<Vec<String>>,
        /// Every line ends with a tab that separates nothing.
        ends_with_tab: bool,
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
    /// Documents that are in no row.
    documents: Vec<String>,
}

impl Records {
    /// Opens a file and detects its syntax. Returns `None` if the file is blank.
    pub(crate) fn open(
        path: &Path,
        expected: &str,
        content: Content,
        options: &ReadOptions,
    ) -> Result<Option<Self>, DataError> {
        let mut input = Input::open(path, expected)?;
        let is_gzip = input.is_gzip();
        let mut documents = Vec::new();
        // JSON is JSON under any name.
        let extension = if is_json(input.peek()?) { String::new() } else { input.extension() };
        let source = if input.peek()?.starts_with(b"PAR1") {
            parquet(path, is_gzip, content, options)?
        } else if extension == "csv" {
            match csv(path, input, expected, content, options)? {
                Some(records) => Source::Csv(Box::new(records)),
                None => return Ok(None),
            }
        } else if extension != "tsv" && is_list(input.peek()?, content) {
            Source::Values(JsonValues::list(input))
        } else if extension != "tsv" && begins_with(input.peek()?, b'{') {
            match whole::look(path, expected)? {
                Objects::Whole(Whole { layout, rows, documents: others }) => {
                    documents = others;
                    Source::Whole { layout, path: path.to_owned(), rows: rows.into_iter(), number: 0 }
                }
                Objects::Stream => Source::Values(JsonValues::stream(input)),
                Objects::Lines => Source::Lines(Lines::of(input)),
            }
        } else {
            let sample = input.peek()?.to_vec();
            let mut lines = Lines::of(input);
            if !lines.advance()? {
                return Ok(None);
            }
            lines.stay();
            by_line(lines, &sample, extension == "tsv", (expected, content, options))?
        };
        Ok(Some(Self { source, is_gzip, documents }))
    }

    /// Documents of the file that are in no row of it.
    pub(crate) fn take_documents(&mut self) -> Vec<String> {
        std::mem::take(&mut self.documents)
    }

    /// Begins again, reading only the columns that are used. Does nothing for files whose cells are all read anyway.
    #[cfg(feature = "parquet")]
    pub(crate) fn read_again(&mut self, is_used: &dyn Fn(&str) -> bool) -> Result<bool, DataError> {
        let Source::Parquet(records) = &mut self.source else { return Ok(false) };
        *records = super::parquet::records::ParquetRecords::open(records.path(), is_used)?;
        Ok(true)
    }

    #[cfg(not(feature = "parquet"))]
    pub(crate) fn read_again(&mut self, _: &dyn Fn(&str) -> bool) -> Result<bool, DataError> {
        Ok(false)
    }

    /// The next record. An error that [is a bad row](DataError::is_bad_row) leaves the records after it readable.
    pub(crate) fn next(&mut self) -> Result<Option<Value>, DataError> {
        match &mut self.source {
            Source::Lines(lines) => Ok(if lines.advance()? { Some(lines.json()?) } else { None }),
            Source::Values(values) => {
                if !values.advance()? {
                    return Ok(None);
                }
                let text = values.text()?;
                serde_json::from_str(text).map(Some).map_err(|error| DataError::Malformed {
                    place: values.place(),
                    expected: "a JSON value".to_owned(),
                    found: reason(&error, text),
                })
            }
            Source::Whole { rows, number, .. } => {
                *number += 1;
                Ok(rows.next())
            }
            Source::Tabs { lines, header, ends_with_tab } => {
                if !lines.advance()? {
                    return Ok(None);
                }
                let line = lines.text()?;
                let line = if *ends_with_tab { line.strip_suffix('\t').unwrap_or(line) } else { line };
                let cells = line.split('\t').map(unquoted).collect();
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
            Source::Values(values) => values.place(),
            Source::Whole { path, number, .. } => Place::Record { path: path.clone(), record: *number },
            Source::Csv(records) => records.place(),
            #[cfg(feature = "parquet")]
            Source::Parquet(records) => records.place(),
        }
    }

    /// Where the names of the columns are; where the latest record is, if they are in every record.
    pub(crate) fn names_place(&self) -> Place {
        match &self.source {
            Source::Csv(records) if records.header().is_some() => records.header_place(),
            Source::Tabs { lines, header: Some(_), .. } => lines.first_place(),
            _ => self.place(),
        }
    }

    /// The syntax in words.
    pub(crate) fn syntax(&self) -> String {
        let name = match &self.source {
            Source::Lines(_) => "JSONL".to_owned(),
            Source::Values(values) if values.is_list() => "JSON list".to_owned(),
            Source::Values(_) => "JSON objects".to_owned(),
            Source::Whole { layout, .. } => (*layout).to_owned(),
            Source::Tabs { header: Some(_), .. } => "TSV with a header".to_owned(),
            Source::Tabs { header: None, .. } => "TSV".to_owned(),
            Source::Csv(records) => records.syntax(),
            #[cfg(feature = "parquet")]
            Source::Parquet(_) => "Parquet".to_owned(),
        };
        if self.is_gzip { format!("{name} (gzip)") } else { name }
    }

    /// Whether an empty cell is the only way to leave a column out.
    pub(crate) fn has_cells(&self) -> bool {
        self.header().is_some() && matches!(self.source, Source::Tabs { .. } | Source::Csv(_))
    }

    /// Names of the columns in their order, where the syntax has an order.
    pub(crate) fn header(&self) -> Option<&[String]> {
        match &self.source {
            Source::Tabs { header, .. } => header.as_deref(),
            Source::Csv(records) => records.header(),
            #[cfg(feature = "parquet")]
            Source::Parquet(records) => Some(records.header()),
            Source::Lines(_) | Source::Values(_) | Source::Whole { .. } => None,
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
    let is_used = |name: &str| content.may_use(name, options);
    super::parquet::records::ParquetRecords::open(path, &is_used).map(Source::Parquet)
}

/// CSV, whose first line has the names of its columns unless it is a row like those below it.
fn csv(
    path: &Path,
    input: Input,
    expected: &str,
    content: Content,
    options: &ReadOptions,
) -> Result<Option<CsvRecords>, DataError> {
    let Some(records) = CsvRecords::csv(input, true)? else { return Ok(None) };
    let names = records.header().unwrap_or_default().to_vec();
    if content != Content::Rows || !options.roles.is_empty() || names.iter().any(|name| is_name(name)) {
        return Ok(Some(records));
    }
    let Some(mut below) = CsvRecords::csv(Input::open(path, expected)?, true)? else { return Ok(Some(records)) };
    let rows: Vec<Vec<String>> = std::iter::from_fn(|| below.next_cells().ok().flatten()).take(HEADER_ROWS).collect();
    if is_row(&names, &rows) { CsvRecords::csv(Input::open(path, expected)?, false) } else { Ok(Some(records)) }
}

#[cfg(not(feature = "parquet"))]
fn parquet(path: &Path, _: bool, _: Content, _: &ReadOptions) -> Result<Source, DataError> {
    let advice = "build with the cargo feature `parquet`, or write the data as JSONL".to_owned();
    Err(DataError::Unsupported { path: path.to_owned(), what: "Parquet".to_owned(), advice })
}

/// Whether a file begins with an object, or with a list of texts, lists or objects. Cells that begin so hold lists and
/// have a tab behind them.
fn is_json(start: &[u8]) -> bool {
    let first = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut marks = start.iter().filter(|byte| !byte.is_ascii_whitespace());
    match (marks.next(), marks.next()) {
        (Some(b'{'), Some(b'"')) => !first.contains(&b'\t'),
        (Some(b'['), Some(b'"' | b'[' | b'{')) => !first.contains(&b'\t'),
        _ => false,
    }
}

fn begins_with(start: &[u8], byte: u8) -> bool {
    start.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&byte)
}

/// Whether a file is one JSON list. A row never starts with a list or an object, so that `[[` and `[{` open a list of
/// rows; a line `[` alone does too.
fn is_list(start: &[u8], content: Content) -> bool {
    if !begins_with(start, b'[') {
        return false;
    }
    if content == Content::Documents {
        // One list after another: each is a row of cells.
        let mut lines = start.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        let is_whole = lines.next().is_some_and(|line| serde_json::from_slice::<Vec<Value>>(line).is_ok());
        return !(is_whole && lines.next().is_some_and(|line| begins_with(line, b'[')));
    }
    let rest = &start[start.iter().position(|byte| *byte == b'[').unwrap_or(0) + 1..];
    match rest.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(byte) => matches!(byte, b'[' | b'{' | b']'),
        None => true,
    }
}

/// JSON or cells separated by tabs, by the first line and the sample of the file that it begins.
fn by_line(
    mut lines: Lines,
    sample: &[u8],
    is_tsv: bool,
    (expected, content, options): (&str, Content, &ReadOptions),
) -> Result<Source, DataError> {
    let Ok(first) = lines.text() else { return Ok(Source::Lines(lines)) };
    if !is_tsv && first.trim_start().starts_with(['[', '{']) {
        return Ok(Source::Lines(lines));
    }
    // A JSON text may be a document of its own.
    let is_text = serde_json::from_str::<String>(first.trim()).is_ok();
    if !is_tsv && (is_text || (first.trim_start().starts_with('"') && !first.contains('\t'))) {
        return Ok(Source::Lines(lines));
    }
    // CSV under another name, which its known names show.
    if !is_tsv && !first.contains('\t') && lines.number() == 1 {
        let records = CsvRecords::csv(Input::open(lines.path(), expected)?, true).ok().flatten();
        if let Some(records) = records.filter(|records| records.header().is_some_and(are_known_names)) {
            return Ok(Source::Csv(Box::new(records)));
        }
    }
    if content != Content::Documents && !first.contains('\t') {
        let found = if is_trec(first) {
            format!("ids and grades as in TREC's qrels; {WHERE_TEXTS_ARE}")
        } else {
            "a line that is neither".to_owned()
        };
        return Err(DataError::Malformed { place: lines.place(), expected: expected.to_owned(), found });
    }
    let dialect = Dialect::of_tsv(sample);
    if dialect.quotes && lines.number() == 1 {
        let path = lines.path().to_owned();
        let input = || Input::open(&path, expected);
        let Some(mut records) = CsvRecords::of(input()?, dialect, true, 0)? else { return Ok(Source::Lines(lines)) };
        let names = records.header().unwrap_or_default().to_vec();
        let rows: Vec<Vec<String>> =
            std::iter::from_fn(|| records.next_cells().ok().flatten()).take(HEADER_ROWS).collect();
        let has_header = is_header(&names, &rows, content, options);
        let records = CsvRecords::of(input()?, dialect, has_header, 0)?;
        return Ok(records.map_or(Source::Lines(lines), |records| Source::Csv(Box::new(records))));
    }
    let cells = |line: &str| -> Vec<String> { line.split('\t').map(|cell| cell.trim().to_owned()).collect() };
    let names = cells(first);
    // The last line of a sample may be a part of one.
    let text = String::from_utf8_lossy(sample);
    let whole = if text.ends_with('\n') { &text[..] } else { text.rsplit_once('\n').map_or("", |(whole, _)| whole) };
    let rest = if whole.is_empty() { &text[..] } else { whole };
    let rows: Vec<Vec<String>> =
        rest.lines().filter(|line| !line.trim().is_empty()).skip(1).take(HEADER_ROWS).map(cells).collect();
    let header = is_header(&names, &rows, content, options).then_some(names);
    if header.is_some() {
        lines.pass();
    }
    let mut ends = rest.lines().filter(|line| !line.trim().is_empty());
    let ends_with_tab = header.is_none() && ends.all(|line| line.ends_with('\t'));
    Ok(Source::Tabs { lines, header, ends_with_tab })
}

/// Rows that a header is compared with.
const HEADER_ROWS: usize = 50;

/// `qid 0 docid grade`.
fn is_trec(line: &str) -> bool {
    let cells: Vec<&str> = line.split_whitespace().collect();
    matches!(cells[..], [_, iteration, _, grade] if iteration.parse::<i64>().is_ok() && grade.parse::<f64>().is_ok())
        || matches!(cells[..], [_, "Q0", ..])
        || matches!(cells[..], [query, document, grade]
            if is_id_like(query) && is_id_like(document) && grade.parse::<f64>().is_ok())
}

/// A cell without its quotation marks, if it is quoted as in CSV and has doubled quotation marks inside.
fn unquoted(cell: &str) -> String {
    let inner = cell.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inner.filter(|inner| inner.contains("\"\"") && !inner.replace("\"\"", "").contains('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => cell.to_owned(),
    }
}

//! Files of rows: JSONL and TSV, told apart by their first line.

use std::path::Path;

use serde_json::{Map, Value};

use super::columns::is_header;
use super::{Lines, ReadOptions, RowKind, keep_going, parse_json, parse_value};
use crate::error::DataError;
use crate::raw::RawData;

const EXPECTED: &str = "one row a line, as JSON or separated by tabs";

#[derive(Debug)]
enum Syntax {
    Json,
    /// Cells separated by tabs, never quoted; with names if the first line has them.
    Tabs {
        header: Option<Vec<String>>,
    },
}

struct Rows {
    syntax: Syntax,
    kind: Option<RowKind>,
}

pub(super) fn read_rows(path: &Path, options: &ReadOptions) -> Result<RawData, DataError> {
    let mut lines = Lines::open(path, EXPECTED)?;
    let mut raw = RawData::default();
    let mut rows: Option<Rows> = None;
    while lines.advance()? {
        let outcome = read_row(&lines, &mut rows, options, &mut raw);
        keep_going(outcome, options, &mut raw.bad_rows)?;
    }
    raw.counts.blank_lines = lines.blank();
    let Some(Rows { syntax, kind: Some(kind) }) = rows else {
        if raw.bad_rows.total() > 0 {
            raw.announcement = format!("{}: not one good row", path.display());
            return Ok(raw);
        }
        return Err(DataError::NoRows { origin: path.display().to_string(), expected: EXPECTED.to_owned() });
    };
    let syntax = match syntax {
        Syntax::Json => "JSONL",
        Syntax::Tabs { header: Some(_) } => "TSV with a header",
        Syntax::Tabs { header: None } => "TSV",
    };
    let counts = &raw.counts;
    let count = counts.pairs + counts.labelled_pairs + counts.triplets + counts.ready_made;
    raw.announcement = format!("{}: {syntax}, {count} {}", path.display(), kind.describe(&options.labels));
    Ok(raw)
}

fn read_row(lines: &Lines, rows: &mut Option<Rows>, options: &ReadOptions, raw: &mut RawData) -> Result<(), DataError> {
    let rows = match rows {
        Some(rows) => rows,
        None => {
            let syntax = detect_syntax(lines)?;
            let is_header = matches!(syntax, Syntax::Tabs { header: Some(_) });
            let rows = rows.insert(Rows { syntax, kind: None });
            if is_header {
                return Ok(());
            }
            rows
        }
    };
    let value = match &rows.syntax {
        Syntax::Json => parse_json(lines)?,
        Syntax::Tabs { header } => cells(lines, header.as_deref())?,
    };
    let place = lines.place();
    let kind = match &rows.kind {
        Some(kind) => kind,
        None => rows.kind.insert(RowKind::detect(&value, options.format, &options.labels, &place)?),
    };
    raw.push(parse_value(&value, kind, &options.labels, &place)?, &place)
}

fn detect_syntax(lines: &Lines) -> Result<Syntax, DataError> {
    let text = lines.text()?;
    let is_tsv = lines.place_path_is_tsv();
    if !is_tsv && text.trim_start().starts_with(['[', '{', '"']) {
        return Ok(Syntax::Json);
    }
    if !text.contains('\t') {
        return Err(DataError::Malformed {
            place: lines.place(),
            expected: EXPECTED.to_owned(),
            found: "a line that is neither".to_owned(),
        });
    }
    let cells: Vec<&str> = text.split('\t').collect();
    let header = is_header(&cells).then(|| cells.iter().map(|cell| cell.trim().to_owned()).collect());
    Ok(Syntax::Tabs { header })
}

fn cells(lines: &Lines, header: Option<&[String]>) -> Result<Value, DataError> {
    let cells = lines.text()?.split('\t').map(|cell| Value::String(cell.to_owned()));
    let Some(header) = header else { return Ok(Value::Array(cells.collect())) };
    let cells: Vec<Value> = cells.collect();
    if cells.len() != header.len() {
        return Err(DataError::Malformed {
            place: lines.place(),
            expected: format!("{} columns, as the header has", header.len()),
            found: cells.len().to_string(),
        });
    }
    Ok(Value::Object(header.iter().cloned().zip(cells).collect::<Map<_, _>>()))
}

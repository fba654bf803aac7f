//! Files of rows, of any syntax; the first rows decide what all of them are.

use std::path::Path;

use serde_json::Value;

use super::content::Content;
use super::id_files::id_file;
use super::kind::RowKind;
use super::read_options::ReadOptions;
use super::sampled::Sampled;
use super::values::parse_value;
use crate::error::DataError;
use crate::raw::RawData;

const EXPECTED: &str = "rows as JSON, CSV with a header, Parquet, or cells separated by tabs";

/// Reads one file, or the parts of one in their order.
pub(super) fn read_rows(paths: &[&Path], options: &ReadOptions) -> Result<RawData, DataError> {
    let mut raw = RawData::default();
    let mut kind: Option<RowKind> = None;
    let mut syntax = None;
    for path in paths {
        let Some(mut records) = Sampled::open(path, EXPECTED, Content::Rows, options)? else { continue };
        if let Some(kind) = &kind {
            records.read_again(&|name| kind.reads(name))?;
        }
        while read_row(&mut records, path, &mut kind, options, &mut raw)? {}
        for document in records.records().take_documents() {
            if !document.trim().is_empty() {
                raw.collection.add(&document)?;
            }
        }
        raw.counts.blank_lines += records.records().blank();
        syntax = Some(records.records().syntax());
    }
    raw.group_scored_pairs();
    let first = paths.first().map(|path| path.display().to_string()).unwrap_or_default();
    let origin = if paths.len() > 1 { format!("{first} and {} more parts", paths.len() - 1) } else { first };
    let (Some(syntax), Some(kind)) = (syntax, kind) else {
        if raw.bad_rows.total() > 0 {
            raw.announcement = format!("{origin}: not one good row");
            return Ok(raw);
        }
        return Err(DataError::NoRows { origin, expected: EXPECTED.to_owned() });
    };
    let counts = &raw.counts;
    let count = counts.pairs + counts.labelled_pairs + counts.triplets + counts.scored_pairs.max(counts.ready_made);
    raw.announcement = format!("{origin}: {syntax}, {count} {}", kind.describe(&options.labels));
    Ok(raw)
}

/// Reads one row; `false` at the end of the file.
fn read_row(
    records: &mut Sampled,
    path: &Path,
    kind: &mut Option<RowKind>,
    options: &ReadOptions,
    raw: &mut RawData,
) -> Result<bool, DataError> {
    let mut read = || {
        let Some(value) = records.next()? else { return Ok(false) };
        let place = records.place();
        let kind = match kind {
            Some(kind) => kind,
            None => {
                let detected = detect(&value, records, path, options)?;
                let kind = kind.insert(detected);
                if records.read_again(&|name| kind.reads(name))? {
                    return Ok(true);
                }
                kind
            }
        };
        raw.push(parse_value(&value, kind, &options.labels, &place)?, &place)?;
        Ok(true)
    };
    let outcome = read();
    options.keep_going(outcome, true, &mut raw.bad_rows)
}

/// Decides by the first row and those after it that were looked at.
fn detect(first: &Value, records: &mut Sampled, path: &Path, options: &ReadOptions) -> Result<RowKind, DataError> {
    let has_cells = records.records().has_cells();
    let header = records.records().header().map(<[String]>::to_vec);
    let place = if header.is_some() { records.names_place() } else { records.place() };
    let rows: Vec<&Value> = std::iter::once(first).chain(records.sample()).collect();
    let detected = RowKind::detect(&rows, header.as_deref(), options, &place)?;
    if let Some(found) = id_file(path, &rows, &detected, options)? {
        return Err(DataError::Malformed {
            place,
            expected: format!("texts; {found}"),
            found: "ids of texts".to_owned(),
        });
    }
    Ok(RowKind { has_cells, ..detected })
}

//! Files of rows, of any syntax; the first row decides what all of them are.

use std::path::Path;

use super::records::{Content, Records};
use super::{ReadOptions, RowKind, keep_going, parse_value};
use crate::error::DataError;
use crate::raw::RawData;

const EXPECTED: &str = "one row a line, as JSON or separated by tabs";

/// Reads one file, or the parts of one in their order.
pub(super) fn read_rows(paths: &[&Path], options: &ReadOptions) -> Result<RawData, DataError> {
    let mut raw = RawData::default();
    let mut kind: Option<RowKind> = None;
    let mut syntax = None;
    for path in paths {
        let Some(mut records) = Records::open(path, EXPECTED, Content::Rows, options)? else { continue };
        // A header may come to light only with the first record, so the syntax is named at the end.
        while read_row(&mut records, &mut kind, options, &mut raw)? {}
        raw.counts.blank_lines += records.blank();
        syntax = Some(records.syntax());
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
    records: &mut Records,
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
                let detected = RowKind::detect(&value, records.header(), options, &place)?;
                kind.insert(RowKind { has_cells: records.has_cells(), ..detected })
            }
        };
        raw.push(parse_value(&value, kind, &options.labels, &place)?, &place)?;
        Ok(true)
    };
    let outcome = read();
    keep_going(outcome, true, options, &mut raw.bad_rows)
}

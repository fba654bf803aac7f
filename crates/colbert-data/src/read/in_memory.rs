//! Raw data from JSON values in memory.

use serde_json::Value;

use super::{ReadOptions, RowKind, parse_value};
use crate::error::{DataError, Place};
use crate::raw::RawData;
use crate::raw::labels::Labels;

impl RawData {
    /// Rows as JSON values, in every shape that a JSONL file may have; the first row decides which.
    ///
    /// # Errors
    /// [`DataError::Malformed`], [`DataError::MixedRows`] and the others of a file, with the row.
    pub fn from_values<'a>(values: impl IntoIterator<Item = &'a Value>, labels: &Labels) -> Result<Self, DataError> {
        let mut kind: Option<RowKind> = None;
        let options = ReadOptions { labels: labels.clone(), ..ReadOptions::default() };
        let rows = values.into_iter().zip(1..).map(|(value, row)| {
            let place = Place::Row { row };
            let kind = match &kind {
                Some(kind) => kind,
                None => kind.insert(RowKind::detect(value, None, &options, &place)?),
            };
            parse_value(value, kind, labels, &place)
        });
        Self::collect(rows)
    }
}

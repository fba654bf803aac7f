//! Raw data from JSON values in memory.

use serde_json::Value;

use super::kind::RowKind;
use super::read_options::ReadOptions;
use super::sampled::LOOKED_AT;
use super::values::parse_value;
use crate::error::{DataError, Place};
use crate::raw::RawData;
use crate::raw::labels::Labels;

impl RawData {
    /// Rows as JSON values, in every shape that a JSONL file may have; the first rows decide which.
    ///
    /// # Errors
    /// [`DataError::Malformed`], [`DataError::MixedRows`] and the others of a file, with the row.
    pub fn from_values<'a>(values: impl IntoIterator<Item = &'a Value>, labels: &Labels) -> Result<Self, DataError> {
        let options = ReadOptions { labels: labels.clone(), ..ReadOptions::default() };
        let values: Vec<&Value> = values.into_iter().collect();
        if values.is_empty() {
            return Self::collect(std::iter::empty());
        }
        let kind = RowKind::detect(&values[..values.len().min(LOOKED_AT)], None, &options, &Place::Row { row: 1 })?;
        let rows =
            values.into_iter().zip(1..).map(|(value, row)| parse_value(value, &kind, labels, &Place::Row { row }));
        Self::collect(rows)
    }
}

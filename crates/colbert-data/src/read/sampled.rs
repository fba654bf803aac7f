//! Records of a file with a look ahead: the first ones are examined before any is read.

use std::collections::VecDeque;
use std::path::Path;

use serde_json::Value;

use super::content::Content;
use super::read_options::ReadOptions;
use super::records::Records;
use crate::error::{DataError, Place};

/// Number of records that are examined.
pub(super) const LOOKED_AT: usize = 200;

/// A file's records with a look ahead.
#[derive(Debug)]
pub(super) struct Sampled {
    records: Records,
    ahead: VecDeque<(Result<Value, DataError>, Place)>,
    place: Place,
    names_place: Place,
}

impl Sampled {
    /// Opens a file and examines its first records. Returns `None` if the file is blank.
    pub(super) fn open(
        path: &Path,
        expected: &str,
        content: Content,
        options: &ReadOptions,
    ) -> Result<Option<Self>, DataError> {
        let Some(records) = Records::open(path, expected, content, options)? else { return Ok(None) };
        let place = records.place();
        let mut sampled = Self { records, ahead: VecDeque::new(), names_place: place.clone(), place };
        // Columns of a Parquet file whose names suggest no role are examined too, unless the decoder cannot read them.
        if sampled.records.read_again(&|_| true).unwrap_or(false) {
            sampled.look();
            if sampled.ahead.iter().any(|(record, _)| record.is_err()) {
                sampled.read_again(&|name| content.may_use(name, options))?;
                sampled.look();
            }
        } else {
            sampled.look();
        }
        Ok(Some(sampled))
    }

    fn look(&mut self) {
        while self.ahead.len() < LOOKED_AT {
            let record = match self.records.next() {
                Ok(None) => break,
                Ok(Some(value)) => Ok(value),
                Err(error) => Err(error),
            };
            let goes_on = record.as_ref().err().is_none_or(DataError::is_bad_row);
            self.ahead.push_back((record, self.records.place()));
            if self.ahead.len() == 1 {
                self.names_place = self.records.names_place();
            }
            if !goes_on {
                break;
            }
        }
    }

    /// The first records that can be read.
    pub(super) fn sample(&self) -> Vec<&Value> {
        self.ahead.iter().filter_map(|(record, _)| record.as_ref().ok()).collect()
    }

    /// Begins again with only the columns that are used, if others need not be read. Returns whether it did.
    pub(super) fn read_again(&mut self, is_used: &dyn Fn(&str) -> bool) -> Result<bool, DataError> {
        let begins = self.records.read_again(is_used)?;
        if begins {
            self.ahead.clear();
        }
        Ok(begins)
    }

    /// The next record. An error that [is a bad row](DataError::is_bad_row) leaves the records after it readable.
    pub(super) fn next(&mut self) -> Result<Option<Value>, DataError> {
        if let Some((record, place)) = self.ahead.pop_front() {
            self.place = place;
            return record.map(Some);
        }
        let record = self.records.next();
        self.place = self.records.place();
        record
    }

    /// Where the latest record is.
    pub(super) fn place(&self) -> Place {
        self.place.clone()
    }

    /// Where the names of the columns are.
    pub(super) fn names_place(&self) -> Place {
        self.names_place.clone()
    }

    pub(super) fn records(&mut self) -> &mut Records {
        &mut self.records
    }
}

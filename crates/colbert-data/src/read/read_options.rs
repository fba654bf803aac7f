//! How training data is read.

use std::collections::BTreeMap;

use colbert_config::{ColumnRole, DataFormat, DataOptions};

use crate::error::DataError;
use crate::raw::counts::BadRows;
use crate::raw::labels::Labels;

/// Options of [`read_training_data`](crate::read_training_data).
#[derive(Debug, Clone, PartialEq)]
pub struct ReadOptions {
    /// Layout; `auto` decides by content.
    pub format: DataFormat,
    /// Labels of labelled pairs.
    pub labels: Labels,
    /// Roles of columns, which override the roles that their names suggest. Default: none.
    pub roles: BTreeMap<String, ColumnRole>,
    /// Judgements of a BEIR folder, or files of a folder of splits, that are trained on. Default `train`.
    pub split: String,
    /// Skip and count bad rows instead of stopping at the first. Default false.
    pub skip_bad_rows: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            format: DataFormat::Auto,
            labels: Labels::default(),
            roles: BTreeMap::new(),
            split: "train".to_owned(),
            skip_bad_rows: false,
        }
    }
}

impl ReadOptions {
    /// Passes on an outcome; but if it is the error of a bad row and bad rows are skipped, counts the row and returns
    /// `otherwise`.
    pub(super) fn keep_going<T>(
        &self,
        outcome: Result<T, DataError>,
        otherwise: T,
        bad_rows: &mut BadRows,
    ) -> Result<T, DataError> {
        match outcome {
            Err(error) if self.skip_bad_rows && error.is_bad_row() => {
                bad_rows.record(&error);
                Ok(otherwise)
            }
            other => other,
        }
    }
}

impl From<&DataOptions> for ReadOptions {
    fn from(options: &DataOptions) -> Self {
        let labels = Labels { positive: options.positive_label.clone(), negative: options.negative_label.clone() };
        Self {
            format: options.format,
            labels,
            roles: options.columns.0.clone(),
            skip_bad_rows: options.skip_bad_rows,
            ..Self::default()
        }
    }
}

//! Readers: one record at a time, errors with file and line, and one line that says what was found.

mod beir;
mod columns;
mod documents;
mod input;
mod kind;
mod lines;
mod list;
mod rows;
mod values;

use std::path::Path;

use colbert_config::{DataFormat, DataOptions};
use serde_json::Value;

use crate::counts::BadRows;
use crate::error::DataError;
use crate::labels::Labels;
use crate::raw::RawData;
use crate::reference::{ReferenceFiles, import_reference};

pub use beir::{BeirFolder, read_evaluation_set};
pub use documents::read_documents;
pub(crate) use kind::RowKind;
pub(crate) use lines::Lines;
pub(crate) use values::{brief, parse_value};

/// How training data is read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadOptions {
    /// Layout; `auto` decides by content.
    pub format: DataFormat,
    /// Labels of labelled pairs.
    pub labels: Labels,
    /// Judgements of a BEIR folder that are trained on. Default `train`.
    pub split: String,
    /// Leave bad rows out, and count them, in place of stopping at the first. Default false.
    pub skip_bad_rows: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { format: DataFormat::Auto, labels: Labels::default(), split: "train".to_owned(), skip_bad_rows: false }
    }
}

impl From<&DataOptions> for ReadOptions {
    fn from(options: &DataOptions) -> Self {
        let labels = Labels { positive: options.positive_label.clone(), negative: options.negative_label.clone() };
        Self { format: options.format, labels, ..Self::default() }
    }
}

/// Reads a file of pairs, labelled pairs, triplets or scored examples (JSONL or TSV), a BEIR folder, or a folder with the
/// reference's three files. What was found is in [`RawData::announcement`].
///
/// # Errors
/// Whatever is wrong with the files, with file and line; see [`DataError`].
pub fn read_training_data(path: &Path, options: &ReadOptions) -> Result<RawData, DataError> {
    let raw = match options.format {
        DataFormat::Beir => BeirFolder::open(path)?.into_raw(&options.split)?,
        DataFormat::Reference => import_reference(&ReferenceFiles::in_folder(path), options)?,
        DataFormat::Auto if path.is_dir() => read_folder(path, options)?,
        _ => rows::read_rows(path, options)?,
    };
    tracing::info!("{}", raw.announcement());
    Ok(raw)
}

fn read_folder(path: &Path, options: &ReadOptions) -> Result<RawData, DataError> {
    let reference = ReferenceFiles::in_folder(path);
    match (path.join("corpus.jsonl").is_file(), reference.triples.is_file()) {
        (true, false) => BeirFolder::open(path)?.into_raw(&options.split),
        (false, true) => import_reference(&reference, options),
        (true, true) => Err(DataError::WrongKind {
            path: path.to_owned(),
            expected: "one kind of data; say which with data.format".to_owned(),
            found: "both a BEIR folder and the reference's training files".to_owned(),
        }),
        (false, false) => Err(DataError::WrongKind {
            path: path.to_owned(),
            expected: "a file, a BEIR folder (corpus.jsonl) or a folder with triples.train.colbert.jsonl".to_owned(),
            found: "a folder with neither".to_owned(),
        }),
    }
}

/// The line as JSON.
pub(crate) fn parse_json(lines: &Lines) -> Result<Value, DataError> {
    serde_json::from_str(lines.text()?).map_err(|error| DataError::Malformed {
        place: lines.place(),
        expected: "one JSON value on the line".to_owned(),
        found: format!("at column {}: {}", error.column(), reason(&error)),
    })
}

/// serde_json's message without its own position, which is within the line and would read as one within the file.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(reason, _)| reason.to_owned())
}

/// Passes an error on, unless it is a bad row and bad rows are to be left out; then it is counted.
pub(crate) fn keep_going(
    outcome: Result<(), DataError>,
    options: &ReadOptions,
    bad_rows: &mut BadRows,
) -> Result<(), DataError> {
    match outcome {
        Err(error) if options.skip_bad_rows && error.is_bad_row() => {
            bad_rows.record(&error);
            Ok(())
        }
        other => other,
    }
}

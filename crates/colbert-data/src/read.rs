//! Readers: one record at a time, errors with file and line, and one line that says what was found.

mod beir;
mod candidates;
mod columns;
mod csv_records;
mod dialect;
mod documents;
mod facts;
mod folder;
mod header;
mod id_files;
mod in_memory;
mod input;
mod json_values;
mod kind;
mod lines;
pub(crate) mod parquet;
mod pylate;
mod qrels;
mod records;
mod reference;
mod rows;
mod sampled;
mod suggestion;
mod values;
mod whole;

use std::collections::BTreeMap;
use std::path::Path;

use colbert_config::{ColumnRole, DataFormat, DataOptions};
use serde_json::Value;

use crate::error::DataError;
use crate::raw::RawData;
use crate::raw::counts::BadRows;
use crate::raw::labels::Labels;
use crate::sets::reference_files::ReferenceFiles;

pub use beir::{BeirFolder, read_evaluation_set};
pub use candidates::Candidates;
pub use documents::{TextFile, TextRecord, TextSide, read_documents, read_texts};
use kind::RowKind;
use lines::Lines;
pub use reference::import_reference;
use values::{brief, parse_value};

/// How training data is read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadOptions {
    /// Layout; `auto` decides by content.
    pub format: DataFormat,
    /// Labels of labelled pairs.
    pub labels: Labels,
    /// Roles of columns whose names do not say it; these go before what a name suggests. Default: none.
    pub roles: BTreeMap<String, ColumnRole>,
    /// Judgements of a BEIR folder, or files of a folder of splits, that are trained on. Default `train`.
    pub split: String,
    /// Leave bad rows out, and count them, in place of stopping at the first. Default false.
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

/// Reads training data: a file of pairs, labelled pairs, triplets or scored examples (JSONL, a JSON list, CSV, TSV or
/// Parquet, each also as gzip but for Parquet); a folder with such a file for each split, in parts or not; a BEIR
/// folder; a folder with the reference's three files; a folder with PyLate's three tables. What was found is in
/// [`RawData::announcement`].
///
/// # Errors
/// Whatever is wrong with the files, with file and line; see [`DataError`].
pub fn read_training_data(path: &Path, options: &ReadOptions) -> Result<RawData, DataError> {
    let raw = match options.format {
        DataFormat::Beir => beir(path, options)?,
        DataFormat::Reference => import_reference(&ReferenceFiles::in_folder(path), options)?,
        DataFormat::Pylate => pylate::read_tables(path, options)?,
        DataFormat::Auto if path.is_dir() => read_folder(path, options)?,
        _ => {
            let parts = folder::table(path, &options.split)?;
            let parts: Vec<&Path> = parts.iter().map(|part| part.as_path()).collect();
            rows::read_rows(if parts.is_empty() { std::slice::from_ref(&path) } else { &parts }, options)?
        }
    };
    tracing::info!("{}", raw.announcement());
    Ok(raw)
}

/// Reads several files or folders, each by the rules of [`read_training_data`], as one data set.
///
/// # Errors
/// As [`read_training_data`].
pub fn read_training_data_of(
    paths: impl IntoIterator<Item = impl AsRef<Path>>,
    options: &ReadOptions,
) -> Result<RawData, DataError> {
    let mut all = RawData::default();
    for path in paths {
        all.merge(read_training_data(path.as_ref(), options)?)?;
    }
    Ok(all)
}

fn beir(path: &Path, options: &ReadOptions) -> Result<RawData, DataError> {
    BeirFolder::open_with(path, options)?.into_raw(&options.split)
}

fn read_folder(path: &Path, options: &ReadOptions) -> Result<RawData, DataError> {
    let reference = ReferenceFiles::in_folder(path);
    let kinds = [BeirFolder::is_one(path), reference.triples.is_file(), pylate::has_tables(path)?];
    match kinds {
        [true, false, false] => beir(path, options),
        [false, true, false] => import_reference(&reference, options),
        [false, false, true] => pylate::read_tables(path, options),
        [false, false, false] => {
            let parts = folder::table(path, &options.split)?;
            if parts.is_empty() {
                if let Some(found) = nearly_beir(path) {
                    return Err(DataError::WrongKind {
                        path: path.to_owned(),
                        expected:
                            "a BEIR folder: corpus.jsonl and queries.jsonl with `_id` and `text` on every line, and \
                                   qrels/train.tsv; convert the texts to these"
                                .to_owned(),
                        found: format!("{found}, which is nearly one"),
                    });
                }
                return Err(DataError::WrongKind {
                    path: path.to_owned(),
                    expected: format!(
                        "a file, a BEIR folder (corpus.jsonl), a folder with triples.train.colbert.jsonl, with the tables \
                         train, queries and documents, or with {}.jsonl or another file of that split",
                        options.split
                    ),
                    found: "a folder with neither".to_owned(),
                });
            }
            rows::read_rows(&parts.iter().map(|part| part.as_path()).collect::<Vec<_>>(), options)
        }
        _ => Err(DataError::WrongKind {
            path: path.to_owned(),
            expected: "one kind of data; say which with data.format".to_owned(),
            found: "several: of a BEIR folder, the reference's training files, and PyLate's tables".to_owned(),
        }),
    }
}

/// Texts and judgements of a folder that is a BEIR folder but for the form of its texts, as MS MARCO's is.
fn nearly_beir(folder: &Path) -> Option<String> {
    const TEXTS: [&str; 6] =
        ["collection.tsv", "corpus.tsv", "queries.tsv", "queries.train.tsv", "queries.dev.tsv", "queries.jsonl"];
    let texts = TEXTS.into_iter().map(|name| folder.join(name)).filter(|path| path.is_file());
    let judgements = ["train", "dev", "test"].into_iter().filter_map(|split| qrels::file(folder, split));
    let (texts, judgements): (Vec<_>, Vec<_>) = (texts.collect(), judgements.collect());
    let names = texts.iter().chain(&judgements).filter_map(|path| path.file_name());
    let names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    (!texts.is_empty() && !judgements.is_empty()).then(|| names.join(", "))
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

/// Passes an error on, unless it is a bad row and bad rows are to be left out; then it is counted, and `otherwise` is
/// the outcome.
pub(crate) fn keep_going<T>(
    outcome: Result<T, DataError>,
    otherwise: T,
    options: &ReadOptions,
    bad_rows: &mut BadRows,
) -> Result<T, DataError> {
    match outcome {
        Err(error) if options.skip_bad_rows && error.is_bad_row() => {
            bad_rows.record(&error);
            Ok(otherwise)
        }
        other => other,
    }
}

//! Readers: one record at a time, with errors that name file and line, and an announcement of what was read.

mod beir;
mod brief;
mod candidates;
mod columns;
mod content;
mod csv_records;
mod dialect;
mod document_text;
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
mod names;
pub(crate) mod parquet;
mod pylate;
mod qrels;
mod read_options;
mod records;
mod reference;
mod rows;
mod sampled;
mod suggestion;
mod values;
mod whole;
mod written_list;

use std::path::Path;

use colbert_config::DataFormat;

use crate::error::DataError;
use crate::raw::RawData;
use crate::sets::reference_files::ReferenceFiles;

pub use beir::{BeirFolder, read_evaluation_set};
pub use candidates::Candidates;
pub use documents::{TextFile, TextRecord, read_documents, read_texts};
pub use read_options::ReadOptions;
pub use reference::import_reference;

/// Reads training data: a file of pairs, labelled pairs, triplets or scored examples (JSONL, a JSON list, CSV, TSV or
/// Parquet; all but Parquet also as gzip); a folder with such a file, or parts of one, for each split; a BEIR folder; a
/// folder with the reference's three files; a folder with PyLate's three tables. [`RawData::announcement`] describes
/// what was read.
///
/// # Errors
/// Any fault of the files, with file and line; see [`DataError`].
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

/// Names of the texts and judgements of a folder that would be a BEIR folder if its texts were in BEIR's form, such as
/// MS MARCO's.
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

//! A training set as one JSONL file of n-way rows, for distillation elsewhere or later: `query`, `documents` with the
//! positive first, `scores`.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::error::DataError;
use crate::sets::training_set::{Example, TrainingSet};
use crate::write::stage;

#[derive(Serialize)]
struct Row<'a> {
    query: &'a str,
    documents: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scores: Option<&'a [f32]>,
}

/// Writes a row for each example, in their order; an earlier file is replaced. [`crate::read_training_data`] reads it.
/// The same training set gives the same bytes.
///
/// # Errors
/// [`DataError::Write`].
pub fn export_scored(set: &TrainingSet, path: &Path) -> Result<(), DataError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|source| DataError::Write { path: folder.to_owned(), source })?;
    }
    stage(path, |out| set.examples.iter().try_for_each(|example| write_row(set, example, out)))?.publish()
}

fn write_row(set: &TrainingSet, example: &Example, out: &mut impl Write) -> std::io::Result<()> {
    let documents = example.documents.iter().map(|&pid| set.collection.text(pid)).collect();
    let row = Row { query: set.queries.text(example.query), documents, scores: example.scores.as_deref() };
    serde_json::to_writer(&mut *out, &row)?;
    writeln!(out)
}

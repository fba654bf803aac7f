//! A training set as three JSONL tables: `queries`, `documents`, `train`. Texts survive byte for byte, line ends and
//! tabs included, unlike in the reference's files; so do teacher scores and documents without an example. PyLate loads
//! the same tables for distillation.
//!
//! Reading is [`crate::read_training_data`]'s.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::error::DataError;
use crate::sets::training_set::{Example, TrainingSet};
use crate::texts::Texts;
use crate::write::{publish_together, stage};

#[derive(Serialize)]
struct ExampleRow<'a> {
    query_id: u32,
    document_ids: &'a [u32],
    #[serde(skip_serializing_if = "Option::is_none")]
    scores: Option<&'a [f32]>,
}

/// Writes the tables `queries.jsonl`, `documents.jsonl` and `train.jsonl` into a folder, which is created if needed.
/// All three are complete on disk before the first one gets its name, and the examples get theirs last: a process that
/// is killed in between leaves nothing that reads as data. The same training set gives the same bytes.
///
/// # Errors
/// [`DataError::Write`].
pub fn export_tables(set: &TrainingSet, folder: &Path) -> Result<(), DataError> {
    let [queries, documents, train] = ["queries.jsonl", "documents.jsonl", "train.jsonl"].map(|name| folder.join(name));
    std::fs::create_dir_all(folder).map_err(|source| DataError::Write { path: folder.to_owned(), source })?;
    let staged = [
        stage(&queries, |out| write_texts(&set.queries, "query_id", out))?,
        stage(&documents, |out| write_texts(&set.collection, "document_id", out))?,
        stage(&train, |out| set.examples.iter().try_for_each(|example| write_example(example, out)))?,
    ];
    publish_together(staged)
}

fn write_texts<Kind>(texts: &Texts<Kind>, id_name: &str, out: &mut impl Write) -> std::io::Result<()> {
    for (id, text) in texts.iter().enumerate() {
        write!(out, "{{\"{id_name}\":{id},\"text\":")?;
        serde_json::to_writer(&mut *out, text)?;
        writeln!(out, "}}")?;
    }
    Ok(())
}

fn write_example(example: &Example, out: &mut impl Write) -> std::io::Result<()> {
    let Example { query, documents, scores } = example;
    let row = ExampleRow { query_id: *query, document_ids: documents, scores: scores.as_deref() };
    serde_json::to_writer(&mut *out, &row)?;
    writeln!(out)
}

//! Writing the reference's three training files. Their form: [`crate::sets::reference_files`].
//!
//! The TSV is not quoted, so a tab, line feed or carriage return inside a text cannot be written; each becomes a space.
//! (The reference leaves carriage returns, which break its own files.)

use std::io::Write;
use std::path::Path;

use crate::error::{DataError, Place};
use crate::sets::reference_files::ReferenceFiles;
use crate::sets::training_set::{Example, TrainingSet};
use crate::texts::Texts;
use crate::write::{publish_together, stage};

/// Writes the three files into a folder, which is created if needed. All three are complete on disk before the first
/// one gets its name, and the examples get theirs last: a process that is killed in between leaves nothing that reads
/// as data. An earlier export is replaced; [`ReferenceFiles::refuse_earlier`] refuses to. The same training set gives
/// the same bytes.
///
/// # Errors
/// [`DataError::EmptyText`] for a text with nothing to write (the reference's readers fail on such a line), and
/// [`DataError::Write`].
pub fn export_reference(set: &TrainingSet, folder: &Path) -> Result<ReferenceFiles, DataError> {
    let files = ReferenceFiles::in_folder(folder);
    refuse_empty(&set.queries, &files.queries, "query")?;
    refuse_empty(&set.collection, &files.collection, "document")?;
    std::fs::create_dir_all(folder).map_err(|source| DataError::Write { path: folder.to_owned(), source })?;
    let staged = [
        stage(&files.queries, |out| write_texts(&set.queries, out))?,
        stage(&files.collection, |out| write_texts(&set.collection, out))?,
        stage(&files.triples, |out| set.examples.iter().try_for_each(|example| write_example(example, out)))?,
    ];
    publish_together(staged)?;
    Ok(files)
}

fn refuse_empty<Kind>(texts: &Texts<Kind>, path: &Path, field: &str) -> Result<(), DataError> {
    match texts.iter().position(|text| text.trim().is_empty()) {
        Some(index) => Err(DataError::EmptyText {
            place: Place::Line { path: path.to_owned(), line: index as u64 + 1 },
            field: field.to_owned(),
        }),
        None => Ok(()),
    }
}

fn write_texts<Kind>(texts: &Texts<Kind>, out: &mut impl Write) -> std::io::Result<()> {
    for (id, text) in texts.iter().enumerate() {
        writeln!(out, "{id}\t{}", text.replace(['\t', '\r', '\n'], " "))?;
    }
    Ok(())
}

fn write_example(example: &Example, out: &mut impl Write) -> std::io::Result<()> {
    write!(out, "[{}", example.query)?;
    match &example.scores {
        None => example.documents.iter().try_for_each(|pid| write!(out, ",{pid}"))?,
        Some(scores) => {
            example.documents.iter().zip(scores).try_for_each(|(pid, score)| write!(out, ",[{pid},{score}]"))?;
        }
    }
    writeln!(out, "]")
}

//! Examples of later epochs, with negatives chosen again by the current weights.
//!
//! They are written into the run's folder before they are used, so that a resumed run trains on the same.

use std::fs;
use std::path::PathBuf;

use colbert_config::durable::replace_file;
use colbert_data::Example;
use colbert_kernels::KernelAutodiffBackend;
use colbert_model::Colbert;
use serde::{Deserialize, Serialize};

use crate::error::{TrainError, io};
use crate::record::run_folder::RunFolder;
use crate::step::trainable::TrainableEncoder;

/// A source of examples for later epochs.
pub trait RefreshExamples<B: KernelAutodiffBackend, E: TrainableEncoder<B>> {
    /// Chooses the examples for `epoch`, counted from 0, as many as the first epoch has.
    ///
    /// # Errors
    /// An error of the miner.
    fn examples(
        &mut self,
        model: Colbert<B::InnerBackend, E::InnerModule>,
        epoch: usize,
    ) -> Result<Vec<Example>, TrainError>;
}

fn path(folder: &RunFolder, epoch: usize) -> PathBuf {
    folder.path().join("negatives").join(format!("epoch-{epoch:04}.jsonl"))
}

/// The last row of a file of examples.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sum {
    /// Of the bytes of the rows before it.
    crc32: String,
}

/// A row of a file of examples: the query, its documents, and their teacher scores if it has some.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Row {
    Plain(u32, Vec<u32>),
    Scored(u32, Vec<u32>, Vec<f32>),
}

impl Sum {
    fn of(rows: &[u8]) -> Self {
        Self { crc32: format!("{:08x}", crc32fast::hash(rows)) }
    }
}

/// Reads the examples of an epoch that an earlier part of the run wrote.
///
/// # Errors
/// A file that cannot be read, or [`TrainError::NegativesDamaged`].
pub(crate) fn read_examples(folder: &RunFolder, epoch: usize) -> Result<Option<Vec<Example>>, TrainError> {
    let path = path(folder, epoch);
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(&path).map_err(io("read", &path))?;
    match whole_examples(&bytes) {
        Some(examples) => Ok(Some(examples)),
        None => Err(TrainError::NegativesDamaged { path, epoch: epoch + 1 }),
    }
}

/// Decodes examples; none if the bytes are not those that were written.
fn whole_examples(bytes: &[u8]) -> Option<Vec<Example>> {
    let rows = bytes.strip_suffix(b"\n")?;
    let rows = &bytes[..rows.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)];
    let sum: Sum = serde_json::from_slice(&bytes[rows.len()..]).ok()?;
    if sum != Sum::of(rows) {
        return None;
    }
    let example = |row: &[u8]| {
        // Rows without teacher scores have no third member.
        let row: Row = serde_json::from_slice(row).ok()?;
        let (query, documents, scores) = match row {
            Row::Plain(query, documents) => (query, documents, None),
            Row::Scored(query, documents, scores) => (query, documents, Some(scores)),
        };
        Some(Example { query, documents, scores })
    };
    rows.split_inclusive(|byte| *byte == b'\n').map(example).collect()
}

/// Encodes examples as the rows of a file.
fn rows_of(examples: &[Example]) -> String {
    let mut text = String::new();
    for Example { query, documents, scores } in examples {
        let row = match scores {
            None => serde_json::to_string(&(query, documents)),
            Some(scores) => serde_json::to_string(&(query, documents, scores)),
        };
        text += &row.expect("ids and scores have a JSON form");
        text.push('\n');
    }
    text
}

/// Returns the checksum of examples that stands at the end of their file.
pub(crate) fn checksum(examples: &[Example]) -> String {
    Sum::of(rows_of(examples).as_bytes()).crc32
}

/// Writes examples to the file of their epoch, which has its name only once it is whole.
pub(crate) fn write_examples(folder: &RunFolder, epoch: usize, examples: &[Example]) -> Result<(), TrainError> {
    let path = path(folder, epoch);
    let parent = folder.path().join("negatives");
    fs::create_dir_all(&parent).map_err(io("create", &parent))?;
    let mut text = rows_of(examples);
    text += &serde_json::to_string(&Sum::of(text.as_bytes())).expect("a text has a JSON form");
    text.push('\n');
    replace_file(&path, text.as_bytes()).map_err(io("write", &path))
}

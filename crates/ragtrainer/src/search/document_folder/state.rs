//! `state.json`: what counts in a document folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use colbert_config::durable::replace_file;
use colbert_kernels::VectorFormat;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::io;
use super::place_ranges::PlaceRanges;
use crate::error::Error;

/// Version of the folder that is written. Version 1 has no table of entries, passages or vectors other than float32.
pub(super) const FORMAT: u32 = 2;

pub(super) const FILE: &str = "state.json";

/// The content of `state.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(super) format: u32,
    /// Name of the number format of the vectors.
    vectors: String,
    pub(crate) dim: usize,
    /// Of the model, as hexadecimal digits: JSON numbers are not exact to 64 bits everywhere.
    fingerprint: String,
    pub(super) generation: u64,
    /// Lines of the documents' file, deleted ones included.
    pub(crate) passages: usize,
    /// Documents that can be found.
    pub(super) documents: usize,
    pub(super) tokens: u64,
    pub(super) text_bytes: u64,
    pub(crate) deleted: PlaceRanges,
    /// Documents ever added: the next number that a document without an id gets.
    pub(super) added: usize,
    /// Bits of an index's compressed numbers, as the model's directory declares them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) nbits: Option<usize>,
    /// The index, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) index: Option<IndexState>,
}

/// The index of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IndexState {
    /// Number in the name of its folder.
    pub(super) generation: u64,
    /// Bits of a compressed number.
    pub(super) nbits: usize,
    /// Places that are in it: those from 0 on.
    pub(super) passages: usize,
}

/// The content in version 1.
#[derive(Debug, Deserialize)]
struct FirstState {
    dim: usize,
    fingerprint: String,
    generation: u64,
    documents: usize,
    tokens: u64,
    text_bytes: u64,
    deleted: BTreeSet<usize>,
    #[serde(default)]
    added: usize,
}

impl State {
    /// The state of a folder without documents.
    pub(super) fn empty(dim: usize, fingerprint: u64, vectors: VectorFormat) -> Self {
        Self {
            format: FORMAT,
            vectors: vectors.name().to_owned(),
            dim,
            fingerprint: format!("{fingerprint:016x}"),
            generation: 0,
            passages: 0,
            documents: 0,
            tokens: 0,
            text_bytes: 0,
            deleted: PlaceRanges::default(),
            added: 0,
            nbits: None,
            index: None,
        }
    }

    /// Reads and checks the state of a folder.
    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let text = fs::read_to_string(&path).map_err(io("read", &path))?;
        let json = |source| Error::Json { path: path.clone(), expected: "the state of a document folder", source };
        let value: Value = serde_json::from_str(&text).map_err(json)?;
        let state: Self = match value["format"].as_u64() {
            Some(1) => serde_json::from_value::<FirstState>(value).map_err(json)?.into(),
            Some(format) if format == u64::from(FORMAT) => serde_json::from_value(value).map_err(json)?,
            Some(_) => {
                let problem = "the folder was written by another version; encode the documents again";
                return Err(Error::DocumentFolder { path: folder.to_owned(), problem });
            }
            None => return Err(json(serde::de::Error::missing_field("format"))),
        };
        let known = state.vectors.parse::<VectorFormat>().is_ok() && state.dim > 0;
        // Checked together: the size of the vectors' file may not overflow, and places may not be beyond its end.
        let bytes = (state.dim as u64).checked_mul(4).and_then(|row| row.checked_add(4)?.checked_mul(state.tokens));
        let found = state.deleted.is_sound(state.passages).then(|| state.passages - state.deleted.len());
        let sound =
            found.is_some_and(|found| state.documents <= found) && u64::from_str_radix(&state.fingerprint, 16).is_ok();
        if !known || bytes.is_none() || !sound {
            let problem = "its state.json is damaged; encode the documents again";
            return Err(Error::DocumentFolder { path: folder.to_owned(), problem });
        }
        Ok(state)
    }

    /// Writes it, so that at any moment the old or the new one is on disk, whole.
    pub(super) fn write(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(FILE);
        let json = serde_json::to_string(self).expect("numbers and texts have a JSON form");
        replace_file(&path, json.as_bytes()).map_err(io("write", &path))
    }

    /// Number of the model.
    pub(super) fn fingerprint(&self) -> u64 {
        u64::from_str_radix(&self.fingerprint, 16).expect("`read` checks it and `empty` writes it")
    }

    /// Number format of the vectors.
    pub(super) fn vectors(&self) -> VectorFormat {
        self.vectors.parse().expect("`read` checks it and `empty` writes it")
    }

    /// Bytes of a vector.
    pub(super) fn row_bytes(&self) -> u64 {
        self.vectors().row_bytes(self.dim) as u64
    }

    /// Whether there is a table of entries.
    pub(super) fn has_entries(&self) -> bool {
        self.format > 1
    }

    pub(super) fn vectors_file(&self, folder: &Path) -> PathBuf {
        let extension = match self.vectors() {
            VectorFormat::Float32 => "f32",
            VectorFormat::Float16 => "f16",
            VectorFormat::Int8 => "i8",
        };
        folder.join(format!("vectors-{}.{extension}", self.generation))
    }

    pub(super) fn documents_file(&self, folder: &Path) -> PathBuf {
        folder.join(format!("documents-{}.jsonl", self.generation))
    }

    pub(super) fn entries_file(&self, folder: &Path) -> PathBuf {
        folder.join(format!("entries-{}.bin", self.generation))
    }

    /// The three files, if version 1 has them.
    pub(super) fn files(&self, folder: &Path) -> [PathBuf; 3] {
        [self.vectors_file(folder), self.documents_file(folder), self.entries_file(folder)]
    }
}

impl From<FirstState> for State {
    fn from(first: FirstState) -> Self {
        let mut deleted = PlaceRanges::default();
        // A place that cannot be is refused by the check, whatever its number.
        first
            .deleted
            .iter()
            .map(|place| *place.min(&(usize::MAX - 1)))
            .for_each(|place| deleted.insert(place..place + 1));
        Self {
            format: 1,
            vectors: VectorFormat::Float32.name().to_owned(),
            dim: first.dim,
            fingerprint: first.fingerprint,
            generation: first.generation,
            passages: first.documents,
            documents: first.documents.saturating_sub(first.deleted.len()),
            tokens: first.tokens,
            text_bytes: first.text_bytes,
            deleted,
            added: first.added.max(first.documents),
            nbits: None,
            index: None,
        }
    }
}

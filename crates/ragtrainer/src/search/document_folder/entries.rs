//! Where the vectors and the text of each passage are.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::ops::Range;
use std::path::Path;

use colbert_data::Fingerprint;
use serde::Deserialize;

use super::io;
use super::read_at::read_at;
use super::state::State;
use crate::error::Error;

/// Bytes of an entry on disk.
pub(super) const SIZE: usize = 24;

/// Ends of a passage in the two other files, and the hash of its document's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Entry {
    /// Row behind the last vector.
    pub(super) row: u64,
    /// Byte behind the line.
    pub(super) byte: u64,
    /// Hash of the id.
    pub(super) id: u64,
}

/// The table of entries.
#[derive(Debug)]
pub(super) enum Entries {
    /// Read on demand, so that opening costs the same for any number of passages.
    OnDisk(File),
    /// Of a folder of version 1, which has no such file.
    InMemory(Vec<Entry>),
}

impl Entry {
    pub(super) fn to_bytes(self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        for (to, number) in bytes.chunks_exact_mut(8).zip([self.row, self.byte, self.id]) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; SIZE]) -> Self {
        let [row, byte, id] =
            [0, 8, 16].map(|at| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes")));
        Self { row, byte, id }
    }
}

/// Hash of a document's id.
pub(super) fn hash(id: &str) -> u64 {
    let mut fingerprint = Fingerprint::new();
    fingerprint.add(id.as_bytes());
    fingerprint.finish()
}

impl Entries {
    /// Opens the table of a folder, or makes it for version 1.
    pub(super) fn open(folder: &Path, state: &State, documents: &File) -> Result<Self, Error> {
        if !state.has_entries() {
            return Ok(Self::InMemory(read_first_version(folder, state, documents)?));
        }
        let path = state.entries_file(folder);
        let file = File::open(&path).map_err(io("open", &path))?;
        let length = file.metadata().map_err(io("read", &path))?.len();
        if (length / SIZE as u64) < state.passages as u64 {
            return Err(damaged(&path));
        }
        Ok(Self::OnDisk(file))
    }

    /// The entries of these places, after the one before them (zeros before the first).
    pub(super) fn read(&self, folder: &Path, state: &State, places: Range<usize>) -> Result<Vec<Entry>, Error> {
        let before = places.start.saturating_sub(1);
        let mut entries = if places.start == 0 { vec![Entry::default()] } else { Vec::new() };
        match self {
            Self::InMemory(all) => entries.extend_from_slice(&all[before..places.end]),
            Self::OnDisk(file) => {
                let path = state.entries_file(folder);
                let mut bytes = vec![0; (places.end - before) * SIZE];
                read_at(file, (before * SIZE) as u64, &mut bytes).map_err(io("read", &path))?;
                entries.extend(bytes.as_chunks::<SIZE>().0.iter().map(Entry::from_bytes));
                let rises = |pair: &[Entry]| pair[0].row <= pair[1].row && pair[0].byte < pair[1].byte;
                let last = entries.last().is_none_or(|last| last.row <= state.tokens && last.byte <= state.text_bytes);
                if !entries.windows(2).all(rises) || !last {
                    return Err(damaged(&path));
                }
            }
        }
        Ok(entries)
    }
}

/// The parts of a line that version 1 has no table of.
#[derive(Deserialize)]
struct Head {
    id: String,
    tokens: usize,
}

fn read_first_version(folder: &Path, state: &State, mut file: &File) -> Result<Vec<Entry>, Error> {
    let path = state.documents_file(folder);
    file.rewind().map_err(io("read", &path))?;
    let mut lines = BufReader::new(file);
    let mut entries = Vec::new();
    let (mut last, mut text) = (Entry::default(), String::new());
    for _ in 0..state.passages {
        text.clear();
        let bytes = lines.read_line(&mut text).map_err(io("read", &path))?;
        let Ok(Head { id, tokens }) = serde_json::from_str(&text) else { return Err(damaged(&path)) };
        // Checked for each line: their sum may come out right where one of them is far too large.
        let row = last.row.checked_add(tokens as u64).filter(|row| *row <= state.tokens);
        last = Entry { row: row.ok_or_else(|| damaged(&path))?, byte: last.byte + bytes as u64, id: hash(&id) };
        entries.push(last);
    }
    if (last.row, last.byte) == (state.tokens, state.text_bytes) { Ok(entries) } else { Err(damaged(&path)) }
}

pub(super) fn damaged(path: &Path) -> Error {
    let problem = "the file is shorter than state.json says, or is not what it says; encode the documents again";
    Error::DocumentFolder { path: path.to_owned(), problem }
}

//! Encoded documents in a folder.
//!
//! `state.json` says what counts: how many passages and vectors, and which of them were deleted. It is written beside
//! and renamed, after what it speaks of. Three files only grow: `vectors-G.f32` (`f16`, `i8`; row by row, as
//! [`VectorFormat`] encodes them), `documents-G.jsonl` (a line for each passage) and `entries-G.bin` (for each passage
//! where its vectors and its line end); G counts how often the folder was made compact. An index, if there is one,
//! lies in a folder beside them. What lies behind the counts is left over from a writer that did not finish, and the
//! next one cuts it off. One writer at a time holds `lock`; readers need none.
//!
//! Files are read by position, into the memory of the thread that needs them, and not mapped: a mapped file that
//! another program cuts off ends this one by a signal, where a read is an error.

mod compact;
mod entries;
#[cfg(feature = "index")]
mod indexed;
pub(crate) mod place_ranges;
mod read_at;
pub(crate) mod state;
mod write;

use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use colbert_config::durable::is_leftover;
use colbert_kernels::{VectorFormat, VectorRows};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Error;
use crate::search::pretrained::RagPretrainedModel;
use crate::search::ranking::{EncodedSource, Passage};
#[cfg(feature = "index")]
use crate::search::text_vectors::TextVectors;
use crate::search::text_vectors::VectorBlock;
use entries::{Entries, damaged, hash};
use read_at::read_at;
use state::State;

const LOCK: &str = "lock";

/// Places whose entries are read at once where all are needed.
const MANY: usize = 1 << 16;

/// Documents and their vectors in a folder: added to, deleted from and searched without reading all of it into memory.
///
/// An opened folder stays as it was when it was opened, whatever a writer does meanwhile.
#[derive(Debug)]
pub struct DocumentFolder {
    path: PathBuf,
    state: State,
    /// Open: a writer that removes a file does not take it from a reader.
    vectors: File,
    documents: File,
    entries: Entries,
    /// Hash of the document's id and place of every passage that can be found, in this order. Read when first needed.
    ids: OnceLock<Vec<(u64, usize)>>,
    /// Whether a search looks at the index's candidates.
    uses_index: bool,
    /// The index, opened when first needed; None if it is gone.
    #[cfg(feature = "index")]
    index: OnceLock<Option<crate::search::index::PlaidIndex>>,
}

/// A line of `documents-G.jsonl`.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    id: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    passage: usize,
    tokens: usize,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    metadata: Map<String, Value>,
    text: String,
}

/// The id of a line.
#[derive(Deserialize)]
struct Id {
    id: String,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl DocumentFolder {
    /// Opens a folder, or makes an empty one for the vectors of `model`, in float32.
    ///
    /// # Errors
    /// A folder that holds something else, is damaged, or belongs to another model.
    pub fn open_or_create(path: impl AsRef<Path>, model: &RagPretrainedModel) -> Result<Self, Error> {
        Self::open_or_create_as(path, model, None)
    }

    /// The same with a number format of the vectors. Without one, a folder that is there keeps its own.
    ///
    /// # Errors
    /// As [`DocumentFolder::open_or_create`], or a folder with vectors of another format.
    pub fn open_or_create_as(
        path: impl AsRef<Path>,
        model: &RagPretrainedModel,
        format: Option<VectorFormat>,
    ) -> Result<Self, Error> {
        let path = path.as_ref();
        let opened = || -> Result<Self, Error> {
            let folder = Self::open(path)?;
            model.same_model(folder.fingerprint())?;
            model.same_size(folder.dim())?;
            if format.is_some_and(|format| format != folder.vector_format()) {
                let problem = "its vectors are stored in another format; leave the format out, or name another folder";
                return Err(Error::DocumentFolder { path: path.to_owned(), problem });
            }
            Ok(folder)
        };
        if path.join(state::FILE).exists() {
            return opened();
        }
        let mut state = State::empty(model.settings().dim, model.fingerprint(), format.unwrap_or_default());
        state.nbits = model.index_bits()?;
        // Another program may have been faster.
        if create(path, &state)? { Self::open(path) } else { opened() }
    }

    /// Makes an empty folder for vectors of `dim` numbers that come from elsewhere ([`DocumentFolder::add_vectors`]).
    /// `fingerprint` tells which model encodes them: searches by another one are refused.
    ///
    /// # Errors
    /// A folder that holds something, or a disk that refuses.
    pub fn create(path: impl AsRef<Path>, dim: usize, fingerprint: u64, format: VectorFormat) -> Result<Self, Error> {
        let path = path.as_ref();
        if !create(path, &State::empty(dim, fingerprint, format))? {
            let problem = "there are encoded documents already; open the folder, or name another one";
            return Err(Error::DocumentFolder { path: path.to_owned(), problem });
        }
        Self::open(path)
    }

    /// Opens a folder. This takes the same short time for any number of documents, but for folders of version 1.
    ///
    /// # Errors
    /// A folder that is missing, holds something else, or is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        // A writer that makes the folder compact removes the files of a state that was just read: then there is a
        // newer.
        let mut before = None;
        loop {
            let state = State::read(path)?;
            match Self::with_state(path, state.clone()) {
                Err(Error::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound && before.as_ref() != Some(&state) =>
                {
                    before = Some(state);
                }
                opened => return opened,
            }
        }
    }

    fn with_state(path: &Path, state: State) -> Result<Self, Error> {
        let open = |file: PathBuf, least: u64| -> Result<File, Error> {
            let opened = File::open(&file).map_err(io("open", &file))?;
            let length = opened.metadata().map_err(io("read", &file))?.len();
            if length < least { Err(damaged(&file)) } else { Ok(opened) }
        };
        let vectors = open(state.vectors_file(path), state.tokens * state.row_bytes())?;
        let documents = open(state.documents_file(path), state.text_bytes)?;
        let entries = Entries::open(path, &state, &documents)?;
        let last = entries.read(path, &state, state.passages..state.passages)?;
        if last.last().is_some_and(|last| (last.row, last.byte) != (state.tokens, state.text_bytes)) {
            return Err(damaged(&state.entries_file(path)));
        }
        Ok(Self {
            path: path.to_owned(),
            state,
            vectors,
            documents,
            entries,
            ids: OnceLock::new(),
            uses_index: true,
            #[cfg(feature = "index")]
            index: OnceLock::new(),
        })
    }

    /// Number of documents that can be found.
    pub fn len(&self) -> usize {
        self.state.documents
    }

    /// Whether there is no document that can be found.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of passages that can be found: of documents that were not split, one each.
    pub fn passages(&self) -> usize {
        self.state.passages - self.state.deleted.len()
    }

    /// Number of vectors, those of deleted passages included until the folder is made compact.
    pub fn vectors(&self) -> u64 {
        self.state.tokens
    }

    /// Bits of the index's compressed numbers, and how many passages were added since; None without an index.
    pub fn index(&self) -> Option<(usize, usize)> {
        self.state.index.map(|index| (index.nbits, self.state.passages - index.passages))
    }

    /// Bits that the model's directory declares for the compressed numbers of an index, if it declares any.
    pub fn declared_bits(&self) -> Option<usize> {
        self.state.nbits
    }

    /// Whether a search scores all passages even if there is an index. Default false; a program without the cargo
    /// feature `index` always does.
    #[must_use]
    pub fn with_exact_search(mut self, exact: bool) -> Self {
        self.uses_index = !exact;
        self
    }

    /// Number format of the vectors.
    pub fn vector_format(&self) -> VectorFormat {
        self.state.vectors()
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ids of the documents that can be found, in the order in which they were added.
    ///
    /// # Errors
    /// The documents cannot be read.
    pub fn ids(&self) -> Result<Vec<String>, Error> {
        let mut ids: Vec<String> = Vec::with_capacity(self.len());
        for run in self.state.deleted.gaps(0..self.state.passages) {
            for place in run {
                let id = self.id_at(place)?;
                if ids.last() != Some(&id) {
                    ids.push(id);
                }
            }
        }
        Ok(ids)
    }

    /// Whether there is a document with this id.
    ///
    /// # Errors
    /// The documents cannot be read.
    pub fn contains(&self, id: &str) -> Result<bool, Error> {
        Ok(self.find(id)?.is_some())
    }

    fn find(&self, id: &str) -> Result<Option<Range<usize>>, Error> {
        let (ids, hash) = (self.hashed_ids()?, hash(id));
        let first = ids.partition_point(|(other, _)| *other < hash);
        let mut places: Option<Range<usize>> = None;
        for (_, place) in ids[first..].iter().take_while(|(other, _)| *other == hash) {
            // Two ids may have one hash.
            if self.id_at(*place)? == id {
                places = Some(places.map_or(*place, |places| places.start)..place + 1);
            }
        }
        Ok(places)
    }

    fn hashed_ids(&self) -> Result<&[(u64, usize)], Error> {
        if let Some(ids) = self.ids.get() {
            return Ok(ids);
        }
        let mut ids = Vec::with_capacity(self.passages());
        for start in (0..self.state.passages).step_by(MANY) {
            let places = start..self.state.passages.min(start + MANY);
            let entries = self.entries.read(&self.path, &self.state, places.clone())?;
            for place in self.state.deleted.gaps(places).into_iter().flatten() {
                ids.push((entries[place - start + 1].id, place));
            }
        }
        ids.sort_unstable();
        Ok(self.ids.get_or_init(|| ids))
    }

    fn id_at(&self, place: usize) -> Result<String, Error> {
        let line = self.line(place)?;
        let json = |source| Error::Json {
            path: self.state.documents_file(&self.path),
            expected: "an object with id, tokens and text",
            source,
        };
        Ok(serde_json::from_slice::<Id>(&line).map_err(json)?.id)
    }

    /// The line of a passage.
    fn line(&self, place: usize) -> Result<Vec<u8>, Error> {
        let entries = self.entries.read(&self.path, &self.state, place..place + 1)?;
        let mut line = vec![0; (entries[1].byte - entries[0].byte) as usize];
        let path = self.state.documents_file(&self.path);
        read_at(&self.documents, entries[0].byte, &mut line).map_err(io("read", &path))?;
        Ok(line)
    }

    /// Takes the writers' lock, and reads what the last writer left. The lock goes with the file.
    fn lock(&mut self) -> Result<File, Error> {
        let lock = lock(&self.path)?;
        *self = Self { uses_index: self.uses_index, ..Self::open(&self.path)? };
        Ok(lock)
    }

    /// Makes a state count, on disk and here.
    fn commit(&mut self, state: State) -> Result<(), Error> {
        state.write(&self.path)?;
        *self = Self { uses_index: self.uses_index, ..Self::with_state(&self.path, state)? };
        Ok(())
    }
}

impl EncodedSource for DocumentFolder {
    fn dim(&self) -> usize {
        self.state.dim
    }

    fn fingerprint(&self) -> u64 {
        self.state.fingerprint()
    }

    fn places(&self) -> usize {
        self.state.passages
    }

    fn block<'a>(&'a self, places: Range<usize>, buffer: &'a mut Vec<u8>) -> Result<VectorBlock<'a>, Error> {
        let path = self.state.vectors_file(&self.path);
        let entries = self.entries.read(&self.path, &self.state, places.clone())?;
        let row_bytes = self.state.row_bytes();
        let (mut found, mut offsets) = (Vec::with_capacity(places.len()), vec![0]);
        buffer.clear();
        for run in self.state.deleted.gaps(places.clone()) {
            let entries = &entries[run.start - places.start..=run.end - places.start];
            let (first, last) = (entries[0].row, entries[entries.len() - 1].row);
            let start = buffer.len();
            buffer.resize(start + ((last - first) * row_bytes) as usize, 0);
            read_at(&self.vectors, first * row_bytes, &mut buffer[start..]).map_err(io("read", &path))?;
            let before = offsets[offsets.len() - 1];
            offsets.extend(entries[1..].iter().map(|entry| before + (entry.row - first) as usize));
            found.extend(run);
        }
        if !self.vector_format().is_finite(buffer, self.state.dim) {
            let problem = "the file holds vectors that are not finite; it is damaged: encode the documents again";
            return Err(Error::DocumentFolder { path, problem });
        }
        let rows = VectorRows::Stored(self.vector_format(), buffer);
        Ok(VectorBlock { places: found, offsets, rows })
    }

    fn passage(&self, place: usize) -> Result<Passage, Error> {
        let line = self.line(place)?;
        let (path, expected) = (self.state.documents_file(&self.path), "an object with id, tokens and text");
        let line: Line = serde_json::from_slice(&line).map_err(|source| Error::Json { path, expected, source })?;
        Ok(Passage { id: Some(line.id), passage: line.passage, text: line.text, metadata: line.metadata })
    }

    fn places_of(&self, id: &str) -> Result<Option<Range<usize>>, Error> {
        self.find(id)
    }

    #[cfg(feature = "index")]
    fn candidates(
        &self,
        queries: &TextVectors,
        k: usize,
        among: Option<&[usize]>,
    ) -> Result<Option<Vec<Vec<usize>>>, Error> {
        self.candidates_of_index(queries, k, among)
    }
}

/// Makes an empty folder, unless there is one.
fn create(path: &Path, state: &State) -> Result<bool, Error> {
    fs::create_dir_all(path).map_err(io("create", path))?;
    let _lock = lock(path)?;
    if path.join(state::FILE).exists() {
        return Ok(false);
    }
    for entry in fs::read_dir(path).map_err(io("list", path))? {
        let name = entry.map_err(io("list", path))?.file_name();
        // A program that was killed while it made the folder leaves these.
        let begun = |name: &str| {
            let ours = ["vectors-0.f32", "vectors-0.f16", "vectors-0.i8", "documents-0.jsonl", "entries-0.bin", LOCK];
            ours.contains(&name) || is_leftover(name)
        };
        if !name.to_str().is_some_and(begun) {
            let problem = "the folder is not empty and holds no encoded documents; name another one";
            return Err(Error::DocumentFolder { path: path.to_owned(), problem });
        }
    }
    for file in state.files(path) {
        File::create(&file).map_err(io("create", &file))?;
    }
    state.write(path)?;
    Ok(true)
}

fn lock(path: &Path) -> Result<File, Error> {
    let file = path.join(LOCK);
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&file).map_err(io("open", &file))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => {
            let problem = "another program is writing to the folder; wait until it is done";
            Err(Error::DocumentFolder { path: path.to_owned(), problem })
        }
        Err(fs::TryLockError::Error(source)) => Err(Error::Io { action: "lock", path: file, source }),
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

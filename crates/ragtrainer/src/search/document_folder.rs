//! Encoded documents in a folder.
//!
//! `state.json` says what counts: how many documents and vectors, and which of them were deleted. It is written beside and
//! renamed, after what it speaks of. `vectors-G.f32` (float32, little-endian, `[tokens, dim]`) and `documents-G.jsonl` (a line
//! for each document) only grow; G counts how often the folder was made compact. What lies behind the counts is left over
//! from a writer that did not finish, and the next one cuts it off. One writer at a time holds `lock`; readers need none.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use colbert_config::durable::{is_leftover, replace_file};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::search::pretrained::RagPretrainedModel;
use crate::search::ranking::{BLOCK_NUMBERS, EncodedSource};
use crate::search::text_vectors::TextVectors;

const FORMAT: u32 = 1;
const STATE: &str = "state.json";
const LOCK: &str = "lock";

/// Documents and their vectors in a folder: added to, deleted from and searched without reading all of it into memory.
///
/// An opened folder stays as it was when it was opened, whatever a writer does meanwhile.
#[derive(Debug)]
pub struct DocumentFolder {
    path: PathBuf,
    state: State,
    files: Mutex<Files>,
    entries: Vec<Entry>,
    places: HashMap<String, usize>,
}

/// The content of `state.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct State {
    format: u32,
    dim: usize,
    /// Of the model, as hexadecimal digits: JSON numbers are not exact to 64 bits everywhere.
    fingerprint: String,
    generation: u64,
    documents: usize,
    tokens: u64,
    text_bytes: u64,
    deleted: BTreeSet<usize>,
    /// Documents ever added: the next number that a document without an id gets. Folders of earlier versions lack it.
    #[serde(default)]
    added: usize,
}

/// The two files of a generation, open: a writer that removes them does not take them from a reader.
#[derive(Debug)]
struct Files {
    vectors: File,
    documents: File,
}

/// A line of `documents-G.jsonl`.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    id: String,
    tokens: usize,
    text: String,
}

/// The same without the text, which stays on disk.
#[derive(Debug, Deserialize)]
struct Head {
    id: String,
    tokens: usize,
}

#[derive(Debug)]
struct Entry {
    id: String,
    /// Row of the first vector.
    row: u64,
    tokens: usize,
    /// Byte of `documents-G.jsonl` where its line begins.
    line: u64,
}

impl DocumentFolder {
    /// Opens a folder, or makes an empty one for the vectors of `model`.
    ///
    /// # Errors
    /// A folder that holds something else, is damaged, or belongs to another model.
    pub fn open_or_create(path: impl AsRef<Path>, model: &RagPretrainedModel) -> Result<Self, Error> {
        let path = path.as_ref();
        if path.join(STATE).exists() {
            let folder = Self::open(path)?;
            model.same_model(folder.fingerprint())?;
            return Ok(folder);
        }
        fs::create_dir_all(path).map_err(io("create", path))?;
        let _lock = lock(path)?;
        // Another program may have been faster.
        if path.join(STATE).exists() {
            let folder = Self::open(path)?;
            model.same_model(folder.fingerprint())?;
            return Ok(folder);
        }
        for entry in fs::read_dir(path).map_err(io("list", path))? {
            let name = entry.map_err(io("list", path))?.file_name();
            // A program that was killed while it made the folder leaves these.
            let begun = |name: &str| [LOCK, "vectors-0.f32", "documents-0.jsonl"].contains(&name) || is_leftover(name);
            if !name.to_str().is_some_and(begun) {
                let problem = "the folder is not empty and holds no encoded documents; name another one";
                return Err(Error::DocumentFolder { path: path.to_owned(), problem });
            }
        }
        let state = State {
            format: FORMAT,
            dim: model.settings().dim,
            fingerprint: format!("{:016x}", model.fingerprint()),
            generation: 0,
            documents: 0,
            tokens: 0,
            text_bytes: 0,
            deleted: BTreeSet::new(),
            added: 0,
        };
        for file in [vectors_file(path, 0), documents_file(path, 0)] {
            File::create(&file).map_err(io("create", &file))?;
        }
        write_state(path, &state)?;
        Self::open(path)
    }

    /// Opens a folder.
    ///
    /// # Errors
    /// A folder that is missing, holds something else, or is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        // A writer that makes the folder compact removes the files of a state that was just read: then there is a newer.
        let mut before = None;
        loop {
            let state = Self::read_state(path)?;
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

    fn read_state(path: &Path) -> Result<State, Error> {
        let file = path.join(STATE);
        let text = fs::read_to_string(&file).map_err(io("read", &file))?;
        let expected = "the state of a document folder";
        let state: State =
            serde_json::from_str(&text).map_err(|source| Error::Json { path: file, expected, source })?;
        if state.format != FORMAT || state.dim == 0 {
            let problem = "the folder was written by another version; encode the documents again";
            return Err(Error::DocumentFolder { path: path.to_owned(), problem });
        }
        let bytes = (state.dim as u64).checked_mul(4).and_then(|row| row.checked_mul(state.tokens));
        let out_of_range = state.deleted.last().is_some_and(|last| *last >= state.documents);
        if bytes.is_none() || out_of_range || u64::from_str_radix(&state.fingerprint, 16).is_err() {
            let problem = "its state.json is damaged; encode the documents again";
            return Err(Error::DocumentFolder { path: path.to_owned(), problem });
        }
        Ok(State { added: state.added.max(state.documents), ..state })
    }

    fn with_state(path: &Path, state: State) -> Result<Self, Error> {
        let files = Mutex::new(Files::open(path, state.generation)?);
        let mut folder = Self { path: path.to_owned(), state, files, entries: Vec::new(), places: HashMap::new() };
        folder.read_entries()?;
        Ok(folder)
    }

    /// Encodes documents and adds them, with their ids; one without gets its number. Nothing is added if anything fails.
    /// `progress` is told how many documents are encoded. Returns the ids.
    ///
    /// # Errors
    /// An id that is taken, an empty text, another model than before, another writer, or a disk that refuses.
    pub fn add(
        &mut self,
        model: &RagPretrainedModel,
        documents: &[(Option<String>, String)],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<String>, Error> {
        let _lock = self.lock()?;
        model.same_model(self.fingerprint())?;
        let mut ids: Vec<String> = Vec::with_capacity(documents.len());
        let mut new = BTreeSet::new();
        let mut number = self.state.added;
        for (id, _) in documents {
            let taken = |id: &String, new: &BTreeSet<String>| self.places.contains_key(id) || new.contains(id);
            let id = match id {
                Some(id) if taken(id, &new) => return Err(Error::DuplicateDocument { id: id.clone() }),
                Some(id) => id.clone(),
                None => loop {
                    let id = number.to_string();
                    number += 1;
                    if !taken(&id, &new) {
                        break id;
                    }
                },
            };
            new.insert(id.clone());
            ids.push(id);
        }
        let texts: Vec<&str> = documents.iter().map(|(_, text)| text.as_str()).collect();
        let (vectors_file, documents_file) = (self.vectors_file(), self.documents_file());
        let mut vectors_to = append_at(&vectors_file, self.state.tokens * self.row_bytes())?;
        let mut lines_to = append_at(&documents_file, self.state.text_bytes)?;
        let mut state = self.state.clone();
        // A part at a time, so that vectors need not fit in memory.
        for (texts, ids) in texts.chunks(1024).zip(ids.chunks(1024)) {
            let before = state.documents - self.state.documents;
            let vectors = model.document_vectors_with(texts, &mut |done| progress(before + done))?;
            for (i, (text, id)) in texts.iter().zip(ids).enumerate() {
                let tokens = vectors.offsets()[i + 1] - vectors.offsets()[i];
                let line = Line { id: id.clone(), tokens, text: (*text).to_owned() };
                let line = serde_json::to_string(&line).expect("texts and numbers have a JSON form") + "\n";
                lines_to.write_all(line.as_bytes()).map_err(io("write", &documents_file))?;
                state.text_bytes += line.len() as u64;
            }
            let bytes: Vec<u8> = vectors.values().iter().flat_map(|value| value.to_le_bytes()).collect();
            vectors_to.write_all(&bytes).map_err(io("write", &vectors_file))?;
            state.tokens += vectors.tokens() as u64;
            state.documents += texts.len();
        }
        state.added = number.max(self.state.added + documents.len());
        finish(vectors_to, &vectors_file)?;
        finish(lines_to, &documents_file)?;
        self.commit(state)?;
        Ok(ids)
    }

    /// Deletes documents by their ids, and returns how many. Once more than half are deleted, the folder is made compact.
    ///
    /// # Errors
    /// An id that is not there (then nothing is deleted), another writer, or a disk that refuses.
    pub fn delete<S: AsRef<str>>(&mut self, ids: &[S]) -> Result<usize, Error> {
        let _lock = self.lock()?;
        let mut state = self.state.clone();
        for id in ids {
            let Some(place) = self.places.get(id.as_ref()) else {
                return Err(Error::UnknownDocument { id: id.as_ref().to_owned() });
            };
            state.deleted.insert(*place);
        }
        let deleted = state.deleted.len() - self.state.deleted.len();
        let compact = state.deleted.len() * 2 > state.documents;
        self.commit(state)?;
        if compact {
            self.compact()?;
        }
        Ok(deleted)
    }

    /// Number of documents that can be found.
    pub fn len(&self) -> usize {
        self.state.documents - self.state.deleted.len()
    }

    /// Whether there is no document that can be found.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ids of the documents that can be found, in the order in which they were added.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.alive().map(|(_, entry)| entry.id.as_str())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn alive(&self) -> impl Iterator<Item = (usize, &Entry)> {
        self.entries.iter().enumerate().filter(|(place, _)| !self.state.deleted.contains(place))
    }

    /// The line of a document.
    fn line(&self, entry: &Entry) -> std::io::Result<String> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.documents.seek(SeekFrom::Start(entry.line))?;
        let mut line = String::new();
        BufReader::new(&mut files.documents).read_line(&mut line)?;
        Ok(line)
    }

    fn row_bytes(&self) -> u64 {
        self.state.dim as u64 * 4
    }

    fn vectors_file(&self) -> PathBuf {
        vectors_file(&self.path, self.state.generation)
    }

    fn documents_file(&self) -> PathBuf {
        documents_file(&self.path, self.state.generation)
    }

    /// Takes the writers' lock, and reads what the last writer left. The lock goes with the file.
    fn lock(&mut self) -> Result<File, Error> {
        let lock = lock(&self.path)?;
        *self = Self::open(&self.path)?;
        Ok(lock)
    }

    /// Makes a state count, on disk and here.
    fn commit(&mut self, state: State) -> Result<(), Error> {
        write_state(&self.path, &state)?;
        *self = Self::with_state(&self.path, state)?;
        Ok(())
    }

    fn read_entries(&mut self) -> Result<(), Error> {
        let (vectors, documents) = (self.vectors_file(), self.documents_file());
        let damaged = |path: &Path| Error::DocumentFolder {
            path: path.to_owned(),
            problem: "the file is shorter than state.json says, or is not what it says; encode the documents again",
        };
        if fs::metadata(&vectors).map_err(io("read", &vectors))?.len() < self.state.tokens * self.row_bytes() {
            return Err(damaged(&vectors));
        }
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.documents.rewind().map_err(io("read", &documents))?;
        let mut lines = BufReader::new(&mut files.documents);
        let (mut row, mut line, mut text) = (0, 0, String::new());
        for place in 0..self.state.documents {
            text.clear();
            let bytes = lines.read_line(&mut text).map_err(io("read", &documents))?;
            let Ok(Head { id, tokens }) = serde_json::from_str(&text) else { return Err(damaged(&documents)) };
            if !self.state.deleted.contains(&place) {
                self.places.insert(id.clone(), place);
            }
            self.entries.push(Entry { id, row, tokens, line });
            // Checked for each line: their sum may come out right where one of them is far too large.
            row = u64::checked_add(row, tokens as u64)
                .filter(|row| *row <= self.state.tokens)
                .ok_or_else(|| damaged(&documents))?;
            line += bytes as u64;
        }
        if row == self.state.tokens && line == self.state.text_bytes { Ok(()) } else { Err(damaged(&documents)) }
    }

    /// Writes what can be found into files of a new generation, and removes the old ones.
    fn compact(&mut self) -> Result<(), Error> {
        let old = [self.vectors_file(), self.documents_file()];
        let mut state = State {
            generation: self.state.generation + 1,
            documents: 0,
            tokens: 0,
            text_bytes: 0,
            deleted: BTreeSet::new(),
            ..self.state.clone()
        };
        let (vectors_file, documents_file) =
            (vectors_file(&self.path, state.generation), documents_file(&self.path, state.generation));
        let mut vectors_to = append_at(&vectors_file, 0)?;
        let mut lines_to = append_at(&documents_file, 0)?;
        let mut failed = None;
        self.for_each_block(&mut |_, block| {
            let bytes: Vec<u8> = block.values().iter().flat_map(|value| value.to_le_bytes()).collect();
            if let Err(error) = vectors_to.write_all(&bytes) {
                failed.get_or_insert(error);
            }
        })?;
        if let Some(error) = failed {
            return Err(io("write", &vectors_file)(error));
        }
        for (_, entry) in self.alive() {
            let line = self.line(entry).map_err(io("read", &old[1]))?;
            lines_to.write_all(line.as_bytes()).map_err(io("write", &documents_file))?;
            state.documents += 1;
            state.tokens += entry.tokens as u64;
            state.text_bytes += line.len() as u64;
        }
        finish(vectors_to, &vectors_file)?;
        finish(lines_to, &documents_file)?;
        self.commit(state)?;
        for file in old {
            fs::remove_file(&file).map_err(io("remove", &file))?;
        }
        Ok(())
    }
}

impl EncodedSource for DocumentFolder {
    fn dim(&self) -> usize {
        self.state.dim
    }

    fn fingerprint(&self) -> u64 {
        u64::from_str_radix(&self.state.fingerprint, 16).expect("`open` checks it and `create` writes it")
    }

    fn for_each_block(&self, visit: &mut dyn FnMut(&[usize], &TextVectors)) -> Result<(), Error> {
        let path = self.vectors_file();
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let file = &mut files.vectors;
        let dim = self.state.dim;
        let (mut places, mut block, mut bytes) = (Vec::new(), TextVectors::new(dim), Vec::new());
        for (place, entry) in self.alive() {
            bytes.resize(entry.tokens * dim * 4, 0);
            // Seeking where the file already stands costs nothing; a gap is a deleted document.
            file.seek(SeekFrom::Start(entry.row * self.row_bytes())).map_err(io("read", &path))?;
            file.read_exact(&mut bytes).map_err(io("read", &path))?;
            let rows: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            places.push(place);
            block.push(&rows);
            if block.values().len() >= BLOCK_NUMBERS {
                visit(&places, &block);
                places.clear();
                block = TextVectors::new(dim);
            }
        }
        if !places.is_empty() {
            visit(&places, &block);
        }
        Ok(())
    }

    fn document(&self, index: usize) -> Result<(Option<String>, String), Error> {
        let path = self.documents_file();
        let line = self.line(&self.entries[index]).map_err(io("read", &path))?;
        let expected = "an object with id, tokens and text";
        let line: Line = serde_json::from_str(&line).map_err(|source| Error::Json { path, expected, source })?;
        Ok((Some(line.id), line.text))
    }
}

impl Files {
    fn open(path: &Path, generation: u64) -> Result<Self, Error> {
        let open = |file: PathBuf| File::open(&file).map_err(io("open", &file));
        Ok(Self { vectors: open(vectors_file(path, generation))?, documents: open(documents_file(path, generation))? })
    }
}

fn vectors_file(path: &Path, generation: u64) -> PathBuf {
    path.join(format!("vectors-{generation}.f32"))
}

fn documents_file(path: &Path, generation: u64) -> PathBuf {
    path.join(format!("documents-{generation}.jsonl"))
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

/// Writes the state, so that at any moment the old or the new one is on disk, before files of the old one are removed.
fn write_state(path: &Path, state: &State) -> Result<(), Error> {
    let file = path.join(STATE);
    let json = serde_json::to_string_pretty(state).expect("numbers and texts have a JSON form");
    replace_file(&file, json.as_bytes()).map_err(io("write", &file))
}

/// A file to write to, cut to this length.
fn append_at(path: &Path, length: u64) -> Result<BufWriter<File>, Error> {
    let open = || {
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.set_len(length)?;
        file.seek(SeekFrom::End(0))?;
        Ok(BufWriter::new(file))
    };
    open().map_err(io("open", path))
}

fn finish(file: BufWriter<File>, path: &Path) -> Result<(), Error> {
    let file = file.into_inner().map_err(|error| io("write", path)(error.into_error()))?;
    file.sync_all().map_err(io("write", path))
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

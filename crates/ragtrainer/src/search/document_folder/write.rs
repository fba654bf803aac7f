//! Adding documents to a folder.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::Map;

use super::entries::{Entry, SIZE, hash};
use super::state::{FORMAT, State};
use super::{DocumentFolder, Line, MANY, io};
use crate::error::Error;
use crate::search::document::Document;
use crate::search::passages::Split;
use crate::search::pretrained::{RagPretrainedModel, not_empty};
use crate::search::text_vectors::TextVectors;

/// Passages whose vectors are in memory at once.
const AT_ONCE: usize = 1024;

/// The files of a folder, open behind what counts.
pub(super) struct Appender {
    paths: [PathBuf; 3],
    files: [BufWriter<File>; 3],
}

/// A passage that is to be written.
struct NewPassage<'a> {
    id: &'a String,
    passage: usize,
    text: &'a str,
    metadata: &'a Map<String, serde_json::Value>,
}

impl DocumentFolder {
    /// Encodes documents and adds them, with their ids; one without gets its number. Nothing is added if anything
    /// fails. `progress` is told how many documents are encoded. Returns the ids.
    ///
    /// # Errors
    /// An id that is taken, an empty text, another model than before, another writer, or a disk that refuses.
    pub fn add<D: Clone + Into<Document>>(
        &mut self,
        model: &RagPretrainedModel,
        documents: &[D],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<String>, Error> {
        self.add_passages(model, documents, Split::Whole, progress)
    }

    /// The same, with long documents split into passages, each of which is found on its own and points to its document.
    /// `progress` is told how many passages are encoded.
    ///
    /// # Errors
    /// As [`DocumentFolder::add`], or passages of a length that the model does not take.
    pub fn add_passages<D: Clone + Into<Document>>(
        &mut self,
        model: &RagPretrainedModel,
        documents: &[D],
        split: Split,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<String>, Error> {
        let _lock = self.lock()?;
        model.same_model(self.state.fingerprint())?;
        model.same_size(self.state.dim)?;
        let documents: Vec<Document> = documents.iter().cloned().map(Into::into).collect();
        let (ids, next) = self.new_ids(&documents)?;
        let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
        not_empty("document", 0, &texts)?;
        let parts = split.passages(model, &texts)?;
        let mut passages = Vec::new();
        for ((id, document), parts) in ids.iter().zip(&documents).zip(&parts) {
            let metadata = &document.metadata;
            passages.extend(parts.iter().zip(0..).map(|(text, passage)| NewPassage { id, passage, text, metadata }));
        }
        let mut state = self.state.clone();
        let mut appender = self.appender(&mut state)?;
        // A part at a time, so that vectors need not fit in memory.
        for (number, part) in passages.chunks(AT_ONCE).enumerate() {
            let texts: Vec<&str> = part.iter().map(|passage| passage.text).collect();
            let before = number * AT_ONCE;
            let vectors = model.numbered_document_vectors(before, &texts, &mut |done| progress(before + done))?;
            appender.append(part, &vectors, &mut state)?;
        }
        state.documents += documents.len();
        state.added = next.max(self.state.added + documents.len());
        appender.finish()?;
        self.commit(state)?;
        Ok(ids)
    }

    /// Adds documents whose vectors are there already, each as one passage. Returns the ids.
    ///
    /// # Errors
    /// Another number of vectors than documents, vectors of another size or that are not finite, an id that is taken,
    /// another writer, or a disk that refuses.
    pub fn add_vectors<D: Clone + Into<Document>>(
        &mut self,
        documents: &[D],
        vectors: &TextVectors,
    ) -> Result<Vec<String>, Error> {
        let _lock = self.lock()?;
        let (found, expected) = ((vectors.len(), vectors.dim()), (documents.len(), self.state.dim));
        if found != expected {
            return Err(Error::OtherVectors { found, expected });
        }
        if !vectors.values().iter().all(|value| value.is_finite()) {
            let problem =
                "vectors that are not finite cannot be added: every ranking by them would be the order of documents";
            return Err(Error::DocumentFolder { path: self.path.clone(), problem });
        }
        let documents: Vec<Document> = documents.iter().cloned().map(Into::into).collect();
        let (ids, next) = self.new_ids(&documents)?;
        let mut passages = Vec::with_capacity(documents.len());
        for (id, Document { text, metadata, .. }) in ids.iter().zip(&documents) {
            passages.push(NewPassage { id, passage: 0, text, metadata });
        }
        let mut state = self.state.clone();
        let mut appender = self.appender(&mut state)?;
        appender.append(&passages, vectors, &mut state)?;
        state.documents += documents.len();
        state.added = next.max(self.state.added + documents.len());
        appender.finish()?;
        self.commit(state)?;
        Ok(ids)
    }

    /// Ids of new documents, and the next number that may become one.
    fn new_ids(&self, documents: &[Document]) -> Result<(Vec<String>, usize), Error> {
        let mut new = HashSet::new();
        let mut ids = Vec::with_capacity(documents.len());
        let mut number = self.state.added;
        for document in documents {
            let id = match &document.id {
                Some(id) if new.contains(id) || self.contains(id)? => {
                    return Err(Error::DuplicateDocument { id: id.clone() });
                }
                Some(id) => id.clone(),
                None => loop {
                    let id = number.to_string();
                    number += 1;
                    if !new.contains(&id) && !self.contains(&id)? {
                        break id;
                    }
                },
            };
            new.insert(id.clone());
            ids.push(id);
        }
        Ok((ids, number))
    }

    /// Opens the files to be appended to. A folder of version 1 gets its table of entries, and `state` the new
    /// version: it counts once the state is written.
    pub(super) fn appender(&self, state: &mut State) -> Result<Appender, Error> {
        let is_first_version = !state.has_entries();
        state.format = FORMAT;
        let table = if is_first_version { 0 } else { (state.passages * SIZE) as u64 };
        let lengths = [state.tokens * state.row_bytes(), state.text_bytes, table];
        let mut appender = Appender::open(state.files(&self.path), lengths)?;
        if is_first_version {
            for start in (0..state.passages).step_by(MANY) {
                let places = start..state.passages.min(start + MANY);
                for entry in &self.entries.read(&self.path, &self.state, places)?[1..] {
                    appender.write_entry(*entry)?;
                }
            }
        }
        Ok(appender)
    }
}

impl RagPretrainedModel {
    /// Encodes this process's share of documents, while process 0 adds them to a folder in the same way
    /// ([`DocumentFolder::add_passages`]).
    ///
    /// # Errors
    /// As [`DocumentFolder::add_passages`] has of the documents themselves.
    pub fn help_to_add<D: Clone + Into<Document>>(&self, documents: &[D], split: Split) -> Result<(), Error> {
        let documents: Vec<Document> = documents.iter().cloned().map(Into::into).collect();
        let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
        not_empty("document", 0, &texts)?;
        for (number, part) in split.passages(self, &texts)?.concat().chunks(AT_ONCE).enumerate() {
            self.numbered_document_vectors(number * AT_ONCE, part, &mut |_| {})?;
        }
        Ok(())
    }
}

impl Appender {
    /// Opens the files of vectors, documents and entries, cut to these lengths.
    pub(super) fn open(paths: [PathBuf; 3], lengths: [u64; 3]) -> Result<Self, Error> {
        let [a, b, c] = &paths;
        let files = [append_at(a, lengths[0])?, append_at(b, lengths[1])?, append_at(c, lengths[2])?];
        Ok(Self { paths, files })
    }

    fn append(&mut self, passages: &[NewPassage<'_>], vectors: &TextVectors, state: &mut State) -> Result<(), Error> {
        for (i, NewPassage { id, passage, text, metadata }) in passages.iter().enumerate() {
            let tokens = vectors.offsets()[i + 1] - vectors.offsets()[i];
            let (id, text, metadata) = ((*id).clone(), (*text).to_owned(), (*metadata).clone());
            let line = Line { id, passage: *passage, tokens, metadata, text };
            let json = serde_json::to_string(&line).expect("texts and numbers have a JSON form") + "\n";
            state.tokens += tokens as u64;
            state.text_bytes += json.len() as u64;
            self.write_line(json.as_bytes())?;
            self.write_entry(Entry { row: state.tokens, byte: state.text_bytes, id: hash(&line.id) })?;
        }
        let mut bytes = Vec::new();
        state.vectors().encode(vectors.values(), vectors.dim(), &mut bytes);
        self.write_vectors(&bytes)?;
        state.passages += passages.len();
        Ok(())
    }

    pub(super) fn write_vectors(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.write(0, bytes)
    }

    pub(super) fn write_line(&mut self, line: &[u8]) -> Result<(), Error> {
        self.write(1, line)
    }

    pub(super) fn write_entry(&mut self, entry: Entry) -> Result<(), Error> {
        self.write(2, &entry.to_bytes())
    }

    fn write(&mut self, file: usize, bytes: &[u8]) -> Result<(), Error> {
        self.files[file].write_all(bytes).map_err(io("write", &self.paths[file]))
    }

    /// Waits until the disk has everything.
    pub(super) fn finish(self) -> Result<(), Error> {
        for (file, path) in self.files.into_iter().zip(&self.paths) {
            let file = file.into_inner().map_err(|error| io("write", path)(error.into_error()))?;
            file.sync_all().map_err(io("write", path))?;
        }
        Ok(())
    }
}

/// A file to write to, cut to this length.
fn append_at(path: &Path, length: u64) -> Result<BufWriter<File>, Error> {
    let open = || {
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.set_len(length)?;
        file.seek(SeekFrom::End(0))?;
        Ok(BufWriter::with_capacity(1 << 16, file))
    };
    open().map_err(io("open", path))
}

//! Deleting documents, and writing the rest anew once most are gone.

use std::fs;

use super::entries::Entry;
use super::place_ranges::PlaceRanges;
use super::state::{FORMAT, State};
use super::write::Appender;
use super::{DocumentFolder, io};
use crate::error::Error;
use crate::search::ranking::EncodedSource;
use crate::search::text_vectors::VectorBlock;

/// Places that are copied at once.
const PLACES: usize = 256;

impl DocumentFolder {
    /// Deletes documents by their ids, with all of their passages, and returns how many documents. Once more than half
    /// of the passages are deleted, the folder is made compact.
    ///
    /// # Errors
    /// An id that is not there (then nothing is deleted), another writer, or a disk that refuses.
    pub fn delete<S: AsRef<str>>(&mut self, ids: &[S]) -> Result<usize, Error> {
        let _lock = self.lock()?;
        let mut state = self.state.clone();
        let mut deleted = 0;
        for id in ids {
            let Some(places) = self.find(id.as_ref())? else {
                return Err(Error::UnknownDocument { id: id.as_ref().to_owned() });
            };
            // An id that is given twice is one document.
            deleted += usize::from(!state.deleted.contains(places.start));
            state.deleted.insert(places);
        }
        state.documents -= deleted;
        let compact = state.deleted.len() * 2 > state.passages;
        self.commit_deletion(state)?;
        if compact {
            self.compact()?;
        }
        Ok(deleted)
    }

    /// Makes a deletion count. A folder of version 1 gets its table of entries first.
    fn commit_deletion(&mut self, mut state: State) -> Result<(), Error> {
        if !state.has_entries() {
            self.appender(&mut state)?.finish()?;
        }
        self.commit(state)
    }

    /// Writes what can be found into files of a new generation, and removes the old ones.
    pub(super) fn compact(&mut self) -> Result<(), Error> {
        let old = self.state.files(&self.path);
        let mut state = self.state.clone();
        (state.format, state.generation) = (FORMAT, self.state.generation + 1);
        (state.passages, state.tokens, state.text_bytes) = (0, 0, 0);
        state.deleted = PlaceRanges::default();
        let mut appender = Appender::open(state.files(&self.path), [0; 3])?;
        let mut buffer = Vec::new();
        for start in (0..self.state.passages).step_by(PLACES) {
            let places = start..self.state.passages.min(start + PLACES);
            let entries = self.entries.read(&self.path, &self.state, places.clone())?;
            let VectorBlock { places, offsets, .. } = self.block(places, &mut buffer)?;
            for (place, rows) in places.iter().zip(offsets.windows(2)) {
                let line = self.line(*place)?;
                state.tokens += (rows[1] - rows[0]) as u64;
                state.text_bytes += line.len() as u64;
                let id = entries[place - start + 1].id;
                appender.write_line(&line)?;
                appender.write_entry(Entry { row: state.tokens, byte: state.text_bytes, id })?;
            }
            state.passages += places.len();
            appender.write_vectors(&buffer)?;
        }
        appender.finish()?;
        state.index = self.compacted_index()?;
        self.commit(state)?;
        for file in old {
            fs::remove_file(&file).map_err(io("remove", &file))?;
        }
        #[cfg(feature = "index")]
        self.remove_indexes_but(self.state.index.map(|index| index.generation))?;
        Ok(())
    }

    /// A program without the feature `index` cannot renumber an index: the folder goes on without it.
    #[cfg(not(feature = "index"))]
    fn compacted_index(&self) -> Result<Option<super::state::IndexState>, Error> {
        if self.state.index.is_some() {
            tracing::warn!("{}: the index no longer fits and is not used; build it again", self.path.display());
        }
        Ok(None)
    }
}

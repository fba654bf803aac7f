//! The optional index of a document folder: which passages a search looks at.
//!
//! It lies in `index-N` and says nothing of its own: its documents are the folder's passages by place, and the scores
//! of a search come from the folder's vectors. Passages that were added after it are looked at besides; deleted ones
//! are left out. So the folder's promises hold with and without it: a new index is written whole, under a new number,
//! before the state names it.

use std::fs;
use std::path::{Path, PathBuf};

use super::state::IndexState;
use super::{DocumentFolder, io};
use crate::error::Error;
use crate::search::index::{self, PlaidIndex};
use crate::search::text_vectors::TextVectors;

/// Candidates that are scored exactly for each query, at least.
const CANDIDATES: usize = 256;

/// Candidates for each hit that is asked for.
const FOR_EACH_HIT: usize = 4;

impl DocumentFolder {
    /// Builds an index of all passages, in place of one that is there. `nbits` (1, 2, 4 or 8) is the size of a
    /// compressed number. Vectors are read a part at a time. `progress` is told how many passages are done.
    ///
    /// # Errors
    /// Too few passages, a wrong number of bits, another writer, or a disk that refuses.
    pub fn build_index(&mut self, nbits: usize, progress: &mut dyn FnMut(usize)) -> Result<(), Error> {
        let _lock = self.lock()?;
        if ![1, 2, 4, 8].contains(&nbits) || !(self.state.dim * nbits).is_multiple_of(8) {
            return Err(Error::Bits { nbits, dim: self.state.dim });
        }
        if self.passages() == 0 {
            let problem = "there are no documents to build an index of; add some first";
            return Err(Error::DocumentFolder { path: self.path.clone(), problem });
        }
        if self.state.deleted.len() > 0 {
            self.compact()?;
        }
        let generation = self.next_index()?;
        index::build(self, self.state.tokens, nbits, &self.index_folder(generation), progress)?;
        self.commit_index(IndexState { generation, nbits, passages: self.state.passages })
    }

    /// Takes the passages that were added since into the index, with its centroids. Returns how many they are.
    ///
    /// # Errors
    /// No index, another writer, or a disk that refuses.
    pub fn extend_index(&mut self, progress: &mut dyn FnMut(usize)) -> Result<usize, Error> {
        let _lock = self.lock()?;
        let Some(old) = self.state.index else {
            let problem = "there is no index to extend; build one first";
            return Err(Error::DocumentFolder { path: self.path.clone(), problem });
        };
        let new = self.state.passages - old.passages;
        if new > 0 {
            let generation = self.next_index()?;
            let folder = self.index_folder(generation);
            // Additions replace files as a whole.
            index::copy_folder(&self.index_folder(old.generation), &folder, true)?;
            index::extend(self, old.passages, &folder, progress)?;
            self.commit_index(IndexState { generation, passages: self.state.passages, ..old })?;
        }
        Ok(new)
    }

    /// Folder of the index that counts.
    pub fn index_path(&self) -> Option<PathBuf> {
        self.state.index.map(|index| self.index_folder(index.generation))
    }

    /// The index of the folder without its deleted passages, under a new number; None if there is none.
    pub(super) fn compacted_index(&self) -> Result<Option<IndexState>, Error> {
        let Some(old) = self.state.index else { return Ok(None) };
        let alive = self.state.deleted.gaps(0..old.passages);
        let passages = alive.iter().map(std::iter::ExactSizeIterator::len).sum();
        if passages == 0 {
            return Ok(None);
        }
        let generation = self.next_index()?;
        let folder = self.index_folder(generation);
        // Deletions write into files.
        index::copy_folder(&self.index_folder(old.generation), &folder, false)?;
        index::remove(&self.state.deleted.ranges_below(old.passages), &folder)?;
        Ok(Some(IndexState { generation, passages, ..old }))
    }

    /// Places that are to be scored for each query; None for all of them.
    pub(super) fn candidates_of_index(
        &self,
        queries: &TextVectors,
        k: usize,
        among: Option<&[usize]>,
    ) -> Result<Option<Vec<Vec<usize>>>, Error> {
        let wanted = k.saturating_mul(FOR_EACH_HIT).max(CANDIDATES);
        let (Some(state), Some(index)) = (self.state.index, self.opened_index()?) else { return Ok(None) };
        if among.is_some_and(|among| among.len() <= wanted) || self.passages() <= wanted {
            return Ok(None);
        }
        let deleted = self.state.deleted.ranges_below(state.passages).iter().map(ExactSizeIterator::len).sum::<usize>();
        let found = index.search(queries, wanted.saturating_add(deleted.min(wanted)), among)?;
        let newer: Vec<usize> = match among {
            Some(among) => among.iter().copied().filter(|place| *place >= state.passages).collect(),
            None => (state.passages..self.state.passages).collect(),
        };
        let candidates = found.into_iter().map(|found| {
            let alive = found.into_iter().map(|(place, _)| place).filter(|place| !self.state.deleted.contains(*place));
            alive.take(wanted).chain(newer.iter().copied()).collect()
        });
        Ok(Some(candidates.collect()))
    }

    /// The index, opened when first needed. None if there is none, or a writer has replaced it since the folder was
    /// opened: then all passages are scored, which finds the same and more.
    fn opened_index(&self) -> Result<Option<&PlaidIndex>, Error> {
        let Some(state) = self.state.index.filter(|_| self.uses_index) else { return Ok(None) };
        if let Some(opened) = self.index.get() {
            return Ok(opened.as_ref());
        }
        let path = self.index_folder(state.generation);
        let opened = match PlaidIndex::open(&path) {
            Err(_) if !path.exists() => None,
            opened => Some(opened?),
        };
        if opened.as_ref().is_some_and(|index| index.len() != state.passages || index.dim() != self.state.dim) {
            let problem = "the index is not the one that state.json speaks of; build it again";
            return Err(Error::DocumentFolder { path, problem });
        }
        Ok(self.index.get_or_init(|| opened).as_ref())
    }

    /// A number that no index has, after what earlier writers left of their own was removed.
    fn next_index(&self) -> Result<u64, Error> {
        let current = self.state.index.map(|index| index.generation);
        self.remove_indexes_but(current)?;
        Ok(current.map_or(0, |current| current + 1))
    }

    pub(super) fn remove_indexes_but(&self, current: Option<u64>) -> Result<(), Error> {
        remove_indexes(&self.path, current)
    }

    fn commit_index(&mut self, index: IndexState) -> Result<(), Error> {
        let mut state = self.state.clone();
        state.index = Some(index);
        self.commit(state)?;
        self.remove_indexes_but(Some(index.generation))
    }

    fn index_folder(&self, generation: u64) -> PathBuf {
        self.path.join(format!("index-{generation}"))
    }
}

/// Removes the folders of indexes but one.
fn remove_indexes(folder: &Path, but: Option<u64>) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(io("list", folder))? {
        let entry = entry.map_err(io("list", folder))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("index-")?.parse::<u64>().ok());
        if number.is_some_and(|number| Some(number) != but) {
            let path = entry.path();
            fs::remove_dir_all(&path).map_err(io("remove", &path))?;
        }
    }
    Ok(())
}

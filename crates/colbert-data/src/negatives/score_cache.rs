//! A teacher's scores on disk, by the content of query and document, so that an interrupted run or a later one with the
//! same texts does not compute them again.
//!
//! A file has a header and then records of 20 bytes: the hash of both texts (two 64-bit FNV-1a numbers that start
//! differently) and the score as float32, little endian. Records are appended and synced a block at a time; a record
//! that a killed process left unfinished is cut off when the file is opened.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::hash::Hasher;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fnv::FnvHasher;

use crate::error::DataError;

/// First bytes of a file; another layout has another number.
const HEADER: &[u8; 20] = b"ragtrainer scores 1\n";

const RECORD: usize = 20;

/// Scores that are known, and the file that they are in. One process at a time may have it open.
#[derive(Debug)]
pub struct ScoreCache {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    known: HashMap<[u8; 16], f32>,
    file: File,
}

impl ScoreCache {
    /// Opens the file of a teacher in a folder, which is created if needed.
    ///
    /// # Errors
    /// A folder that cannot be written, a file of another kind, or one that another process has open.
    pub fn open(folder: &Path, fingerprint: &str) -> Result<Self, DataError> {
        let path = folder.join(format!("{fingerprint}.scores"));
        let failed = |source| DataError::Write { path: path.clone(), source };
        fs::create_dir_all(folder).map_err(|source| DataError::Write { path: folder.to_owned(), source })?;
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let source = io::Error::new(
                    io::ErrorKind::WouldBlock,
                    "another process writes scores of this teacher; wait for it, or set negatives.teacher_cache to \
                     another folder",
                );
                return Err(failed(source));
            }
            // Some network file systems have no locks.
            Err(fs::TryLockError::Error(source)) if source.kind() == io::ErrorKind::Unsupported => {}
            Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|source| DataError::Read { path: path.clone(), source })?;
        if HEADER.starts_with(&bytes) && bytes.len() < HEADER.len() {
            file.set_len(0).map_err(failed)?;
            file.rewind().map_err(failed)?;
            file.write_all(HEADER).and_then(|()| file.sync_data()).map_err(failed)?;
            bytes = HEADER.to_vec();
        }
        let Some(records) = bytes.strip_prefix(HEADER.as_slice()) else {
            return Err(DataError::WrongKind {
                path,
                expected: "a file of teacher scores, format 1".to_owned(),
                found: "something else; delete it, or set negatives.teacher_cache to another folder".to_owned(),
            });
        };
        let known: HashMap<[u8; 16], f32> = records.chunks_exact(RECORD).filter_map(record).collect();
        let whole = HEADER.len() + records.len() / RECORD * RECORD;
        if whole < bytes.len() {
            tracing::warn!("{} ends within a record, which is cut off", path.display());
            file.set_len(whole as u64).map_err(failed)?;
        }
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self { path, state: Mutex::new(State { known, file }) })
    }

    /// Scores that are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).known.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn get(&self, query: &str, document: &str) -> Option<f32> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).known.get(&key(query, document)).copied()
    }

    /// Adds scores and syncs them to the disk.
    pub(crate) fn add(&self, pairs: &[(&str, &str)], scores: &[f32]) -> Result<(), DataError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = Vec::with_capacity(pairs.len() * RECORD);
        for ((query, document), score) in pairs.iter().zip(scores) {
            let key = key(query, document);
            bytes.extend(key);
            bytes.extend(score.to_le_bytes());
            state.known.insert(key, *score);
        }
        let written = state.file.write_all(&bytes).and_then(|()| state.file.sync_data());
        written.map_err(|source| DataError::Write { path: self.path.clone(), source })
    }
}

/// Key and score of a record. A score that is not finite comes from a damaged file and is computed again.
fn record(bytes: &[u8]) -> Option<([u8; 16], f32)> {
    let (key, score) = bytes.split_at(16);
    let score = f32::from_le_bytes(score.try_into().ok()?);
    Some((key.try_into().ok()?, score)).filter(|_| score.is_finite())
}

fn key(query: &str, document: &str) -> [u8; 16] {
    let hash = |mut hasher: FnvHasher| {
        hasher.write(&(query.len() as u64).to_le_bytes());
        hasher.write(query.as_bytes());
        hasher.write(document.as_bytes());
        hasher.finish().to_le_bytes()
    };
    let mut key = [0; 16];
    key[..8].copy_from_slice(&hash(FnvHasher::default()));
    key[8..].copy_from_slice(&hash(FnvHasher::with_key(0x9e37_79b9_7f4a_7c15)));
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path) -> Result<ScoreCache, DataError> {
        ScoreCache::open(folder, "0123")
    }

    #[test]
    fn scores_are_kept_and_a_torn_record_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        let cache = open(&inner).unwrap();
        cache.add(&[("q", "d"), ("q", "e")], &[1.5, -2.0]).unwrap();
        assert!(open(&inner).unwrap_err().to_string().contains("0123.scores"), "two at once");
        let path = cache.path().to_owned();
        drop(cache);
        let whole = fs::read(&path).unwrap();
        assert_eq!(whole.len(), 20 + 2 * 20);
        fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let cache = open(&inner).unwrap();
        assert_eq!((cache.len(), cache.get("q", "d"), cache.get("q", "e")), (1, Some(1.5), None));
        assert_eq!(cache.get("qd", ""), None, "where a text ends counts");
        cache.add(&[("q", "e")], &[-2.0]).unwrap();
        drop(cache);
        assert_eq!(fs::read(&path).unwrap(), whole, "the same bytes as without the interruption");
    }

    #[test]
    fn a_torn_header_is_written_again_and_another_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0123.scores");
        fs::write(&path, &HEADER[..7]).unwrap();
        let cache = open(folder.path()).unwrap();
        assert!(cache.is_empty());
        drop(cache);
        assert_eq!(fs::read(&path).unwrap(), HEADER);
        fs::write(&path, b"ragtrainer scores 9\nand more").unwrap();
        let error = open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("format 1") && error.contains("delete it"), "{error}");
        assert!(path.is_file(), "nothing is deleted");
        fs::write(&path, [HEADER.as_slice(), &[7; 16], &f32::NAN.to_le_bytes()].concat()).unwrap();
        assert!(open(folder.path()).unwrap().is_empty(), "NaN is no score");
    }
}

//! Files that are either complete or absent: written beside their final name, synced, then renamed.

pub(crate) mod reference;
pub(crate) mod scored;
pub(crate) mod tables;

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

use colbert_config::durable;

use crate::error::DataError;

/// Writes the complete content beside `path`.
pub(crate) fn stage(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<Staged<'_>, DataError> {
    match durable::stage(path, content) {
        Ok(file) => Ok(Staged { file, path }),
        Err(source) => Err(DataError::Write { path: path.to_owned(), source }),
    }
}

/// Gives several files their names, the last one last. An earlier file under that name is removed first, so that the
/// folder reads as data only while all of them belong together: a process that is killed in between leaves no mixture.
pub(crate) fn publish_together<const COUNT: usize>(staged: [Staged<'_>; COUNT]) -> Result<(), DataError> {
    if let Some(last) = staged.last() {
        let failed = |source| DataError::Write { path: last.path.to_owned(), source };
        match std::fs::remove_file(last.path) {
            Ok(()) => durable::sync_folder(last.path.parent().unwrap_or(last.path)).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    staged.into_iter().try_for_each(Staged::publish)
}

/// A file that is complete on the disk but not yet under its final name. Dropping it removes the file.
pub(crate) struct Staged<'a> {
    file: durable::Staged,
    path: &'a Path,
}

impl Staged<'_> {
    /// Gives the file its final name, replacing any file of that name.
    pub(crate) fn publish(self) -> Result<(), DataError> {
        self.file.publish().map_err(|source| DataError::Write { path: self.path.to_owned(), source })
    }
}

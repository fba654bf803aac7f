//! Files that appear whole or not at all: written beside their final name, synced, then renamed.

pub(crate) mod reference;
pub(crate) mod tables;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::error::DataError;

/// A file that is complete on disk but not yet under its final name. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Staged {
    file: NamedTempFile,
    path: PathBuf,
}

/// Writes the whole content beside `path`.
pub(crate) fn stage(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<Staged, DataError> {
    let write = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = builder().tempfile_in(folder)?;
        let mut writer = BufWriter::with_capacity(1 << 16, file.as_file());
        content(&mut writer)?;
        writer.flush()?;
        drop(writer);
        file.as_file().sync_all()?;
        Ok(file)
    };
    match write() {
        Ok(file) => Ok(Staged { file, path: path.to_owned() }),
        Err(source) => Err(DataError::Write { path: path.to_owned(), source }),
    }
}

impl Staged {
    /// Gives the file its final name, in place of what may be there.
    pub(crate) fn publish(self) -> Result<(), DataError> {
        match self.file.persist(&self.path) {
            Ok(_) => Ok(()),
            Err(error) => Err(DataError::Write { path: self.path, source: error.error }),
        }
    }
}

fn builder() -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.prefix(".writing-");
    // A temporary file is private by default; this one ends as an ordinary file, with the permissions of one.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_leaves_the_old_file_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "old").unwrap();
        let error = stage(&path, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("disk full"))
        })
        .unwrap_err();
        assert!(error.to_string().contains("disk full") && error.to_string().contains("file"), "{error}");
        drop(stage(&path, |out| out.write_all(b"never published")).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        stage(&path, |out| out.write_all(b"new")).unwrap().publish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
    }
}

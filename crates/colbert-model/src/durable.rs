//! Files and folders that are either whole or not there: written beside their final name, synced to the disk, renamed.

use std::fs::{self, File};
use std::io::{Result, Write};
use std::path::{Path, PathBuf};

/// Writes a file and waits until the disk has it.
///
/// # Errors
/// The disk refuses.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Waits until the disk has the names in a folder. Does nothing where folders cannot be opened (Windows).
///
/// # Errors
/// The disk refuses.
pub fn sync_folder(path: &Path) -> Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// Puts a file in place of what is at `path`, so that at any moment the old or the new one is there, whole.
///
/// # Errors
/// The disk refuses; then the old file is still there.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = beside(path, "partial");
    let written = write_synced(&partial, bytes).and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        // The first error is the one to tell; what is left is under a name that nobody reads.
        drop(fs::remove_file(&partial));
    }
    written?;
    sync_folder(&parent(path))
}

/// Puts the folder `partial`, whose files are synced, in place of what is at `path`.
///
/// # Errors
/// The disk refuses; then the old folder is still there, unless the power fails between two renames.
pub fn replace_folder(partial: &Path, path: &Path) -> Result<()> {
    sync_folder(partial)?;
    if path.exists() {
        let replaced = beside(path, "replaced");
        fs::rename(path, &replaced)?;
        if let Err(error) = fs::rename(partial, path) {
            fs::rename(&replaced, path)?;
            return Err(error);
        }
        sync_folder(&parent(path))?;
        fs::remove_dir_all(&replaced)
    } else {
        fs::rename(partial, path)?;
        sync_folder(&parent(path))
    }
}

/// A hidden name of this process beside a path: `.NAME.WHAT-PID`.
pub fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned());
    parent(path).join(format!(".{name}.{what}-{}", std::process::id()))
}

/// Removes what [`beside`] named in a folder: what a process that was killed has left there.
///
/// # Errors
/// The folder cannot be listed, or something in it cannot be removed.
pub fn remove_leftovers(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') && (name.contains(".partial-") || name.contains(".replaced-")) {
            if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
        }
    }
    Ok(())
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

//! Files and folders that are either complete or absent: written beside their final name, synced to the disk, renamed.

use std::fs::{self, File};
use std::io::{BufWriter, Result, Write};
use std::path::{Path, PathBuf};

/// Writes a file and syncs it to the disk.
///
/// # Errors
/// The disk refuses.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Syncs the names in a folder to the disk. Does nothing where folders cannot be opened (Windows).
///
/// # Errors
/// The disk refuses.
pub fn sync_folder(path: &Path) -> Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// Replaces the file at `path`, so that at any moment either the old or the new file is there, complete.
///
/// # Errors
/// The disk refuses; then the old file is still there.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    stage(path, |out| out.write_all(bytes))?.publish()
}

/// A file that is complete on the disk but not yet under its final name. Dropping it removes the file.
#[derive(Debug)]
pub struct Staged {
    partial: PathBuf,
    path: PathBuf,
    is_published: bool,
}

/// Writes a complete file beside `path`, to be published later, so that several files can be complete before the first
/// one appears.
///
/// # Errors
/// Writing fails; then nothing is left.
pub fn stage(path: &Path, content: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<Staged> {
    let partial = beside(path, "partial");
    let file = File::create(&partial)?;
    // From here on an error removes the file.
    let staged = Staged { partial, path: path.to_owned(), is_published: false };
    let mut writer = BufWriter::with_capacity(1 << 16, file);
    content(&mut writer)?;
    writer.flush()?;
    writer.get_ref().sync_all()?;
    Ok(staged)
}

impl Staged {
    /// Gives the file its final name, replacing any file of that name.
    ///
    /// # Errors
    /// The disk refuses; then the old file is still there.
    pub fn publish(mut self) -> Result<()> {
        fs::rename(&self.partial, &self.path)?;
        self.is_published = true;
        sync_folder(&parent(&self.path))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.is_published {
            // The name is one that nobody reads; the error that led here is the one to report.
            drop(fs::remove_file(&self.partial));
        }
    }
}

/// Replaces the folder at `path` by the folder `partial`, whose files are synced: atomically if the system can exchange
/// two names, else by two renames.
///
/// # Errors
/// A rename fails; then the old folder is still there, unless the power fails between the two renames.
pub fn replace_folder(partial: &Path, path: &Path) -> Result<()> {
    sync_folder(partial)?;
    if path.exists() {
        if exchange(partial, path) {
            sync_folder(&parent(path))?;
            return fs::remove_dir_all(partial);
        }
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

/// Exchanges two names. Returns false if the system or the file system cannot.
fn exchange(one: &Path, other: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).is_ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (one, other);
        false
    }
}

/// A hidden name of this process beside a path: `.NAME.WHAT-PID`.
pub fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned());
    parent(path).join(format!(".{name}.{what}-{}", std::process::id()))
}

/// Removes files and folders in a folder that [`beside`] named, left there by a killed process.
///
/// # Errors
/// The folder cannot be listed, or something in it cannot be removed.
pub fn remove_leftovers(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_leftover(&name) {
            if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
        }
    }
    Ok(())
}

/// Whether [`beside`] made the name of a file or folder.
pub fn is_leftover(name: &str) -> bool {
    name.starts_with('.') && (name.contains(".partial-") || name.contains(".replaced-"))
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_fails_leaves_the_old_one_and_nothing_beside_it() {
        let here = tempfile::TempDir::new().expect("a folder");
        let path = here.path().join("file");
        fs::write(&path, "old").expect("a file");
        let error = stage(&path, |out| {
            out.write_all(b"half")?;
            Err(std::io::Error::other("disk full"))
        });
        assert_eq!(error.expect_err("the disk is full").to_string(), "disk full");
        drop(stage(&path, |out| out.write_all(b"never published")).expect("it is written"));
        assert_eq!(fs::read_to_string(&path).expect("a file"), "old");
        assert_eq!(fs::read_dir(here.path()).expect("a folder").count(), 1);
        stage(&path, |out| out.write_all(b"new")).expect("it is written").publish().expect("it is renamed");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "new");
        assert_eq!(fs::read_dir(here.path()).expect("a folder").count(), 1);
    }

    /// By either way; what is left under the other name is gone.
    #[test]
    fn a_folder_takes_the_place_of_another_whole() {
        let here = tempfile::TempDir::new().expect("a folder");
        let (path, partial) = (here.path().join("best"), here.path().join("partial"));
        for (round, files) in [["a", "b"], ["b", "c"], ["c", "a"]].into_iter().enumerate() {
            fs::create_dir(&partial).expect("a folder");
            for file in files {
                fs::write(partial.join(file), format!("{round}")).expect("a file");
            }
            replace_folder(&partial, &path).expect("the disk does");
            let mut names: Vec<_> =
                fs::read_dir(&path).expect("a folder").map(|e| e.expect("a file").file_name()).collect();
            names.sort();
            let mut expected = files;
            expected.sort();
            assert_eq!(names, expected);
            assert_eq!(fs::read_to_string(path.join(files[0])).expect("a file"), format!("{round}"));
            assert_eq!(fs::read_dir(here.path()).expect("a folder").count(), 1, "nothing is left beside it");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn names_are_exchanged_or_nothing_is_done() {
        let here = tempfile::TempDir::new().expect("a folder");
        let (one, other) = (here.path().join("one"), here.path().join("other"));
        fs::write(&one, "1").expect("a file");
        assert!(!exchange(&one, &other), "there is nothing to exchange with");
        assert_eq!(fs::read_to_string(&one).expect("a file"), "1");
        fs::write(&other, "2").expect("a file");
        if exchange(&one, &other) {
            assert_eq!(fs::read_to_string(&one).expect("a file"), "2");
        }
    }
}

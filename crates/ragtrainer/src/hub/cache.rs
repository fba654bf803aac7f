//! The cache of `huggingface_hub`: `models--org--name/` with `blobs/` by checksum, `snapshots/<commit>/` that link to
//! them, and `refs/<revision>` that names a commit; `.locks/` beside it. (huggingface_hub 0.36, `file_download.py`.)

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use colbert_config::durable::{beside, replace_file, sync_folder};

use crate::error::Error;

/// The part of the cache that holds one repository.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    locks: PathBuf,
}

/// The cached files of a revision.
#[derive(Debug)]
pub(super) enum Snapshot {
    /// Configuration and weights.
    Whole(PathBuf),
    /// Less than that: another program wanted only some files.
    Part(PathBuf),
    None,
}

impl Cache {
    pub(super) fn new(cache: &Path, repository: &str) -> Self {
        let name = format!("models--{}", repository.replace('/', "--"));
        Self { locks: cache.join(".locks").join(&name), folder: cache.join(name) }
    }

    /// Where the content with this checksum is or will be.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Where the content is until it is whole. `huggingface_hub` goes on with such a file too.
    pub(super) fn incomplete(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// Waits until no other program, `huggingface_hub` among them, is at work on this content.
    pub(super) fn lock(&self, etag: &str) -> Result<File, Error> {
        for folder in [&self.locks, &self.folder.join("blobs")] {
            fs::create_dir_all(folder).map_err(failed("create", folder))?;
        }
        let path = self.locks.join(format!("{etag}.lock"));
        let file = File::create(&path).map_err(failed("create", &path))?;
        match file.lock() {
            // Some network file systems have no locks; then programs may download the same content twice.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            locked => locked.map_err(failed("lock", &path))?,
        }
        Ok(file)
    }

    /// Gives whole content its name.
    pub(super) fn keep(&self, etag: &str) -> Result<(), Error> {
        let (from, to) = (self.incomplete(etag), self.blob(etag));
        fs::rename(from, &to).and_then(|()| sync_folder(&self.folder.join("blobs"))).map_err(failed("write", &to))
    }

    /// Where a file of a commit is or will be.
    pub(super) fn place(&self, commit: &str, file: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit).join(file)
    }

    /// Looks a revision up: a name that `refs` knows, or a commit.
    pub(super) fn snapshot(&self, revision: &str) -> Snapshot {
        let commit = fs::read_to_string(self.folder.join("refs").join(revision)).ok();
        let folder = self.folder.join("snapshots").join(commit.as_deref().map_or(revision, str::trim));
        if !folder.is_dir() {
            return Snapshot::None;
        }
        let whole = ["", "0_Transformer"].into_iter().map(|module| folder.join(module)).any(|module| {
            let has = |file: &str| module.join(file).exists();
            let weights = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"];
            has("config.json") && weights.into_iter().any(has)
        });
        if whole { Snapshot::Whole(folder) } else { Snapshot::Part(folder) }
    }

    /// Puts a file of a commit in its place; the content must be there.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), Error> {
        let to = self.place(commit, file);
        let parent = to.parent().unwrap_or(&self.folder);
        fs::create_dir_all(parent).map_err(failed("create", parent))?;
        // Under another name first, so that two programs may do this at once.
        let partial = beside(&to, "partial");
        let linked = place(&self.blob(etag), &partial, file).and_then(|()| fs::rename(&partial, &to));
        linked.map_err(failed("link", &to))
    }

    /// Notes what a revision is, once all of it is here.
    pub(super) fn finish(&self, revision: &str, commit: &str) -> Result<PathBuf, Error> {
        let path = self.folder.join("refs").join(revision);
        let known = fs::read_to_string(&path).is_ok_and(|known| known == commit);
        if revision != commit && !known {
            let parent = path.parent().unwrap_or(&self.folder);
            fs::create_dir_all(parent).map_err(failed("create", parent))?;
            let _lock = self.lock("refs")?;
            replace_file(&path, commit.as_bytes()).map_err(failed("write", &path))?;
        }
        Ok(self.folder.join("snapshots").join(commit))
    }
}

/// A link that stays right when the cache is moved, as `huggingface_hub` makes it.
#[cfg(unix)]
fn place(blob: &Path, to: &Path, file: &str) -> io::Result<()> {
    let blob = blob.file_name().unwrap_or_default().to_string_lossy();
    let up = "../".repeat(2 + file.matches('/').count());
    if fs::symlink_metadata(to).is_ok() {
        // Left by a program of the same number that was killed.
        fs::remove_file(to)?;
    }
    std::os::unix::fs::symlink(format!("{up}blobs/{blob}"), to)
}

/// Links need a privilege there.
#[cfg(not(unix))]
fn place(blob: &Path, to: &Path, _: &str) -> io::Result<()> {
    fs::copy(blob, to).map(|_| ())
}

/// An error of the file system as one of ours.
pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

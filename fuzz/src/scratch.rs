//! The folder where a target writes its bytes as files, and inputs that stand for several files.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder of this process, in memory where there is such a place.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn new(target: &str) -> Self {
        let shared = Path::new("/dev/shm");
        let parent = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
        let path = parent.join(format!("ragtrainer-fuzz-{target}-{}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        fs::create_dir_all(&path).expect("a folder for the inputs");
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file, with its folders.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("a folder for an input");
        }
        fs::write(&path, bytes).expect("room for an input");
        path
    }

    /// Removes a file that an earlier input may have left.
    pub fn remove(&self, name: &str) {
        drop(fs::remove_file(self.path.join(name)));
    }

    /// Removes everything.
    pub fn clear(&self) {
        drop(fs::remove_dir_all(&self.path));
        fs::create_dir_all(&self.path).expect("a folder for the inputs");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.path));
    }
}

thread_local! {
    static SCRATCH: RefCell<BTreeMap<&'static str, Scratch>> = const { RefCell::new(BTreeMap::new()) };
}

/// Runs a target with its folder, which `prepare` fills once.
pub fn with_scratch(target: &'static str, prepare: impl FnOnce(&Scratch), run: impl FnOnce(&Scratch)) {
    SCRATCH.with_borrow_mut(|kept| {
        run(kept.entry(target).or_insert_with(|| {
            let scratch = Scratch::new(target);
            prepare(&scratch);
            scratch
        }));
    });
}

/// The first byte chooses one of `count`; the rest is the content.
pub fn choice(bytes: &[u8], count: usize) -> Option<(usize, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    Some((usize::from(*first) % count, rest))
}

/// The parts of an input that stands for several files.
pub fn parts(bytes: &[u8], separator: &[u8]) -> Vec<Vec<u8>> {
    let (mut all, mut part, mut rest) = (Vec::new(), Vec::new(), bytes);
    while let Some(first) = rest.first() {
        if let Some(behind) = rest.strip_prefix(separator) {
            all.push(std::mem::take(&mut part));
            rest = behind;
        } else {
            part.push(*first);
            rest = &rest[1..];
        }
    }
    all.push(part);
    all
}

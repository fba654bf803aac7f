//! Data and helpers that several tests share.

use std::path::{Path, PathBuf};

use colbert_config::NegativeOptions;
use colbert_data::{
    Collection, DataError, Example, MiningProgress, NegativeMiner, PrepareOptions, Queries, Ranked, RawData,
    ReadOptions, TrainingSet, read_training_data,
};
use tempfile::TempDir;

/// A folder with these files; gone when dropped.
pub(crate) fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    folder
}

/// Reads one file of training data with default options.
pub(crate) fn read(name: &str, content: &str) -> Result<RawData, colbert_data::DataError> {
    let folder = folder(&[(name, content.as_bytes())]);
    read_training_data(&folder.path().join(name), &ReadOptions::default())
}

/// `count` pairs about as many subjects, and as many further documents.
pub(crate) fn many(count: usize) -> RawData {
    let rows = (0..count).map(|number| (format!("what is subject {number}"), format!("subject {number} is a thing")));
    let mut raw = RawData::from_pairs(rows).unwrap();
    raw.add_documents((0..count).map(|number| format!("subject of another kind, thing {number}"))).unwrap();
    raw
}

pub(crate) fn options(change: impl FnOnce(&mut NegativeOptions)) -> PrepareOptions {
    let mut options = PrepareOptions::default();
    change(&mut options.negatives);
    options
}

pub(crate) fn random(count: usize) -> PrepareOptions {
    options(|negatives| {
        negatives.mine_hard_negatives = false;
        negatives.num_new_negatives = count;
    })
}

/// Every example as texts: query, then documents.
pub(crate) fn in_words(set: &TrainingSet) -> Vec<Vec<String>> {
    let words = |Example { query, documents, .. }: &Example| {
        std::iter::once(set.queries.text(*query))
            .chain(documents.iter().map(|&pid| set.collection.text(pid)))
            .map(str::to_owned)
            .collect()
    };
    set.examples.iter().map(words).collect()
}

/// Names of everything in a folder, sorted.
pub(crate) fn listing(folder: &Path) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into()).collect();
    names.sort();
    names
}

/// Fails with the whole message unless it has all the parts.
#[track_caller]
pub(crate) fn assert_parts(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

/// Ranks documents by pid for every query, so that ranks are known.
#[derive(Debug)]
pub(crate) struct ByPid;

impl NegativeMiner for ByPid {
    fn name(&self) -> String {
        "by pid".to_owned()
    }

    fn rank(
        &self,
        queries: &Queries,
        _: &Collection,
        depth: usize,
        _: &MiningProgress<'_>,
    ) -> Result<Vec<Vec<Ranked>>, DataError> {
        let ranking: Vec<_> = (0..depth as u32).map(|pid| Ranked { pid, score: -(pid as f32) }).collect();
        Ok(vec![ranking; queries.len()])
    }
}

//! A tiny model and a few texts, shared with the tests of the program.

use std::fs;
use std::path::{Path, PathBuf};

use ragtrainer::RagPretrainedModel;
use tempfile::TempDir;

/// A random two-layer BERT with a projection to 16.
pub(crate) fn tiny_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../colbert-model/tests/parity/tiny")
}

/// The backend that the tests run on, by name: what the program finds in its environment.
pub(crate) fn backend() -> String {
    std::env::var("RAGTRAINER_BACKEND").unwrap_or_else(|_| "auto".to_owned())
}

/// A trained model on that backend.
pub(crate) fn pretrained(directory: impl AsRef<Path>) -> RagPretrainedModel {
    RagPretrainedModel::from_pretrained_on(directory, &backend()).unwrap()
}

/// A folder that goes away.
pub(crate) fn folder() -> TempDir {
    TempDir::new().unwrap()
}

/// Twelve (query, document) pairs about twelve towns.
pub(crate) fn pairs() -> Vec<(String, String)> {
    let towns =
        ["Ashby", "Birk", "Corley", "Dunmoor", "Eskdale", "Fenwick", "Garth", "Holm", "Irby", "Kelso", "Lund", "Marl"];
    let crafts =
        ["rope", "glass", "salt", "bells", "boats", "clocks", "cheese", "nails", "cloth", "paper", "tiles", "gloves"];
    let of = |(town, craft): (&str, &str)| {
        (
            format!("what was made in {town}"),
            format!("In the old days the people of {town} made {craft} and sold it far away."),
        )
    };
    towns.into_iter().zip(crafts).map(of).collect()
}

/// The pairs as a BEIR folder; every pair is in each of the three splits.
pub(crate) fn beir_folder(folder: &Path) -> PathBuf {
    let path = folder.join("beir");
    fs::create_dir_all(path.join("qrels")).unwrap();
    let (mut corpus, mut queries, mut qrels) =
        (String::new(), String::new(), "query-id\tcorpus-id\tscore\n".to_owned());
    for (i, (query, document)) in pairs().into_iter().enumerate() {
        corpus += &(serde_json::json!({"_id": format!("d{i}"), "title": "", "text": document}).to_string() + "\n");
        queries += &(serde_json::json!({"_id": format!("q{i}"), "text": query}).to_string() + "\n");
        qrels += &format!("q{i}\td{i}\t1\n");
    }
    fs::write(path.join("corpus.jsonl"), corpus).unwrap();
    fs::write(path.join("queries.jsonl"), queries).unwrap();
    for split in ["train", "dev", "test"] {
        fs::write(path.join(format!("qrels/{split}.tsv")), &qrels).unwrap();
    }
    path
}

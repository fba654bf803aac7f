//! A tiny model, a few texts, and the program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ragtrainer::{Backend, RagPretrainedModel};
use tempfile::TempDir;

/// A random two-layer BERT with a projection to 16.
pub(crate) fn tiny_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../colbert-model/tests/parity/tiny")
}

/// The backend that the tests run on, by name: what the program finds in its environment.
pub(crate) fn backend() -> String {
    std::env::var("RAGTRAINER_BACKEND").unwrap_or_else(|_| "auto".to_owned())
}

/// Share of its size that a number moves by on other backends than flex, where libraries choose their sums by the shapes of a call.
#[cfg(any(feature = "cuda", feature = "tch"))]
const MOVED: f32 = 1e-5;

/// Whether two numbers are the same: to the last bit on flex.
pub(crate) fn same(one: f32, other: f32) -> bool {
    match Backend::from_name(&backend()).unwrap() {
        Backend::Flex => one.to_bits() == other.to_bits(),
        #[cfg(any(feature = "cuda", feature = "tch"))]
        _ => (one - other).abs() <= MOVED * other.abs().max(1.0),
    }
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

/// The pairs as a JSONL file.
pub(crate) fn pairs_file(folder: &Path) -> PathBuf {
    let path = folder.join("pairs.jsonl");
    let lines = pairs().into_iter().map(|(query, document)| serde_json::json!([query, document]).to_string() + "\n");
    fs::write(&path, lines.collect::<String>()).unwrap();
    path
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

/// What the program did.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
    pub(crate) errors: String,
}

/// Runs the program in `folder`, which asks nobody for models and knows of none that was downloaded.
pub(crate) fn ragtrainer(folder: &Path, arguments: &[&str]) -> Ran {
    let cache = folder.join("no-cache");
    ragtrainer_with(folder, arguments, &[("HF_HUB_OFFLINE", "1"), ("HF_HUB_CACHE", cache.to_str().unwrap())])
}

/// Runs the program in `folder` with these variables.
pub(crate) fn ragtrainer_with(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
    let mut program = Command::new(env!("CARGO_BIN_EXE_ragtrainer"));
    let program = program.args(arguments).envs(environment.iter().copied()).current_dir(folder).output().unwrap();
    let Output { status, stdout, stderr } = program;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code(), output: text(stdout), errors: text(stderr) }
}

/// Arguments of `train` with the tiny model on `data`, into `run`, and further ones.
pub(crate) fn train_arguments(data: &Path, further: &[&str]) -> Vec<String> {
    let (model, data) = (tiny_model(), data.to_str().unwrap());
    let paths = ["train", "--pretrained-model-name", model.to_str().unwrap(), "--train-data", data, "--output", "run"];
    let sizes = ["--dim", "16", "--doc-maxlen", "32", "--batch-size", "4"];
    let negatives = ["--num-new-negatives", "1", "--hard-negative-minimum-rank", "0"];
    [&paths[..], &sizes, &negatives, further].concat().into_iter().map(str::to_owned).collect()
}

/// Runs `train` with these arguments in `folder`.
pub(crate) fn train(folder: &Path, data: &Path, further: &[&str]) -> Ran {
    let arguments = train_arguments(data, further);
    ragtrainer(folder, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

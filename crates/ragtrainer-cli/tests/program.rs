//! The program, and what its tests compare.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ragtrainer::Backend;
use ragtrainer::model::{HostTensor, Weights, safetensors_bytes};

use crate::support::{backend, pairs, tiny_model};

/// Share of its size that a number moves by on other backends than flex, where libraries choose their sums by the
/// shapes of a call.
const MOVED: f32 = 1e-5;

/// Whether two numbers are the same: to the last bit on flex.
pub(crate) fn same(one: f32, other: f32) -> bool {
    if Backend::from_name(&backend()).unwrap() == Backend::Flex {
        return one.to_bits() == other.to_bits();
    }
    (one - other).abs() <= MOVED * other.abs().max(1.0)
}

/// The pairs as a JSONL file.
pub(crate) fn pairs_file(folder: &Path) -> PathBuf {
    let path = folder.join("pairs.jsonl");
    let lines = pairs().into_iter().map(|(query, document)| serde_json::json!([query, document]).to_string() + "\n");
    fs::write(&path, lines.collect::<String>()).unwrap();
    path
}

/// Copies the tiny model, with tensors that `change` changes.
pub(crate) fn copy_tiny_model(to: &Path, change: impl Fn(&str, &mut HostTensor)) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(tiny_model()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let mut weights = Weights::read(&to.join("model.safetensors")).unwrap();
    let names: Vec<String> = weights.names().map(str::to_owned).collect();
    let tensors: Vec<(String, HostTensor)> = names
        .into_iter()
        .map(|name| {
            let shape = weights.shape(&name).unwrap().to_vec();
            let mut tensor = weights.take(&name, &shape).unwrap();
            change(&name, &mut tensor);
            (name, tensor)
        })
        .collect();
    fs::write(to.join("model.safetensors"), safetensors_bytes(&tensors).unwrap()).unwrap();
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

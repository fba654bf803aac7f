//! Memory of a device: a limit that is met by trying, and steps that do not fit. On libtorch's CPU device, as its
//! memory is the process's, which can be read and bounded; flex knows what its operators take, and what a GPU has is
//! not for a test to bound.

use std::fs;
use std::path::Path;
use std::process::Command;

use ragtrainer::Outcome;
use ragtrainer::config::Plan;
use serde_json::Value;

use crate::program::{Ran, copy_tiny_model, ragtrainer, train, train_arguments};
use crate::support::{backend, folder};

fn on_libtorch() -> bool {
    backend() == "libtorch"
}

/// Pairs with documents longer than any limit on their tokens.
fn long_pairs(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("long.jsonl");
    let document =
        |i: usize| (0..600).map(|j| ["town", "rope", "sea", "old"][(i * j + j / 7) % 4]).collect::<Vec<_>>().join(" ");
    let lines =
        (0..32).map(|i| serde_json::json!([format!("query {i}"), format!("{i} {}", document(i))]).to_string() + "\n");
    fs::write(&path, lines.collect::<String>()).unwrap();
    path
}

/// Two steps of 16 queries with two documents of 512 tokens each.
const SIZES: [&str; 8] = ["--batch-size", "16", "--doc-maxlen", "512", "--maxsteps", "2", "--miner", "random"];

/// A run in `run`, and what it left.
fn run(folder: &Path, data: &Path, further: &[&str]) -> (Outcome, Plan, Vec<f64>) {
    let ran = train(folder, data, &[&SIZES, &["--overwrite"][..], further].concat());
    assert_eq!(ran.code, Some(0), "{}{}", ran.output, ran.errors);
    let read = |name: &str| fs::read_to_string(folder.join("run").join(name)).unwrap();
    let losses = read("metrics.jsonl")
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64())
        .collect();
    (serde_json::from_str(&read("outcome.json")).unwrap(), serde_json::from_str(&read("plan.json")).unwrap(), losses)
}

#[cfg_attr(not(feature = "tch"), ignore = "flex computes its memory and tries nothing")]
#[test]
fn a_limit_is_met_by_micro_batches_that_change_nothing() {
    assert!(on_libtorch(), "set TEST_BACKEND=libtorch");
    let here = folder();
    let data = long_pairs(here.path());
    let (all, _, expected) = run(here.path(), &data, &[]);
    let (one, _, _) = run(here.path(), &data, &["--accumsteps", "16"]);
    let (most, least) = (all.peak_memory.unwrap(), one.peak_memory.unwrap());
    let limit = (most + least) / 2;
    let (outcome, plan, losses) = run(here.path(), &data, &["--memory-limit", &format!("{}MB", limit / 1_000_000)]);
    assert!((2..=16).contains(&plan.accumsteps), "{} between {least} and {most}", plan.accumsteps);
    let (peak, planned) = (outcome.peak_memory.unwrap(), plan.memory.unwrap());
    assert!(peak <= limit && planned <= limit, "{peak}, planned {planned}, at a limit of {limit}");
    assert_eq!(losses.len(), expected.len());
    for (loss, expected) in losses.iter().zip(&expected) {
        assert!((loss - expected).abs() < 1e-4 * expected, "{losses:?} and {expected:?}");
    }
}

/// On every backend: what is free when a run is resumed is not what was free before.
#[test]
fn a_run_is_resumed_with_the_micro_batches_that_it_had() {
    let here = folder();
    let data = long_pairs(here.path());
    let limit = match on_libtorch() {
        true => {
            let peak = |further: &[&str]| run(here.path(), &data, further).0.peak_memory.unwrap();
            (peak(&[]) + peak(&["--accumsteps", "16"])) / 2
        }
        // A little less than the plan's own figure; where that is tried, it has one if there is a limit, and varies.
        false => {
            let planned = run(here.path(), &data, &["--memory-limit", "1000GB"]).1.memory.unwrap();
            planned - if ["auto", "flex"].contains(&&*backend()) { 200_000 } else { planned / 20 }
        }
    };
    let limit = format!("{}MB", limit as f64 / 1e6);
    let (_, plan, _) = run(here.path(), &data, &["--memory-limit", &limit]);
    assert!(plan.accumsteps > 1, "{plan}");
    let resume = ["train", "--resume", "run", "--memory-limit", "1000GB", "--dry-run"];
    let ran = ragtrainer(here.path(), &resume);
    let words = format!("computed in {} micro-batches", plan.accumsteps);
    assert!(ran.code == Some(0) && ran.output.contains(&words), "{}{}", ran.output, ran.errors);
    let ran = ragtrainer(here.path(), &resume[..5]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.output, ran.errors);
}

#[cfg_attr(not(feature = "tch"), ignore = "flex computes its memory and tries nothing")]
#[test]
fn a_limit_that_cannot_be_met_names_the_least_that_can() {
    assert!(on_libtorch(), "set TEST_BACKEND=libtorch");
    let here = folder();
    let ran = train(here.path(), &long_pairs(here.path()), &[&SIZES[..], &["--memory-limit", "10MB"]].concat());
    assert_eq!(ran.code, Some(1), "{}{}", ran.output, ran.errors);
    for words in ["cannot fit into 10 MB", "one query at a time it takes about", "train.memory_limit"] {
        assert!(ran.errors.contains(words), "{words}: {}", ran.errors);
    }
    assert!(!here.path().join("run").exists());
}

/// Runs `train` with this much address space, in bytes.
fn bounded(folder: &Path, data: &Path, further: &[&str], bytes: u64) -> Ran {
    let arguments = train_arguments(data, &[&SIZES, further].concat());
    let mut shell = Command::new("sh");
    let shell =
        shell.args(["-c", &format!("ulimit -v {}; exec \"$@\"", bytes / 1024), "sh", env!("CARGO_BIN_EXE_ragtrainer")]);
    // An arena of addresses for each thread would count too.
    let shell = shell.args(arguments).args(["--threads", "1"]).env("MALLOC_ARENA_MAX", "1").current_dir(folder);
    let output = shell.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code(), output: text(&output.stdout), errors: text(&output.stderr) }
}

/// Address space is bounded ever less, until the program starts and a step of the whole batch does not fit.
#[cfg_attr(not(feature = "tch"), ignore = "memory that flex does not get ends the process")]
#[test]
fn a_step_that_does_not_fit_is_an_error_that_names_what_does() {
    assert!(on_libtorch(), "set TEST_BACKEND=libtorch");
    let here = folder();
    let data = long_pairs(here.path());
    let ran = (10..60)
        .map(|tenths| bounded(here.path(), &data, &["--overwrite", "--dropout", "0.1"], tenths * 50_000_000))
        .find(|ran| ran.code == Some(0) || ran.errors.contains("at step 1"))
        .unwrap();
    assert_eq!(ran.code, Some(1), "it fits as soon as it starts: {}", ran.output);
    let words =
        ["libtorch (CPU): out of memory", "batch of 16 queries", "16 were computed at once", "DefaultCPUAllocator"];
    for words in words {
        assert!(ran.errors.contains(words), "{words}: {}", ran.errors);
    }
    assert!(!ran.errors.contains("panicked"), "{}", ran.errors);
    // Then what it advises is tried; where not even one query fits, something else is advised.
    let advised = ran.errors.split("train.accumsteps = ").nth(1).and_then(|rest| rest.split([',', ' ']).next());
    assert!(advised.is_some() || ran.errors.contains("not even one at once fits"), "{}", ran.errors);
}

/// A BEIR folder of many dev queries, each judged on one of a few documents.
fn many_dev_queries(folder: &Path, queries: usize) -> std::path::PathBuf {
    let beir = folder.join("dev");
    fs::create_dir_all(beir.join("qrels")).unwrap();
    let text = |i: usize, count: usize| {
        let words = (0..count).map(|j| ["town", "rope", "sea", "old", "hill"][(i * j + i / 5 + j / 3) % 5]);
        format!("{i} {}", words.collect::<Vec<_>>().join(" "))
    };
    let rows = |count: usize, prefix: &str, words: usize| {
        let row = |i| serde_json::json!({ "_id": format!("{prefix}{i}"), "text": text(i, words) }).to_string() + "\n";
        (0..count).map(row).collect::<String>()
    };
    fs::write(beir.join("queries.jsonl"), rows(queries, "q", 8)).unwrap();
    fs::write(beir.join("corpus.jsonl"), rows(100, "d", 40)).unwrap();
    let judged: String = (0..queries).map(|i| format!("q{i}\td{}\t1\n", i % 100)).collect();
    fs::write(beir.join("qrels/dev.tsv"), format!("query-id\tcorpus-id\tscore\n{judged}")).unwrap();
    beir
}

/// The backend that plans its memory.
const FLEX: [&str; 2] = ["--backend", "flex"];

/// The quickstart's model, as the tiny one takes no memory that could be seen beside the program's.
#[cfg_attr(feature = "tch", ignore = "the peak is that of flex, which plans it")]
#[test]
fn an_evaluation_of_many_queries_stays_within_the_plan() {
    let here = folder();
    let (dev, data) = (many_dev_queries(here.path(), 1_000), crate::program::pairs_file(here.path()));
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/quickstart/model");
    let paths = ["train", "--pretrained-model-name", model, "--output", "run", "--train-data", data.to_str().unwrap()];
    let sizes = ["--dev-data", dev.to_str().unwrap(), "--batch-size", "4", "--doc-maxlen", "64", "--maxsteps", "1"];
    let ran = ragtrainer(here.path(), &[&paths[..], &sizes, &["--memory-limit", "700MB"], &FLEX].concat());
    assert_eq!(ran.code, Some(0), "{}{}", ran.output, ran.errors);
    let read = |name: &str| fs::read_to_string(here.path().join("run").join(name)).unwrap();
    let outcome: Outcome = serde_json::from_str(&read("outcome.json")).unwrap();
    let plan: Plan = serde_json::from_str(&read("plan.json")).unwrap();
    let (peak, planned) = (outcome.peak_memory.unwrap(), plan.memory.unwrap());
    assert!(planned <= 700_000_000 && peak <= planned, "{peak}, planned {planned}");
}

/// A model of 39 million parameters, nearly all of them word embeddings that no text uses: so the peak is the writing
/// and reading back of the best model's directory, not a step.
#[cfg_attr(feature = "tch", ignore = "the peak is that of flex, which plans it")]
#[test]
fn a_large_model_is_written_within_the_plan() {
    const ROWS: usize = 1_200_000;
    let here = folder();
    let (dev, data) = (many_dev_queries(here.path(), 5), crate::program::pairs_file(here.path()));
    let model = here.path().join("model");
    copy_tiny_model(&model, |name, tensor| {
        if name.ends_with("word_embeddings.weight") {
            let missing = (ROWS - tensor.shape[0]) * tensor.shape[1];
            tensor.values.extend(std::iter::repeat_n(0.01, missing));
            tensor.shape[0] = ROWS;
        }
    });
    let config = model.join("config.json");
    let mut json: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    json["vocab_size"] = ROWS.into();
    fs::write(&config, json.to_string()).unwrap();
    let paths = ["--pretrained-model-name", model.to_str().unwrap(), "--dev-data", dev.to_str().unwrap()];
    let sizes = ["--batch-size", "2", "--doc-maxlen", "32", "--save-every", "1"];
    let (outcome, plan, _) = run(here.path(), &data, &[&paths[..], &sizes, &FLEX].concat());
    let (peak, planned) = (outcome.peak_memory.unwrap(), plan.memory.unwrap());
    assert!(peak <= planned, "{peak}, planned {planned}");
}

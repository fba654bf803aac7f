//! The outcome of a run.

use std::fmt;
use std::path::PathBuf;

use colbert_config::Metric;
use colbert_train::{Candidate, Comparison, Evaluation};
use serde::{Deserialize, Serialize};

/// The outcome of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Directory of the best model, in the layout that other late-interaction stacks read (docs/interop.md).
    pub best: PathBuf,
    /// Directory of the last model.
    pub last: PathBuf,
    /// Steps done.
    pub steps: usize,
    /// Whether the run was stopped before its last step.
    pub stopped: bool,
    /// Metric that chose the best model.
    pub metric: Metric,
    /// Steps after which the model was best; 0 means that no checkpoint beat the start. None without dev queries: then
    /// the best model is the last.
    pub best_step: Option<usize>,
    /// Parts of the best model, if it is an average or a mixture.
    pub best_made_of: Option<String>,
    /// Dev queries: before training, and the best model.
    pub dev: Option<DevResult>,
    /// Whether the best model beats the start on dev queries. Chosen as the best of several on the same queries, it
    /// looks better there than it is.
    pub dev_comparison: Option<Comparison>,
    /// Averages and mixtures that were measured at the end.
    pub candidates: Vec<Candidate>,
    /// Test queries. None without them, and where the run was stopped.
    pub test: Option<TestResult>,
    /// Steps that were left out, as their loss or gradient was not finite (`train.on_nonfinite`).
    pub skipped: usize,
    /// Steps that were left out, as their gradient overflowed float16 (`train.precision = "f16"`); the loss is scaled
    /// by less from there on.
    #[serde(default)]
    pub overflowed: usize,
    /// Time spent in training steps, in seconds, of all the processes that had a part in the run.
    pub training_seconds: f64,
    /// Most bytes of memory that the process had at once, where the system counts them.
    pub peak_memory: Option<u64>,
    /// Settings of this run that other programs do not honour when they load the directories, beyond those of every
    /// run.
    #[serde(default)]
    pub not_honoured: Vec<String>,
}

impl fmt::Display for Outcome {
    /// The chosen metric before and after training, and where the best model is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metric = self.metric;
        let dev = self.dev.as_ref().map(|dev| ("dev", &dev.start, &dev.best));
        let test = self.test.as_ref().map(|test| ("test", &test.start, &test.best));
        for (split, start, best) in dev.into_iter().chain(test) {
            if let (Some(start), Some(best)) = (start.value(metric), best.value(metric)) {
                writeln!(f, "{metric} on {split} queries: {start:.4} before training, {best:.4} after")?;
            }
        }
        write!(f, "best model after {} steps: {}", self.steps, self.best.display())
    }
}

/// Two models on the same dev queries and documents. In JSON a list of the two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "[Evaluation; 2]", into = "[Evaluation; 2]")]
pub struct DevResult {
    /// The model before training.
    pub start: Evaluation,
    /// The best model.
    pub best: Evaluation,
}

impl From<[Evaluation; 2]> for DevResult {
    fn from([start, best]: [Evaluation; 2]) -> Self {
        Self { start, best }
    }
}

impl From<DevResult> for [Evaluation; 2] {
    fn from(result: DevResult) -> Self {
        [result.start, result.best]
    }
}

/// Three systems on the same test queries and documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// BM25 (k1 1.2, b 0.75).
    pub bm25: Evaluation,
    /// The model before training.
    pub start: Evaluation,
    /// The best model.
    pub best: Evaluation,
    /// Whether the best model beats the start; these queries had no part in the choice.
    pub comparison: Option<Comparison>,
}

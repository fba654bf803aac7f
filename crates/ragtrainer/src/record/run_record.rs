//! A run as its folder tells it, whether it is over, on its way, or was cut short.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use colbert_config::{Metric, Options, Plan};
use colbert_data::EvaluationSet;
use colbert_train::{Evaluation, Measured, RunFolder, TrainError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;
use crate::record::explained_queries::{self, ExplainedQuery};
use crate::record::outcome::Outcome;

/// Queries shown that gained most, and as many that lost most.
const SHOWN_QUERIES: usize = 10;

/// Relevant documents shown of each.
const SHOWN_RELEVANT: usize = 2;

/// Characters shown of a document.
const CLIPPED: usize = 400;

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A process is at work on it.
    Running,
    /// It came to its end.
    Finished,
    /// It was stopped, killed, or ended by an error, and can be resumed.
    Interrupted,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Interrupted => "interrupted",
        })
    }
}

/// The line of a step in `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the fields of StepRecord, where they are explained")]
pub struct StepLine {
    pub step: usize,
    pub loss: f64,
    pub learning_rate: f64,
    pub gradient_norm: f64,
    pub positive_score: f64,
    pub negative_score: f64,
    pub seconds: f64,
    pub examples_per_second: f64,
    pub tokens_per_second: f64,
    pub memory: Option<u64>,
}

/// The line of an evaluation there.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct EvaluationLine {
    /// Steps done.
    pub step: usize,
    /// The measurements.
    pub evaluation: Evaluation,
}

/// A dev query before and after training, in texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueryChange {
    /// The query.
    pub query: String,
    /// Value of the metric that chooses, before training.
    pub before: f64,
    /// The same for the best model.
    pub after: f64,
    /// Rank of the first relevant document before, from 1.
    pub rank_before: Option<usize>,
    /// The same for the best model.
    pub rank_after: Option<usize>,
    /// Its relevant documents.
    pub relevant: Vec<String>,
    /// Document ranked first before training.
    pub first_before: String,
    /// Document that the best model ranks first.
    pub first_after: String,
}

/// `queries.json`: the queries that changed most.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct QueryChanges {
    /// Queries that became better.
    pub better: usize,
    /// Queries that became worse.
    pub worse: usize,
    /// Queries that stayed as they were.
    pub same: usize,
    /// Those that gained most.
    pub gained: Vec<QueryChange>,
    /// Those that lost most.
    pub lost: Vec<QueryChange>,
}

impl QueryChanges {
    /// Of two measurements on the same queries.
    pub(crate) fn between(set: &EvaluationSet, before: &Measured, after: &Measured, metric: Metric) -> Self {
        let clipped = |pid: u32| {
            let text = set.collection.text(pid);
            let end = text.char_indices().nth(CLIPPED).map_or(text.len(), |(end, _)| end);
            format!("{}{}", &text[..end], if end < text.len() { " ..." } else { "" })
        };
        let mut changes = Self::default();
        let mut all: Vec<(f64, QueryChange)> = Vec::new();
        for (old, new) in before.queries.iter().zip(&after.queries) {
            let (Some(was), Some(is)) = (old.value, new.value) else { continue };
            let gain = metric.gain(was, is);
            match gain {
                gain if gain > 0.0 => changes.better += 1,
                gain if gain < 0.0 => changes.worse += 1,
                _ => changes.same += 1,
            }
            let first = |ranking: &[u32]| ranking.first().map_or_else(String::new, |&pid| clipped(pid));
            let change = QueryChange {
                query: set.queries.text(old.qid).to_owned(),
                before: was,
                after: is,
                rank_before: old.rank,
                rank_after: new.rank,
                relevant: set.judgements.positives(old.qid).take(SHOWN_RELEVANT).map(clipped).collect(),
                first_before: first(&old.first),
                first_after: first(&new.first),
            };
            all.push((gain, change));
        }
        all.sort_by(|one, other| other.0.total_cmp(&one.0));
        let lost = all.iter().rev().take(SHOWN_QUERIES).filter(|(gain, _)| *gain < 0.0);
        changes.lost = lost.map(|(_, change)| change.clone()).collect();
        let gained = all.into_iter().take(SHOWN_QUERIES).filter(|(gain, _)| *gain > 0.0);
        changes.gained = gained.map(|(_, change)| change).collect();
        changes
    }
}

/// Everything that is known of a run.
#[derive(Debug, Clone)]
pub struct RunRecord {
    /// Its folder.
    pub path: PathBuf,
    /// How far it is.
    pub progress: Progress,
    /// Its options.
    pub options: Option<Options>,
    /// Its plan.
    pub plan: Option<Plan>,
    /// The data in words.
    pub data: String,
    /// Every step so far.
    pub steps: Vec<StepLine>,
    /// Every evaluation so far.
    pub evaluations: Vec<EvaluationLine>,
    /// Other events, a line each.
    pub notes: Vec<String>,
    /// The outcome.
    pub outcome: Option<Outcome>,
    /// The queries that changed most.
    pub queries: Option<QueryChanges>,
    /// Some of them with the matches of their documents.
    pub explanations: Vec<ExplainedQuery>,
}

impl RunRecord {
    /// Reads the folder of a run. A line of the record that is torn is left out.
    ///
    /// # Errors
    /// There is no run in the folder.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let plan: Option<Plan> = json(&path.join("plan.json"));
        if plan.is_none() && !RunFolder::options(path).is_file() {
            return Err(TrainError::NoRun { path: path.to_owned() }.into());
        }
        let outcome: Option<Outcome> = json(&path.join("outcome.json"));
        let progress = if in_use(path) { Progress::Running } else { Progress::Interrupted };
        let mut record = Self {
            path: path.to_owned(),
            progress,
            options: json(&RunFolder::options(path)),
            plan,
            data: fs::read_to_string(path.join("data.txt")).unwrap_or_default(),
            steps: Vec::new(),
            evaluations: Vec::new(),
            notes: Vec::new(),
            outcome: None,
            queries: None,
            explanations: Vec::new(),
        };
        let metrics = fs::read(path.join("metrics.jsonl")).unwrap_or_default();
        for line in String::from_utf8_lossy(&metrics).lines() {
            let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
            record.take(event);
        }
        // An older outcome is left by a run that was resumed and has not come to its end once more.
        if progress != Progress::Running && outcome.as_ref().is_some_and(|outcome| outcome.steps == record.last_step())
        {
            record.queries = json(&path.join("queries.json"));
            record.explanations = json(&path.join(explained_queries::FILE)).unwrap_or_default();
            record.outcome = outcome;
            if record.outcome.as_ref().is_some_and(|outcome| !outcome.stopped) {
                record.progress = Progress::Finished;
            }
        }
        Ok(record)
    }

    fn take(&mut self, event: Value) {
        let text = |field: &str| match &event[field] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match event["event"].as_str() {
            Some("step") => self.steps.extend(StepLine::deserialize(&event)),
            Some("evaluated") => self.evaluations.extend(EvaluationLine::deserialize(&event)),
            Some("resumed") => {
                self.notes.push(format!("resumed after step {}", text("step")));
                for skipped in event["skipped"].as_array().into_iter().flatten() {
                    self.notes.push(format!("skipped {}: {}", skipped["path"], skipped["reason"]));
                }
                for change in event["changes"].as_array().into_iter().flatten() {
                    self.notes
                        .push(format!("accepted: {} was {}, is {}", change["what"], change["then"], change["now"]));
                }
            }
            Some("skipped") => {
                self.notes.push(format!("step {} was skipped: its {} is not finite", text("step"), text("what")));
            }
            Some("overflowed") => {
                let (step, scale) = (text("step"), text("loss_scale"));
                self.notes.push(format!(
                    "step {step} was skipped: its gradient overflows float16; loss scale {scale} from there"
                ));
            }
            Some("spike") => self.notes.push(format!(
                "step {}: loss {} is far above the {} of the steps before",
                text("step"),
                short(&event["loss"]),
                short(&event["mean"])
            )),
            Some("out_of_patience") => self.notes.push(format!(
                "ended after step {}: the last {} evaluations did not beat the best",
                text("step"),
                text("evaluations")
            )),
            Some("finished") if event["stopped"] == true => {
                self.notes.push(format!("stopped after step {}", text("step")));
            }
            _ => {}
        }
    }

    fn last_step(&self) -> usize {
        self.done().max(self.evaluations.last().map_or(0, |line| line.step))
    }

    /// The metric that chooses.
    pub fn metric(&self) -> Metric {
        self.options.as_ref().map(|options| options.evaluation.metric).unwrap_or_default()
    }

    /// Value of that metric at the start, if it was measured.
    pub fn start(&self) -> Option<f64> {
        self.evaluations.iter().find(|line| line.step == 0)?.evaluation.value(self.metric())
    }

    /// Step and value of the best evaluation so far.
    pub fn best(&self) -> Option<(usize, f64)> {
        let metric = self.metric();
        let mut best: Option<(usize, f64)> = None;
        for line in &self.evaluations {
            let value = line.evaluation.value(metric);
            if metric.is_better(best.map(|(_, value)| value), value) {
                best = value.map(|value| (line.step, value));
            }
        }
        best
    }

    /// Steps done so far.
    pub fn done(&self) -> usize {
        self.steps.last().map_or(0, |line| line.step)
    }
}

/// The runs in a folder and the folders in it, by name.
///
/// # Errors
/// The folder cannot be listed.
pub fn runs_in(folder: &Path) -> Result<Vec<RunRecord>, Error> {
    let list = |source| Error::Io { action: "list", path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(list)? {
        paths.push(entry.map_err(list)?.path());
    }
    paths.sort();
    Ok(paths.iter().filter_map(|path| RunRecord::read(path).ok()).collect())
}

fn json<T: for<'a> Deserialize<'a>>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn in_use(path: &Path) -> bool {
    File::open(path.join(".lock")).is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

fn short(value: &Value) -> String {
    value.as_f64().map_or_else(|| value.to_string(), |number| format!("{number:.4}"))
}

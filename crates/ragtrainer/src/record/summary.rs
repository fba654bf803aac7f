//! Runs side by side: the line of a run in a list, and the options in which runs differ.

use colbert_config::{Metric, Options};
use serde_json::Value;

use crate::record::run_record::{Progress, RunRecord};

/// The line of a run in a list of runs.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSummary {
    /// Name of its folder.
    pub name: String,
    /// State of the run.
    pub progress: Progress,
    /// Steps done.
    pub done: usize,
    /// Steps of the plan; 0 without one.
    pub steps: usize,
    /// Metric that chooses the best model.
    pub metric: Metric,
    /// Its value on dev queries before training.
    pub start: Option<f64>,
    /// Its best value on dev queries.
    pub best: Option<f64>,
    /// Step of the best model.
    pub best_step: Option<usize>,
    /// Whether the best model is an average or a mixture of others.
    pub is_averaged: bool,
    /// The metric on test queries before training.
    pub test_start: Option<f64>,
    /// The metric of the best model on test queries.
    pub test_best: Option<f64>,
}

impl RunSummary {
    /// Headings of [`RunSummary::cells`].
    pub const HEADINGS: [&str; 9] =
        ["run", "state", "steps", "metric", "start", "best", "at step", "test before", "test after"];

    /// Summarises a run.
    #[must_use]
    pub fn of(run: &RunRecord) -> Self {
        let metric = run.metric();
        let outcome = run.outcome.as_ref();
        let test = outcome.and_then(|outcome| outcome.test.as_ref());
        let measured = outcome.and_then(|outcome| outcome.dev.as_ref()?.best.value(metric));
        Self {
            name: name(run),
            progress: run.progress,
            done: run.done(),
            steps: run.plan.as_ref().map_or(0, |plan| plan.steps),
            metric,
            start: run.start(),
            best: measured.or(run.best().map(|best| best.1)),
            best_step: run.best().map(|best| best.0),
            is_averaged: outcome.is_some_and(|outcome| outcome.best_made_of.is_some()),
            test_start: test.and_then(|test| test.start.value(metric)),
            test_best: test.and_then(|test| test.best.value(metric)),
        }
    }

    /// The cells of a table, under [`RunSummary::HEADINGS`].
    #[must_use]
    pub fn cells(&self) -> [String; 9] {
        let value = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
        let at = self.best_step.map_or_else(|| "-".to_owned(), |step| step.to_string());
        [
            self.name.clone(),
            self.progress.to_string(),
            format!("{}/{}", self.done, self.steps),
            self.metric.to_string(),
            value(self.start),
            value(self.best),
            if self.is_averaged { "averaged".to_owned() } else { at },
            value(self.test_start),
            value(self.test_best),
        ]
    }
}

/// Options in which runs differ: the name, and each run's value.
pub fn differing_options(runs: &[RunRecord]) -> Vec<(String, Vec<String>)> {
    let all: Vec<Vec<(String, String)>> =
        runs.iter().map(|run| run.options.as_ref().map(flat).unwrap_or_default()).collect();
    let Some(first) = all.iter().find(|options| !options.is_empty()) else { return Vec::new() };
    let value = |options: &Vec<(String, String)>, name: &str| {
        options.iter().find(|(other, _)| other == name).map_or_else(|| "-".to_owned(), |(_, value)| value.clone())
    };
    let rows = first.iter().map(|(name, _)| (name.clone(), all.iter().map(|one| value(one, name)).collect::<Vec<_>>()));
    rows.filter(|(name, values)| name != "output" && values.iter().any(|value| *value != values[0])).collect()
}

/// Every option of a run as text, by its name.
pub(crate) fn flat(options: &Options) -> Vec<(String, String)> {
    let words = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    options.entries().into_iter().map(|(key, value)| (key.to_owned(), words(value))).collect()
}

/// The name of a run: that of its folder.
pub(crate) fn name(run: &RunRecord) -> String {
    run.path.file_name().map_or_else(|| run.path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

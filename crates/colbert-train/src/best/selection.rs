//! The choice of the best model: the rule, the models that are kept for it, and those that may replace them at the end.

use colbert_config::Metric;
use serde::{Deserialize, Serialize};

use crate::best::averaging::{NamedTensors, blend};
use crate::best::evaluate::{Evaluation, Measured};

/// Shares of the best model in the mixtures with the start.
const MIXTURES: [f64; 3] = [0.25, 0.5, 0.75];

/// A model made of others at the end of a run, and its evaluation on dev queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The models it was made of, in words.
    pub name: String,
    /// Its evaluation.
    pub evaluation: Evaluation,
    /// Whether it was better than all before it, so that it is the best model now.
    pub adopted: bool,
}

/// A model that was measured, with its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contender {
    /// Steps after which it was measured; 0 is the start.
    pub(crate) step: usize,
    /// Its evaluation.
    pub(crate) measured: Measured,
    /// Its parameters, by their names in the module; in a checkpoint in a file of their own.
    #[serde(skip)]
    pub(crate) tensors: NamedTensors,
}

/// The evaluations of a run and the models that may still be chosen.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Selection {
    /// The evaluation of the start. None without dev data.
    pub(crate) baseline: Option<Measured>,
    /// Step and value of every evaluation; no value where it is not finite.
    pub(crate) values: Vec<(usize, Option<f64>)>,
    /// Models that may still be chosen, the best first. Empty without dev data.
    pub(crate) best: Vec<Contender>,
    /// Step of the last evaluation; a resumed run repeats one that was due and interrupted.
    pub(crate) evaluated: Option<usize>,
    /// Evaluations since the best of them.
    pub(crate) since_best: usize,
}

impl Selection {
    /// Keeps a measured model if it is one of the `keep` best so far, and returns whether it is the best of all. Of
    /// equals the older one stays before the newer; a value that is not finite is worse than any other.
    pub(crate) fn consider(
        &mut self,
        step: usize,
        metric: Metric,
        keep: usize,
        measured: &Measured,
        tensors: impl FnOnce() -> NamedTensors,
    ) -> bool {
        let value = |measured: &Measured| measured.evaluation.value(metric);
        self.values.push((step, value(measured)));
        let better_than = |other: &Contender| metric.is_better(value(&other.measured), value(measured));
        let place = self.best.iter().position(better_than).unwrap_or(self.best.len());
        if place < keep {
            let contender = Contender { step, measured: measured.clone(), tensors: tensors() };
            self.best.insert(place, contender);
            self.best.truncate(keep);
        }
        self.since_best = if place == 0 { 0 } else { self.since_best + 1 };
        place == 0
    }

    /// Steps of the `keep` best evaluations but that of the start, the best first; of equals the older.
    pub(crate) fn best_steps(&self, metric: Metric, keep: usize) -> Vec<usize> {
        let mut best: Vec<(usize, Option<f64>)> = Vec::new();
        for &(step, value) in self.values.iter().filter(|(step, _)| *step > 0) {
            let place = best.iter().position(|(_, other)| metric.is_better(*other, value)).unwrap_or(best.len());
            best.insert(place, (step, value));
            best.truncate(keep);
        }
        best.into_iter().map(|(step, _)| step).collect()
    }

    /// Makes the models to be tried at the end, each with a description. `average` is the moving average of the
    /// weights, empty without one; `start` is given if mixtures with it are wanted.
    pub(crate) fn candidates(
        &self,
        average: NamedTensors,
        average_best: usize,
        start: Option<&NamedTensors>,
    ) -> Vec<(String, NamedTensors)> {
        let mut candidates = Vec::new();
        if !average.is_empty() {
            candidates.push(("moving average of the weights".to_owned(), average));
        }
        if average_best > 1 && self.best.len() > 1 {
            let share = 1.0 / self.best.len() as f64;
            let models: Vec<_> = self.best.iter().map(|contender| (&contender.tensors, share)).collect();
            let steps: Vec<String> = self.best.iter().map(|contender| contender.step.to_string()).collect();
            candidates.push((format!("mean of the models after steps {}", steps.join(", ")), blend(&models)));
        }
        if let (Some(start), Some(best)) = (start, self.best.first().filter(|best| best.step > 0)) {
            for share in MIXTURES {
                let name = format!("{share} x the model after step {} + {} x the start", best.step, 1.0 - share);
                candidates.push((name, blend(&[(&best.tensors, share), (start, 1.0 - share)])));
            }
        }
        candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(value: f64) -> Measured {
        let metrics = if value.is_finite() { vec![(Metric::default(), value)] } else { Vec::new() };
        Measured { evaluation: Evaluation { queries: 1, documents: 1, metrics }, queries: Vec::new() }
    }

    #[test]
    fn the_best_are_kept_in_order_and_equals_stay_behind_the_older() {
        let mut state = Selection::default();
        let mut best = Vec::new();
        for (step, value) in [0.5, 0.7, 0.7, f64::NAN, 0.6, 0.8].into_iter().enumerate() {
            best.push(state.consider(step, Metric::default(), 3, &measured(value), Vec::new));
        }
        assert_eq!(best, [true, true, false, false, false, true]);
        assert_eq!(state.best.iter().map(|contender| contender.step).collect::<Vec<_>>(), [5, 1, 2]);
        assert_eq!(state.since_best, 0);
        assert_eq!(state.best_steps(Metric::default(), 3), [5, 1, 2]);
        assert_eq!(state.best_steps(Metric::default(), 9), [5, 1, 2, 4, 3], "not the start; what has no value is last");
        assert!(state.best_steps(Metric::default(), 0).is_empty());
        state.consider(6, Metric::default(), 3, &measured(0.1), Vec::new);
        assert_eq!(state.since_best, 1);
    }

    #[test]
    fn a_start_that_has_no_value_is_beaten_by_any_that_has() {
        let mut state = Selection::default();
        assert!(state.consider(0, Metric::default(), 1, &measured(f64::NAN), Vec::new));
        assert!(!state.consider(0, Metric::default(), 1, &measured(f64::NAN), Vec::new));
        assert!(state.consider(0, Metric::default(), 1, &measured(0.0), Vec::new));
    }
}

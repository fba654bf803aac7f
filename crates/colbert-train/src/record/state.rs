//! The state of a run besides weights and moments, as a checkpoint keeps it.

use serde::{Deserialize, Serialize};

use crate::best::averaging::NamedTensors;
use crate::best::evaluate::Measured;
use crate::best::selection::{Contender, Selection};
use crate::record::identity::Identity;
use crate::step::learned::LearnedNumbers;
use crate::step::loss_scale::LossScale;
use crate::step::loss_watch::LossWatch;

/// Everything about a run besides the weights that are trained and the optimizer's moments.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "StateFile")]
pub(crate) struct RunState {
    /// Optimizer steps done; data order, schedule and dropout follow from it and the seed.
    pub(crate) step: usize,
    /// The options and inputs of the run.
    pub(crate) identity: Identity,
    /// The evaluations so far and the models that may still be chosen.
    #[serde(flatten)]
    pub(crate) selection: Selection,
    /// Steps that were left out, as their loss or gradient was not finite.
    pub(crate) skipped: usize,
    /// Scale of the loss, in a run in float16; none in others, and in checkpoints from before float16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) loss_scale: Option<LossScale>,
    /// Learned numbers of the loss; none in most runs, and in checkpoints from before learned numbers.
    #[serde(skip_serializing_if = "LearnedNumbers::is_empty")]
    pub(crate) learned: LearnedNumbers,
    /// Running mean of the loss.
    pub(crate) losses: LossWatch,
    /// Exponential average of the weights, if there is one; in a file of its own.
    #[serde(skip)]
    pub(crate) average: NamedTensors,
    /// Time spent in steps so far, in seconds.
    pub(crate) training_seconds: f64,
}

/// The fields of `state.json`. serde cannot refuse unknown fields of a flattened struct, so they are read flat.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    step: usize,
    identity: Identity,
    baseline: Option<Measured>,
    #[serde(default)]
    values: Vec<(usize, Option<f64>)>,
    best: Vec<Contender>,
    evaluated: Option<usize>,
    since_best: usize,
    skipped: usize,
    #[serde(default)]
    loss_scale: Option<LossScale>,
    #[serde(default)]
    learned: LearnedNumbers,
    losses: LossWatch,
    training_seconds: f64,
}

impl From<StateFile> for RunState {
    fn from(file: StateFile) -> Self {
        let StateFile { step, identity, baseline, values, best, evaluated, since_best, .. } = file;
        let StateFile { skipped, loss_scale, learned, losses, training_seconds, .. } = file;
        let selection = Selection { baseline, values, best, evaluated, since_best };
        let average = Vec::new();
        Self { step, identity, selection, skipped, loss_scale, learned, losses, average, training_seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_unknown_ones_are_refused() {
        let json = serde_json::to_string(&RunState::default()).unwrap();
        let fields = ["step", "identity", "baseline", "values", "best", "evaluated", "since_best", "skipped", "losses"];
        let places: Vec<usize> = fields.iter().map(|name| json.find(&format!("\"{name}\"")).unwrap()).collect();
        assert!(places.is_sorted(), "{json}");
        assert_eq!(serde_json::from_str::<RunState>(&json).unwrap(), RunState::default());
        let more = json.replacen('{', "{\"of_a_newer_program\":1,", 1);
        assert!(serde_json::from_str::<RunState>(&more).is_err());
    }
}

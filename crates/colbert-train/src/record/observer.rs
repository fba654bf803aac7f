//! The events of a run, and the observers that receive them.

use std::borrow::Cow;
use std::path::PathBuf;

use colbert_config::{Metric, Plan};
use serde::Serialize;

use crate::best::evaluate::Evaluation;
use crate::best::selection::Candidate;
use crate::flow::Flow;
use crate::record::identity::Change;

/// An event of a run. Steps are counted from 1, times are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A run is resumed; sent before anything else.
    Resumed {
        /// Steps already done; 0 if no checkpoint is whole, and the run begins again.
        step: usize,
        /// The checkpoint that it continues from.
        checkpoint: Option<PathBuf>,
        /// Newer ones that are damaged.
        skipped: Vec<Skipped>,
        /// The differences that were accepted.
        changes: Vec<Change>,
    },
    /// The first step is about to begin.
    Started {
        /// The plan of the run.
        plan: Plan,
        /// Steps already done, when a run is resumed.
        done: usize,
    },
    /// An optimizer step.
    Step(StepRecord),
    /// Negatives were chosen again, or read back from an earlier part of the run.
    Refreshed {
        /// Epoch that they are for, from 1.
        epoch: usize,
        /// Steps done.
        step: usize,
        /// Whether they were read back.
        read: bool,
        /// How long it took.
        seconds: f64,
    },
    /// An evaluation is in progress.
    Evaluating {
        /// Documents encoded so far.
        done: usize,
        /// Documents in all.
        total: usize,
    },
    /// An evaluation of the model after `step` steps; 0 is the start.
    Evaluated {
        /// Steps done.
        step: usize,
        /// The chosen metric.
        metric: Metric,
        /// Its result.
        evaluation: Evaluation,
        /// Whether it is the best so far.
        best: bool,
        /// How long it took.
        seconds: f64,
    },
    /// A model made of others was measured at the end.
    Tried(Candidate),
    /// No evaluation of the last `evaluations` beat the best: the run ends.
    OutOfPatience {
        /// Steps done.
        step: usize,
        /// Evaluations since the best.
        evaluations: usize,
    },
    /// A batch whose loss or gradient is not finite was left out.
    Skipped {
        /// Step, from 1; it changed nothing.
        step: usize,
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// Ids of the queries in the batch.
        queries: String,
        /// Batches left out so far.
        count: usize,
        /// Folder with the batch and the weights; only the first few are written.
        dump: Option<PathBuf>,
    },
    /// A gradient overflowed float16: the step was left out, and the scale of the loss is halved from here on.
    Overflowed {
        /// Step, from 1; it changed nothing but the scale.
        step: usize,
        /// The scale from here on.
        loss_scale: f64,
        /// Steps left out for this reason so far.
        count: usize,
    },
    /// The loss of a step is far above those before it.
    Spike {
        /// Step, from 1.
        step: usize,
        /// Its loss.
        loss: f64,
        /// Running mean before it.
        mean: f64,
    },
    /// A checkpoint was written.
    Saved {
        /// Steps done.
        step: usize,
        /// Its folder.
        path: PathBuf,
    },
    /// The run is over.
    Finished {
        /// Steps done.
        step: usize,
        /// Whether an observer stopped it.
        stopped: bool,
    },
}

/// A checkpoint that is not used, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its folder.
    pub path: PathBuf,
    /// The damage.
    pub reason: String,
}

/// One optimizer step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepRecord {
    /// Step, from 1.
    pub step: usize,
    /// Loss of the batch.
    pub loss: f64,
    /// Its named parts.
    pub parts: Vec<(Cow<'static, str>, f64)>,
    /// Loss of each micro-batch, if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub micro_losses: Vec<f64>,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// L2 norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Factor on the loss in the backward pass, in a run in float16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f64>,
    /// Learned numbers of the loss at this step, such as `log_temperature`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub learned: Vec<(String, f64)>,
    /// Mean score of the positives.
    pub positive_score: f64,
    /// Mean score of the queries' own negatives.
    pub negative_score: f64,
    /// Examples in the batch.
    pub examples: usize,
    /// Real tokens in the batch.
    pub tokens: usize,
    /// Time of the step.
    pub seconds: f64,
    /// Examples a second.
    pub examples_per_second: f64,
    /// Real tokens a second.
    pub tokens_per_second: f64,
    /// Bytes of memory that the process has after it; none if the system does not report it.
    pub memory: Option<u64>,
}

/// An observer, which receives every event. It must not fail: an observer that cannot write keeps its error until it is
/// asked for it.
pub trait Observer {
    /// Takes note of an event after it happened, on the training thread; a slow observer slows the run.
    fn observe(&mut self, event: &Event) -> Flow;
}

impl<F: FnMut(&Event) -> Flow> Observer for F {
    fn observe(&mut self, event: &Event) -> Flow {
        self(event)
    }
}

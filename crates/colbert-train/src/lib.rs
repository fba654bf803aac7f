//! Training of late-interaction (ColBERT) models: losses, schedule, accumulation, the loop, checkpoints, evaluation, the
//! choice of the best model, and the miners that need a model ([`DenseMiner`], [`LateInteractionMiner`]).
//!
//! [`Training::run`] is the loop. It reads only a [`Plan`](colbert_config::Plan) and options, tells every
//! [`Event`] to its [`Observer`]s, and returns the directory of the best model. [`Objective`] is the seam for a loss of
//! one's own.

mod adamw;
mod averaging;
mod batch;
mod checkpoint;
mod compare;
mod device_fault;
mod error;
mod evaluate;
mod faults;
mod gradients;
mod identity;
mod loss_scale;
mod memory;
mod mining;
mod objective;
mod observer;
mod order;
mod refresh;
mod rehearsal;
mod run;
mod run_folder;
mod schedule;
mod selection;
mod tensorboard;
mod trainable;
mod trainer;

pub use adamw::{AdamW, clip_factor, gradient_norm};
pub use batch::{Batch, BatchPart, Batcher};
pub use checkpoint::{
    Contender, NamedTensors, RunState, Skipped, checkpoints, newest_checkpoint, prune_checkpoints, read_checkpoint,
    write_checkpoint,
};
pub use compare::Comparison;
pub use device_fault::on_device;
pub use error::TrainError;
pub use evaluate::{Evaluation, Measured, QueryResult, evaluate, metric_value};
pub use faults::{FaultyBatch, FaultyExample, LossWatch};
pub use gradients::{BatchLoss, GradientPlan, batch_gradients};
pub use identity::{Change, Identity};
pub use loss_scale::LossScale;
pub use memory::{available_memory, forget_peak_memory, peak_memory, resident_memory};
pub use mining::{DenseMiner, LateInteractionMiner};
pub use objective::{ColbertObjective, Loss, Objective, Targets};
pub use observer::{Event, Flow, Observer, StepRecord};
pub use order::ExampleOrder;
pub use refresh::RefreshExamples;
pub use rehearsal::Rehearsal;
pub use run_folder::{MetricsLog, RunFolder};
pub use schedule::Schedule;
pub use selection::Candidate;
pub use tensorboard::TensorboardLog;
pub use trainable::TrainableEncoder;
pub use trainer::{Begin, Best, Dev, Trained, Training, WriteModel};

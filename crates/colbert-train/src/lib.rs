//! Training of late-interaction (ColBERT) models: losses, schedule, accumulation, the loop, checkpoints, evaluation, the
//! choice of the best model, and the miners that need a model ([`DenseMiner`], [`LateInteractionMiner`]).
//!
//! [`Training::run`] is the loop. It reads only a [`Plan`](colbert_config::Plan) and options, tells every
//! [`Event`] to its [`Observer`]s, and returns the directory of the best model. [`Objective`] is the seam for a loss of
//! one's own.

mod adamw;
mod batch;
mod checkpoint;
mod error;
mod evaluate;
mod gradients;
mod mining;
mod objective;
mod observer;
mod order;
mod refresh;
mod run_folder;
mod schedule;
mod trainable;
mod trainer;

pub use adamw::{AdamW, clip_factor, gradient_norm};
pub use batch::{Batch, BatchPart, Batcher};
pub use checkpoint::{RunState, checkpoints, prune_checkpoints, read_checkpoint, write_checkpoint};
pub use error::TrainError;
pub use evaluate::{Evaluation, evaluate, metric_value};
pub use gradients::{BatchLoss, GradientPlan, batch_gradients};
pub use mining::{DenseMiner, LateInteractionMiner};
pub use objective::{ColbertObjective, Loss, Objective, Targets};
pub use observer::{Event, Flow, Observer, StepRecord};
pub use order::ExampleOrder;
pub use refresh::RefreshExamples;
pub use run_folder::{MetricsLog, RunFolder};
pub use schedule::Schedule;
pub use trainable::TrainableEncoder;
pub use trainer::{Dev, Trained, Training, WriteModel};

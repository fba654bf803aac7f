//! Training of late-interaction (ColBERT) models: losses, schedule, accumulation, the loop, checkpoints, evaluation,
//! the choice of the best model, and the miners and teachers that need a model ([`mining`]).
//!
//! [`Training::run`] is the loop. It reads only a [`Plan`](colbert_config::Plan) and options, sends every [`Event`] to
//! its [`Observer`]s, and returns the directory of the best model. Implement [`Objective`] for another loss.

mod best;
mod device;
mod error;
mod flow;
pub mod mining;
mod processes;
mod record;
mod refresh;
mod run;
mod step;
mod trainer;

pub use best::compare::Comparison;
pub use best::evaluate::{Evaluation, EvaluationLimits, Measured, QueryResult, Task, evaluate};
pub use best::selection::Candidate;
pub use device::fault::on_device;
pub use device::memory;
pub use error::TrainError;
pub use flow::Flow;
pub use processes::{OneProcess, Processes};
pub use record::faulty_batch::{FaultyBatch, FaultyExample};
pub use record::identity::{Change, Identity};
pub use record::observer::{Event, Observer, Skipped, StepRecord};
pub use record::run_folder::{MetricsLog, RunFolder};
pub use record::tensorboard::TensorboardLog;
pub use refresh::RefreshExamples;
pub use run::{Best, Dev, WriteModel};
pub use step::batch::{Batch, BatchPart};
pub use step::batch_loss::BatchLoss;
pub use step::colbert_objective::ColbertObjective;
pub use step::matryoshka::loss_over_sizes;
pub use step::mix::check_mix;
pub use step::objective::{LearnedNumber, Loss, Objective, Targets};
pub use step::optimizer_step::{Gradient, Step, StepOutcome, Update};
pub use step::ordered_sum::exchange_memory;
pub use step::rehearsal::Rehearsal;
pub use step::trainable::TrainableEncoder;
pub use trainer::{Begin, Trained, Training};

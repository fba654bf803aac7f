//! Options for training a ColBERT model: their names, defaults, places, ranges, and the plan that follows from them.
//!
//! [`Options`] is everything a person can set, under the names and with the defaults of RAGatouille's `RAGTrainer`.
//! [`Layers`] collects options from files, the environment and the command line. [`resolve()`] turns them and the number
//! of training examples into a [`Plan`], in which nothing is "auto" any more and which says in words what will happen.
//! [`ArtifactMetadata`] is the file colbert-ai puts beside a model to say how it was made.
//!
//! This crate knows no tensors and no texts.
//!
//! ```
//! use colbert_config::{Layers, resolve};
//! use serde_json::json;
//!
//! let options = Layers::new().overrides([("train.learning_rate".to_owned(), json!(1e-5))]).build()?;
//! options.validate()?;
//!
//! let plan = resolve(&options.train, 9_984)?;
//! assert_eq!(
//!     plan.to_string(),
//!     "312 steps of 32 queries, each against its 1 negative and 62 in-batch documents; \
//!      learning rate rises to 1e-5 at step 31, falls to 0 at 312; a checkpoint every 31 steps."
//! );
//! # Ok::<(), colbert_config::ConfigError>(())
//! ```

mod artifact;
mod auto;
mod columns;
mod error;
mod fields;
mod layers;
mod memory;
mod metric;
mod miner_model;
mod options;
mod plan;
mod resolve;
mod train_options;
mod validate;

pub use artifact::ArtifactMetadata;
pub use auto::{AutoSteps, Warmup};
pub use columns::{ColumnRole, ColumnRoles};
pub use error::ConfigError;
pub use layers::Layers;
pub use memory::{Bytes, MemoryLimit};
pub use metric::Metric;
pub use miner_model::reference_miner_model;
pub use options::{
    DataFormat, DataOptions, EvaluationOptions, ExportDtype, Miner, MinerModelSize, NegativeOptions, Options, Refresh,
    TriplePolicy,
};
pub use plan::Plan;
pub use resolve::resolve;
pub use train_options::{IbScope, OnNonFinite, Precision, TrainOptions};

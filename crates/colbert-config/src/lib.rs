//! Options for training a ColBERT model: their names, defaults, places, ranges, and the plan that follows from them.
//!
//! [`Options`] is everything a person can set, under the names and with the defaults of RAGatouille's `RAGTrainer`.
//! [`OptionSources`] collects options from files, the environment and the command line. [`resolve()`] turns them and
//! the number of training examples into a [`Plan`], in which nothing is "auto" any more and which says in words what
//! will happen. [`ArtifactMetadata`] is the file colbert-ai puts beside a model to say how it was made.
//!
//! This crate knows no tensors and no texts.
//!
//! ```
//! use colbert_config::{OptionSources, resolve};
//! use serde_json::json;
//!
//! let options = OptionSources::new().overrides([("train.learning_rate".to_owned(), json!(1e-5))]).build()?;
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
pub mod durable;
mod error;
mod options;
mod plan;
mod recipe;
mod resolve;
mod sources;
mod table;
mod validate;

pub use artifact::ArtifactMetadata;
pub use error::ConfigError;
pub use options::Options;
pub use options::auto::{AutoSteps, Warmup};
pub use options::columns::{ColumnRole, ColumnRoles};
pub use options::data::{DataFormat, DataOptions};
pub use options::data_paths::DataPaths;
pub use options::evaluation::EvaluationOptions;
pub use options::export::{ExportDtype, ExportLayout};
pub use options::head::{HeadActivation, HeadInit, HeadLayer, HeadLayers};
pub use options::length::MODEL_LENGTH;
pub use options::losses::{DistillationLoss, ScoreScale};
pub use options::memory::{Bytes, MemoryLimit};
pub use options::metric::Metric;
pub use options::miner_model::reference_miner_model;
pub use options::mix::MixBatches;
pub use options::negatives::{Miner, MinerModelSize, NegativeOptions, Refresh, TriplePolicy};
pub use options::number_list::NumberList;
pub use options::precision::Precision;
pub use options::schedule::{REFERENCE_LEARNING_RATE, Schedule, automatic_learning_rate};
pub use options::train::{IbScope, OnNonFinite, TrainOptions};
pub use plan::Plan;
pub use resolve::{resolve, resolve_for_processes};
pub use sources::OptionSources;
pub use table::{Kind, OPTIONS, OptionRow, Readers, Section};
pub use validate::train::validate_nway;

//! Train late-interaction (ColBERT) retrieval models: raw (query, passage) data in, the directory of the best model
//! out.
//!
//! [`RagTrainer`] is the native counterpart of RAGatouille's `RAGTrainer`, with the same option names and defaults;
//! [`RagPretrainedModel`] encodes, reranks and searches with what was trained. The crates below it are re-exported for
//! those who swap a part: [`config`], [`data`], [`model`], [`train`]; names for an encoder, a loss or a miner of your own
//! are in [`prelude`].
//!
//! ```
//! use ragtrainer::RagTrainer;
//! use ragtrainer::config::{NegativeOptions, TrainOptions};
//! use ragtrainer::data::{PrepareOptions, RawData};
//!
//! # let encoder = concat!(env!("CARGO_MANIFEST_DIR"), "/../colbert-model/tests/parity/tiny");
//! # let folder = tempfile::tempdir()?;
//! let mut trainer = RagTrainer::new("MyFineTunedColBERT", encoder).with_language_code("en");
//! # trainer = trainer.with_output(folder.path().join("run"), false);
//!
//! let pairs = [
//!     ("What is the meaning of life?", "The meaning of life is 42."),
//!     ("What is neural search?", "Neural search is a way of finding passages by their meaning."),
//!     ("What is a tor?", "A tor is a rocky hill."),
//! ];
//! let library = ["A moor is open land.", "A weir is a low dam.", "A fen is wet.", "A beck is a small stream."];
//!
//! trainer.add_documents(library);
//! trainer.prepare_training_data(RawData::from_pairs(pairs)?, &PrepareOptions::default())?;
//! # let small = TrainOptions { dim: 16, doc_maxlen: 32, maxsteps: 1, batch_size: 4, ..TrainOptions::default() };
//! # let options = small;
//! # #[cfg(any())]
//! let options = TrainOptions { batch_size: 32, ..TrainOptions::default() };
//! let outcome = trainer.train(&options)?;
//! assert!(outcome.best.join("model.safetensors").exists());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod backend;
mod error;
#[cfg(feature = "hub")]
pub mod hub;
mod launch;
pub mod prelude;
pub mod record;
pub mod run;
pub mod search;
mod source;
mod trainer;

pub use backend::Backend;
pub use error::Error;
pub use launch::Launched;
pub use record::Outcome;
pub use search::{Document, DocumentFolder, Hit, RagPretrainedModel};
pub use trainer::RagTrainer;

pub use colbert_config as config;
pub use colbert_data as data;
pub use colbert_model as model;
pub use colbert_train as train;

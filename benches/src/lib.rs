//! Shared parts of the benches: synthetic texts, untrained models, and rates in the units of the work.
//!
//! `cargo bench -p ragtrainer-benches` runs all of them in about ten minutes on two cores. Two variables change that:
//! `COLBERT_BENCH_QUICK` makes everything tiny, to check that it runs; `COLBERT_BENCH_BACKEND` names a backend
//! (`--features ragtrainer/cuda` compiles one in).

mod measure;
mod model;
mod step;
mod texts;
mod work;

pub use measure::{backend, describe, group, measure, print_share, quick};
pub use model::{Size, Sizes, quickstart_model, settings, tokenizer, untrained};
pub use step::{StepBatch, Stepper};
pub use texts::{DOCUMENT_WORDS, QUERY_WORDS, TextGenerator, WordCount, training_set};
pub use work::{Work, product_rate};

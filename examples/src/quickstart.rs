//! The data and the encoder of the quickstart, as seen from the repository root.

use std::path::Path;

use ragtrainer::config::NegativeOptions;
use ragtrainer::data::{BeirFolder, PrepareOptions, TrainingSet, prepare};

/// Medical questions and answers in BEIR layout.
pub const DATA: &str = "examples/quickstart/data";

/// A small BERT encoder in Hugging Face layout.
pub const MODEL: &str = "examples/quickstart/model";

/// The training questions, each with its answer and a wrong passage that BM25 ranks among its first 20.
///
/// # Errors
/// The program was not started in the repository root.
pub fn triples() -> anyhow::Result<TrainingSet> {
    let negatives = NegativeOptions {
        num_new_negatives: 1,
        hard_negative_minimum_rank: 0,
        hard_negative_maximum_rank: 20,
        ..NegativeOptions::default()
    };
    let raw = BeirFolder::open(Path::new(DATA))?.into_raw("train")?;
    let (set, _) = prepare(raw, &PrepareOptions { negatives, ..PrepareOptions::default() }, None)?;
    Ok(set)
}

//! Batches whose loss or gradient is not finite, written down so that they can be computed again.

use std::fs;
use std::path::PathBuf;

use colbert_config::durable::{beside, replace_folder, write_synced};
use colbert_data::TrainingSet;
use colbert_model::safetensors_bytes;
use serde::{Deserialize, Serialize};

use crate::best::averaging::NamedTensors;
use crate::error::{TrainError, io};
use crate::record::run_folder::RunFolder;
use crate::step::batch::Batch;

/// Batches in a row that may be skipped. With more, the weights themselves are broken, and no batch would repair them.
pub(crate) const MOST_SKIPPED_IN_A_ROW: usize = 10;

/// Batches that are written down; more would fill the disk without new information.
pub(crate) const MOST_DUMPED: usize = 3;

/// A batch whose loss or gradient was not finite: enough to compute it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultyBatch {
    /// Optimizer step, from 1. Dropout follows from it and the seed.
    pub step: usize,
    /// `loss` or `gradient norm`.
    pub what: String,
    /// Its value, as text: JSON has no NaN.
    pub value: String,
    /// Seed of the run.
    pub seed: u64,
    /// The examples in their order.
    pub examples: Vec<FaultyExample>,
}

/// An example of a [`FaultyBatch`], with its texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultyExample {
    /// Place among the examples of its epoch, from 0.
    pub place: usize,
    /// The query's id in its source, or its number.
    pub query_id: String,
    /// Its text.
    pub query: String,
    /// The documents' ids in their source, or their numbers; the positive first.
    pub document_ids: Vec<String>,
    /// Their texts.
    pub documents: Vec<String>,
    /// Teacher scores.
    pub scores: Option<Vec<f32>>,
}

impl FaultyBatch {
    pub(crate) fn new(set: &TrainingSet, batch: &Batch, seed: u64, what: &str, value: f64) -> Self {
        let examples = batch.examples.iter().zip(&batch.rows).map(|(&place, example)| {
            let id = |id: Option<&str>, number: u32| id.map_or_else(|| number.to_string(), str::to_owned);
            let documents = &example.documents;
            FaultyExample {
                place,
                query_id: id(set.queries.id(example.query), example.query),
                query: set.queries.text(example.query).to_owned(),
                document_ids: documents.iter().map(|&pid| id(set.collection.id(pid), pid)).collect(),
                documents: documents.iter().map(|&pid| set.collection.text(pid).to_owned()).collect(),
                scores: example.scores.clone(),
            }
        });
        Self {
            step: batch.step + 1,
            what: what.to_owned(),
            value: value.to_string(),
            seed,
            examples: examples.collect(),
        }
    }

    pub(crate) fn queries(&self) -> String {
        self.examples.iter().map(|example| example.query_id.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Writes `nonfinite-STEP/batch.json`, and `model.safetensors` with the weights it was computed with.
    pub(crate) fn write(&self, folder: &RunFolder, weights: &NamedTensors) -> Result<PathBuf, TrainError> {
        let path = folder.path().join(format!("nonfinite-{:06}", self.step));
        let partial = beside(&path, "partial");
        fs::create_dir_all(&partial).map_err(io("create", &partial))?;
        let json = serde_json::to_vec_pretty(self).expect("texts and numbers have a JSON form");
        for (name, bytes) in [("batch.json", json), ("model.safetensors", safetensors_bytes(weights)?)] {
            let file = partial.join(name);
            write_synced(&file, &bytes).map_err(io("write", &file))?;
        }
        replace_folder(&partial, &path).map_err(io("rename", &path))?;
        Ok(path)
    }
}

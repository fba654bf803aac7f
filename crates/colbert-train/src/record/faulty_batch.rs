//! What goes wrong inside a run: numbers that are not finite, losses that jump, threads that die.

use std::any::Any;
use std::fs;
use std::path::PathBuf;

use colbert_config::durable::{beside, replace_folder, write_synced};
use colbert_data::TrainingSet;
use colbert_model::safetensors_bytes;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::record::checkpoint::{NamedTensors, io};
use crate::record::run_folder::RunFolder;
use crate::step::batch::Batch;

/// Batches in a row that may be skipped. With more, it is the weights that are broken, and no batch will mend them.
pub(crate) const MOST_SKIPPED_IN_A_ROW: usize = 10;

/// Batches that are written down; more would fill the disk and say nothing new.
pub(crate) const MOST_DUMPED: usize = 3;

/// Losses seen before a jump is called one.
const SETTLED: usize = 20;

/// Weight of the newest loss in the running mean.
const NEWEST: f64 = 0.05;

/// A jump is this many standard deviations above the running mean, and at least half as high again as it.
const DEVIATIONS: f64 = 6.0;

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

/// Running mean and variance of the loss, to tell a jump.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossWatch {
    seen: usize,
    mean: f64,
    variance: f64,
}

impl LossWatch {
    /// Takes a loss in; the running mean before it if it jumped.
    pub(crate) fn jump(&mut self, loss: f64) -> Option<f64> {
        let before = self.mean;
        let jumped = self.seen >= SETTLED && loss > before + DEVIATIONS * self.variance.sqrt() && loss > 1.5 * before;
        let weight = NEWEST.max(1.0 / (self.seen + 1) as f64);
        let off = loss - self.mean;
        self.mean += weight * off;
        self.variance = (1.0 - weight) * (self.variance + weight * off * off);
        self.seen += 1;
        jumped.then_some(before)
    }
}

/// What a thread said when it died.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it did not say why".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_loss_is_seen_and_noise_is_not() {
        let mut watch = LossWatch::default();
        for step in 0..200 {
            let noise = f64::from(step * 7919 % 13) / 13.0 - 0.5;
            assert_eq!(watch.jump(2.0 - 0.005 * f64::from(step) + 0.3 * noise), None, "step {step}");
        }
        let mean = watch.jump(4.0).unwrap();
        assert!((1.0..1.3).contains(&mean), "{mean}");
        assert_eq!(LossWatch::default().jump(1e9), None, "nothing to compare with yet");
    }

    #[test]
    fn a_dead_thread_is_quoted() {
        let said = |work: fn()| panic_message(&*std::thread::spawn(work).join().unwrap_err());
        assert_eq!(said(|| panic!("the file is gone")), "the file is gone");
        assert_eq!(said(|| panic!("{} is gone", 3)), "3 is gone");
        assert_eq!(said(|| std::panic::panic_any(3)), "it did not say why");
    }
}

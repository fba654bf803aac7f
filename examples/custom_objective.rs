//! A loss of another crate: in-batch softmax with a temperature, without the n-way part of colbert-ai's loss.
//!
//! Shows how to implement [`Objective`] and hand it to a whole run, which keeps its folder, report and model card:
//!
//!     cargo run --release -p ragtrainer-examples --example custom_objective
#![expect(clippy::print_stdout, reason = "an example prints for people")]

use std::path::Path;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Bool, Int, Tensor, TensorData};
use ragtrainer::RagTrainer;
use ragtrainer::config::{EvaluationOptions, TrainOptions};
use ragtrainer::data::{BeirFolder, PrepareOptions};
use ragtrainer::model::kernels::KernelBackend;
use ragtrainer::model::{Embeddings, maxsim};
use ragtrainer::train::{Loss, Objective, Targets};
use ragtrainer_examples::{DATA, MODEL};

/// `-log softmax(scores / temperature)` of a query's positive among all documents of the batch. A temperature below 1
/// gives the closest wrong documents more weight, one above 1 the many others.
struct InBatchSoftmax {
    temperature: f64,
}

impl Objective for InBatchSoftmax {
    fn loss<B: KernelBackend>(&self, queries: &Embeddings<B>, documents: &Embeddings<B>, targets: &Targets) -> Loss<B> {
        let scores = maxsim(queries, documents); // [queries, documents]
        let (device, [count, all]) = (scores.device(), scores.dims());
        let own = |place: usize| {
            let own: Vec<i32> = targets.documents.iter().map(|own| own[place] as i32).collect();
            Tensor::<B, 2, Int>::from_data(TensorData::new(own, [count, 1]), &device)
        };
        // Another document that is known to answer the query is no negative of it.
        let is_left_out =
            |i: usize| targets.positives[i / all].contains(&(i % all)) && targets.documents[i / all][0] != i % all;
        let left_out: Vec<bool> = (0..count * all).map(is_left_out).collect();
        let left_out = Tensor::<B, 2, Bool>::from_data(TensorData::new(left_out, [count, all]), &device);
        let candidates = scores.clone().div_scalar(self.temperature).mask_fill(left_out, f32::NEG_INFINITY);
        let total = log_softmax(candidates, 1).gather(1, own(0)).mean().neg();
        let mean = |place| scores.clone().detach().gather(1, own(place)).mean();
        let (positive_score, negative_score) = (mean(0), mean(1));
        Loss { parts: vec![("in_batch_softmax", total.clone())], total, positive_score, negative_score }
    }

    /// True: with `accumsteps` above 1 embeddings are then cached, so that this loss still sees the whole batch.
    fn couples_queries(&self) -> bool {
        true
    }
}

fn main() -> anyhow::Result<()> {
    let folder = BeirFolder::open(Path::new(DATA))?;
    let choice = EvaluationOptions { pool_size: Some(200), max_queries: Some(40), ..EvaluationOptions::default() };
    let mut trainer = RagTrainer::new("custom-objective", MODEL)
        .with_output("runs/custom-objective", true)
        .with_dev(folder.evaluation("dev")?, choice)
        .with_objective(InBatchSoftmax { temperature: 0.5 });
    trainer.prepare_training_data(folder.into_raw("train")?, &PrepareOptions::default())?;
    let options =
        TrainOptions { batch_size: 16, maxsteps: 12, learning_rate: 1e-4, doc_maxlen: 96, ..TrainOptions::default() };
    let outcome = trainer.train(&options)?;
    if let Some(dev) = outcome.dev {
        let value = |evaluation: &ragtrainer::train::Evaluation| evaluation.value(outcome.metric).unwrap_or(f64::NAN);
        println!("{} on dev: {:.3} before, {:.3} after", outcome.metric, value(&dev.start), value(&dev.best));
    }
    println!("best model: {}", outcome.best.display());
    Ok(())
}

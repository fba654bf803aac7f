//! A loss of another crate: in-batch softmax with a temperature, without the n-way part of colbert-ai's loss.
//!
//! Shows how to implement [`Objective`] and hand it to a whole run, which keeps its folder, report and model card:
//!
//!     cargo run --release -p ragtrainer-examples --example custom_objective
#![expect(clippy::print_stdout, reason = "an example prints for people")]

use burn::tensor::activation::log_softmax;
use ragtrainer::prelude::*;
use ragtrainer_examples::{DATA, MODEL};

/// `-log softmax(scores / temperature)` of a query's positive among all documents of the batch. A temperature below 1
/// gives the closest wrong documents more weight, one above 1 the many others.
struct InBatchSoftmax {
    temperature: f64,
}

impl Objective for InBatchSoftmax {
    fn loss<B: KernelBackend>(&self, queries: &Embeddings<B>, documents: &Embeddings<B>, targets: &Targets) -> Loss<B> {
        let scores = maxsim(queries, documents); // [queries, documents]
        let (device, [_, count]) = (scores.device(), scores.dims());
        let positive = targets.own::<B>(&device).narrow(1, 0, 1);
        let left_out = targets.other_positives::<B>(count, &device);
        let candidates = scores.clone().div_scalar(self.temperature).mask_fill(left_out, f32::NEG_INFINITY);
        let total = log_softmax(candidates, 1).gather(1, positive).mean().neg();
        Loss::new("in_batch_softmax", total, scores, targets)
    }

    /// True: with `accumsteps` above 1 embeddings are then cached, so that this loss still sees the whole batch.
    fn couples_queries(&self) -> bool {
        true
    }
}

fn main() -> anyhow::Result<()> {
    let folder = BeirFolder::open(DATA.as_ref())?;
    let choice = EvaluationOptions { pool_size: Some(200), max_queries: Some(40), ..EvaluationOptions::default() };
    let mut trainer = RagTrainer::new("custom-objective", MODEL)
        .with_output("runs/custom-objective", true)
        .with_dev(folder.evaluation("dev")?, choice)
        .with_objective(InBatchSoftmax { temperature: 0.5 });
    trainer.prepare_training_data(folder.into_raw("train")?, &PrepareOptions::default())?;
    let options = TrainOptions {
        batch_size: 16,
        maxsteps: 12,
        learning_rate: Some(1e-4),
        doc_maxlen: 96,
        ..TrainOptions::default()
    };
    println!("{}", trainer.train(&options)?);
    Ok(())
}

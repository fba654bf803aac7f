//! The facade: raw questions and answers in, the directory of a trained model out.
//!
//! Shows what most users need, on the quickstart's data with only a few steps, which takes about a minute:
//!
//!     cargo run --release -p ragtrainer-examples --example quickstart
#![expect(clippy::print_stdout, reason = "an example prints for people")]

use std::path::Path;

use ragtrainer::RagTrainer;
use ragtrainer::config::{AutoSteps, EvaluationOptions, Metric, TrainOptions};
use ragtrainer::data::{BeirFolder, PrepareOptions};
use ragtrainer::train::{Evaluation, Event, Flow};
use ragtrainer_examples::{DATA, MODEL};

fn main() -> anyhow::Result<()> {
    // Questions, passages, and judgements of which passage answers which question. `RawData::from_pairs` takes pairs in
    // memory.
    let folder = BeirFolder::open(Path::new(DATA))?;
    // Held-out questions choose the best checkpoint; 40 of them against 200 passages, to save time.
    let choice = EvaluationOptions { pool_size: Some(200), max_queries: Some(40), ..EvaluationOptions::default() };

    let mut trainer = RagTrainer::new("quickstart-example", MODEL)
        .with_output("runs/quickstart-example", true)
        .with_dev(folder.evaluation("dev")?, choice);
    // Hard negatives by BM25, as in RAGatouille.
    let report = trainer.prepare_training_data(folder.into_raw("train")?, &PrepareOptions::default())?;
    println!("{report}");

    let options = TrainOptions {
        batch_size: 16,
        maxsteps: 16,
        learning_rate: Some(1e-4), // high, as the run is short
        doc_maxlen: 96,
        save_every: AutoSteps::Steps(8), // a checkpoint and a look at the held-out questions
        ..TrainOptions::default()
    };
    println!("{}\n", trainer.plan(&options)?);
    let outcome = trainer.train_observed(&options, &mut |event: &Event| {
        if let Event::Step(record) = event {
            println!("step {:2}  loss {:.3}  {:.2} s", record.step, record.loss, record.seconds);
        }
        Flow::Continue
    })?;

    if let Some(dev) = &outcome.dev {
        let value = |evaluation: &Evaluation| evaluation.value(Metric::default()).unwrap_or(f64::NAN);
        println!("\n{} on dev: {:.3} before, {:.3} after", outcome.metric, value(&dev.start), value(&dev.best));
    }
    println!("best model: {}", outcome.best.display());
    Ok(())
}

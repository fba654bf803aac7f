//! The same fifty steps on every backend that is compiled in, with each loss and the triples per second.
//!
//! Shows code that is generic over the backend, and how to choose a backend by its name:
//!
//!     cargo run --release -p ragtrainer-examples --example compare_backends
//!     cargo run --release -p ragtrainer-examples --features ragtrainer/cuda --example compare_backends
//!     LIBTORCH=... cargo run --release -p ragtrainer-examples --features ragtrainer/tch --example compare_backends
#![expect(clippy::print_stdout, reason = "an example prints for people")]

use std::path::Path;

use ragtrainer::Backend;
use ragtrainer::backend::Job;
use ragtrainer::config::{Plan, TrainOptions, resolve};
use ragtrainer::data::TrainingSet;
use ragtrainer::model::kernels::KernelAutodiffBackend;
use ragtrainer::model::{ColbertSettings, Pretrained};
use ragtrainer::train::{Begin, Event, Flow, StepRecord, Training};
use ragtrainer_examples::{MODEL, triples};

/// All names of backends, whichever are built in.
const NAMES: [&str; 4] = ["flex", "cuda", "libtorch", "libtorch:cuda"];

struct ShortRun<'a> {
    set: &'a TrainingSet,
    options: &'a TrainOptions,
    plan: &'a Plan,
    pretrained: &'a Pretrained,
}

impl Job for ShortRun<'_> {
    type Output = anyhow::Result<Vec<StepRecord>>;

    fn run<B: KernelAutodiffBackend>(self, device: &B::Device) -> Self::Output {
        let Self { set, options, plan, pretrained } = self;
        let settings = ColbertSettings::from(options);
        let (model, _) = pretrained.model::<B>(&settings, options.dropout, options.seed, device)?;
        let mut records = Vec::new();
        let mut keep = |event: &Event| {
            if let Event::Step(record) = event {
                records.push(record.clone());
            }
            Flow::Continue
        };
        Training::new(set, &pretrained.tokenizer(&settings)?, options, plan, device)
            .with_observer(&mut keep)
            .run(model, Begin::New)?;
        Ok(records)
    }
}

fn main() -> anyhow::Result<()> {
    let set = triples()?;
    let options = TrainOptions {
        batch_size: 16,
        maxsteps: 50,
        learning_rate: Some(1e-4),
        doc_maxlen: 96,
        dropout: Some(0.0),
        ..TrainOptions::default()
    };
    let plan = resolve(&options, set.examples.len())?;
    let pretrained = Pretrained::read(Path::new(MODEL))?;

    let mut curves = Vec::new();
    for name in NAMES {
        let backend = match Backend::from_name(name) {
            Ok(backend) => backend,
            Err(error) => {
                println!("left out: {:#}", anyhow::Error::from(error));
                continue;
            }
        };
        let records = backend.run(ShortRun { set: &set, options: &options, plan: &plan, pretrained: &pretrained })?;
        // The first step may compile kernels.
        let (triples, seconds) = records[1..].iter().fold((0, 0.0), |(n, s), r| (n + r.examples, s + r.seconds));
        println!("{backend}: {:.1} triples/s", triples as f64 / seconds);
        curves.push((backend, records));
    }
    println!();
    for (backend, records) in &curves {
        let losses: Vec<String> = records.iter().step_by(7).map(|record| format!("{:.4}", record.loss)).collect();
        println!("loss on {backend}, every seventh step: {}", losses.join(" "));
    }
    match curves.as_slice() {
        [(only, _)] => println!("only {only} is compiled in, so there is nothing to compare it with"),
        [(_, first), others @ ..] => {
            for (backend, records) in others {
                let apart = |(a, b): (&StepRecord, &StepRecord)| (a.loss - b.loss).abs() / a.loss;
                let apart = first.iter().zip(records).map(apart).fold(0.0, f64::max);
                println!("{backend} is never further than {apart:.1e} of the loss from the first");
            }
        }
        [] => println!("no backend is compiled in"),
    }
    Ok(())
}

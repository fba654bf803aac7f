//! A run that is stopped and resumed ends with the same bits as one that was not.
//!
//! Shows how an [`Observer`](ragtrainer::train::Observer) stops a run, and how the run resumes from its newest
//! checkpoint:
//!
//!     cargo run --release -p ragtrainer-examples --example resume
#![expect(clippy::print_stdout, reason = "an example prints for people")]

use std::path::Path;

use anyhow::ensure;
use burn::backend::Autodiff;
use burn_flex::{Flex, FlexDevice};
use ragtrainer::config::{AutoSteps, Plan, TrainOptions, resolve};
use ragtrainer::data::TrainingSet;
use ragtrainer::model::{Colbert, ColbertSettings, HostTensor, Pretrained, PretrainedEncoder, named_parameters};
use ragtrainer::train::{Begin, Event, Flow, RunFolder, Trained, Training};
use ragtrainer_examples::{MODEL, triples};

type B = Autodiff<Flex>;
type Model = Colbert<B, PretrainedEncoder<B>>;

/// Steps of the uninterrupted run, and the step after which the other run is stopped.
const STEPS: usize = 6;
const STOP_AFTER: usize = 3;

struct Run {
    set: TrainingSet,
    options: TrainOptions,
    plan: Plan,
    pretrained: Pretrained,
}

impl Run {
    /// Trains from the start or from the newest checkpoint in `folder`, up to the end or until `stop_after` steps are
    /// done.
    fn train(&self, begin: Begin, stop_after: usize, folder: Option<&RunFolder>) -> anyhow::Result<Trained<Model>> {
        let device = FlexDevice;
        let settings = ColbertSettings::from(&self.options);
        // The starting model; if there is a checkpoint, its weights, AdamW's moments and step replace it.
        let (model, _) = self.pretrained.model::<B>(&settings, self.options.dropout, self.options.seed, &device)?;
        let mut observer = |event: &Event| match event {
            Event::Step(record) => {
                println!("  step {}  loss {:.6}", record.step, record.loss);
                if record.step == stop_after { Flow::Stop } else { Flow::Continue }
            }
            Event::Saved { step, .. } => {
                println!("  checkpoint after step {step}");
                Flow::Continue
            }
            _ => Flow::Continue,
        };
        let tokenizer = self.pretrained.tokenizer(&settings)?;
        // Without a model writer only checkpoints are written, which is enough here.
        Ok(Training::new(&self.set, &tokenizer, &self.options, &self.plan, &device)
            .with_folder(folder)
            .with_observer(&mut observer)
            .run(model, begin)?)
    }
}

fn main() -> anyhow::Result<()> {
    let set = triples()?;
    let options = TrainOptions {
        batch_size: 8,
        maxsteps: STEPS,
        learning_rate: Some(1e-4),
        doc_maxlen: 64,
        dropout: Some(0.1), // its masks are a function of seed and step
        save_every: AutoSteps::Steps(STEPS),
        ..TrainOptions::default()
    };
    let plan = resolve(&options, set.examples.len())?;
    let run = Run { set, options, plan, pretrained: Pretrained::read(Path::new(MODEL))? };
    let scratch = tempfile::tempdir()?;
    let folder = RunFolder::create(&scratch.path().join("run"), false)?;

    println!("without a break:");
    let straight = run.train(Begin::New, STEPS, None)?;
    println!("stopped by an observer:");
    let stopped = run.train(Begin::New, STOP_AFTER, Some(&folder))?;
    ensure!(stopped.stopped && stopped.steps == STOP_AFTER, "the observer did not stop the run");
    println!("resumed:");
    let resumed = run.train(Begin::Resume { accept_changes: false }, STEPS, Some(&folder))?;

    let parameters = |model: &Model| named_parameters::<B, Model>(model);
    let (one, other) = (parameters(&straight.model), parameters(&resumed.model));
    let bits = |tensor: &HostTensor| tensor.values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
    let different = one.iter().zip(&other).filter(|((_, a), (_, b))| bits(a) != bits(b)).count();
    let numbers: usize = one.iter().map(|(_, tensor)| tensor.values.len()).sum();
    ensure!(different == 0, "{different} of {} tensors differ", one.len());
    println!("{numbers} parameters in {} tensors: equal bit for bit", one.len());
    Ok(())
}

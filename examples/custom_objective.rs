//! A loss of one's own: in-batch softmax with a temperature, without the n-way part of colbert-ai's loss.
//!
//! Shows how to implement [`Objective`] and hand it to [`Training::run`], the loop below the facade:
//!
//!     cargo run --release -p ragtrainer-examples --example custom_objective
#![expect(clippy::print_stdout, reason = "an example prints for people")]

use std::path::Path;

use burn::backend::Autodiff;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Bool, Int, Tensor, TensorData};
use burn_flex::{Flex, FlexDevice};
use ragtrainer::config::{AutoSteps, EvaluationOptions, Metric, TrainOptions, resolve};
use ragtrainer::data::read_evaluation_set;
use ragtrainer::model::kernels::KernelBackend;
use ragtrainer::model::{ColbertSettings, Embeddings, Pretrained, maxsim};
use ragtrainer::train::{Begin, Dev, Event, Flow, Loss, Measured, Objective, Targets, Training};
use ragtrainer_examples::{DATA, MODEL, triples};

/// `-log softmax(scores / temperature)` of a query's positive among all documents of the batch.
struct InBatchSoftmax {
    /// Below 1 the closest wrong documents count for more, above 1 the many others do.
    temperature: f64,
}

impl Objective for InBatchSoftmax {
    fn loss<B: KernelBackend>(&self, queries: &Embeddings<B>, documents: &Embeddings<B>, targets: &Targets) -> Loss<B> {
        let scores = maxsim(queries, documents); // [queries, docs]
        let (device, [count, docs]) = (scores.device(), scores.dims());
        let column = |place: usize| {
            let documents: Vec<i32> = targets.documents.iter().map(|own| own[place] as i32).collect();
            Tensor::<B, 2, Int>::from_data(TensorData::new(documents, [count, 1]), &device)
        };
        // Another document that is known to answer the query is no negative of it.
        let mut left_out = vec![false; count * docs];
        for (query, own) in targets.documents.iter().enumerate() {
            for &known in targets.positives[query].iter().filter(|&&known| known != own[0]) {
                left_out[query * docs + known] = true;
            }
        }
        let left_out = Tensor::<B, 2, Bool>::from_data(TensorData::new(left_out, [count, docs]), &device);
        let candidates = scores.clone().div_scalar(self.temperature).mask_fill(left_out, f32::NEG_INFINITY);
        let total = log_softmax(candidates, 1).gather(1, column(0)).mean().neg();
        let scores = scores.detach();
        Loss {
            parts: vec![("in_batch_softmax", total.clone())],
            total,
            positive_score: scores.clone().gather(1, column(0)).mean(),
            negative_score: scores.gather(1, column(1)).mean(),
        }
    }

    /// True: with `accumsteps` above 1 the loop then caches embeddings, so that this loss still sees the whole batch.
    fn couples_queries(&self) -> bool {
        true
    }
}

fn main() -> anyhow::Result<()> {
    let device = FlexDevice;
    let set = triples()?;
    let dev = read_evaluation_set(Path::new(DATA), "dev")?.with_pool(Some(200), Some(40), 5)?;
    let options = TrainOptions {
        batch_size: 16,
        maxsteps: 12,
        learning_rate: 1e-4,
        doc_maxlen: 96,
        save_every: AutoSteps::Steps(12),
        ..TrainOptions::default()
    };
    let plan = resolve(&options, set.examples.len())?;
    let settings = ColbertSettings::from(&options);
    let pretrained = Pretrained::read(Path::new(MODEL))?;
    let tokenizer = pretrained.tokenizer(&settings)?;
    let (model, _) = pretrained.model::<Autodiff<Flex>>(&settings, None, options.seed, &device)?;

    let mut show = |event: &Event| {
        if let Event::Step(step) = event {
            let margin = step.positive_score - step.negative_score;
            println!("step {:2}  loss {:.3}  positive above negative by {margin:.2}", step.step, step.loss);
        }
        Flow::Continue
    };
    let trained = Training::new(&set, &tokenizer, &options, &plan, &device)
        .with_objective(InBatchSoftmax { temperature: 0.5 })
        .with_dev(Some(Dev { set: &dev, options: &EvaluationOptions::default() }))
        .with_observer(&mut show)
        .run(model, Begin::Anew)?;
    if let (Some(before), Some(best)) = (trained.baseline, trained.best) {
        let value = |measured: &Measured| measured.evaluation.value(Metric::default()).unwrap_or(f64::NAN);
        let (step, best) = (best.step, value(&best.measured));
        println!("{} on dev: {:.3} before, {best:.3} after step {step}", Metric::default(), value(&before));
    }
    Ok(())
}

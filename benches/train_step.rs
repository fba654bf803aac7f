//! One optimizer step of a MiniLM-L6 ColBERT: encode, MaxSim, loss with in-batch negatives, backward, clipping, AdamW.
//!
//! Tokenization is not part of it: in a run it happens on a thread of its own, ahead of the step.

use criterion::{Criterion, criterion_group, criterion_main};
use ragtrainer::Job;
use ragtrainer::config::{TrainOptions, resolve};
use ragtrainer::model::ColbertSettings;
use ragtrainer::model::kernels::{KernelAutodiffBackend, Kernels, Precision};
use ragtrainer::train::{AdamW, Batcher, ColbertObjective, GradientPlan, batch_gradients, clip_factor, gradient_norm};
use ragtrainer_benches::{
    Size, Work, backend, describe, group, measure, print_share, product_rate, quick, tokenizer, training_set, untrained,
};

struct TrainStep<'a>(&'a mut Criterion);

impl Job for TrainStep<'_> {
    type Output = ();

    fn run<B: KernelAutodiffBackend>(self, device: &B::Device) {
        let (size, batch_size, doc_maxlen) = if quick() { (Size::Tiny, 4, 32) } else { (Size::L6, 32, 256) };
        let options = TrainOptions { batch_size, doc_maxlen, ..TrainOptions::default() };
        let set = training_set(batch_size, 3);
        let plan = resolve(&options, set.examples.len()).expect("one batch of examples");
        let tokenizer = tokenizer(&ColbertSettings::from(&options));
        let mut batcher = Batcher::new(&set, &tokenizer, &plan, &options, false).expect("triples");
        let batch = batcher.batch(0).expect("texts of known words");
        let (queries, documents, tokens) =
            (batch.parts[0].queries.len(), batch.parts[0].documents.len(), batch.tokens());
        let shapes = format!(
            "{size:?}, {queries} queries of {} tokens, {documents} documents of at most {doc_maxlen}, {tokens} tokens in all",
            options.query_maxlen
        );
        describe::<B>("train_step", device, &shapes);

        let objective = ColbertObjective::from(&options);
        let mut group = group(self.0, "train_step");
        let variants = [("f32", false, Precision::F32), ("f32_dropout", true, Precision::F32)];
        let half = [("bf16", false, Precision::Bf16), ("bf16_dropout", true, Precision::Bf16)];
        let half = half.into_iter().filter(|_| B::InnerBackend::has_bf16(device));
        for (id, dropout, precision) in variants.into_iter().chain(half) {
            let gradient_plan = GradientPlan { accumsteps: 1, cached: false, seed: options.seed, precision };
            let mut model = Some(untrained::<B>(size, options.dim, dropout, device));
            let mut optimizer = AdamW::<B::InnerBackend>::new(options.weight_decay);
            let median = measure(&mut group, id, &[("triples", batch_size), ("tokens", tokens)], || {
                let before = model.take().expect("the last step gave it back");
                let (_, gradients) = batch_gradients(&before, &batch, &objective, gradient_plan, device);
                let factor = clip_factor(gradient_norm(&before, &gradients), options.clip_norm);
                model = Some(optimizer.step(before, gradients, options.learning_rate, factor));
                B::sync(device).expect("the device answers");
            });
            if let Some(seconds) = median {
                let config = size.config(dropout);
                let texts = batch.parts[0].queries.iter().chain(&batch.parts[0].documents);
                let peak = product_rate::<B::InnerBackend>(tokens, &config, precision, device);
                print_share(id, Work::of_training(texts, &config, options.dim), seconds, peak);
            }
        }
        group.finish();
    }
}

fn train_step(criterion: &mut Criterion) {
    backend().run(TrainStep(criterion));
}

criterion_group!(benches, train_step);
criterion_main!(benches);

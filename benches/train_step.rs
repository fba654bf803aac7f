//! One optimizer step of a ColBERT of the sizes of MiniLM-L6 and of ModernBERT-base: encode, MaxSim, loss with in-batch
//! negatives, backward, clipping, AdamW.
//!
//! Tokenization is not part of it: in a run it happens on a thread of its own, ahead of the step.

use criterion::{Criterion, criterion_group, criterion_main};
use ragtrainer::backend::Job;
use ragtrainer::model::kernels::{KernelAutodiffBackend, Kernels, Precision};
use ragtrainer_benches::{
    Size, StepBatch, Stepper, backend, describe, group, measure, print_share, product_rate, quick,
};

struct TrainStep<'a>(&'a mut Criterion);

impl Job for TrainStep<'_> {
    type Output = ();

    fn run<B: KernelAutodiffBackend>(self, device: &B::Device) {
        let sizes = if quick() {
            vec![("", Size::Tiny, 4, 32)]
        } else {
            vec![("", Size::L6, 32, 256), ("modernbert_", Size::Modern, 8, 256)]
        };
        for (prefix, size, batch_size, doc_maxlen) in sizes {
            let batch = StepBatch::new(size, batch_size, doc_maxlen);
            describe::<B>("train_step", device, &batch.shapes());
            let mut group = group(self.0, "train_step");
            let variants = [("f32", false, Precision::F32), ("f32_dropout", true, Precision::F32)];
            let half = [("bf16", false, Precision::Bf16), ("bf16_dropout", true, Precision::Bf16)];
            let half = half.into_iter().filter(|_| B::InnerBackend::has_bf16(device));
            let variants = variants.into_iter().chain(half);
            // ModernBERT has no dropout.
            for (id, dropout, precision) in variants.filter(|(_, dropout, _)| size != Size::Modern || !dropout) {
                let (id, mut stepper) =
                    (format!("{prefix}{id}"), Stepper::<B>::new(&batch, dropout, precision, device));
                let units = [("triples", batch_size), ("tokens", batch.tokens())];
                if let Some(seconds) = measure(&mut group, &id, &units, || stepper.step()) {
                    let peak = product_rate::<B::InnerBackend>(batch.tokens(), &size.sizes(), precision, device);
                    print_share(&id, batch.work(), seconds, peak);
                }
            }
            group.finish();
        }
    }
}

fn train_step(criterion: &mut Criterion) {
    backend().run(TrainStep(criterion));
}

criterion_group!(benches, train_step);
criterion_main!(benches);

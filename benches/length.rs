//! The cost of a token in a training step, by the length of documents; every step has about the same number of tokens.
//!
//! Attention's matmuls grow with the length; the time of attention alone is measured and subtracted.
#![expect(clippy::print_stdout, reason = "a table is what this program is for")]

use std::time::Instant;

use burn::tensor::{Distribution, Tensor};
use ragtrainer::backend::Job;
use ragtrainer::model::kernels::{
    AttentionPlan, Dropout, KernelAutodiffBackend, Kernels, Precision, Segments, attention,
};
use ragtrainer_benches::{Size, StepBatch, Stepper, backend, describe, quick};

/// Measured steps, after one warm-up step.
const STEPS: usize = 5;

/// Median seconds of `work`.
fn seconds(mut work: impl FnMut()) -> f64 {
    work();
    let mut all: Vec<f64> = (0..STEPS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .collect();
    all.sort_by(f64::total_cmp);
    all[STEPS / 2]
}

/// Seconds of the attention of all layers, forward and backward.
fn of_attention<B: KernelAutodiffBackend>(batch: &StepBatch, precision: Precision, device: &B::Device) -> f64 {
    let sizes = batch.size.sizes();
    let segments = Segments::new(batch.texts().map(|text| (text.len(), text.attended)));
    let plan = AttentionPlan { segments, heads: sizes.heads, reach: None, dropout: Dropout::NONE, precision };
    let shape = [batch.tokens(), sizes.hidden];
    let random = || Tensor::<B, 2>::random(shape, Distribution::Uniform(-1.0, 1.0), device).require_grad();
    let [query, key, value] = [random(), random(), random()];
    let once = seconds(|| {
        let output = attention(query.clone(), key.clone(), value.clone(), &plan);
        // The gradient of a sum is all ones, which costs next to nothing.
        drop(output.sum().backward());
        B::sync(device).expect("the device answers");
    });
    once * sizes.layers as f64
}

struct ByLength;

impl Job for ByLength {
    type Output = ();

    fn run<B: KernelAutodiffBackend>(self, device: &B::Device) {
        let (size, tokens, lengths) =
            if quick() { (Size::Tiny, 400, &[32, 64][..]) } else { (Size::L6, 9_000, &[64, 128, 256, 512][..]) };
        describe::<B>("length", device, &format!("{size:?}, two documents a query, steps of about {tokens} tokens"));
        let precisions = [("f32", Precision::F32), ("bf16", Precision::Bf16)];
        println!("precision  doc tokens  triples  tokens  us/token  attention  the rest  of the first");
        for (name, precision) in precisions {
            if precision == Precision::Bf16 && !B::InnerBackend::has_bf16(device) {
                continue;
            }
            let mut first = None;
            for &length in lengths {
                let batch = StepBatch::of_full_documents(size, tokens / (2 * length + 32), length);
                let mut stepper = Stepper::<B>::new(&batch, false, precision, device);
                let per_token = 1e6 / batch.tokens() as f64;
                let whole = seconds(|| stepper.step()) * per_token;
                let attention = of_attention::<B>(&batch, precision, device) * per_token;
                let rest = whole - attention;
                println!(
                    "{name:<9}  {length:>10}  {:>7}  {:>6}  {whole:>8.1}  {attention:>9.1}  {rest:>8.1}  {:>12.2}",
                    tokens / (2 * length + 32),
                    batch.tokens(),
                    rest / *first.get_or_insert(rest)
                );
            }
        }
    }
}

fn main() {
    backend().run(ByLength);
}

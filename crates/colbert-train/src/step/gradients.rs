//! The gradient of a batch: directly, by micro-batches, or exactly across micro-batches with cached embeddings.

use burn::optim::GradientsParams;
use colbert_kernels::KernelAutodiffBackend;
use colbert_model::{Colbert, DropoutSeed, EncodeOptions};

use crate::processes::Processes;
use crate::step::batch::Batch;
use crate::step::batch_loss::{
    BatchGradient, BatchLoss, GradientPlan, ScaledLoss, add_gradients, gather_learned, host_gradient,
};
use crate::step::cached::cached;
use crate::step::gradient_sum::GradientSum;
use crate::step::loss_scale::unscaled;
use crate::step::objective::Objective;
use crate::step::trainable::TrainableEncoder;

/// Computes loss and gradient of a batch. Dropout depends only on the seed, the step and the piece.
///
/// Each process computes every `size`-th piece; loss and gradient are the same in all of them, to the bits of one
/// process that computes all.
pub(crate) fn batch_gradients<B: KernelAutodiffBackend, E: TrainableEncoder<B>>(
    model: &Colbert<B, E>,
    batch: &Batch,
    objective: &impl Objective,
    plan: GradientPlan,
    scale: ScaledLoss<'_, B>,
    processes: &dyn Processes,
) -> BatchGradient {
    let dropout = Some(DropoutSeed::new(plan.seed).child(batch.step as u64));
    let options = EncodeOptions { dropout, precision: plan.precision };
    if plan.cached {
        return cached(model, &batch.parts[0], options, objective, plan, scale, processes);
    }
    let ScaledLoss { learned, factor, device } = scale;
    let count = batch.parts.len() as f64;
    let mut gradients = GradientSum::new(processes, device);
    let mut sum: Option<BatchLoss> = None;
    let mut of_learned = vec![0.0; learned.values().len()];
    for first in (0..batch.parts.len()).step_by(processes.size()) {
        let piece = first + processes.rank();
        let own = batch.parts.get(piece).map(|part| {
            let own = options.child(piece as u64);
            let queries = model.encode_with(&part.queries, own.child(0), device);
            let documents = model.encode_with(&part.documents, own.child(1), device);
            let numbers = learned.leaf::<B>(device);
            let loss = objective.loss_with(&queries, &documents, &part.targets, &numbers);
            let values = BatchLoss::of(&loss);
            let backward = loss.total.mul_scalar(factor).div_scalar(count).backward();
            let of_numbers = host_gradient(numbers.grad(&backward), of_learned.len());
            (values, of_numbers, GradientsParams::from_grads(backward, model))
        });
        let (values, of_numbers, own) = match own {
            Some((values, of_numbers, own)) => (Some(values), of_numbers, Some(own)),
            None => (None, Vec::new(), None),
        };
        gradients.add(model, own);
        add_gradients(&mut of_learned, &gather_learned(processes, &of_numbers), factor);
        for values in BatchLoss::gathered(processes, values) {
            BatchLoss::add_to(&mut sum, values, count);
        }
    }
    let parameters = unscaled(model, gradients.finish(model), factor);
    BatchGradient { loss: sum.expect("a batch has a part"), parameters, learned: of_learned }
}

//! The gradient of a batch: directly, by micro-batches, or exactly across micro-batches with cached embeddings.

use burn::module::AutodiffModule;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Tensor};
use colbert_kernels::{KernelAutodiffBackend, Precision};
use colbert_model::{Colbert, DropoutSeed, Embeddings, EncodeOptions, TokenSequence};

use crate::step::batch::{Batch, BatchPart};
use crate::step::loss_scale::unscaled;
use crate::step::objective::{Loss, Objective};
use crate::step::trainable::TrainableEncoder;

/// Numbers of a batch, on the host. Averages over its queries.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchLoss {
    /// The number that was minimised.
    pub total: f64,
    /// Its named parts.
    pub parts: Vec<(&'static str, f64)>,
    /// Mean score of the positives.
    pub positive_score: f64,
    /// Mean score of the queries' own other documents.
    pub negative_score: f64,
    /// The loss of every part, before it was divided by their number.
    pub part_losses: Vec<f64>,
}

impl BatchLoss {
    fn of<B: Backend>(loss: &Loss<B>) -> Self {
        let total = scalar(&loss.total);
        Self {
            total,
            parts: loss.parts.iter().map(|(name, part)| (*name, scalar(part))).collect(),
            positive_score: scalar(&loss.positive_score),
            negative_score: scalar(&loss.negative_score),
            part_losses: vec![total],
        }
    }

    /// Adds a further part of equal weight; `count` parts in all.
    fn add(&mut self, other: Self, count: f64) {
        self.total += other.total / count;
        for ((_, sum), (_, part)) in self.parts.iter_mut().zip(other.parts) {
            *sum += part / count;
        }
        self.positive_score += other.positive_score / count;
        self.negative_score += other.negative_score / count;
        self.part_losses.extend(other.part_losses);
    }

    fn scaled(self, factor: f64) -> Self {
        Self {
            total: self.total * factor,
            parts: self.parts.into_iter().map(|(name, part)| (name, part * factor)).collect(),
            positive_score: self.positive_score * factor,
            negative_score: self.negative_score * factor,
            part_losses: self.part_losses,
        }
    }
}

fn scalar<B: Backend>(tensor: &Tensor<B, 1>) -> f64 {
    tensor.clone().into_scalar().elem()
}

/// How the gradient of a batch is computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct GradientPlan {
    /// Pieces that are encoded one after the other to save memory.
    pub(crate) accumsteps: usize,
    /// Cache embeddings so that one loss spans all pieces (Gao et al. 2021, "GradCache").
    pub(crate) cached: bool,
    /// Seed of the run, for dropout.
    pub(crate) seed: u64,
    /// Format of the factors of the encoder's matmuls.
    pub(crate) precision: Precision,
    /// The loss is multiplied by it before the backward pass, and the gradients are divided by it after; 1 without
    /// float16.
    pub(crate) loss_scale: f64,
}

/// Loss and gradient of a batch. Dropout depends only on the seed, the step and the piece.
pub(crate) fn batch_gradients<B: KernelAutodiffBackend, E: TrainableEncoder<B>>(
    model: &Colbert<B, E>,
    batch: &Batch,
    objective: &impl Objective,
    plan: GradientPlan,
    device: &B::Device,
) -> (BatchLoss, GradientsParams) {
    let dropout = Some(DropoutSeed::new(plan.seed).child(batch.step as u64));
    let options = EncodeOptions { dropout, precision: plan.precision };
    if plan.cached {
        return cached(model, &batch.parts[0], options, objective, plan, device);
    }
    let count = batch.parts.len() as f64;
    let mut gradients = GradientsAccumulator::new();
    let mut sum: Option<BatchLoss> = None;
    for (piece, part) in batch.parts.iter().enumerate() {
        let own = options.child(piece as u64);
        let queries = model.encode_with(&part.queries, own.child(0), device);
        let documents = model.encode_with(&part.documents, own.child(1), device);
        let loss = objective.loss(&queries, &documents, &part.targets);
        let values = BatchLoss::of(&loss);
        let backward = loss.total.mul_scalar(plan.loss_scale).div_scalar(count).backward();
        let own = GradientsParams::from_grads(backward, model);
        if batch.parts.len() == 1 {
            return (values, unscaled(model, own, plan.loss_scale));
        }
        gradients.accumulate(model, own);
        match &mut sum {
            None => sum = Some(values.scaled(1.0 / count)),
            Some(sum) => sum.add(values, count),
        }
    }
    (sum.expect("a batch has a part"), unscaled(model, gradients.grads(), plan.loss_scale))
}

/// Encodes in pieces without keeping their history, takes the loss and its gradient on the embeddings of all, then
/// encodes each piece again, with the same dropout, and carries that gradient on into the weights.
fn cached<B: KernelAutodiffBackend, E: TrainableEncoder<B>>(
    model: &Colbert<B, E>,
    part: &BatchPart,
    options: EncodeOptions,
    objective: &impl Objective,
    plan: GradientPlan,
    device: &B::Device,
) -> (BatchLoss, GradientsParams) {
    let [queries, documents] = [&part.queries, &part.documents].map(|texts| pieces(texts, plan.accumsteps));
    // On the backend inside, as the history of a piece would stay in memory until the next backward.
    let plain = model.valid();
    let leaves = |pieces: &[&[TokenSequence]], first: usize| -> Vec<Embeddings<B>> {
        let encode = |(i, piece): (usize, &&[TokenSequence])| {
            Embeddings::leaf(plain.encode_with(piece, options.child((first + i) as u64), device))
        };
        pieces.iter().enumerate().map(encode).collect()
    };
    let query_leaves = leaves(&queries, 0);
    let document_leaves = leaves(&documents, queries.len());
    let loss = objective.loss(
        &Embeddings::concatenated(&query_leaves),
        &Embeddings::concatenated(&document_leaves),
        &part.targets,
    );
    let values = BatchLoss::of(&loss);
    let on_embeddings = loss.total.mul_scalar(plan.loss_scale).backward();

    let mut gradients = GradientsAccumulator::new();
    let leaves = query_leaves.iter().chain(&document_leaves);
    for (place, (piece, leaf)) in queries.iter().chain(&documents).zip(leaves).enumerate() {
        let Some(gradient) = leaf.vectors.grad(&on_embeddings) else { continue };
        let again = model.encode_with(piece, options.child(place as u64), device);
        let surrogate = (again.vectors * Tensor::from_inner(gradient)).sum();
        gradients.accumulate(model, GradientsParams::from_grads(surrogate.backward(), model));
    }
    (values, unscaled(model, gradients.grads(), plan.loss_scale))
}

/// Cuts texts into at most `count` pieces.
fn pieces(sequences: &[TokenSequence], count: usize) -> Vec<&[TokenSequence]> {
    sequences.chunks(sequences.len().div_ceil(count)).collect()
}

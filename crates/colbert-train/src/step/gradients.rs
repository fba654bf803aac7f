//! The gradient of a batch: directly, by micro-batches, or exactly across micro-batches with cached embeddings.

use burn::module::AutodiffModule;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Tensor};
use colbert_kernels::{KernelAutodiffBackend, Precision};
use colbert_model::{Colbert, DropoutSeed, Embeddings, EncodeOptions, TokenSequence};

use crate::step::batch::{Batch, BatchPart};
use crate::step::blocks::{OnEmbeddings, loss_by_blocks, queries_at_once};
use crate::step::learned::LearnedNumbers;
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
    pub(crate) fn of<B: Backend>(loss: &Loss<B>) -> Self {
        let total = scalar(&loss.total);
        Self {
            total,
            parts: loss.parts.iter().map(|(name, part)| (*name, scalar(part))).collect(),
            positive_score: scalar(&loss.positive_score),
            negative_score: scalar(&loss.negative_score),
            part_losses: vec![total],
        }
    }

    /// Adds a further part of the batch, one of `count` equal ones. Parts of the loss are added by their names, as rows
    /// of one kind may be in one part alone.
    pub(crate) fn add(&mut self, other: Self, count: f64) {
        self.total += other.total / count;
        for (name, part) in other.parts {
            match self.parts.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += part / count,
                None => self.parts.push((name, part / count)),
            }
        }
        self.positive_score += other.positive_score / count;
        self.negative_score += other.negative_score / count;
        self.part_losses.extend(other.part_losses);
    }

    pub(crate) fn scaled(self, factor: f64) -> Self {
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
    /// Winners of MaxSim that are held at once where embeddings are cached.
    pub(crate) most_winners: usize,
}

/// The surroundings of a loss: its learned numbers, and the factor on it in the backward pass.
pub(crate) struct LossScale<'a, B: KernelAutodiffBackend> {
    pub(crate) learned: &'a LearnedNumbers,
    pub(crate) factor: f64,
    pub(crate) device: &'a B::Device,
}

impl<B: KernelAutodiffBackend> Clone for LossScale<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: KernelAutodiffBackend> Copy for LossScale<'_, B> {}

/// The loss of a batch and its gradient.
pub(crate) struct BatchGradient {
    pub(crate) loss: BatchLoss,
    /// Of every parameter that has one.
    pub(crate) parameters: GradientsParams,
    /// Of the learned numbers of the loss.
    pub(crate) learned: Vec<f64>,
}

/// Loss and gradient of a batch. Dropout depends only on the seed, the step and the piece.
pub(crate) fn batch_gradients<B: KernelAutodiffBackend, E: TrainableEncoder<B>>(
    model: &Colbert<B, E>,
    batch: &Batch,
    objective: &impl Objective,
    learned: &LearnedNumbers,
    plan: GradientPlan,
    device: &B::Device,
) -> BatchGradient {
    let dropout = Some(DropoutSeed::new(plan.seed).child(batch.step as u64));
    let options = EncodeOptions { dropout, precision: plan.precision };
    if plan.cached {
        return cached(model, &batch.parts[0], options, objective, learned, plan, device);
    }
    let count = batch.parts.len() as f64;
    let mut gradients = GradientsAccumulator::new();
    let mut sum: Option<BatchLoss> = None;
    let mut of_learned = vec![0.0; learned.values().len()];
    for (piece, part) in batch.parts.iter().enumerate() {
        let own = options.child(piece as u64);
        let queries = model.encode_with(&part.queries, own.child(0), device);
        let documents = model.encode_with(&part.documents, own.child(1), device);
        let numbers = learned.leaf::<B>(device);
        let loss = objective.loss_with(&queries, &documents, &part.targets, &numbers);
        let values = BatchLoss::of(&loss);
        let backward = loss.total.mul_scalar(plan.loss_scale).div_scalar(count).backward();
        add_gradient(&mut of_learned, numbers.grad(&backward), plan.loss_scale);
        let own = GradientsParams::from_grads(backward, model);
        if batch.parts.len() == 1 {
            let parameters = unscaled(model, own, plan.loss_scale);
            return BatchGradient { loss: values, parameters, learned: of_learned };
        }
        gradients.accumulate(model, own);
        match &mut sum {
            None => sum = Some(values.scaled(1.0 / count)),
            Some(sum) => sum.add(values, count),
        }
    }
    let parameters = unscaled(model, gradients.grads(), plan.loss_scale);
    BatchGradient { loss: sum.expect("a batch has a part"), parameters, learned: of_learned }
}

/// Adds the gradient of the learned numbers, where there are any.
fn add_gradient<B: Backend>(sum: &mut [f64], gradient: Option<Tensor<B, 1>>, loss_scale: f64) {
    if sum.is_empty() {
        return;
    }
    let Some(gradient) = gradient else { return };
    let values = gradient.into_data().convert::<f32>().into_vec::<f32>().expect("converted to f32");
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += f64::from(value) / loss_scale;
    }
}

/// Encodes in pieces without keeping their history, takes the loss and its gradient on the embeddings of all, then
/// encodes each piece again, with the same dropout, and carries that gradient on into the weights.
fn cached<B: KernelAutodiffBackend, E: TrainableEncoder<B>>(
    model: &Colbert<B, E>,
    part: &BatchPart,
    options: EncodeOptions,
    objective: &impl Objective,
    learned: &LearnedNumbers,
    plan: GradientPlan,
    device: &B::Device,
) -> BatchGradient {
    let [queries, documents] = [&part.queries, &part.documents].map(|texts| pieces(texts, plan.accumsteps));
    // On the backend inside, as the history of a piece would stay in memory until the next backward.
    let plain = model.valid();
    let encode = |pieces: &[&[TokenSequence]], first: usize| -> Vec<Embeddings<B::InnerBackend>> {
        let encode = |(i, piece): (usize, &&[TokenSequence])| {
            plain.encode_with(piece, options.child((first + i) as u64), device)
        };
        pieces.iter().enumerate().map(encode).collect()
    };
    let (of_queries, of_documents) = (encode(&queries, 0), encode(&documents, queries.len()));
    let scale = LossScale { learned, factor: plan.loss_scale, device };
    let at_once = queries_at_once(part, plan.most_winners / objective.scorings().max(1));
    let (values, gradient, of_numbers) = if objective.takes_blocks() && at_once < part.queries.len() {
        let embeddings = [of_queries, of_documents].map(|pieces| Embeddings::concatenated(&pieces));
        let (values, OnEmbeddings { queries: of_queries, documents: of_documents, learned }) =
            loss_by_blocks::<B>(objective, part, embeddings, scale, at_once);
        let mut cut = cut(of_queries, &queries);
        cut.extend(self::cut(of_documents, &documents));
        (values, cut, learned)
    } else {
        loss_at_once(objective, part, [of_queries, of_documents], scale)
    };
    let mut of_learned = vec![0.0; learned.values().len()];
    add_gradient(&mut of_learned, of_numbers, plan.loss_scale);

    let mut gradients = GradientsAccumulator::new();
    for (place, (piece, gradient)) in queries.iter().chain(&documents).zip(gradient).enumerate() {
        let Some(gradient) = gradient else { continue };
        let again = model.encode_with(piece, options.child(place as u64), device);
        let surrogate = (again.vectors * Tensor::from_inner(gradient)).sum();
        gradients.accumulate(model, GradientsParams::from_grads(surrogate.backward(), model));
    }
    let parameters = unscaled(model, gradients.grads(), plan.loss_scale);
    BatchGradient { loss: values, parameters, learned: of_learned }
}

/// Gradients on the embeddings of pieces of texts, queries first.
type OnPieces<B> = Vec<Option<Tensor<B, 2>>>;

/// A loss, its gradients on pieces of texts, and its gradient on the numbers that are learned with it.
type LossAndGradients<B> = (BatchLoss, OnPieces<B>, Option<Tensor<B, 1>>);

/// The loss of a batch and its gradient on the embeddings, all scores at once.
fn loss_at_once<B: KernelAutodiffBackend>(
    objective: &impl Objective,
    part: &BatchPart,
    embeddings: [Vec<Embeddings<B::InnerBackend>>; 2],
    scale: LossScale<'_, B>,
) -> LossAndGradients<B::InnerBackend> {
    let [queries, documents] =
        embeddings.map(|pieces| pieces.into_iter().map(Embeddings::<B>::leaf).collect::<Vec<_>>());
    let numbers = scale.learned.leaf::<B>(scale.device);
    let loss = objective.loss_with(
        &Embeddings::concatenated(&queries),
        &Embeddings::concatenated(&documents),
        &part.targets,
        &numbers,
    );
    let values = BatchLoss::of(&loss);
    let gradients = loss.total.mul_scalar(scale.factor).backward();
    let of_pieces = queries.iter().chain(&documents).map(|leaf| leaf.vectors.grad(&gradients)).collect();
    (values, of_pieces, numbers.grad(&gradients))
}

/// Rows of a gradient by the pieces that the texts were encoded in.
fn cut<B: Backend>(gradient: Tensor<B, 2>, pieces: &[&[TokenSequence]]) -> OnPieces<B> {
    let mut start = 0;
    let own = pieces.iter().map(|piece| {
        let rows = start..start + piece.iter().map(TokenSequence::len).sum::<usize>();
        start = rows.end;
        Some(gradient.clone().slice([rows]))
    });
    own.collect()
}

/// Cuts texts into at most `count` pieces.
fn pieces(sequences: &[TokenSequence], count: usize) -> Vec<&[TokenSequence]> {
    sequences.chunks(sequences.len().div_ceil(count)).collect()
}

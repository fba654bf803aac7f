//! The loss of a batch on the host, its gradient, and the inputs of both.

use std::borrow::Cow;

use burn::optim::GradientsParams;
use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Tensor};
use colbert_kernels::{KernelAutodiffBackend, Precision};

use crate::processes::Processes;
use crate::processes::exchange::{doubles, gather_floats, host_values};
use crate::step::learned::LearnedNumbers;
use crate::step::objective::Loss;

/// The loss of a batch, on the host. Averages over its queries.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchLoss {
    /// The number that was minimised.
    pub total: f64,
    /// Its named parts.
    pub parts: Vec<(Cow<'static, str>, f64)>,
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
            parts: loss.parts.iter().map(|(name, part)| (Cow::Borrowed(*name), scalar(part))).collect(),
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

    /// Adds a further part of the batch, one of `count` equal ones, to what there is.
    pub(crate) fn add_to(sum: &mut Option<Self>, more: Self, count: f64) {
        match sum {
            None => *sum = Some(more.scaled(1.0 / count)),
            Some(sum) => sum.add(more, count),
        }
    }

    /// Encodes the loss of a part for other processes, to the last bit.
    fn to_bytes(&self) -> Vec<u8> {
        let numbers = [self.total, self.positive_score, self.negative_score];
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        for (name, part) in &self.parts {
            bytes.extend(part.to_le_bytes());
            bytes.extend(name.as_bytes());
            bytes.push(b'\n');
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, mut rest) = bytes.split_at_checked(24)?;
        let [total, positive_score, negative_score] = doubles(numbers)[..] else { return None };
        let mut parts = Vec::new();
        while let Some((part, named)) = rest.split_at_checked(8) {
            let end = named.iter().position(|byte| *byte == b'\n')?;
            let name = String::from_utf8_lossy(&named[..end]).into_owned();
            parts.push((Cow::Owned(name), doubles(part)[0]));
            rest = &named[end + 1..];
        }
        Some(Self { total, parts, positive_score, negative_score, part_losses: vec![total] })
    }

    /// Gathers the losses that the processes computed in a round, by rank.
    pub(crate) fn gathered(processes: &dyn Processes, own: Option<Self>) -> Vec<Self> {
        if processes.size() == 1 {
            return own.into_iter().collect();
        }
        let own = own.map_or_else(Vec::new, |own| own.to_bytes());
        processes.all_gather(&own).iter().filter_map(|bytes| Self::from_bytes(bytes)).collect()
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

/// The plan of a batch's gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct GradientPlan {
    /// Pieces that are encoded one after the other to save memory, or by several processes.
    pub(crate) pieces: usize,
    /// Cache embeddings so that one loss spans all pieces (Gao et al. 2021, "GradCache").
    pub(crate) cached: bool,
    /// Seed of the run, for dropout.
    pub(crate) seed: u64,
    /// Number format of the encoder's matmuls.
    pub(crate) precision: Precision,
    /// Winners of MaxSim that are held at once if embeddings are cached.
    pub(crate) most_winners: usize,
}

/// The context of a loss: its learned numbers, and the factor on it in the backward pass, by which its gradients are
/// divided afterwards (1 without float16).
pub(crate) struct ScaledLoss<'a, B: KernelAutodiffBackend> {
    pub(crate) learned: &'a LearnedNumbers,
    pub(crate) factor: f64,
    pub(crate) device: &'a B::Device,
}

impl<B: KernelAutodiffBackend> Clone for ScaledLoss<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: KernelAutodiffBackend> Copy for ScaledLoss<'_, B> {}

/// The loss of a batch and its gradient.
pub(crate) struct BatchGradient {
    pub(crate) loss: BatchLoss,
    /// Of every parameter that has one.
    pub(crate) parameters: GradientsParams,
    /// Of the learned numbers of the loss.
    pub(crate) learned: Vec<f64>,
}

/// Returns the gradient of the learned numbers on the host; zeros if there is none.
pub(crate) fn host_gradient<B: Backend>(gradient: Option<Tensor<B, 1>>, count: usize) -> Vec<f32> {
    let Some(gradient) = gradient.filter(|_| count > 0) else { return vec![0.0; count] };
    host_values(gradient)
}

/// Gathers the gradients of the learned numbers that the processes computed in a round, by rank; nothing without such
/// numbers.
pub(crate) fn gather_learned(processes: &dyn Processes, own: &[f32]) -> Vec<Vec<f32>> {
    if processes.size() == 1 { vec![own.to_vec()] } else { gather_floats(processes, own) }
}

/// Adds gradients of the learned numbers.
pub(crate) fn add_gradients(sum: &mut [f64], gradients: &[Vec<f32>], loss_scale: f64) {
    for gradient in gradients {
        sum.iter_mut().zip(gradient).for_each(|(sum, value)| *sum += f64::from(*value) / loss_scale);
    }
}

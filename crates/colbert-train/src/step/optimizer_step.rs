//! One optimizer step: its gradient is computed and applied.

use std::fmt;

use burn::optim::GradientsParams;
use colbert_config::{IbScope, Plan, Precision, REFERENCE_LEARNING_RATE, TrainOptions};
use colbert_data::TrainingSet;
use colbert_kernels::KernelAutodiffBackend;
use colbert_model::{Colbert, ColbertTokenizer, EncodeOptions};

use crate::device::fault::{DeviceFault, guarded};
use crate::error::TrainError;
use crate::processes::exchange::gather_doubles;
use crate::processes::{OneProcess, Processes};
use crate::step::adamw::{AdamW, clip_factor, gradient_norm, sum_of_weights};
use crate::step::batch::{Batch, BatchShape, Batcher};
use crate::step::batch_loss::{BatchGradient, BatchLoss, GradientPlan, ScaledLoss};
use crate::step::blocks::MOST_WINNERS;
use crate::step::gradients::batch_gradients;
use crate::step::groups::{GroupOptions, drop_encoder};
use crate::step::learned::LearnedNumbers;
use crate::step::loss_scale::LossScale;
use crate::step::objective::Objective;
use crate::step::schedule::Schedule;
use crate::step::trainable::TrainableEncoder;

/// The optimizer step of a run: objective, micro-batches, clipping, loss scaling, schedule and AdamW with its moments.
/// The training loop, rehearsals, benchmarks and tests all take their steps here.
pub struct Step<'a, B: KernelAutodiffBackend, O> {
    objective: O,
    shape: BatchShape,
    gradients: GradientPlan,
    schedule: Schedule,
    clip_norm: f64,
    groups: GroupOptions,
    optimizer: AdamW<B::InnerBackend>,
    /// Whether the loss is scaled: in float16.
    scales: bool,
    /// Kept if a resumed run no longer scales, as it counts steps that AdamW has not seen.
    loss_scale: Option<LossScale>,
    /// Numbers of the objective that are learned.
    learned: LearnedNumbers,
    device: &'a B::Device,
    processes: &'a dyn Processes,
}

/// The loss of a batch and its gradient, before an update.
#[derive(Debug)]
pub struct Gradient {
    /// The loss.
    pub loss: BatchLoss,
    /// The gradient of every parameter that has one, by the parameter's id.
    pub parameters: GradientsParams,
    /// The gradient of the objective's learned numbers, in their order.
    pub learned: Vec<f64>,
    /// L2 norm of all gradients together, before clipping; learned numbers of the objective do not count.
    pub norm: f64,
}

/// The numbers of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOutcome {
    /// The loss of the batch.
    pub loss: BatchLoss,
    /// L2 norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// Factor on the loss in the backward pass, in float16.
    pub loss_scale: Option<f64>,
    /// Learned numbers of the objective at this step.
    pub learned: Vec<(String, f64)>,
    /// Whether the weights were updated.
    pub update: Update,
}

/// The outcome of an update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Update {
    /// The weights have moved.
    Applied,
    /// The gradient overflowed float16: the weights stay, and the scale of the loss is lower from here on.
    Overflowed {
        /// The scale from here on.
        loss_scale: f64,
        /// Steps left out for this reason so far.
        count: usize,
    },
    /// A number is not finite: the weights stay.
    NotFinite {
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// Its value.
        value: f64,
    },
}

impl<'a, B: KernelAutodiffBackend, O: Objective> Step<'a, B, O> {
    /// Prepares the steps of a plan, with a fresh optimizer.
    pub fn new(options: &TrainOptions, plan: &Plan, objective: O, device: &'a B::Device) -> Self {
        let step = Self::of_options(options, plan.precision, plan.pieces(), objective, device);
        let shape = BatchShape {
            nway: plan.nway,
            batch_size: plan.batch_size,
            part_size: if step.gradients.cached { plan.batch_size } else { plan.micro_batch_size },
            ..step.shape
        };
        Self { shape, schedule: Schedule::new(plan, options), ..step }
    }

    /// Steps in a given precision and number of pieces of a batch, at a constant learning rate.
    pub(crate) fn of_options(
        options: &TrainOptions,
        precision: Precision,
        pieces: usize,
        objective: O,
        device: &'a B::Device,
    ) -> Self {
        let reaches_across = objective.couples_queries() && options.ib_scope == IbScope::Batch;
        let cached = reaches_across && pieces > 1;
        let micro_batch_size = options.batch_size / pieces;
        let learned = LearnedNumbers::new(&objective.learned());
        Self {
            objective,
            shape: BatchShape {
                part_size: if cached { options.batch_size } else { micro_batch_size },
                ..BatchShape::whole(options)
            },
            gradients: GradientPlan {
                pieces,
                cached,
                seed: options.seed,
                precision: EncodeOptions::in_precision(precision).precision,
                most_winners: MOST_WINNERS,
            },
            schedule: Schedule::constant(options.learning_rate.unwrap_or(REFERENCE_LEARNING_RATE)),
            clip_norm: options.clip_norm,
            groups: GroupOptions::from(options),
            optimizer: AdamW::new(options.weight_decay),
            scales: precision == Precision::F16,
            loss_scale: None,
            learned,
            device,
            processes: &OneProcess,
        }
    }

    /// Computes only this process's share of every batch. Losses and updates are the same in all processes, to the bits
    /// of one process with as many micro-batches as all of them have together.
    #[must_use]
    pub fn with_processes(mut self, processes: &'a dyn Processes) -> Self {
        self.processes = processes;
        self
    }

    /// Multiplies the loss by `scale` in the backward pass, where the loss is scaled at all (in float16).
    #[must_use]
    pub fn with_loss_scale(mut self, scale: f64) -> Self {
        self.loss_scale = Some(LossScale { scale, ..LossScale::default() });
        self
    }

    /// Bounds the winners of MaxSim that a loss over cached embeddings has in memory at once, four bytes for each query
    /// token and document. Where a batch has more, its loss is computed by blocks of queries, with the same gradient
    /// but for the order of sums.
    #[must_use]
    pub fn with_most_winners(mut self, winners: usize) -> Self {
        self.gradients.most_winners = winners;
        self
    }

    /// Makes batch `number`, counted from 0, in the order of the options.
    ///
    /// # Errors
    /// Examples that do not fit together, or a text that the tokenizer refuses.
    pub fn batch(&self, set: &TrainingSet, tokenizer: &ColbertTokenizer, number: usize) -> Result<Batch, TrainError> {
        Batcher::new(set, tokenizer, self.shape())?.batch(number)
    }

    /// Computes loss and gradient of a batch. The model stays as it is; dropout depends only on the seed and the
    /// batch's number.
    pub fn gradient<E: TrainableEncoder<B>>(&self, model: &Colbert<B, E>, batch: &Batch) -> Gradient {
        let scale = ScaledLoss { learned: &self.learned, factor: self.scale().unwrap_or(1.0), device: self.device };
        let BatchGradient { loss, mut parameters, learned } =
            batch_gradients(model, batch, &self.objective, self.gradients, scale, self.processes);
        if self.optimizer.updates() < self.groups.frozen_for {
            drop_encoder(model, &mut parameters);
        }
        let norm = gradient_norm(model, &parameters);
        Gradient { loss, parameters, learned, norm }
    }

    /// Updates a model by a gradient, clipped.
    pub fn apply<E: TrainableEncoder<B>>(
        &mut self,
        model: Colbert<B, E>,
        gradient: Gradient,
        learning_rate: f64,
    ) -> Colbert<B, E> {
        let clip = clip_factor(gradient.norm, self.clip_norm);
        if !self.optimizer.has_groups() {
            self.optimizer.set_groups(self.groups.groups(&model));
        }
        self.learned.update(&self.objective.learned(), &gradient.learned, learning_rate);
        self.optimizer.step(model, gradient.parameters, learning_rate, clip)
    }

    /// Takes a step: gradient, update, and the numbers of both. A loss or gradient that is not finite leaves the
    /// weights as they are.
    ///
    /// # Errors
    /// The device failed, its memory does not suffice, or the weights are not finite after the update.
    pub fn run<E: TrainableEncoder<B>>(
        &mut self,
        model: Colbert<B, E>,
        batch: &Batch,
    ) -> Result<(Colbert<B, E>, StepOutcome), TrainError> {
        let computed = guarded::<B, _>(|| self.gradient(&model, batch));
        let gradient = computed.map_err(|fault| self.failed(fault, batch))?;
        let mut outcome = StepOutcome {
            loss: gradient.loss.clone(),
            gradient_norm: gradient.norm,
            learning_rate: self.schedule.at(batch.step),
            loss_scale: self.scale(),
            learned: self.learned.values(),
            update: Update::Applied,
        };
        let numbers = [("loss", outcome.loss.total), ("gradient norm", gradient.norm)];
        if let Some((what, value)) = numbers.into_iter().find(|(_, value)| !value.is_finite()) {
            // A finite loss with a gradient that is not finite means too large a scale, until the least is reached.
            let overflowed = if outcome.loss.total.is_finite() { self.back_off() } else { None };
            outcome.update = overflowed.unwrap_or(Update::NotFinite { what, value });
            return Ok((model, outcome));
        }
        // On an asynchronous device, a failure here shows when a number is read next.
        let applied = guarded::<B, _>(|| {
            let model = self.apply(model, gradient, outcome.learning_rate);
            let sum = sum_of_weights(&model);
            (model, sum)
        });
        let (model, sum) = applied.map_err(|fault| self.failed(fault, batch))?;
        if !sum.is_finite() {
            // All later results would be meaningless, and no batch would repair them.
            return Err(TrainError::NonFiniteWeights { step: batch.step + 1, learning_rate: outcome.learning_rate });
        }
        if self.processes.size() > 1 {
            let sums = gather_doubles(self.processes, &[sum]).concat();
            if sums.iter().any(|other| other.to_bits() != sum.to_bits()) {
                return Err(TrainError::ProcessesApart { step: batch.step + 1 });
            }
        }
        if self.scales {
            self.loss_scale.get_or_insert_default().held();
        }
        Ok((model, outcome))
    }

    fn failed(&self, fault: DeviceFault, batch: &Batch) -> TrainError {
        let BatchShape { batch_size, .. } = self.shape;
        fault.in_step(batch.step + 1, batch_size, batch_size / self.gradients.pieces)
    }
}

impl<B: KernelAutodiffBackend, O> Step<'_, B, O> {
    /// Goes on with the optimizer, the loss scale and the learned numbers of a checkpoint.
    pub(crate) fn restore(
        &mut self,
        optimizer: AdamW<B::InnerBackend>,
        loss_scale: Option<LossScale>,
        learned: &LearnedNumbers,
    ) where
        O: Objective,
    {
        self.optimizer = optimizer;
        self.loss_scale = loss_scale;
        // Another loss begins with its own numbers.
        if learned.fits(&self.objective.learned()) {
            self.learned = learned.clone();
        }
    }

    /// Returns the learned numbers of the objective.
    pub(crate) fn learned(&self) -> &LearnedNumbers {
        &self.learned
    }

    pub(crate) fn optimizer(&self) -> &AdamW<B::InnerBackend> {
        &self.optimizer
    }

    /// Returns whether the loss spans all micro-batches, so that a batch is one part.
    pub(crate) fn is_cached(&self) -> bool {
        self.gradients.cached
    }

    pub(crate) fn shape(&self) -> BatchShape {
        self.shape.clone()
    }

    /// Returns the scale and its history; none unless a step was computed in float16.
    pub(crate) fn loss_scale(&self) -> Option<LossScale> {
        self.loss_scale.or_else(|| self.scales.then(LossScale::default))
    }

    /// Returns the factor on the loss; none unless the run is in float16.
    fn scale(&self) -> Option<f64> {
        self.loss_scale().filter(|_| self.scales).map(|loss_scale| loss_scale.scale)
    }

    /// Lowers the scale after an overflow; none if there is nothing to lower.
    fn back_off(&mut self) -> Option<Update> {
        let mut lowered = self.loss_scale().filter(|_| self.scales)?;
        if !lowered.back_off() {
            return None;
        }
        self.loss_scale = Some(lowered);
        Some(Update::Overflowed { loss_scale: lowered.scale, count: lowered.overflows })
    }
}

impl<B: KernelAutodiffBackend, O> fmt::Debug for Step<'_, B, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shape, gradients, schedule, .. } = self;
        f.debug_struct("Step").field("shape", shape).field("gradients", gradients).field("schedule", schedule).finish()
    }
}

//! What a run does between its steps: evaluation, choice of the best, checkpoints, negatives, faults.

use std::time::Instant;

use burn::module::AutodiffModule;
use colbert_config::{OnNonFinite, Precision};
use colbert_data::Example;
use colbert_kernels::{KernelAutodiffBackend, release_idle_memory};
use colbert_model::{Colbert, Weights, named_parameters, replace_parameters};

use crate::best::evaluate::{Measured, evaluate};
use crate::best::selection::Candidate;
use crate::device::fault::{DeviceFault, guarded, on_device};
use crate::error::TrainError;
use crate::record::checkpoint::{NamedTensors, RunState, prune_checkpoints, write_checkpoint};
use crate::record::faulty_batch::{FaultyBatch, MOST_DUMPED, MOST_SKIPPED_IN_A_ROW};
use crate::record::observer::{Event, Flow};
use crate::record::run_folder::RunFolder;
use crate::refresh::{RefreshExamples, read_examples, write_examples};
use crate::step::adamw::AdamW;
use crate::step::batch::Batch;
use crate::step::loss_scale::LossScale;
use crate::step::trainable::TrainableEncoder;
use crate::trainer::{Best, Dev, Training};

/// A run on its way.
pub(crate) struct Run<'a, B: KernelAutodiffBackend> {
    pub(crate) training: Training<'a, B>,
    pub(crate) state: RunState,
    /// Whether an observer wants the run to end, and whether at once.
    pub(crate) stop: bool,
    pub(crate) abort: bool,
    /// Whether an evaluation at the end was.
    pub(crate) interrupted: bool,
    pub(crate) skipped_in_a_row: usize,
}

impl<B: KernelAutodiffBackend> Run<'_, B> {
    pub(crate) fn tell(&mut self, event: &Event) {
        let flow = self.training.tell(event);
        self.stop |= flow != Flow::Continue;
        self.abort |= flow == Flow::Abort;
    }

    /// Examples of an epoch that begins: those that an earlier part of the run used, or new ones, written down before they are used.
    pub(crate) fn refreshed<E: TrainableEncoder<B>>(
        &mut self,
        refresh: &mut dyn RefreshExamples<B, E>,
        model: &Colbert<B, E>,
        epoch: usize,
    ) -> Result<Vec<Example>, TrainError> {
        let start = Instant::now();
        let kept = match self.training.folder.map(|folder| read_examples(folder, epoch)).transpose() {
            // The weights that chose them are those of this moment, so that they can be chosen again.
            Err(TrainError::NegativesDamaged { .. }) => None,
            kept => kept?.flatten(),
        };
        let read = kept.is_some();
        let examples = match kept {
            Some(examples) => examples,
            None => {
                let examples = refresh.examples(model.valid(), epoch)?;
                if let Some(folder) = self.training.folder {
                    write_examples(folder, epoch, &examples)?;
                }
                examples
            }
        };
        let step = self.state.step;
        let seconds = start.elapsed().as_secs_f64();
        self.tell(&Event::Refreshed { epoch: epoch + 1, step, read, seconds });
        Ok(examples)
    }

    /// The error that a failure of the device is.
    pub(crate) fn of_step(&self, fault: DeviceFault, step: usize) -> TrainError {
        let plan = self.training.plan;
        TrainError::of_step(fault, step, [plan.batch_size, plan.micro_batch_size])
    }

    /// Waits for the device, so that what failed on it is known before its numbers are kept.
    fn settle(&self) -> Result<(), TrainError> {
        let step = self.state.step;
        match guarded::<B, _>(|| B::sync(self.training.device)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(TrainError::Device { during: format!("step {step}"), said: error.to_string() }),
            Err(fault) => Err(self.of_step(fault, step)),
        }
    }

    /// How the loss is scaled; none unless the run is in float16.
    pub(crate) fn loss_scale(&mut self) -> Option<&mut LossScale> {
        let scales = self.training.plan.precision == Precision::F16;
        scales.then(|| self.state.loss_scale.get_or_insert_default())
    }

    /// A gradient that is not finite while the loss is: lowers the scale and tells so. False if there is nothing to lower.
    pub(crate) fn overflowed(&mut self) -> bool {
        let step = self.state.step;
        let Some(loss_scale) = self.loss_scale() else { return false };
        if !loss_scale.back_off() {
            return false;
        }
        let LossScale { scale, overflows, .. } = *loss_scale;
        self.tell(&Event::Overflowed { step, loss_scale: scale, count: overflows });
        true
    }

    /// A loss or gradient that is not finite: writes it down, and ends the run unless such batches are skipped.
    pub(crate) fn fault<E: TrainableEncoder<B>>(
        &mut self,
        model: &Colbert<B, E>,
        batch: &Batch,
        what: &'static str,
        value: f64,
    ) -> Result<(), TrainError> {
        let faulty = FaultyBatch::new(self.training.set, batch, self.training.options.seed, what, value);
        let (step, queries) = (faulty.step, faulty.queries());
        let dump = match self.training.folder {
            Some(folder) if self.state.skipped < MOST_DUMPED => {
                Some(faulty.write(folder, &named_parameters::<B, _>(model))?)
            }
            _ => None,
        };
        let skips = self.training.options.on_nonfinite == OnNonFinite::Skip;
        if !skips || self.skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW {
            let skipped = self.skipped_in_a_row;
            return Err(TrainError::NonFinite { what, step, value, queries, skipped, dump });
        }
        self.skipped_in_a_row += 1;
        self.state.skipped += 1;
        self.tell(&Event::Skipped { step, what, queries, count: self.state.skipped, dump });
        Ok(())
    }

    /// Whether a checkpoint and an evaluation belong after the steps that are done; the start has an evaluation.
    pub(crate) fn is_due(&self) -> bool {
        let (step, plan) = (self.state.step, self.training.plan);
        step.is_multiple_of(plan.save_every) || step == plan.steps
    }

    pub(crate) fn owes_evaluation(&self) -> bool {
        self.training.dev.is_some() && self.is_due() && self.state.evaluated != Some(self.state.step)
    }

    pub(crate) fn out_of_patience(&self) -> bool {
        let patience = self.training.dev.and_then(|dev| dev.options.patience);
        patience.is_some_and(|patience| self.state.since_best >= patience)
    }

    fn measure<E: TrainableEncoder<B>>(&mut self, model: &Colbert<B, E>, dev: Dev<'_>) -> Result<Measured, TrainError> {
        let total = dev.set.collection.len();
        let (tokenizer, device) = (self.training.tokenizer, self.training.device);
        let mut progress = |done| {
            self.tell(&Event::Evaluating { done, total });
            if self.stop { Flow::Stop } else { Flow::Continue }
        };
        let plain = model.valid();
        let measure = || evaluate(&plain, tokenizer, dev.set, dev.options.metric, device, &mut progress);
        on_device::<B, _>("an evaluation", measure)?
    }

    /// Measures the model on dev data, if there is any, and writes it if it is the best so far. If the run is to end
    /// meanwhile, the evaluation is left to the run that takes this one up.
    pub(crate) fn judge<E: TrainableEncoder<B>>(&mut self, model: &Colbert<B, E>) -> Result<(), TrainError> {
        let Some(dev) = self.training.dev else { return Ok(()) };
        self.settle()?;
        let start = Instant::now();
        let measured = match self.measure(model, dev) {
            Err(TrainError::Interrupted) => return Ok(()),
            measured => measured?,
        };
        let (step, metric) = (self.state.step, dev.options.metric);
        self.state.evaluated = Some(step);
        if step == 0 {
            self.state.baseline = Some(measured.clone());
        }
        let keep = dev.options.average_best.max(1);
        let best = self.state.consider(metric, keep, &measured, || named_parameters::<B, _>(model));
        if best {
            self.training.write_as(model, named_parameters::<B, _>(model), RunFolder::best)?;
        }
        let seconds = start.elapsed().as_secs_f64();
        self.tell(&Event::Evaluated { step, metric, evaluation: measured.evaluation, best, seconds });
        Ok(())
    }

    /// The best of the models that a run went through.
    pub(crate) fn best(&self) -> Option<Best> {
        let best = self.state.best.first()?;
        Some(Best { step: best.step, made_of: None, measured: best.measured.clone() })
    }

    /// At the end: measures the models that can be made of others, and takes one in place of the best if it is better.
    pub(crate) fn choose<E: TrainableEncoder<B>>(
        &mut self,
        model: &Colbert<B, E>,
        start: Option<&NamedTensors>,
    ) -> Result<(Vec<Candidate>, Option<Best>), TrainError> {
        let (Some(dev), Some(mut best)) = (self.training.dev, self.best()) else { return Ok((Vec::new(), None)) };
        let metric = dev.options.metric;
        let mut tried = Vec::new();
        for (name, tensors) in self.state.candidates(dev.options.average_best, start) {
            let mut weights = Weights::new(&name, tensors.clone());
            let candidate = replace_parameters::<B, _>(model.clone(), &mut weights)?;
            let measured = match self.measure(&candidate, dev) {
                Err(TrainError::Interrupted) => {
                    self.interrupted = true;
                    break;
                }
                measured => measured?,
            };
            let value = |measured: &Measured| measured.evaluation.value(metric);
            let adopted = metric.is_better(value(&best.measured), value(&measured));
            let tried_now = Candidate { name: name.clone(), evaluation: measured.evaluation.clone(), adopted };
            if adopted {
                self.training.write_as(model, tensors, RunFolder::best)?;
                best = Best { made_of: Some(name), measured, ..best };
            }
            self.tell(&Event::Tried(tried_now.clone()));
            tried.push(tried_now);
        }
        Ok((tried, Some(best)))
    }

    pub(crate) fn save<E: TrainableEncoder<B>>(
        &mut self,
        model: &Colbert<B, E>,
        optimizer: &AdamW<B::InnerBackend>,
    ) -> Result<(), TrainError> {
        let step = self.state.step;
        if self.abort {
            return Err(TrainError::Aborted { step });
        }
        self.settle()?;
        let Some(folder) = self.training.folder else { return Ok(()) };
        // A checkpoint is put together beside what the step left.
        release_idle_memory();
        let path = write_checkpoint(&folder.checkpoints(), model, optimizer, &self.state)?;
        let options = self.training.options;
        let best = match self.training.dev {
            Some(dev) => self.state.best_steps(dev.options.metric, options.keep_best_checkpoints),
            None => Vec::new(),
        };
        prune_checkpoints(&folder.checkpoints(), step, options.keep_checkpoints, &best)?;
        self.tell(&Event::Saved { step, path });
        Ok(())
    }
}

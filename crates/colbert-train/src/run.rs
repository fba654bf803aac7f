//! The work of a run between its steps: evaluation, choice of the best, checkpoints, negatives, faults.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::AutodiffModule;
use colbert_config::{EvaluationOptions, OnNonFinite, Plan, TrainOptions};
use colbert_data::{EvaluationSet, Example, TrainingSet};
use colbert_kernels::{KernelAutodiffBackend, release_idle_memory};
use colbert_model::{Colbert, ColbertTokenizer, HostTensor, Weights, named_parameters, replace_parameters};

use crate::best::averaging::{NamedTensors, move_average};
use crate::best::evaluate::{EvaluationLimits, Measured, Task};
use crate::best::selection::Candidate;
use crate::device::fault::{guarded, on_device};
use crate::device::memory;
use crate::error::TrainError;
use crate::flow::Flow;
use crate::processes::Processes;
use crate::record::checkpoint::{prune_checkpoints, write_checkpoint};
use crate::record::faulty_batch::{FaultyBatch, MOST_DUMPED, MOST_SKIPPED_IN_A_ROW};
use crate::record::observer::{Event, Observer, StepRecord};
use crate::record::run_folder::RunFolder;
use crate::record::state::RunState;
use crate::refresh::{RefreshExamples, checksum, read_examples, write_examples};
use crate::step::batch::Batch;
use crate::step::optimizer_step::{Step, StepOutcome, Update};
use crate::step::trainable::TrainableEncoder;

/// Held-out queries and how they choose the best model.
#[derive(Debug, Clone, Copy)]
pub struct Dev<'a> {
    /// Queries and documents.
    pub set: &'a EvaluationSet,
    /// Metric, patience, averages. The set alone decides which queries and documents are used.
    pub options: &'a EvaluationOptions,
}

/// A function that writes a model directory, from tensors by their names in a weight file and a path.
pub type WriteModel<'a> = dyn Fn(&[(String, HostTensor)], &Path) -> Result<(), TrainError> + 'a;

/// The best model of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// Steps after which it was measured, or the best of those that it is made of; 0 is the start.
    pub step: usize,
    /// The models it was made of, if it is not the model after a single step.
    pub made_of: Option<String>,
    /// Its evaluation.
    pub measured: Measured,
}

/// The context of a run: data, plan, its observers and its folder.
pub(crate) struct Surroundings<'a, B: KernelAutodiffBackend> {
    pub(crate) set: &'a TrainingSet,
    pub(crate) dev: Option<Dev<'a>>,
    pub(crate) tokenizer: &'a ColbertTokenizer,
    pub(crate) options: &'a TrainOptions,
    pub(crate) plan: &'a Plan,
    pub(crate) folder: Option<&'a RunFolder>,
    pub(crate) write_model: &'a WriteModel<'a>,
    pub(crate) observers: Vec<&'a mut dyn Observer>,
    pub(crate) device: &'a B::Device,
    pub(crate) processes: &'a dyn Processes,
}

impl<B: KernelAutodiffBackend> Surroundings<'_, B> {
    /// Tells the observers; returns the strongest of their answers.
    pub(crate) fn tell(&mut self, event: &Event) -> Flow {
        Flow::strongest(self.observers.iter_mut().map(|observer| observer.observe(event)))
    }

    /// Writes weights as a model directory, in process 0; nothing without a folder.
    pub(crate) fn write_as<E: TrainableEncoder<B>>(
        &self,
        model: &Colbert<B, E>,
        tensors: NamedTensors,
        path: impl Fn(&RunFolder) -> PathBuf,
    ) -> Result<Option<PathBuf>, TrainError> {
        let Some(folder) = self.folder else { return Ok(None) };
        let path = path(folder);
        if !self.processes.is_first() {
            return Ok(Some(path));
        }
        let tensors: Vec<_> = tensors.into_iter().map(|(name, tensor)| (model.tensor_name(&name), tensor)).collect();
        // The copy is held beside the memory that a step or an evaluation left.
        release_idle_memory();
        (self.write_model)(&tensors, &path)?;
        Ok(Some(path))
    }
}

/// A run in progress.
pub(crate) struct Run<'a, B: KernelAutodiffBackend> {
    pub(crate) around: Surroundings<'a, B>,
    pub(crate) state: RunState,
    /// Whether an observer wants the run to end.
    pub(crate) stop: bool,
    /// Whether it wants the run to end at once, with nothing more written.
    pub(crate) abort: bool,
    /// Whether an evaluation at the end was interrupted.
    pub(crate) interrupted: bool,
    skipped_in_a_row: usize,
    /// The step of the newest checkpoint of this process, or the first step; there is nothing new to save there.
    saved_at: usize,
}

impl<'a, B: KernelAutodiffBackend> Run<'a, B> {
    pub(crate) fn new(around: Surroundings<'a, B>, state: RunState) -> Self {
        let (stop, abort, interrupted, saved_at) = (false, false, false, state.step);
        Self { around, state, stop, abort, interrupted, skipped_in_a_row: 0, saved_at }
    }

    /// Takes the place of an earlier part of the run.
    pub(crate) fn go_on_from(&mut self, state: RunState) {
        self.saved_at = state.step;
        self.state = state;
    }

    /// Learns whether an observer of another process wants the run to end, so that all end after the same step.
    pub(crate) fn agree(&mut self) {
        let processes = self.around.processes;
        if processes.size() > 1 {
            let wishes = processes.all_gather(&[self.stop.into(), self.abort.into()]);
            self.stop = wishes.iter().any(|wish| wish[0] == 1);
            self.abort = wishes.iter().any(|wish| wish[1] == 1);
        }
    }

    /// Returns whether there is a further step.
    pub(crate) fn goes_on(&self) -> bool {
        self.state.step < self.around.plan.steps && !self.stop && !self.out_of_patience()
    }

    /// Takes in the outcome of a step; observers receive its numbers, or why it was left out.
    pub(crate) fn record<E: TrainableEncoder<B>>(
        &mut self,
        model: &Colbert<B, E>,
        batch: &Batch,
        outcome: StepOutcome,
        start: Instant,
    ) -> Result<(), TrainError> {
        let step = batch.step + 1;
        self.state.step = step;
        match outcome.update {
            Update::Applied => self.skipped_in_a_row = 0,
            Update::Overflowed { loss_scale, count } => self.tell(&Event::Overflowed { step, loss_scale, count }),
            Update::NotFinite { what, value } => self.fault(model, batch, what, value)?,
        }
        if let Some(decay) = self.around.options.ema_decay {
            move_average(&mut self.state.average, named_parameters::<B, _>(model), decay);
        }
        let seconds = start.elapsed().as_secs_f64();
        self.state.training_seconds += seconds;
        if outcome.update == Update::Applied {
            self.tell_numbers(batch, outcome, seconds);
        }
        Ok(())
    }

    fn tell_numbers(&mut self, batch: &Batch, outcome: StepOutcome, seconds: f64) {
        let step = self.state.step;
        let StepOutcome { loss, gradient_norm, learning_rate, loss_scale, learned, .. } = outcome;
        if let Some(mean) = self.state.losses.jump(loss.total) {
            self.tell(&Event::Spike { step, loss: loss.total, mean });
        }
        let (examples, tokens) = (batch.examples.len(), batch.tokens());
        self.tell(&Event::Step(StepRecord {
            step,
            loss: loss.total,
            parts: loss.parts,
            micro_losses: if loss.part_losses.len() > 1 { loss.part_losses } else { Vec::new() },
            learning_rate,
            gradient_norm,
            loss_scale,
            learned,
            positive_score: loss.positive_score,
            negative_score: loss.negative_score,
            examples,
            tokens,
            seconds,
            examples_per_second: examples as f64 / seconds,
            tokens_per_second: tokens as f64 / seconds,
            memory: memory::resident(),
        }));
    }

    /// Evaluates and writes a checkpoint, where they are due after the steps that are done.
    pub(crate) fn judge_and_save<E: TrainableEncoder<B>, O>(
        &mut self,
        model: &Colbert<B, E>,
        step: &Step<'_, B, O>,
    ) -> Result<(), TrainError> {
        let due = self.is_due();
        if due {
            self.judge(model)?;
            if self.out_of_patience() {
                let evaluations = self.state.selection.since_best;
                self.tell(&Event::OutOfPatience { step: self.state.step, evaluations });
            }
        }
        if due || self.stop { self.save(model, step) } else { Ok(()) }
    }

    pub(crate) fn tell(&mut self, event: &Event) {
        let flow = self.around.tell(event);
        self.stop |= flow != Flow::Continue;
        self.abort |= flow == Flow::Abort;
    }

    /// Returns the examples of an epoch that begins: those that an earlier part of the run used, or new ones, written
    /// down before they are used.
    pub(crate) fn refreshed<E: TrainableEncoder<B>>(
        &mut self,
        refresh: &mut dyn RefreshExamples<B, E>,
        model: &Colbert<B, E>,
        epoch: usize,
    ) -> Result<Vec<Example>, TrainError> {
        let start = Instant::now();
        let kept = self.kept_examples(epoch)?;
        let read = kept.is_some();
        let examples = match kept {
            Some(examples) => examples,
            None => {
                let examples = refresh.examples(model.valid(), epoch)?;
                self.same_examples(&examples, epoch)?;
                if let Some(folder) = self.around.folder.filter(|_| self.around.processes.is_first()) {
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

    /// Returns the examples of an epoch that an earlier part of the run wrote down, as process 0 finds them.
    fn kept_examples(&self, epoch: usize) -> Result<Option<Vec<Example>>, TrainError> {
        let Some(folder) = self.around.folder else { return Ok(None) };
        let read = || match read_examples(folder, epoch) {
            // The weights that chose them are the current ones, so they can be chosen again.
            Err(TrainError::NegativesDamaged { .. }) => Ok(None),
            kept => kept,
        };
        let processes = self.around.processes;
        let kept = if processes.is_first() { read()? } else { None };
        let found = processes.broadcast(&[kept.is_some().into()]);
        // The file stays as it is from here on.
        if processes.is_first() || found == [0] { Ok(kept) } else { read() }
    }

    /// Refuses other examples than the other processes have: a miner of the caller's own may draw.
    fn same_examples(&self, examples: &[Example], epoch: usize) -> Result<(), TrainError> {
        let processes = self.around.processes;
        if processes.size() == 1 {
            return Ok(());
        }
        let own = checksum(examples);
        let all = processes.all_gather(own.as_bytes());
        match all.iter().position(|other| other != own.as_bytes()) {
            Some(rank) => {
                let other = String::from_utf8_lossy(&all[rank]);
                let differences = format!("negatives of epoch {} (hash {own}, not {other})", epoch + 1);
                Err(TrainError::ProcessesDiffer { rank, differences })
            }
            None => Ok(()),
        }
    }

    /// Waits for the device, so that what failed on it is known before its numbers are kept.
    fn settle(&self) -> Result<(), TrainError> {
        let step = self.state.step;
        match guarded::<B, _>(|| B::sync(self.around.device)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(TrainError::Device { during: format!("step {step}"), said: error.to_string() }),
            Err(fault) => {
                let Plan { batch_size, micro_batch_size, .. } = *self.around.plan;
                Err(fault.in_step(step, batch_size, micro_batch_size))
            }
        }
    }

    /// Handles a loss or gradient that is not finite: writes it down, and ends the run unless such batches are skipped.
    pub(crate) fn fault<E: TrainableEncoder<B>>(
        &mut self,
        model: &Colbert<B, E>,
        batch: &Batch,
        what: &'static str,
        value: f64,
    ) -> Result<(), TrainError> {
        let faulty = FaultyBatch::new(self.around.set, batch, self.around.options.seed, what, value);
        let (step, queries) = (faulty.step, faulty.queries());
        let dump = match self.around.folder {
            Some(folder) if self.state.skipped < MOST_DUMPED && self.around.processes.is_first() => {
                Some(faulty.write(folder, &named_parameters::<B, _>(model))?)
            }
            _ => None,
        };
        let skips = self.around.options.on_nonfinite == OnNonFinite::Skip;
        if !skips || self.skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW {
            let skipped = self.skipped_in_a_row;
            return Err(TrainError::NonFinite { what, step, value, queries, skipped, dump });
        }
        self.skipped_in_a_row += 1;
        self.state.skipped += 1;
        self.tell(&Event::Skipped { step, what, queries, count: self.state.skipped, dump });
        Ok(())
    }

    /// Returns whether a checkpoint and an evaluation are due after the finished steps; the start has an evaluation.
    pub(crate) fn is_due(&self) -> bool {
        let (step, plan) = (self.state.step, self.around.plan);
        step.is_multiple_of(plan.save_every) || step == plan.steps
    }

    pub(crate) fn owes_evaluation(&self) -> bool {
        self.around.dev.is_some() && self.is_due() && self.state.selection.evaluated != Some(self.state.step)
    }

    pub(crate) fn out_of_patience(&self) -> bool {
        let patience = self.around.dev.and_then(|dev| dev.options.patience);
        patience.is_some_and(|patience| self.state.selection.since_best >= patience)
    }

    fn measure<E: TrainableEncoder<B>>(&mut self, model: &Colbert<B, E>, dev: Dev<'_>) -> Result<Measured, TrainError> {
        let total = dev.set.collection.len();
        let (tokenizer, device) = (self.around.tokenizer, self.around.device);
        let skips = self.around.options.on_nonfinite == OnNonFinite::Skip && self.state.step > 0;
        let tokens_at_once = EvaluationLimits::tokens_of_a_step(self.around.options, self.around.plan);
        let limits = EvaluationLimits { tokens_at_once, processes: self.around.processes };
        let task = Task { set: dev.set, candidates: None, chosen: dev.options.metric };
        let mut progress = |done| {
            self.tell(&Event::Evaluating { done, total });
            if self.stop { Flow::Stop } else { Flow::Continue }
        };
        let plain = model.valid();
        let metric = dev.options.metric;
        let measure = || task.evaluate(&plain, tokenizer, limits, device, &mut progress);
        match on_device::<B, _>("an evaluation", measure)? {
            // A model without a value is worse than any other. A start without one cannot be trained.
            Err(TrainError::NonFiniteVectors { .. }) if skips => Measured::without_value(dev.set, metric),
            measured => measured,
        }
    }

    /// Measures the model on dev data, if there is any, and writes it if it is the best so far. If the run is to end
    /// meanwhile, the evaluation is left to the run that takes this one up.
    pub(crate) fn judge<E: TrainableEncoder<B>>(&mut self, model: &Colbert<B, E>) -> Result<(), TrainError> {
        let Some(dev) = self.around.dev else { return Ok(()) };
        self.settle()?;
        let start = Instant::now();
        let measured = match self.measure(model, dev) {
            Err(TrainError::Interrupted) => return Ok(()),
            measured => measured?,
        };
        let (step, metric) = (self.state.step, dev.options.metric);
        self.state.selection.evaluated = Some(step);
        if step == 0 {
            self.state.selection.baseline = Some(measured.clone());
        }
        let keep = dev.options.average_best.max(1);
        let best = self.state.selection.consider(step, metric, keep, &measured, || named_parameters::<B, _>(model));
        if best {
            self.around.write_as(model, named_parameters::<B, _>(model), RunFolder::best)?;
        }
        let seconds = start.elapsed().as_secs_f64();
        self.tell(&Event::Evaluated { step, metric, evaluation: measured.evaluation, best, seconds });
        Ok(())
    }

    /// Returns the best of the models that a run went through.
    pub(crate) fn best(&self) -> Option<Best> {
        let best = self.state.selection.best.first()?;
        Some(Best { step: best.step, made_of: None, measured: best.measured.clone() })
    }

    /// Measures, at the end, the models that can be made of others, and takes one in place of the best if it is better.
    pub(crate) fn choose<E: TrainableEncoder<B>>(
        &mut self,
        model: &Colbert<B, E>,
        start: Option<&NamedTensors>,
    ) -> Result<(Vec<Candidate>, Option<Best>), TrainError> {
        let (Some(dev), Some(mut best)) = (self.around.dev, self.best()) else { return Ok((Vec::new(), None)) };
        let metric = dev.options.metric;
        let mut tried = Vec::new();
        let average = std::mem::take(&mut self.state.average);
        for (name, tensors) in self.state.selection.candidates(average, dev.options.average_best, start) {
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
                self.around.write_as(model, tensors, RunFolder::best)?;
                best = Best { made_of: Some(name), measured, ..best };
            }
            self.tell(&Event::Tried(tried_now.clone()));
            tried.push(tried_now);
        }
        Ok((tried, Some(best)))
    }

    /// Writes a checkpoint unless the newest one is of this step.
    pub(crate) fn save_unless_saved<E: TrainableEncoder<B>, O>(
        &mut self,
        model: &Colbert<B, E>,
        step: &Step<'_, B, O>,
    ) -> Result<(), TrainError> {
        if self.saved_at == self.state.step { Ok(()) } else { self.save(model, step) }
    }

    fn save<E: TrainableEncoder<B>, O>(
        &mut self,
        model: &Colbert<B, E>,
        step: &Step<'_, B, O>,
    ) -> Result<(), TrainError> {
        self.state.loss_scale = step.loss_scale();
        self.state.learned = step.learned().clone();
        let optimizer = step.optimizer();
        let step = self.state.step;
        if self.abort {
            return Err(TrainError::Aborted { step });
        }
        self.settle()?;
        self.saved_at = step;
        let first = self.around.processes.is_first();
        let Some(folder) = self.around.folder.filter(|_| first) else { return Ok(()) };
        // A checkpoint is assembled beside the memory that the step left.
        release_idle_memory();
        let path = write_checkpoint(&folder.checkpoints(), model, optimizer, &self.state)?;
        let options = self.around.options;
        let best = match self.around.dev {
            Some(dev) => self.state.selection.best_steps(dev.options.metric, options.keep_best_checkpoints),
            None => Vec::new(),
        };
        prune_checkpoints(&folder.checkpoints(), step, options.keep_checkpoints, &best)?;
        self.tell(&Event::Saved { step, path });
        Ok(())
    }
}

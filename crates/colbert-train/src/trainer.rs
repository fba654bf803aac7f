//! The loop, from top to bottom.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{channel, sync_channel};
use std::time::Instant;

use burn::tensor::backend::AutodiffBackend;
use colbert_config::{EvaluationOptions, IbScope, Plan, TrainOptions};
use colbert_data::{EvaluationSet, Example, TrainingSet};
use colbert_kernels::KernelAutodiffBackend;
use colbert_model::{Colbert, ColbertTokenizer, EncodeOptions, HostTensor, named_parameters, safetensors_bytes};
use serde_json::Value;

use crate::best::averaging::move_average;
use crate::best::evaluate::Measured;
use crate::best::selection::Candidate;
use crate::device::fault::guarded;
use crate::device::memory::resident_memory;
use crate::error::TrainError;
use crate::record::checkpoint::{NamedTensors, RunState, newest_checkpoint, read_checkpoint};
use crate::record::faulty_batch::panic_message;
use crate::record::identity::{Change, Identity};
use crate::record::observer::{Event, Flow, Observer, StepRecord};
use crate::record::run_folder::RunFolder;
use crate::refresh::{RefreshExamples, epoch_going_on, epochs_begun, read_examples};
use crate::run::Run;
use crate::step::adamw::{AdamW, clip_factor, gradient_norm};
use crate::step::batch::{Batch, Batcher};
use crate::step::gradients::{GradientPlan, batch_gradients};
use crate::step::objective::Objective;
use crate::step::schedule::Schedule;
use crate::step::trainable::TrainableEncoder;

/// Batches made ahead of the step that needs them.
const PREFETCH: usize = 2;

/// Held-out queries and how they choose the best model.
#[derive(Debug, Clone, Copy)]
pub struct Dev<'a> {
    /// Queries and documents.
    pub set: &'a EvaluationSet,
    /// Metric, patience, averages. Which queries and documents are used is decided by the set alone.
    pub options: &'a EvaluationOptions,
}

/// Writes a model directory: tensors by their names in a weight file, and where to.
pub type WriteModel<'a> = dyn Fn(&[(String, HostTensor)], &Path) -> Result<(), TrainError> + 'a;

/// Where a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At the first step.
    Anew,
    /// At the newest whole checkpoint of the run's folder; at the first step if there is none.
    Resume {
        /// Go on though options or data are others than the checkpoint was made with.
        accept_changes: bool,
    },
}

/// What the loop begins with.
type Beginning<B, E> = (Colbert<B, E>, AdamW<<B as AutodiffBackend>::InnerBackend>, RunState);

/// Everything a run needs besides the model.
#[expect(missing_debug_implementations, reason = "holds closures and trait objects")]
pub struct Training<'a, B: KernelAutodiffBackend> {
    /// Texts and examples.
    pub set: &'a TrainingSet,
    /// Held-out queries; without them the best model is the last.
    pub dev: Option<Dev<'a>>,
    /// Tokenizer of the model.
    pub tokenizer: &'a ColbertTokenizer,
    /// Options the plan was made of.
    pub options: &'a TrainOptions,
    /// Further options, by dotted name, that a checkpoint is tied to.
    pub further_options: BTreeMap<String, Value>,
    /// The plan.
    pub plan: &'a Plan,
    /// The loss.
    pub objective: &'a dyn Objective<B>,
    /// Where everything goes; without it nothing is written.
    pub folder: Option<&'a RunFolder>,
    /// How a model directory is written.
    pub write_model: &'a WriteModel<'a>,
    /// Who is told what happens.
    pub observers: Vec<&'a mut dyn Observer>,
    /// Where the tensors are.
    pub device: &'a B::Device,
}

/// What came out of a run.
#[derive(Debug, Clone)]
pub struct Trained<M> {
    /// The last model.
    pub model: M,
    /// Steps done.
    pub steps: usize,
    /// Whether an observer stopped the run. A run that ends because its patience is over was not stopped.
    pub stopped: bool,
    /// The best model. None without dev data.
    pub best: Option<Best>,
    /// How the start was measured. None without dev data.
    pub baseline: Option<Measured>,
    /// Steps that were left out, as their loss or gradient was not finite.
    pub skipped: usize,
    /// Steps that were left out, as their gradient overflowed float16.
    pub overflowed: usize,
    /// Models made of others that were measured at the end.
    pub candidates: Vec<Candidate>,
    /// Directory of the best model (the last one without dev data).
    pub best_path: Option<PathBuf>,
    /// Directory of the last model.
    pub last_path: Option<PathBuf>,
    /// Time spent in steps, in seconds, of all the processes that had a part in the run.
    pub training_seconds: f64,
}

/// The best model of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// Steps after which it was measured, or the best of those that it is made of; 0 is the start.
    pub step: usize,
    /// What it is made of, if it is no model of a single step.
    pub made_of: Option<String>,
    /// What was measured.
    pub measured: Measured,
}

impl<B: KernelAutodiffBackend> Training<'_, B> {
    /// Trains `model`, the start of the run also where a checkpoint of it is taken up.
    ///
    /// # Errors
    /// Examples that do not fit together, a loss that is not finite, a checkpoint that was made with something else, a
    /// disk that refuses. What was written before stays.
    pub fn run<E: TrainableEncoder<B>>(
        self,
        model: Colbert<B, E>,
        begin: Begin,
    ) -> Result<Trained<Colbert<B, E>>, TrainError> {
        self.run_refreshed(model, begin, None)
    }

    /// As [`Training::run`]; at the start of every epoch but the first, `refresh` gives the epoch's examples.
    ///
    /// # Errors
    /// As [`Training::run`], and what `refresh` reports.
    pub fn run_refreshed<E: TrainableEncoder<B>>(
        mut self,
        model: Colbert<B, E>,
        begin: Begin,
        mut refresh: Option<&mut dyn RefreshExamples<B, E>>,
    ) -> Result<Trained<Colbert<B, E>>, TrainError> {
        let (plan, options) = (self.plan, self.options);
        let reaches_across = self.objective.couples_queries() && options.ib_scope == IbScope::Batch;
        let gradient_plan = GradientPlan {
            accumsteps: plan.accumsteps,
            cached: reaches_across && plan.accumsteps > 1,
            seed: options.seed,
            precision: EncodeOptions::in_precision(plan.precision).precision,
            loss_scale: 1.0,
        };
        let mut batcher = Batcher::new(self.set, self.tokenizer, plan, options, gradient_plan.cached)?;
        let schedule = Schedule::new(plan, options);
        let identity = self.identity(&model)?;
        let mixes = self.dev.is_some_and(|dev| dev.options.interpolate);
        let start = mixes.then(|| named_parameters::<B, _>(&model));
        let (model, mut optimizer, state) = match begin {
            Begin::Anew => self.anew(model, identity),
            Begin::Resume { accept_changes } => self.resume(model, identity, accept_changes)?,
        };
        let first = state.step;
        let mut run = Run { training: self, state, stop: false, abort: false, interrupted: false, skipped_in_a_row: 0 };
        run.tell(&Event::Started { plan: plan.clone(), done: first });
        if run.owes_evaluation() {
            run.judge(&model)?;
        }

        let (refreshes, examples) = (refresh.is_some(), run.training.set.examples.len());
        if let Some(epoch) = epoch_going_on(first, plan.batch_size, examples).filter(|_| refreshes) {
            let kept = run.training.folder.map(|folder| read_examples(folder, epoch)).transpose()?.flatten();
            batcher.replace(epoch, kept.ok_or(TrainError::NegativesGone { epoch: epoch + 1 })?)?;
        }

        let mut saved_at = None;
        let model = std::thread::scope(|scope| -> Result<Colbert<B, E>, TrainError> {
            let mut model = model;
            let (send, batches) = sync_channel::<Result<Batch, TrainError>>(PREFETCH);
            let (give, fresh) = channel::<(usize, Vec<Example>)>();
            let maker = scope.spawn(move || {
                for step in first..plan.steps {
                    let begun = if refreshes { epochs_begun(step, plan.batch_size, examples).len() } else { 0 };
                    for _ in 0..begun {
                        // The sender is gone when the run has ended early.
                        let Ok((epoch, examples)) = fresh.recv() else { return };
                        if let Err(error) = batcher.replace(epoch, examples) {
                            drop(send.send(Err(error)));
                            return;
                        }
                    }
                    // The receiver is gone when the run has ended early.
                    if send.send(batcher.batch(step)).is_err() {
                        break;
                    }
                }
            });
            while run.state.step < plan.steps && !run.stop && !run.out_of_patience() {
                if let Some(refresh) = &mut refresh {
                    for epoch in epochs_begun(run.state.step, plan.batch_size, examples) {
                        let chosen = run.refreshed(*refresh, &model, epoch)?;
                        // If nobody listens any more, the batch that is asked for next says why.
                        drop(give.send((epoch, chosen)));
                    }
                }
                let Ok(batch) = batches.recv() else {
                    // It only hangs up before the last step by panicking; joining takes the panic out of the scope.
                    let message = maker.join().err().map(|payload| panic_message(&*payload)).unwrap_or_default();
                    return Err(TrainError::BatchThread { message });
                };
                let batch = batch?;
                let start = Instant::now();
                let (objective, device) = (run.training.objective, run.training.device);
                let loss_scale = run.loss_scale().map(|loss_scale| loss_scale.scale);
                let gradient_plan = GradientPlan { loss_scale: loss_scale.unwrap_or(1.0), ..gradient_plan };
                let compute = || {
                    let (loss, gradients) = batch_gradients(&model, &batch, objective, gradient_plan, device);
                    let norm = gradient_norm(&model, &gradients);
                    (loss, gradients, norm)
                };
                let computed = guarded::<B, _>(compute);
                let (loss, gradients, norm) = computed.map_err(|fault| run.of_step(fault, batch.step + 1))?;
                let learning_rate = schedule.at(run.state.step);
                run.state.step += 1;
                let faulty = [("loss", loss.total), ("gradient norm", norm)].into_iter().find(|(_, x)| !x.is_finite());
                if let Some((what, value)) = faulty {
                    // A finite loss with another gradient is too large a scale, until the least is reached.
                    if !(loss.total.is_finite() && run.overflowed()) {
                        run.fault(&model, &batch, what, value)?;
                    }
                } else {
                    let clip = clip_factor(norm, options.clip_norm);
                    // On a device that works by itself, what fails here shows when a number is read next.
                    let stepped = guarded::<B, _>(|| optimizer.step(model, gradients, learning_rate, clip));
                    model = stepped.map_err(|fault| run.of_step(fault, batch.step + 1))?;
                    run.skipped_in_a_row = 0;
                    if let Some(loss_scale) = run.loss_scale() {
                        loss_scale.held();
                    }
                }
                if let Some(decay) = options.ema_decay {
                    move_average(&mut run.state.average, named_parameters::<B, _>(&model), decay);
                }
                let seconds = start.elapsed().as_secs_f64();
                run.state.training_seconds += seconds;
                let step = run.state.step;
                if faulty.is_none() {
                    if let Some(mean) = run.state.losses.jump(loss.total) {
                        run.tell(&Event::Spike { step, loss: loss.total, mean });
                    }
                    run.tell(&Event::Step(StepRecord {
                        step,
                        loss: loss.total,
                        parts: loss.parts,
                        micro_losses: if loss.part_losses.len() > 1 { loss.part_losses } else { Vec::new() },
                        learning_rate,
                        gradient_norm: norm,
                        loss_scale,
                        positive_score: loss.positive_score,
                        negative_score: loss.negative_score,
                        examples: batch.examples.len(),
                        tokens: batch.tokens(),
                        seconds,
                        examples_per_second: batch.examples.len() as f64 / seconds,
                        tokens_per_second: batch.tokens() as f64 / seconds,
                        memory: resident_memory(),
                    }));
                }
                let due = run.is_due();
                if due {
                    run.judge(&model)?;
                    if run.out_of_patience() {
                        run.tell(&Event::OutOfPatience { step, evaluations: run.state.since_best });
                    }
                }
                if due || run.stop {
                    run.save(&model, &optimizer)?;
                    saved_at = Some(step);
                }
            }
            Ok(model)
        })?;

        let step = run.state.step;
        if run.abort {
            return Err(TrainError::Aborted { step });
        }
        let stopped = (step < plan.steps && !run.out_of_patience()) || run.owes_evaluation();
        if saved_at != Some(step) && step > first {
            run.save(&model, &optimizer)?;
        }
        let last_path = run.training.write_as(&model, named_parameters::<B, _>(&model), RunFolder::last)?;
        let best_path = match (run.training.dev, run.training.folder) {
            (Some(_), Some(folder)) if !run.state.best.is_empty() => Some(folder.best()),
            _ => run.training.write_as(&model, named_parameters::<B, _>(&model), RunFolder::best)?,
        };
        let (candidates, best) = if stopped { (Vec::new(), run.best()) } else { run.choose(&model, start.as_ref())? };
        let stopped = stopped || run.interrupted;
        run.tell(&Event::Finished { step, stopped });
        let RunState { baseline, training_seconds, skipped, loss_scale, .. } = run.state;
        let steps = step;
        Ok(Trained {
            model,
            steps,
            stopped,
            best,
            baseline,
            skipped,
            overflowed: loss_scale.map_or(0, |loss_scale| loss_scale.overflows),
            candidates,
            best_path,
            last_path,
            training_seconds,
        })
    }

    /// What this run is made of.
    fn identity<E: TrainableEncoder<B>>(&self, model: &Colbert<B, E>) -> Result<Identity, TrainError> {
        let mut options = self.further_options.clone();
        if let Value::Object(own) = serde_json::to_value(self.options).expect("options have a JSON form") {
            options.extend(own.into_iter().map(|(name, value)| (format!("train.{name}"), value)));
        }
        // What precision and micro-batches became on this machine counts, not what was asked for; what is kept changes nothing.
        let free = ["precision", "memory_limit", "accumsteps", "keep_checkpoints", "keep_best_checkpoints"];
        options.retain(|name, _| !free.iter().any(|free| name.strip_prefix("train.") == Some(*free)));
        let precision = serde_json::to_value(self.plan.precision).expect("a name has a JSON form");
        options.insert("plan.precision".to_owned(), precision);
        options.insert("plan.accumsteps".to_owned(), self.plan.accumsteps.into());
        let set = self.set;
        let (examples, queries, documents) = (set.examples.len(), set.queries.len(), set.collection.len());
        let data = format!(
            "{examples} examples of {queries} queries and {documents} documents (hash {:016x})",
            set.fingerprint()
        );
        let start = format!("hash {:08x}", crc32fast::hash(&safetensors_bytes(&named_parameters::<B, _>(model))?));
        let mut inputs = BTreeMap::from([("training data".to_owned(), data), ("start".to_owned(), start)]);
        if let Some(Dev { set, .. }) = self.dev {
            let (queries, documents) = (set.queries.len(), set.collection.len());
            let words = format!("{queries} queries and {documents} documents (hash {:016x})", set.fingerprint());
            inputs.insert("dev data".to_owned(), words);
        }
        Ok(Identity { program: env!("CARGO_PKG_VERSION").to_owned(), options, inputs })
    }

    fn anew<E: TrainableEncoder<B>>(&self, model: Colbert<B, E>, identity: Identity) -> Beginning<B, E> {
        (model, AdamW::new(self.options.weight_decay), RunState { identity, ..RunState::default() })
    }

    /// Takes up the newest whole checkpoint; begins anew where there is none.
    fn resume<E: TrainableEncoder<B>>(
        &mut self,
        model: Colbert<B, E>,
        now: Identity,
        accept_changes: bool,
    ) -> Result<Beginning<B, E>, TrainError> {
        let (checkpoint, skipped) = match self.folder {
            Some(folder) => newest_checkpoint(&folder.checkpoints())?,
            None => (None, Vec::new()),
        };
        let Some(path) = checkpoint else {
            self.tell(&Event::Resumed { step: 0, checkpoint: None, skipped, changes: Vec::new() });
            return Ok(self.anew(model, now));
        };
        let (model, optimizer, mut state) = read_checkpoint(&path, model, self.options.weight_decay, self.device)?;
        let changes = state.identity.changes(&now);
        if !changes.is_empty() && !accept_changes {
            let changes = changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            return Err(TrainError::Changed { path, changes });
        }
        if state.step > self.plan.steps {
            return Err(TrainError::BeyondTheEnd { path, done: state.step, steps: self.plan.steps });
        }
        state.identity = now;
        // Values of other queries or another metric cannot be compared with those to come.
        let otherwise = |change: &Change| ["dev data", "evaluation.metric"].contains(&change.what.as_str());
        if self.dev.is_none() || changes.iter().any(otherwise) {
            (state.best, state.baseline, state.since_best) = (Vec::new(), None, 0);
            state.values = Vec::new();
            state.evaluated = None;
        }
        if self.options.ema_decay.is_none() {
            state.average = Vec::new();
        }
        // best/ may be of a later step than the checkpoint, or gone.
        if let Some(best) = state.best.first() {
            self.write_as(&model, best.tensors.clone(), RunFolder::best)?;
        }
        self.tell(&Event::Resumed { step: state.step, checkpoint: Some(path), skipped, changes });
        Ok((model, optimizer, state))
    }

    pub(crate) fn tell(&mut self, event: &Event) -> Flow {
        let flows = self.observers.iter_mut().map(|observer| observer.observe(event)).collect::<Vec<_>>();
        let strongest = [Flow::Abort, Flow::Stop].into_iter().find(|flow| flows.contains(flow));
        strongest.unwrap_or(Flow::Continue)
    }

    /// Writes weights as a model directory; nothing without a folder.
    pub(crate) fn write_as<E: TrainableEncoder<B>>(
        &self,
        model: &Colbert<B, E>,
        tensors: NamedTensors,
        path: impl Fn(&RunFolder) -> PathBuf,
    ) -> Result<Option<PathBuf>, TrainError> {
        let Some(folder) = self.folder else { return Ok(None) };
        let path = path(folder);
        let tensors: Vec<_> = tensors.into_iter().map(|(name, tensor)| (model.tensor_name(&name), tensor)).collect();
        (self.write_model)(&tensors, &path)?;
        Ok(Some(path))
    }
}

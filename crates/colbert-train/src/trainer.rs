//! The loop, from top to bottom.

use std::path::PathBuf;
use std::sync::mpsc::{channel, sync_channel};
use std::time::Instant;

use burn::module::AutodiffModule;
use colbert_config::{IbScope, Metric, Plan, TrainOptions};
use colbert_data::{EvaluationSet, Example, TrainingSet};
use colbert_kernels::{KernelAutodiffBackend, Precision, release_idle_memory};
use colbert_model::{Colbert, ColbertTokenizer, HostTensor, named_parameters};

use crate::adamw::{AdamW, clip_factor, gradient_norm};
use crate::batch::{Batch, Batcher};
use crate::checkpoint::{RunState, prune_checkpoints, write_checkpoint};
use crate::error::TrainError;
use crate::evaluate::{Evaluation, evaluate};
use crate::gradients::{GradientPlan, batch_gradients};
use crate::objective::Objective;
use crate::observer::{Event, Flow, Observer, StepRecord};
use crate::refresh::{RefreshExamples, epoch_going_on, epochs_begun, read_examples, write_examples};
use crate::run_folder::RunFolder;
use crate::schedule::Schedule;
use crate::trainable::TrainableEncoder;

/// Batches made ahead of the step that needs them.
const PREFETCH: usize = 2;

/// Checkpoints that are kept: the newest, and the one before it should that one be damaged.
const KEEP_CHECKPOINTS: usize = 2;

/// Held-out queries and the metric that chooses the best model.
#[derive(Debug, Clone, Copy)]
pub struct Dev<'a> {
    /// Queries and documents.
    pub set: &'a EvaluationSet,
    /// Metric.
    pub metric: Metric,
}

/// Writes a model directory: tensors by their names in a weight file, and where to.
pub type WriteModel<'a> = dyn Fn(&[(String, HostTensor)], &std::path::Path) -> Result<(), TrainError> + 'a;

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
    /// Whether an observer stopped the run.
    pub stopped: bool,
    /// Steps and evaluation of the best model; 0 steps is the start. None without dev data.
    pub best: Option<(usize, Evaluation)>,
    /// Evaluation of the start. None without dev data.
    pub baseline: Option<Evaluation>,
    /// Directory of the best model (the last one without dev data).
    pub best_path: Option<PathBuf>,
    /// Directory of the last model.
    pub last_path: Option<PathBuf>,
    /// Time spent in steps, in seconds.
    pub training_seconds: f64,
}

impl<B: KernelAutodiffBackend> Training<'_, B> {
    /// Trains `model`, from the start or, with `resume`, from a checkpoint.
    ///
    /// # Errors
    /// Examples that do not fit together, a loss that is not finite, a disk that refuses. What was written before stays.
    pub fn run<E: TrainableEncoder<B>>(
        self,
        model: Colbert<B, E>,
        resume: Option<(AdamW<B::InnerBackend>, RunState)>,
    ) -> Result<Trained<Colbert<B, E>>, TrainError> {
        self.run_refreshed(model, resume, None)
    }

    /// As [`Training::run`]; at the start of every epoch but the first, `refresh` gives the epoch's examples.
    ///
    /// # Errors
    /// As [`Training::run`], and what `refresh` reports.
    pub fn run_refreshed<E: TrainableEncoder<B>>(
        mut self,
        model: Colbert<B, E>,
        resume: Option<(AdamW<B::InnerBackend>, RunState)>,
        mut refresh: Option<&mut dyn RefreshExamples<B, E>>,
    ) -> Result<Trained<Colbert<B, E>>, TrainError> {
        let (plan, options) = (self.plan, self.options);
        let reaches_across = self.objective.couples_queries() && options.ib_scope == IbScope::Batch;
        let gradient_plan = GradientPlan {
            accumsteps: plan.accumsteps,
            cached: reaches_across && plan.accumsteps > 1,
            seed: options.seed,
            precision: match plan.precision {
                colbert_config::Precision::Bf16 => Precision::Bf16,
                _ => Precision::F32,
            },
        };
        let mut batcher = Batcher::new(self.set, self.tokenizer, plan, options, gradient_plan.cached)?;
        let schedule = Schedule::new(plan, options);
        let (mut optimizer, state) =
            resume.unwrap_or_else(|| (AdamW::new(options.weight_decay), RunState::new(0, None)));
        let first = state.step;
        let mut flow = self.tell(&Event::Started { plan: plan.clone(), done: first });
        let mut best = state.best;
        let baseline = if first == 0 { self.judge(&model, 0, &mut best)? } else { None };

        let (refreshes, examples) = (refresh.is_some(), self.set.examples.len());
        if let Some(epoch) = epoch_going_on(first, plan.batch_size, examples).filter(|_| refreshes) {
            let kept = self.folder.map(|folder| read_examples(folder, epoch)).transpose()?.flatten();
            batcher.replace(epoch, kept.ok_or(TrainError::NegativesGone { epoch: epoch + 1 })?)?;
        }

        let mut done = first;
        let mut saved_at = None;
        let mut training_seconds = 0.0;
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
            while done < plan.steps && flow == Flow::Continue {
                if let Some(refresh) = &mut refresh {
                    for epoch in epochs_begun(done, plan.batch_size, examples) {
                        let chosen = self.refreshed(*refresh, &model, epoch, done)?;
                        // If nobody listens any more, the batch that is asked for next says why.
                        drop(give.send((epoch, chosen)));
                    }
                }
                let Ok(batch) = batches.recv() else {
                    // It only hangs up before the last step by panicking; joining takes the panic out of the scope.
                    drop(maker.join());
                    return Err(TrainError::BatchThread);
                };
                let batch = batch?;
                let start = Instant::now();
                let (loss, gradients) = batch_gradients(&model, &batch, self.objective, gradient_plan, self.device);
                self.finite("loss", loss.total, &batch)?;
                let norm = gradient_norm(&model, &gradients);
                self.finite("gradient norm", norm, &batch)?;
                let learning_rate = schedule.at(done);
                model = optimizer.step(model, gradients, learning_rate, clip_factor(norm, options.clip_norm));
                done += 1;
                let seconds = start.elapsed().as_secs_f64();
                training_seconds += seconds;
                flow = self.tell(&Event::Step(StepRecord {
                    step: done,
                    loss: loss.total,
                    parts: loss.parts,
                    micro_losses: if loss.part_losses.len() > 1 { loss.part_losses } else { Vec::new() },
                    learning_rate,
                    gradient_norm: norm,
                    positive_score: loss.positive_score,
                    negative_score: loss.negative_score,
                    examples: batch.examples.len(),
                    tokens: batch.tokens(),
                    seconds,
                }));
                let due = done % plan.save_every == 0 || done == plan.steps;
                if due {
                    self.judge(&model, done, &mut best)?;
                }
                if due || flow == Flow::Stop {
                    self.save(&model, &optimizer, done, &best)?;
                    saved_at = Some(done);
                }
            }
            Ok(model)
        })?;

        let stopped = done < plan.steps;
        if saved_at.is_none() && done > first {
            self.save(&model, &optimizer, done, &best)?;
        }
        let last_path = self.write(&model, |folder| folder.last())?;
        let best_path = match (self.dev, self.folder) {
            (Some(_), Some(folder)) => Some(folder.best()),
            _ => self.write(&model, |folder| folder.best())?,
        };
        self.tell(&Event::Finished { step: done, stopped });
        Ok(Trained { model, steps: done, stopped, best, baseline, best_path, last_path, training_seconds })
    }

    fn tell(&mut self, event: &Event) -> Flow {
        let mut flow = Flow::Continue;
        for observer in &mut self.observers {
            if observer.observe(event) == Flow::Stop {
                flow = Flow::Stop;
            }
        }
        flow
    }

    fn finite(&self, what: &'static str, value: f64, batch: &Batch) -> Result<(), TrainError> {
        if value.is_finite() {
            return Ok(());
        }
        let name = |qid: &u32| self.set.queries.id(*qid).map_or_else(|| qid.to_string(), str::to_owned);
        let names = batch.queries.iter().map(name);
        let queries = names.collect::<Vec<_>>().join(", ");
        Err(TrainError::NonFinite { what, step: batch.step + 1, value, queries })
    }

    /// Examples of an epoch: those that an earlier part of the run used, or new ones, written down before they are used.
    fn refreshed<E: TrainableEncoder<B>>(
        &mut self,
        refresh: &mut dyn RefreshExamples<B, E>,
        model: &Colbert<B, E>,
        epoch: usize,
        step: usize,
    ) -> Result<Vec<Example>, TrainError> {
        let start = Instant::now();
        let kept = self.folder.map(|folder| read_examples(folder, epoch)).transpose()?.flatten();
        let read = kept.is_some();
        let examples = match kept {
            Some(examples) => examples,
            None => {
                let examples = refresh.examples(model.valid(), epoch)?;
                if let Some(folder) = self.folder {
                    write_examples(folder, epoch, &examples)?;
                }
                examples
            }
        };
        let seconds = start.elapsed().as_secs_f64();
        self.tell(&Event::Refreshed { epoch: epoch + 1, step, read, seconds });
        Ok(examples)
    }

    /// Evaluates on dev data, if there is any, and keeps the model if it is the best so far. Ties keep the older one.
    fn judge<E: TrainableEncoder<B>>(
        &mut self,
        model: &Colbert<B, E>,
        step: usize,
        best: &mut Option<(usize, Evaluation)>,
    ) -> Result<Option<Evaluation>, TrainError> {
        let Some(Dev { set, metric }) = self.dev else { return Ok(None) };
        let start = Instant::now();
        let total = set.collection.len();
        let (tokenizer, device) = (self.tokenizer, self.device);
        let mut progress = |done| {
            self.tell(&Event::Evaluating { done, total });
        };
        let evaluation = evaluate(&model.valid(), tokenizer, set, metric, device, &mut progress)?;
        let is_best = best.as_ref().is_none_or(|(_, so_far)| evaluation.value(metric) > so_far.value(metric));
        if is_best {
            self.write(model, |folder| folder.best())?;
            *best = Some((step, evaluation.clone()));
        }
        let seconds = start.elapsed().as_secs_f64();
        self.tell(&Event::Evaluated { step, metric, evaluation: evaluation.clone(), best: is_best, seconds });
        Ok(Some(evaluation))
    }

    fn save<E: TrainableEncoder<B>>(
        &mut self,
        model: &Colbert<B, E>,
        optimizer: &AdamW<B::InnerBackend>,
        step: usize,
        best: &Option<(usize, Evaluation)>,
    ) -> Result<(), TrainError> {
        let Some(folder) = self.folder else { return Ok(()) };
        // A checkpoint is put together beside what the step left.
        release_idle_memory();
        let state = RunState::new(step, best.clone());
        let path = write_checkpoint(&folder.checkpoints(), model, optimizer, &state)?;
        prune_checkpoints(&folder.checkpoints(), KEEP_CHECKPOINTS)?;
        self.tell(&Event::Saved { step, path });
        Ok(())
    }

    fn write<E: TrainableEncoder<B>>(
        &self,
        model: &Colbert<B, E>,
        path: impl Fn(&RunFolder) -> PathBuf,
    ) -> Result<Option<PathBuf>, TrainError> {
        let Some(folder) = self.folder else { return Ok(None) };
        let path = path(folder);
        let tensors: Vec<_> = named_parameters::<B, _>(model)
            .into_iter()
            .map(|(name, tensor)| (model.tensor_name(&name), tensor))
            .collect();
        (self.write_model)(&tensors, &path)?;
        Ok(Some(path))
    }
}

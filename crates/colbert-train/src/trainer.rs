//! The loop, from top to bottom.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use colbert_config::{Plan, TrainOptions};
use colbert_data::TrainingSet;
use colbert_kernels::KernelAutodiffBackend;
use colbert_model::{Colbert, ColbertTokenizer, named_parameters, safetensors_bytes};
use serde_json::Value;

use crate::best::averaging::NamedTensors;
use crate::best::evaluate::Measured;
use crate::best::selection::{Candidate, Selection};
use crate::error::TrainError;
use crate::processes::{OneProcess, Processes};
use crate::record::checkpoint::read_checkpoint;
use crate::record::identity::{Change, Identity};
use crate::record::observer::{Event, Observer};
use crate::record::run_folder::RunFolder;
use crate::record::state::RunState;
use crate::refresh::{RefreshExamples, read_examples};
use crate::run::{Best, Dev, Run, Surroundings, WriteModel};
use crate::step::batch::{Batcher, TokenShare};
use crate::step::colbert_objective::ColbertObjective;
use crate::step::objective::Objective;
use crate::step::optimizer_step::Step;
use crate::step::order::{epoch_going_on, epochs_begun};
use crate::step::prefetch::{Prefetch, Steps};
use crate::step::trainable::TrainableEncoder;

/// The beginning of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At the first step.
    New,
    /// At the newest whole checkpoint of the run's folder; at the first step if there is none.
    Resume {
        /// Continue even if options or data differ from those of the checkpoint.
        accept_changes: bool,
    },
}

/// A training run before it begins: data, plan, and further things that have defaults.
///
/// Without [`Training::with_dev`] the best model is the last; without [`Training::with_folder`] nothing is written; the
/// loss is [`ColbertObjective`] unless [`Training::with_objective`] names another.
#[expect(missing_debug_implementations, reason = "holds closures and trait objects")]
pub struct Training<'a, B: KernelAutodiffBackend, E: TrainableEncoder<B>, O = ColbertObjective> {
    around: Surroundings<'a, B>,
    objective: O,
    refresh: Option<&'a mut dyn RefreshExamples<B, E>>,
    further_options: BTreeMap<String, Value>,
}

/// The outcome of a run.
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
    /// The evaluation of the start. None without dev data.
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
    /// Time spent in steps, in seconds, over all parts of the run.
    pub training_seconds: f64,
}

impl<'a, B: KernelAutodiffBackend, E: TrainableEncoder<B>> Training<'a, B, E> {
    /// Prepares a run over a training set, with colbert-ai's loss as the options describe it. `plan` is made of
    /// `options`; `tokenizer` is the model's.
    pub fn new(
        set: &'a TrainingSet,
        tokenizer: &'a ColbertTokenizer,
        options: &'a TrainOptions,
        plan: &'a Plan,
        device: &'a B::Device,
    ) -> Self {
        let around = Surroundings {
            set,
            dev: None,
            tokenizer,
            options,
            plan,
            folder: None,
            write_model: &|_, _| Ok(()),
            observers: Vec::new(),
            device,
            processes: &OneProcess,
        };
        Self { around, objective: ColbertObjective::from(options), refresh: None, further_options: BTreeMap::new() }
    }
}

impl<'a, B: KernelAutodiffBackend, E: TrainableEncoder<B>, O: Objective> Training<'a, B, E, O> {
    /// Minimises another loss.
    #[must_use]
    pub fn with_objective<P: Objective>(self, objective: P) -> Training<'a, B, E, P> {
        let Self { around, refresh, further_options, .. } = self;
        Training { around, objective, refresh, further_options }
    }

    /// Evaluates on held-out queries and keeps the best model.
    #[must_use]
    pub fn with_dev(mut self, dev: Option<Dev<'a>>) -> Self {
        self.around.dev = dev;
        self
    }

    /// Writes checkpoints, negatives of later epochs and models into the folder of a run.
    #[must_use]
    pub fn with_folder(mut self, folder: Option<&'a RunFolder>) -> Self {
        self.around.folder = folder;
        self
    }

    /// Writes model directories with `write_model`; by default none are written.
    #[must_use]
    pub fn with_model_writer(mut self, write_model: &'a WriteModel<'a>) -> Self {
        self.around.write_model = write_model;
        self
    }

    /// Adds an observer, which receives every event.
    #[must_use]
    pub fn with_observer(mut self, observer: &'a mut dyn Observer) -> Self {
        self.around.observers.push(observer);
        self
    }

    /// Takes the examples of every epoch but the first from `refresh`.
    #[must_use]
    pub fn with_refresh(mut self, refresh: Option<&'a mut dyn RefreshExamples<B, E>>) -> Self {
        self.refresh = refresh;
        self
    }

    /// Shares every batch and every evaluation with other processes, which call this with the same data, plan, model
    /// and folder. Process 0 alone writes; all read. Observers are those of each process: if one of them stops the run,
    /// it stops in all processes after the same step.
    #[must_use]
    pub fn with_processes(mut self, processes: &'a dyn Processes) -> Self {
        self.around.processes = processes;
        self
    }

    /// Ties checkpoints to further options, by dotted name, besides those of training.
    #[must_use]
    pub fn with_further_options(mut self, options: BTreeMap<String, Value>) -> Self {
        self.further_options = options;
        self
    }

    /// Trains `model`, which is the start of the run also where a checkpoint of it is resumed.
    ///
    /// # Errors
    /// Examples that do not fit together, a loss that is not finite, a checkpoint that was made with other options or
    /// data, a refresh that fails, a disk that refuses. Everything written before stays.
    pub fn run(self, model: Colbert<B, E>, begin: Begin) -> Result<Trained<Colbert<B, E>>, TrainError> {
        let Self { around, objective, mut refresh, further_options } = self;
        let mixes = around.dev.is_some_and(|dev| dev.options.interpolate);
        let start = mixes.then(|| named_parameters::<B, _>(&model));
        let processes = around.processes;
        let mut step = Step::new(around.options, around.plan, objective, around.device).with_processes(processes);
        let mut batcher = Batcher::new(around.set, around.tokenizer, step.shape())?;
        let identity = identity(&around, further_options, &model)?;
        same_everywhere(&identity, around.tokenizer, processes)?;
        let mut run = Run::new(around, RunState { identity, ..RunState::default() });
        let model = match begin {
            Begin::New => model,
            Begin::Resume { accept_changes } => resume(&mut run, &mut step, model, accept_changes)?,
        };
        let (first, plan) = (run.state.step, run.around.plan);
        run.tell(&Event::Started { plan: plan.clone(), done: first });
        if run.owes_evaluation() {
            run.judge(&model)?;
        }
        run.agree();
        let share = TokenShare::of(processes);
        let steps = Steps { first, end: plan.steps, refreshed: refresh.is_some(), share };
        if refresh.is_some() {
            use_examples_of_this_epoch(&run, &mut batcher)?;
        }

        let model = std::thread::scope(|scope| {
            let mut model = model;
            let mut batches = Prefetch::new(scope, batcher, steps);
            while run.goes_on() {
                if let Some(refresh) = &mut refresh {
                    let examples = run.around.set.examples.len();
                    for epoch in epochs_begun(run.state.step, plan.batch_size, examples) {
                        batches.replace(epoch, run.refreshed(*refresh, &model, epoch)?);
                    }
                }
                let batch = batches.next()?;
                let begun = Instant::now();
                let batch = batch.complete(processes);
                let (next, outcome) = step.run(model, &batch)?;
                model = next;
                run.record(&model, &batch, outcome, begun)?;
                run.agree();
                run.judge_and_save(&model, &step)?;
                run.agree();
            }
            Ok::<_, TrainError>(model)
        })?;
        finish(run, &step, model, start.as_ref())
    }
}

/// Returns the options and inputs that a checkpoint is tied to.
fn identity<B: KernelAutodiffBackend, E: TrainableEncoder<B>>(
    around: &Surroundings<'_, B>,
    further_options: BTreeMap<String, Value>,
    model: &Colbert<B, E>,
) -> Result<Identity, TrainError> {
    let mut options = further_options;
    if let Value::Object(own) = serde_json::to_value(around.options).expect("options have a JSON form") {
        options.extend(own.into_iter().map(|(name, value)| (format!("train.{name}"), value)));
    }
    // The precision and micro-batches of this machine count, not the requested ones; the number of kept checkpoints
    // changes nothing.
    let free = ["precision", "memory_limit", "accumsteps", "keep_checkpoints", "keep_best_checkpoints"];
    options.retain(|name, _| !free.iter().any(|free| name.strip_prefix("train.") == Some(*free)));
    let precision = serde_json::to_value(around.plan.precision).expect("a name has a JSON form");
    options.insert("plan.precision".to_owned(), precision);
    // The name from before runs could have several processes.
    options.insert("plan.accumsteps".to_owned(), around.plan.pieces().into());
    let set = around.set;
    let (examples, queries, documents) = (set.examples.len(), set.queries.len(), set.collection.len());
    let data =
        format!("{examples} examples of {queries} queries and {documents} documents (hash {:016x})", set.fingerprint());
    let start = format!("hash {:08x}", crc32fast::hash(&safetensors_bytes(&named_parameters::<B, _>(model))?));
    let mut inputs = BTreeMap::from([("training data".to_owned(), data), ("start".to_owned(), start)]);
    if let Some(Dev { set, .. }) = around.dev {
        let (queries, documents) = (set.queries.len(), set.collection.len());
        let words = format!("{queries} queries and {documents} documents (hash {:016x})", set.fingerprint());
        inputs.insert("dev data".to_owned(), words);
    }
    Ok(Identity { program: env!("CARGO_PKG_VERSION").to_owned(), options, inputs })
}

/// Refuses processes that do not train the same.
fn same_everywhere(own: &Identity, tokenizer: &ColbertTokenizer, processes: &dyn Processes) -> Result<(), TrainError> {
    if processes.size() == 1 {
        return Ok(());
    }
    // Each tokenizes a share of the texts of all.
    let mut own = own.clone();
    own.inputs.insert("tokenizer".to_owned(), format!("hash {:016x}", tokenizer.fingerprint()?));
    let json = serde_json::to_vec(&own).expect("names and values have a JSON form");
    for (rank, other) in processes.all_gather(&json).iter().enumerate() {
        let other: Option<Identity> = serde_json::from_slice(other).ok();
        let changes = other.map_or_else(Vec::new, |other| own.changes(&other));
        if !changes.is_empty() {
            let differences = changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            return Err(TrainError::ProcessesDiffer { rank, differences });
        }
    }
    Ok(())
}

/// Continues from the newest whole checkpoint; begins with `model` if there is none.
fn resume<B: KernelAutodiffBackend, E: TrainableEncoder<B>, O: Objective>(
    run: &mut Run<'_, B>,
    step: &mut Step<'_, B, O>,
    model: Colbert<B, E>,
    accept_changes: bool,
) -> Result<Colbert<B, E>, TrainError> {
    let around = &run.around;
    let (checkpoint, skipped) = match around.folder {
        Some(folder) => folder.newest_checkpoint()?,
        None => (None, Vec::new()),
    };
    let Some(path) = checkpoint else {
        run.around.tell(&Event::Resumed { step: 0, checkpoint: None, skipped, changes: Vec::new() });
        return Ok(model);
    };
    let (model, optimizer, mut state) = read_checkpoint(&path, model, around.options.weight_decay, around.device)?;
    let now = std::mem::take(&mut run.state.identity);
    let changes = state.identity.changes(&now);
    if !changes.is_empty() && !accept_changes {
        let changes = changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        return Err(TrainError::Changed { path, changes });
    }
    if state.step > around.plan.steps {
        return Err(TrainError::BeyondTheEnd { path, done: state.step, steps: around.plan.steps });
    }
    state.identity = now;
    // Values of other queries or another metric cannot be compared with those to come.
    let otherwise = |change: &Change| ["dev data", "evaluation.metric"].contains(&change.what.as_str());
    if around.dev.is_none() || changes.iter().any(otherwise) {
        state.selection = Selection::default();
    }
    if around.options.ema_decay.is_none() {
        state.average = Vec::new();
    }
    // best/ may be of a later step than the checkpoint, or gone.
    if let Some(best) = state.selection.best.first() {
        around.write_as(&model, best.tensors.clone(), RunFolder::best)?;
    }
    step.restore(optimizer, state.loss_scale, &state.learned);
    run.go_on_from(state);
    let event = Event::Resumed { step: run.state.step, checkpoint: Some(path), skipped, changes };
    run.around.tell(&event);
    Ok(model)
}

/// Rebuilds the batches if a run is resumed in the middle of an epoch whose negatives were chosen for it.
fn use_examples_of_this_epoch<B: KernelAutodiffBackend>(
    run: &Run<'_, B>,
    batcher: &mut Batcher<'_>,
) -> Result<(), TrainError> {
    let around = &run.around;
    if let Some(epoch) = epoch_going_on(run.state.step, around.plan.batch_size, around.set.examples.len()) {
        let kept = around.folder.map(|folder| read_examples(folder, epoch)).transpose()?.flatten();
        batcher.replace(epoch, kept.ok_or(TrainError::NegativesGone { epoch: epoch + 1 })?)?;
    }
    Ok(())
}

/// Writes the last checkpoint and models, and chooses the best.
fn finish<B: KernelAutodiffBackend, E: TrainableEncoder<B>, O: Objective>(
    mut run: Run<'_, B>,
    last_step: &Step<'_, B, O>,
    model: Colbert<B, E>,
    start: Option<&NamedTensors>,
) -> Result<Trained<Colbert<B, E>>, TrainError> {
    let step = run.state.step;
    if run.abort {
        return Err(TrainError::Aborted { step });
    }
    let stopped = (step < run.around.plan.steps && !run.out_of_patience()) || run.owes_evaluation();
    run.save_unless_saved(&model, last_step)?;
    let last_path = run.around.write_as(&model, named_parameters::<B, _>(&model), RunFolder::last)?;
    let best_path = match (run.around.dev, run.around.folder) {
        (Some(_), Some(folder)) if !run.state.selection.best.is_empty() => Some(folder.best()),
        _ => run.around.write_as(&model, named_parameters::<B, _>(&model), RunFolder::best)?,
    };
    let (candidates, best) = if stopped { (Vec::new(), run.best()) } else { run.choose(&model, start)? };
    let stopped = stopped || run.interrupted;
    // The files that process 0 wrote are there for all.
    run.around.processes.barrier();
    run.tell(&Event::Finished { step, stopped });
    let overflowed = last_step.loss_scale().map_or(0, |loss_scale| loss_scale.overflows);
    let RunState { selection: Selection { baseline, .. }, training_seconds, skipped, .. } = run.state;
    let steps = step;
    Ok(Trained {
        model,
        steps,
        stopped,
        best,
        baseline,
        skipped,
        overflowed,
        candidates,
        best_path,
        last_path,
        training_seconds,
    })
}

//! A run, from options and examples to a model directory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::{fmt, fs};

use burn::module::AutodiffModule;
use colbert_config::{HeadInit, Options, Plan, Precision, TrainOptions};
use colbert_data::{EvaluationSet, NegativeMiner};
use colbert_kernels::KernelAutodiffBackend;
use colbert_model::{HeadConfig, LoadReport};
use colbert_train::{
    Begin, Comparison, Dev, EvaluationLimits, Event, Flow, Measured, MetricsLog, Objective, Observer, Processes,
    RefreshExamples, RunFolder, TensorboardLog, TrainError, Trained, Training, memory, on_device,
};
use serde_json::Value;

use crate::backend::{Backend, Job};
use crate::error::Error;
use crate::launch::devices::Exchange;
use crate::record::card::{ModelCard, Standing};
use crate::record::compatibility::not_honoured;
use crate::record::data_page::write_data_page;
use crate::record::explained_queries::{self, explain_queries};
use crate::record::outcome::{DevResult, Outcome, TestResult};
use crate::record::report::{ReportWriter, write_report};
use crate::record::run_record::QueryChanges;
use crate::run::base_model::{ModelWriter, Start};
use crate::run::checks::output_may_be_written;
use crate::run::data::Prepared;
use crate::run::encoder::{InnerModel, RunEncoder};
use crate::run::evaluation::{bm25, evaluate_with};
use crate::run::fit::tried::MostThatFit;
use crate::run::miner::Refresher;
use crate::run::objective::RunObjective;
use crate::run::sharing::Sharing;
use crate::run::spacing::spaced;
use crate::search::pretrained::RagPretrainedModel;
use crate::source::public_name;

/// The inputs of a run besides its options.
#[derive(Clone, Copy)]
pub(crate) struct RunData<'a> {
    pub(crate) prepared: &'a Prepared,
    /// Ranks candidates in later epochs, in place of the miner that the options name.
    pub(crate) miner: Option<&'a Arc<dyn NegativeMiner>>,
    /// The plan, if it was made before; making it again takes some steps on a device with a memory limit.
    pub(crate) plan: Option<&'a Plan>,
}

/// Everything known about a run before its first step.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// The plan.
    pub plan: Plan,
    /// Tensors of the starting directory that were loaded, ignored or drawn.
    pub loaded: LoadReport,
    /// Parameters of the model.
    pub parameters: usize,
    /// Where it runs.
    pub backend: Backend,
    /// The model's head.
    pub head: HeadConfig,
    /// First weights of a new head.
    pub head_init: HeadInit,
    /// The precision that was asked for, where there is none of it and float32 is taken.
    pub falls_back: Option<Precision>,
    /// How gradients move between the processes, if these have NVIDIA GPUs.
    pub exchange: Option<Exchange>,
}

impl Preview {
    /// Whether the run computes a tensor that its start lacks, the matrix of the head, from training texts.
    fn is_of_components(&self, name: &str) -> bool {
        self.head_init == HeadInit::Pca && name == "linear.weight"
    }
}

impl fmt::Display for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let million = self.parameters as f64 / 1e6;
        write!(f, "model: {million:.1} M parameters on {}; {} tensors taken", self.backend, self.loaded.taken)?;
        let (components, drawn): (Vec<&str>, Vec<&str>) =
            self.loaded.initialised.iter().map(String::as_str).partition(|name| self.is_of_components(name));
        if !components.is_empty() {
            write!(f, ", principal components: {}", components.join(", "))?;
        }
        if !drawn.is_empty() {
            write!(f, ", drawn at random: {}", drawn.join(", "))?;
        }
        if !self.loaded.ignored.is_empty() {
            write!(f, ", ignored: {}", self.loaded.ignored.join(", "))?;
        }
        if !self.head.is_simple() {
            write!(f, "\nhead: {}", self.head)?;
        }
        match self.falls_back {
            Some(Precision::Tf32) => {
                write!(f, "\nTF32 requested, but this GPU predates Ampere; using float32")?;
            }
            Some(_) => write!(f, "\nbfloat16 requested, but this device does not multiply it faster; using float32")?,
            None => {}
        }
        if let Some(exchange) = &self.exchange {
            write!(f, "\n{exchange}")?;
        }
        write!(f, "\n{}", self.plan)
    }
}

/// Checks everything that can be checked before the first step: options, model, tokenizer, plan. Writes nothing.
///
/// # Errors
/// Whatever would make the run fail at its start.
pub(crate) fn preview<O: Objective, E: RunEncoder>(
    options: &Options,
    prepared: &Prepared,
    objective: &RunObjective<'_, O>,
    sharing: Sharing<'_, E>,
    begin: Begin,
) -> Result<Preview, Error> {
    options.validate()?;
    let backend = sharing.backend(&options.backend)?;
    let start = Start::read(options, sharing.encoder)?;
    let plan = start.plan(options, backend, prepared, objective, &**sharing.processes)?;
    let plan = spaced(plan, options, prepared.dev.as_ref(), earlier_plan(options, begin)?.as_ref());
    struct Load<'a, E> {
        start: &'a Start<'a, E>,
        options: &'a Options,
    }
    impl<E: RunEncoder> Job for Load<'_, E> {
        type Output = Result<(LoadReport, usize), Error>;

        fn run<B: KernelAutodiffBackend>(self, device: &B::Device) -> Self::Output {
            let load = || self.start.model::<B>(&self.options.train, device);
            let (model, report) = on_device::<B, _>("loading the model", load)??;
            Ok((report, burn::module::Module::num_params(&model)))
        }
    }
    let (loaded, parameters) = backend.run(Load { start: &start, options })?;
    let asked = options.train.precision;
    let falls_back = (asked != Precision::Auto && asked != plan.precision).then_some(asked);
    let head_init = options.train.head_init;
    let exchange = Exchange::of(&**sharing.processes, backend);
    Ok(Preview { plan, loaded, parameters, backend, head: start.head, head_init, falls_back, exchange })
}

/// Trains and measures. `begin` says whether `options.output` gets a new run or the one in it is resumed.
///
/// # Errors
/// Whatever the crates below report; what was written before stays.
pub(crate) fn train<O: Objective, E: RunEncoder>(
    options: &Options,
    data: RunData<'_>,
    objective: &RunObjective<'_, O>,
    sharing: Sharing<'_, E>,
    begin: Begin,
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    options.validate()?;
    if options.output.as_os_str().is_empty() {
        let hint = "name a folder for the run with --output, or output = \"...\" in the config file";
        return Err(Error::NotSet { option: "output", hint });
    }
    let processes = sharing.processes;
    if begin == Begin::New && processes.is_first() {
        output_may_be_written(options, &[])?;
    }
    let backend = sharing.backend(&options.backend)?;
    let mut start = Start::read(options, sharing.encoder)?;
    let plan = match data.plan {
        Some(plan) => plan.clone(),
        None => {
            let plan = start.plan(options, backend, data.prepared, objective, &**processes)?;
            spaced(plan, options, data.prepared.dev.as_ref(), earlier_plan(options, begin)?.as_ref())
        }
    };
    start.fit_head(&options.train, backend, &data.prepared.set)?;
    let linked = Exchange::join(processes, backend)?;
    let job = TrainJob { options, data, plan: &plan, start: &start, objective, processes: &linked, begin, observer };
    let ran = backend.run(job);
    if linked.device_link().is_some() && ran.is_ok() {
        // Nobody leaves while another still receives.
        processes.barrier();
    }
    drop(linked);
    let Err(Error::Train(TrainError::OutOfMemory { step, batch_size, micro_batch, said })) = ran else { return ran };
    let train = TrainOptions { precision: plan.precision, accumsteps: plan.pieces(), ..options.train.clone() };
    let fits = backend.run(MostThatFit { start: &start, train, objective })?;
    Err(Error::OutOfMemory { backend: backend.to_string(), step, batch_size, micro_batch, fits, said })
}

/// Where memory chose the micro-batches of the run in `options.output`, asks for as many again, so that another reading
/// of memory does not make the run another one. Where the run had another number of processes, divides its micro-batches
/// among `processes`, so that its bits stay.
///
/// # Errors
/// The run's plan cannot be read, or its micro-batches cannot be divided and changes are not accepted.
pub(crate) fn keep_micro_batches(options: &mut Options, processes: usize, begin: Begin) -> Result<(), Error> {
    let Some(plan) = earlier_plan(options, begin)? else { return Ok(()) };
    if plan.batch_size != options.train.batch_size {
        return Ok(());
    }
    if plan.processes == processes {
        if options.train.memory_limit.is_some() {
            options.train.accumsteps = options.train.accumsteps.max(plan.accumsteps);
        }
    } else if plan.pieces().is_multiple_of(processes) {
        options.train.accumsteps = plan.pieces() / processes;
    } else if begin != (Begin::Resume { accept_changes: true }) {
        return Err(Error::UndividedMicroBatches { pieces: plan.pieces(), processes });
    }
    Ok(())
}

/// The plan of the run in `options.output`, if that is resumed and had written one.
///
/// # Errors
/// The plan cannot be read.
fn earlier_plan(options: &Options, begin: Begin) -> Result<Option<Plan>, Error> {
    let path = options.output.join("plan.json");
    if begin == Begin::New || !path.exists() {
        return Ok(None);
    }
    let text = fs::read(&path).map_err(|source| Error::Io { action: "read", path: path.clone(), source })?;
    let expected = "the plan of a run, as train writes it";
    serde_json::from_slice(&text).map(Some).map_err(|source| Error::Json { path, expected, source })
}

/// Options that a checkpoint is tied to, besides those of training: names and files do not matter, what is in the files
/// is compared by itself.
fn tied(options: &Options) -> BTreeMap<String, Value> {
    let is_tied = |key: &str| {
        ["backend", "language_code"].contains(&key) || key.starts_with("negatives.") || key.starts_with("evaluation.")
    };
    let entries = options.entries().into_iter().filter(|(key, _)| is_tied(key));
    entries.map(|(key, value)| (key.to_owned(), value)).collect()
}

struct TrainJob<'a, O, E> {
    options: &'a Options,
    data: RunData<'a>,
    plan: &'a Plan,
    start: &'a Start<'a, E>,
    objective: &'a RunObjective<'a, O>,
    processes: &'a Arc<dyn Processes>,
    begin: Begin,
    observer: &'a mut dyn Observer,
}

impl<O: Objective, E: RunEncoder> Job for TrainJob<'_, O, E> {
    type Output = Result<Outcome, Error>;

    fn run<B: KernelAutodiffBackend>(mut self, device: &B::Device) -> Self::Output {
        let Self { options, data, plan, start, objective, processes, begin, .. } = self;
        let first = processes.is_first();
        let prepared = data.prepared;
        let (model, _) = on_device::<B, _>("loading the model", || start.model::<B>(&options.train, device))??;
        let base = public_name(&options.pretrained_model_name);
        let card = ModelCard {
            options,
            plan,
            settings: &start.settings,
            head: &start.head,
            encoder: start.family(),
            tokenizer: &start.tokenizer,
            base: &base,
            base_directory: start.pretrained.directory(),
            set: &prepared.set,
            prepared: Some(&prepared.report),
        };
        let writer = ModelWriter { options, start, plan, card };
        // An old run is only replaced once the new one can start, and its models can be written.
        if begin == Begin::New && first {
            writer.rehearse(&model, device)?;
        }
        let folder = self.open_folder()?;
        let mut record = if first { Some(Record::open(prepared, &folder)?) } else { None };
        let mut refresher = match &prepared.remining {
            Some(remining) => {
                let (set, tokenizer) = (&prepared.set, &start.tokenizer);
                Some(Refresher::<B>::new(options, remining, set, data.miner, tokenizer, device, processes)?)
            }
            None => None,
        };
        let refresh = refresher.as_mut().map(|refresher| refresher as &mut dyn RefreshExamples<B, E::Encoder<B>>);
        let trained = Training::new(&prepared.set, &start.tokenizer, &options.train, plan, device)
            .with_objective(objective)
            .with_further_options(tied(options))
            .with_dev(prepared.dev.as_ref().map(|set| Dev { set, options: &options.evaluation }))
            .with_folder(Some(&folder))
            .with_model_writer(&|tensors, path| writer.write::<B>(tensors, path, device))
            .with_observer(&mut |event: &Event| record.as_mut().map_or(Flow::Continue, |record| record.observe(event)))
            .with_observer(&mut *self.observer)
            .with_refresh(refresh)
            .with_processes(&**processes)
            .run(model, begin);
        // If the record could not be written, that is the reason to tell.
        record.map(Record::finish).transpose()?;
        let trained = trained?;

        let (test, stopped) = match &prepared.test {
            Some(set) if !trained.stopped => match self.on_test::<B>(set, &folder, device) {
                Err(Error::Train(TrainError::Interrupted)) => (None, true),
                measured => (Some(measured?), false),
            },
            _ => (None, trained.stopped),
        };
        let dev = trained.baseline.as_ref().zip(trained.best.as_ref().map(|best| &best.measured));
        let metric = options.evaluation.metric;
        let changes = prepared.dev.as_ref().zip(dev);
        let changes = changes.map(|(set, (before, after))| QueryChanges::between(set, before, after, metric));
        if let Some((set, measured)) = prepared.dev.as_ref().zip(dev).filter(|_| !stopped && first) {
            write_explanations(options, start, &folder, set, measured)?;
        }
        let outcome = Outcome { test, stopped, ..outcome(options, start, &folder, trained) };
        if !first {
            return Ok(outcome);
        }
        let json = serde_json::to_string_pretty(&outcome).expect("numbers and names have a JSON form");
        folder.write("outcome.json", json.as_bytes())?;
        folder.write("best/README.md", card.text(Standing::Best(&outcome)).as_bytes())?;
        folder.write("last/README.md", card.text(Standing::Last).as_bytes())?;
        if let Some(changes) = changes {
            let json = serde_json::to_string_pretty(&changes).expect("texts and numbers have a JSON form");
            folder.write("queries.json", json.as_bytes())?;
        }
        // The page says that a run is running as long as its folder is locked.
        drop(folder);
        write_report(&options.output)?;
        Ok(outcome)
    }
}

impl<O: Objective, E: RunEncoder> TrainJob<'_, O, E> {
    /// Makes the folder of a new run, or opens that of the one that is resumed. Process 0 does; the others then find it.
    fn open_folder(&self) -> Result<RunFolder, Error> {
        let Self { options, plan, begin, processes, .. } = self;
        if !processes.is_first() {
            processes.barrier();
            return Ok(RunFolder::of_another_process(&options.output)?);
        }
        let folder = match begin {
            Begin::New => RunFolder::create(&options.output, options.overwrite)?,
            Begin::Resume { .. } => RunFolder::open(&options.output)?,
        };
        // A run that is resumed without its plan was killed before it had written one.
        if *begin == Begin::New || !folder.path().join("plan.json").exists() {
            let json = serde_json::to_string_pretty(options).expect("options have a JSON form");
            folder.write("options.json", json.as_bytes())?;
            folder.write_plan(plan)?;
        }
        processes.barrier();
        Ok(folder)
    }

    /// Measures the best model, as it is in the folder, and the start on test queries.
    fn on_test<B: KernelAutodiffBackend>(
        &mut self,
        set: &EvaluationSet,
        folder: &RunFolder,
        device: &B::Device,
    ) -> Result<TestResult, Error> {
        let Self { options, start, plan, .. } = *self;
        let (train, metric) = (&options.train, options.evaluation.metric);
        let limits = EvaluationLimits {
            tokens_at_once: EvaluationLimits::tokens_of_a_step(train, plan),
            processes: &**self.processes,
        };
        let mut measure = |load: &dyn Fn() -> Result<InnerModel<E, B>, Error>| {
            let measure = || evaluate_with(&load()?, &start.tokenizer, set, metric, limits, device, self.observer);
            on_device::<B, _>("an evaluation", measure)?
        };
        let best = measure(&|| start.written::<B>(train, &folder.best(), device))?;
        let start = measure(&|| Ok(start.model::<B>(train, device)?.0.valid()))?;
        Ok(TestResult {
            bm25: bm25(set, metric, &options.language_code)?,
            comparison: compare(&start, &best, options),
            start: start.evaluation,
            best: best.evaluation,
        })
    }
}

/// The outcome of training, before test queries are measured.
fn outcome<E: RunEncoder, M>(
    options: &Options,
    start: &Start<'_, E>,
    folder: &RunFolder,
    trained: Trained<M>,
) -> Outcome {
    let (best_step, best_made_of) = trained.best.as_ref().map(|best| (best.step, best.made_of.clone())).unzip();
    let dev = trained.baseline.zip(trained.best.map(|best| best.measured));
    let differences = not_honoured(options, &start.settings, &start.head, start.family(), &start.tokenizer);
    Outcome {
        best: folder.best(),
        last: folder.last(),
        steps: trained.steps,
        stopped: trained.stopped,
        metric: options.evaluation.metric,
        best_step,
        best_made_of: best_made_of.flatten(),
        dev_comparison: dev.as_ref().and_then(|(before, after)| compare(before, after, options)),
        dev: dev.map(|(start, best)| DevResult { start: start.evaluation, best: best.evaluation }),
        candidates: trained.candidates,
        test: None,
        skipped: trained.skipped,
        overflowed: trained.overflowed,
        training_seconds: trained.training_seconds,
        peak_memory: memory::peak(),
        not_honoured: differences.iter().filter(|one| !one.by_default).map(ToString::to_string).collect(),
    }
}

/// The record that process 0 writes of a run while it goes on.
struct Record {
    log: MetricsLog,
    tensorboard: TensorboardLog,
    report: ReportWriter,
}

impl Record {
    fn open(prepared: &Prepared, folder: &RunFolder) -> Result<Self, Error> {
        write_reports(prepared, folder)?;
        let tensorboard = TensorboardLog::create(&folder.tensorboard())?;
        Ok(Self { log: folder.metrics_log()?, tensorboard, report: ReportWriter::new(folder.path()) })
    }

    fn finish(self) -> Result<(), Error> {
        self.log.finish()?;
        Ok(self.tensorboard.finish()?)
    }
}

impl Observer for Record {
    fn observe(&mut self, event: &Event) -> Flow {
        Flow::strongest([self.log.observe(event), self.tensorboard.observe(event), self.report.observe(event)])
    }
}

/// Writes the matches of a few dev queries by the best model. What keeps them from being made is a warning: the run has
/// ended well without them. A model with an encoder of another crate has none.
fn write_explanations<E: RunEncoder>(
    options: &Options,
    start: &Start<'_, E>,
    folder: &RunFolder,
    set: &EvaluationSet,
    (before, after): (&Measured, &Measured),
) -> Result<(), Error> {
    if start.encoder.own_name().is_some() {
        return Ok(());
    }
    let explained = RagPretrainedModel::from_pretrained_on(folder.best(), &options.backend)
        .and_then(|model| explain_queries(&model, set, before, after, options.evaluation.metric));
    match explained {
        Ok(explained) => {
            let json = serde_json::to_string(&explained).expect("texts and finite numbers have a JSON form");
            folder.write(explained_queries::FILE, json.as_bytes())?;
        }
        Err(error) => tracing::warn!("the report shows no matches of dev queries: {error}"),
    }
    Ok(())
}

/// Whether one model is better than another on the same queries.
fn compare(before: &Measured, after: &Measured, options: &Options) -> Option<Comparison> {
    Comparison::of_gains(&after.gains(before, options.evaluation.metric), options.evaluation.seed)
}

/// Writes `data_report.json` and `data_report.html`, `prepared.json`, and a summary of them in words as `data.txt`.
fn write_reports(prepared: &Prepared, folder: &RunFolder) -> Result<(), Error> {
    let json = serde_json::to_string_pretty(&prepared.report).expect("numbers and names have a JSON form");
    folder.write("prepared.json", json.as_bytes())?;
    let mut words = format!("{}\n", prepared.report.to_string().trim_end());
    prepared.data.write_json(&folder.path().join("data_report.json"))?;
    write_data_page(&prepared.data, &folder.path().join("data_report.html"))?;
    for finding in &prepared.data.findings {
        words += &format!("{}: {}; {}\n", finding.severity, finding.message, finding.fix);
    }
    folder.write("data.txt", words.as_bytes())?;
    Ok(())
}

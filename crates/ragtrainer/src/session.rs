//! A run from options and texts to a model directory: what the facade and the command line share.

use std::fmt;
use std::path::{Path, PathBuf};

use burn::module::AutodiffModule;
use colbert_config::{ArtifactMetadata, EvaluationOptions, Metric, Options, Plan, Precision, TrainOptions, resolve};
use colbert_data::{Bm25Index, DataReport, EvaluationSet, PrepareReport, Remining, TextAnalysis, TrainingSet};
use colbert_kernels::{KernelAutodiffBackend, KernelBackend};
use colbert_model::{
    Colbert, ColbertSettings, ColbertTokenizer, Export, HostTensor, LoadReport, Pretrained, PretrainedEncoder,
    TrainingMemory, export,
};
use colbert_train::{
    ColbertObjective, Dev, Evaluation, Event, Observer, RefreshExamples, RunFolder, TrainError, Training, evaluate,
};
use serde::Serialize;

use crate::backend::{Backend, Job};
use crate::card::model_card;
use crate::error::Error;
use crate::memory::{peak_memory, within_limit};
use crate::miner::Refresher;

/// Ranking depth of the BM25 comparison: enough for every metric that is reported.
const BM25_DEPTH: usize = 100;

/// What a run is made of besides its options.
#[derive(Debug, Clone, Copy)]
pub struct RunData<'a> {
    /// Examples.
    pub set: &'a TrainingSet,
    /// Queries that choose the best model.
    pub dev: Option<&'a EvaluationSet>,
    /// Queries that are measured before and after.
    pub test: Option<&'a EvaluationSet>,
    /// Language of the texts, for the BM25 comparison.
    pub language_code: &'a str,
    /// What is wrong with the data; written into the run folder before the first step.
    pub report: Option<&'a DataReport>,
    /// Where the negatives came from; written beside it.
    pub prepared: Option<&'a PrepareReport>,
    /// What negatives are chosen anew from at the start of every epoch but the first.
    pub remining: Option<&'a Remining>,
}

/// What came out of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Directory of the best model, in the layout that other late-interaction stacks read (docs/interop.md).
    pub best: PathBuf,
    /// Directory of the last model.
    pub last: PathBuf,
    /// Steps done.
    pub steps: usize,
    /// Whether the run was stopped before its last step.
    pub stopped: bool,
    /// Metric that chose the best model.
    pub metric: Metric,
    /// Steps after which the model was best; 0 means that no checkpoint beat the start. None without dev queries: then
    /// the best model is the last.
    pub best_step: Option<usize>,
    /// Dev queries: before training, and the best model.
    pub dev: Option<[Evaluation; 2]>,
    /// Test queries.
    pub test: Option<TestResult>,
    /// Time spent in training steps, in seconds.
    pub training_seconds: f64,
    /// Most bytes of memory that the process had at once, where the system counts them.
    pub peak_memory: Option<u64>,
}

/// Three systems on the same test queries and documents.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TestResult {
    /// BM25 (k1 1.2, b 0.75).
    pub bm25: Evaluation,
    /// The model before training.
    pub start: Evaluation,
    /// The best model.
    pub best: Evaluation,
}

/// What is known before the first step.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// The plan.
    pub plan: Plan,
    /// What became of the tensors of the directory that training starts from.
    pub loaded: LoadReport,
    /// Parameters of the model.
    pub parameters: usize,
    /// Where it runs.
    pub backend: Backend,
    /// Whether bfloat16 was asked for and is not to be had there.
    pub falls_back: bool,
}

impl fmt::Display for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let million = self.parameters as f64 / 1e6;
        write!(f, "model: {million:.1} M parameters on {}; {} tensors taken", self.backend, self.loaded.taken)?;
        if !self.loaded.initialised.is_empty() {
            write!(f, ", drawn at random: {}", self.loaded.initialised.join(", "))?;
        }
        if !self.loaded.ignored.is_empty() {
            write!(f, ", ignored: {}", self.loaded.ignored.join(", "))?;
        }
        if self.falls_back {
            write!(f, "\nbfloat16 was asked for, but this device has no faster products for it: float32 it is")?;
        }
        write!(f, "\n{}", self.plan)
    }
}

/// Checks everything that can be checked before the first step: options, model, tokenizer, plan. Writes nothing.
///
/// # Errors
/// Whatever would make the run fail at its start.
pub fn preview(options: &Options, set: &TrainingSet) -> Result<Preview, Error> {
    options.validate()?;
    let backend = Backend::from_name(&options.backend)?;
    let start = Start::read(options)?;
    let plan = start.plan(options, backend, set)?;
    struct Load<'a> {
        start: &'a Start,
        options: &'a Options,
    }
    impl Job for Load<'_> {
        type Output = Result<(LoadReport, usize), Error>;

        fn run<B: KernelAutodiffBackend>(self, device: &B::Device) -> Self::Output {
            let (model, report) = self.start.model::<B>(self.options, device)?;
            Ok((report, burn::module::Module::num_params(&model)))
        }
    }
    let (loaded, parameters) = backend.run(Load { start: &start, options })?;
    let falls_back = options.train.precision == Precision::Bf16 && plan.precision != Precision::Bf16;
    Ok(Preview { plan, loaded, parameters, backend, falls_back })
}

/// Trains and measures.
///
/// # Errors
/// Whatever the crates below report; what was written before stays.
pub fn train(options: &Options, data: RunData<'_>, observer: &mut dyn Observer) -> Result<Outcome, Error> {
    options.validate()?;
    if options.output.as_os_str().is_empty() {
        let hint = "name a folder for the run with --output, or output = \"...\" in the config file";
        return Err(Error::NotSet { option: "output", hint });
    }
    let backend = Backend::from_name(&options.backend)?;
    let start = Start::read(options)?;
    let plan = start.plan(options, backend, data.set)?;
    RunFolder::check(&options.output, options.overwrite)?;
    backend.run(TrainJob { options, data, plan, start, observer })
}

/// Measures the model in a directory, with the lengths and masks it declares, beside BM25 on the same queries.
///
/// A directory that is no ColBERT yet gets a random projection; the load report says so.
///
/// # Errors
/// A directory that cannot be read, or a set without relevant documents.
pub fn evaluate_directory(
    directory: &Path,
    set: &EvaluationSet,
    options: &EvaluationOptions,
    backend: &str,
    observer: &mut dyn Observer,
) -> Result<(LoadReport, [Evaluation; 2]), Error> {
    let pretrained = Pretrained::read(directory)?;
    let settings = pretrained.declared_settings().unwrap_or_default();
    let job = EvaluateJob { pretrained: &pretrained, settings: &settings, set, metric: options.metric, observer };
    let (loaded, own) = Backend::from_name(backend)?.run(job)?;
    Ok((loaded, [bm25(set, options.metric, "en")?, own]))
}

/// BM25 on a set.
fn bm25(set: &EvaluationSet, metric: Metric, language_code: &str) -> Result<Evaluation, Error> {
    let index = Bm25Index::new(&set.collection, &TextAnalysis::for_language(language_code))?;
    let rankings = index.rank(&set.queries, BM25_DEPTH)?;
    let pids: Vec<Vec<u32>> = rankings.into_iter().map(|row| row.into_iter().map(|hit| hit.pid).collect()).collect();
    Ok(Evaluation::of_rankings(set, &pids, metric)?)
}

/// The directory that training starts from.
struct Start {
    pretrained: Pretrained,
    settings: ColbertSettings,
    tokenizer: ColbertTokenizer,
}

impl Start {
    fn read(options: &Options) -> Result<Self, Error> {
        if options.pretrained_model_name.is_empty() {
            let hint = "name the folder of a BERT encoder with --pretrained-model-name, or in the config file";
            return Err(Error::NotSet { option: "pretrained_model_name", hint });
        }
        let pretrained = Pretrained::read(Path::new(&options.pretrained_model_name))?;
        let settings = pretrained.settings(&options.train);
        let tokenizer = pretrained.tokenizer(&settings)?;
        Ok(Self { pretrained, settings, tokenizer })
    }

    /// The plan on a backend: a precision that the device gains by, and as many micro-batches as memory asks for.
    fn plan(&self, options: &Options, backend: Backend, set: &TrainingSet) -> Result<Plan, Error> {
        let precision = match options.train.precision {
            Precision::Auto | Precision::Bf16 if backend.has_bf16() => Precision::Bf16,
            _ => Precision::F32,
        };
        let train = TrainOptions { precision, ..options.train.clone() };
        if backend != Backend::Flex {
            return match train.memory_limit {
                Some(_) => Err(Error::LimitOfDevice { backend }),
                None => Ok(resolve(&train, set.examples.len())?),
            };
        }
        let (train, bytes) = within_limit(&train, TrainingMemory::of(&self.pretrained.config, train.dim))?;
        Ok(Plan { memory: Some(bytes), ..resolve(&train, set.examples.len())? })
    }

    fn model<B: KernelAutodiffBackend>(
        &self,
        options: &Options,
        device: &B::Device,
    ) -> Result<(Colbert<B, PretrainedEncoder<B>>, LoadReport), Error> {
        let train = &options.train;
        Ok(self.pretrained.model::<B>(&self.settings, train.dropout, train.seed, device)?)
    }
}

struct TrainJob<'a> {
    options: &'a Options,
    data: RunData<'a>,
    plan: Plan,
    start: Start,
    observer: &'a mut dyn Observer,
}

impl Job for TrainJob<'_> {
    type Output = Result<Outcome, Error>;

    fn run<B: KernelAutodiffBackend>(self, device: &B::Device) -> Self::Output {
        let Self { options, data, plan, start, observer } = self;
        let metric = options.evaluation.metric;
        // An old run is only replaced once the new one can start.
        let (model, _) = start.model::<B>(options, device)?;
        let folder = RunFolder::create(&options.output, options.overwrite)?;
        folder.write_plan(&plan)?;
        write_reports(data, folder.path())?;
        let measure = |model: &Colbert<B::InnerBackend, PretrainedEncoder<B::InnerBackend>>,
                       observer: &mut dyn Observer| {
            let Some(set) = data.test else { return Ok(None) };
            evaluate_with(model, &start.tokenizer, set, metric, device, observer).map(Some)
        };
        let start_on_test = measure(&model.valid(), observer)?;

        let writer = ModelWriter { options, start: &start, plan: &plan };
        let mut log = folder.metrics_log()?;
        let training = Training {
            set: data.set,
            dev: data.dev.map(|set| Dev { set, metric }),
            tokenizer: &start.tokenizer,
            options: &options.train,
            plan: &plan,
            objective: &ColbertObjective::from(&options.train),
            folder: Some(&folder),
            write_model: &|tensors, path| writer.write::<B::InnerBackend>(tensors, path, device),
            observers: vec![&mut log, &mut *observer],
            device,
        };
        let mut refresher = match data.remining {
            Some(remining) => Some(Refresher::<B>::new(options, remining, data.set, &start.tokenizer, device)?),
            None => None,
        };
        let refresh =
            refresher.as_mut().map(|refresher| refresher as &mut dyn RefreshExamples<B, PretrainedEncoder<B>>);
        let trained = training.run_refreshed(model, None, refresh)?;
        log.finish()?;

        let test = match (data.test, start_on_test) {
            (Some(set), Some(start_on_test)) => {
                let best = Pretrained::read(&folder.best())?;
                let (best, _) = best.model::<B::InnerBackend>(&start.settings, None, 0, device)?;
                let best = measure(&best, observer)?.expect("there is a test set");
                Some(TestResult { bm25: bm25(set, metric, data.language_code)?, start: start_on_test, best })
            }
            _ => None,
        };
        let best_step = trained.best.as_ref().map(|(step, _)| *step);
        let dev = trained.baseline.zip(trained.best).map(|(before, (_, after))| [before, after]);
        let outcome = Outcome {
            best: folder.best(),
            last: folder.last(),
            steps: trained.steps,
            stopped: trained.stopped,
            metric,
            best_step,
            dev,
            test,
            training_seconds: trained.training_seconds,
            peak_memory: peak_memory(),
        };
        write_outcome(&outcome, &folder)?;
        Ok(outcome)
    }
}

struct EvaluateJob<'a> {
    pretrained: &'a Pretrained,
    settings: &'a ColbertSettings,
    set: &'a EvaluationSet,
    metric: Metric,
    observer: &'a mut dyn Observer,
}

impl Job for EvaluateJob<'_> {
    type Output = Result<(LoadReport, Evaluation), Error>;

    fn run<B: KernelAutodiffBackend>(self, device: &B::Device) -> Self::Output {
        let tokenizer = self.pretrained.tokenizer(self.settings)?;
        let (model, loaded) = self.pretrained.model::<B::InnerBackend>(self.settings, None, 0, device)?;
        Ok((loaded, evaluate_with(&model, &tokenizer, self.set, self.metric, device, self.observer)?))
    }
}

/// Evaluates, telling the observer how far it is.
fn evaluate_with<B: KernelBackend>(
    model: &Colbert<B, PretrainedEncoder<B>>,
    tokenizer: &ColbertTokenizer,
    set: &EvaluationSet,
    metric: Metric,
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<Evaluation, Error> {
    let total = set.collection.len();
    let mut progress = |done| {
        observer.observe(&Event::Evaluating { done, total });
    };
    Ok(evaluate(model, tokenizer, set, metric, device, &mut progress)?)
}

/// Writes model directories during a run.
struct ModelWriter<'a> {
    options: &'a Options,
    start: &'a Start,
    plan: &'a Plan,
}

impl ModelWriter<'_> {
    fn write<B: KernelBackend>(
        &self,
        tensors: &[(String, HostTensor)],
        path: &Path,
        device: &B::Device,
    ) -> Result<(), TrainError> {
        let parent = Path::new(&self.options.pretrained_model_name);
        // A published directory names what it was made from, not where that lay on this machine.
        let base = parent.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let settings = &self.start.settings;
        let metadata = ArtifactMetadata {
            query_token_id: settings.query_token_id.clone(),
            doc_token_id: settings.doc_token_id.clone(),
            ..ArtifactMetadata::from_training(&self.options.train, self.plan, &base)
        };
        let card = [("README.md", model_card(self.options, self.plan, &base))];
        let directory =
            Export { tensors, settings, files: &self.start.pretrained.files, metadata: &metadata, extra: &card };
        Ok(export::<B>(&directory, path, true, device)?)
    }
}

/// `data_report.json` and `data_report.html`, and `prepared.json`.
fn write_reports(data: RunData<'_>, folder: &Path) -> Result<(), Error> {
    if let Some(report) = data.report {
        report.write_json(&folder.join("data_report.json"))?;
        report.write_html(&folder.join("data_report.html"))?;
    }
    if let Some(prepared) = data.prepared {
        let path = folder.join("prepared.json");
        let json = serde_json::to_string_pretty(prepared).expect("numbers and names have a JSON form");
        std::fs::write(&path, json).map_err(|source| Error::Io { action: "write", path, source })?;
    }
    Ok(())
}

fn write_outcome(outcome: &Outcome, folder: &RunFolder) -> Result<(), Error> {
    let path = folder.path().join("outcome.json");
    let json = serde_json::to_string_pretty(outcome).expect("numbers and names have a JSON form");
    std::fs::write(&path, json).map_err(|source| Error::Io { action: "write", path, source })
}

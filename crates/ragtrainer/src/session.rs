//! A run from options and texts to a model directory: what the facade and the command line share.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use colbert_config::{ArtifactMetadata, EvaluationOptions, Metric, Options, Plan, Precision, TrainOptions, resolve};
use colbert_data::{Bm25Index, DataReport, EvaluationSet, PrepareReport, Remining, TextAnalysis, TrainingSet};
use colbert_kernels::{KernelAutodiffBackend, KernelBackend};
use colbert_model::{
    Colbert, ColbertSettings, ColbertTokenizer, Export, HostTensor, LoadReport, Pretrained, PretrainedEncoder,
    TrainingMemory, export,
};
use colbert_train::{
    Begin, Candidate, ColbertObjective, Comparison, Dev, Evaluation, Event, Measured, Observer, RefreshExamples,
    RunFolder, TensorboardLog, TrainError, Training, evaluate,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::backend::{Backend, Job};
use crate::card::model_card;
use crate::error::Error;
use crate::memory::{peak_memory, within_limit};
use crate::miner::Refresher;
use crate::report::{ReportWriter, write_report};
use crate::run_record::{QueryChange, QueryChanges};

/// Ranking depth of the BM25 comparison: enough for every metric that is reported.
const BM25_DEPTH: usize = 100;

/// Queries shown that gained most, and as many that lost most.
const SHOWN_QUERIES: usize = 10;

/// Relevant documents shown of each.
const SHOWN_RELEVANT: usize = 2;

/// Characters shown of a document.
const CLIPPED: usize = 400;

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// What the best model is made of, if it is an average or a mixture.
    pub best_made_of: Option<String>,
    /// Dev queries: before training, and the best model.
    pub dev: Option<[Evaluation; 2]>,
    /// Whether the best model beats the start on dev queries. Chosen as the best of several on the same queries, it looks
    /// better there than it is.
    pub dev_comparison: Option<Comparison>,
    /// Averages and mixtures that were measured at the end.
    pub candidates: Vec<Candidate>,
    /// Test queries. None without them, and where the run was stopped.
    pub test: Option<TestResult>,
    /// Steps that were left out, as their loss or gradient was not finite (`train.on_nonfinite`).
    pub skipped: usize,
    /// Time spent in training steps, in seconds, of all the processes that had a part in the run.
    pub training_seconds: f64,
    /// Most bytes of memory that the process had at once, where the system counts them.
    pub peak_memory: Option<u64>,
}

/// Three systems on the same test queries and documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// BM25 (k1 1.2, b 0.75).
    pub bm25: Evaluation,
    /// The model before training.
    pub start: Evaluation,
    /// The best model.
    pub best: Evaluation,
    /// Whether the best model beats the start; these queries had no part in the choice.
    pub comparison: Option<Comparison>,
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

/// Trains and measures. `begin` says whether `options.output` gets a new run or the one in it is taken up.
///
/// # Errors
/// Whatever the crates below report; what was written before stays.
pub fn train(
    options: &Options,
    data: RunData<'_>,
    begin: Begin,
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    options.validate()?;
    if options.output.as_os_str().is_empty() {
        let hint = "name a folder for the run with --output, or output = \"...\" in the config file";
        return Err(Error::NotSet { option: "output", hint });
    }
    let backend = Backend::from_name(&options.backend)?;
    let start = Start::read(options)?;
    let plan = start.plan(options, backend, data.set)?;
    if begin == Begin::Anew {
        RunFolder::check(&options.output, options.overwrite)?;
    }
    backend.run(TrainJob { options, data, plan, start, begin, observer })
}

/// The options that a run in a folder was started with, to be put below others; see [`colbert_config::Layers::file`].
///
/// # Errors
/// The folder holds no run.
pub fn options_of_run(folder: &Path) -> Result<PathBuf, Error> {
    let path = RunFolder::options(folder);
    if path.is_file() { Ok(path) } else { Err(TrainError::NoRun { path: folder.to_owned() }.into()) }
}

/// Options that a checkpoint is tied to, besides those of training: names and files do not matter, what is in the files
/// is compared by itself.
fn tied(options: &Options) -> BTreeMap<String, Value> {
    let mut tied = BTreeMap::new();
    if let Value::Object(sections) = serde_json::to_value(options).expect("options have a JSON form") {
        for (name, value) in sections {
            match value {
                Value::Object(own) if name == "negatives" || name == "evaluation" => {
                    tied.extend(own.into_iter().map(|(own, value)| (format!("{name}.{own}"), value)));
                }
                value if name == "backend" || name == "language_code" => drop(tied.insert(name, value)),
                _ => {}
            }
        }
    }
    tied
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
    Ok((loaded, [bm25(set, options.metric, "en")?, own.evaluation]))
}

/// BM25 on a set.
fn bm25(set: &EvaluationSet, metric: Metric, language_code: &str) -> Result<Evaluation, Error> {
    let index = Bm25Index::new(&set.collection, &TextAnalysis::for_language(language_code))?;
    let rankings = index.rank(&set.queries, BM25_DEPTH)?;
    let pids: Vec<Vec<u32>> = rankings.into_iter().map(|row| row.into_iter().map(|hit| hit.pid).collect()).collect();
    Ok(Measured::of_rankings(set, &pids, metric)?.evaluation)
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
    begin: Begin,
    observer: &'a mut dyn Observer,
}

impl Job for TrainJob<'_> {
    type Output = Result<Outcome, Error>;

    fn run<B: KernelAutodiffBackend>(self, device: &B::Device) -> Self::Output {
        let Self { options, data, plan, start, begin, observer } = self;
        let metric = options.evaluation.metric;
        // An old run is only replaced once the new one can start.
        let (model, _) = start.model::<B>(options, device)?;
        let folder = match begin {
            Begin::Anew => RunFolder::create(&options.output, options.overwrite)?,
            Begin::Resume { .. } => RunFolder::open(&options.output)?,
        };
        // A run that is taken up without its plan was killed before it had written one.
        if begin == Begin::Anew || !folder.path().join("plan.json").exists() {
            let json = serde_json::to_string_pretty(options).expect("options have a JSON form");
            folder.write("options.json", json.as_bytes())?;
            folder.write_plan(&plan)?;
        }
        write_reports(data, &folder)?;

        let writer = ModelWriter { options, start: &start, plan: &plan };
        let mut log = folder.metrics_log()?;
        let mut tensorboard = TensorboardLog::create(&folder.tensorboard())?;
        let mut report = ReportWriter::new(folder.path());
        let training = Training {
            set: data.set,
            dev: data.dev.map(|set| Dev { set, options: &options.evaluation }),
            tokenizer: &start.tokenizer,
            options: &options.train,
            further_options: tied(options),
            plan: &plan,
            objective: &ColbertObjective::from(&options.train),
            folder: Some(&folder),
            write_model: &|tensors, path| writer.write::<B::InnerBackend>(tensors, path, device),
            observers: vec![&mut log, &mut tensorboard, &mut report, &mut *observer],
            device,
        };
        let mut refresher = match data.remining {
            Some(remining) => Some(Refresher::<B>::new(options, remining, data.set, &start.tokenizer, device)?),
            None => None,
        };
        let refresh =
            refresher.as_mut().map(|refresher| refresher as &mut dyn RefreshExamples<B, PretrainedEncoder<B>>);
        let trained = training.run_refreshed(model, begin, refresh);
        // If the record could not be written, that is the reason to tell.
        log.finish()?;
        tensorboard.finish()?;
        let trained = trained?;

        let mut on_test = |set: &EvaluationSet| -> Result<TestResult, Error> {
            let mut measure = |pretrained: &Pretrained| {
                let train = &options.train;
                let (model, _) = pretrained.model::<B::InnerBackend>(&start.settings, None, train.seed, device)?;
                evaluate_with(&model, &start.tokenizer, set, metric, device, observer)
            };
            let best = measure(&Pretrained::read(&folder.best())?)?;
            let start = measure(&start.pretrained)?;
            Ok(TestResult {
                bm25: bm25(set, metric, data.language_code)?,
                comparison: compare(&start, &best, options),
                start: start.evaluation,
                best: best.evaluation,
            })
        };
        let (test, stopped) = match data.test {
            Some(set) if !trained.stopped => match on_test(set) {
                Err(Error::Train(TrainError::Interrupted)) => (None, true),
                measured => (Some(measured?), false),
            },
            _ => (None, trained.stopped),
        };
        let (best_step, best_made_of) = trained.best.as_ref().map(|best| (best.step, best.made_of.clone())).unzip();
        let dev = trained.baseline.zip(trained.best).map(|(before, best)| [before, best.measured]);
        let changes = data
            .dev
            .zip(dev.as_ref())
            .map(|(set, [before, after])| query_changes(set, before, after, options.evaluation.metric));
        let outcome = Outcome {
            best: folder.best(),
            last: folder.last(),
            steps: trained.steps,
            stopped,
            metric,
            best_step,
            best_made_of: best_made_of.flatten(),
            dev_comparison: dev.as_ref().and_then(|[before, after]| compare(before, after, options)),
            dev: dev.map(|both| both.map(|measured| measured.evaluation)),
            candidates: trained.candidates,
            test,
            skipped: trained.skipped,
            training_seconds: trained.training_seconds,
            peak_memory: peak_memory(),
        };
        let json = serde_json::to_string_pretty(&outcome).expect("numbers and names have a JSON form");
        folder.write("outcome.json", json.as_bytes())?;
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

/// Whether one model is better than another on the same queries.
fn compare(before: &Measured, after: &Measured, options: &Options) -> Option<Comparison> {
    Comparison::of_gains(&after.gains(before, options.evaluation.metric), options.evaluation.seed)
}

/// The queries that gained and lost most.
fn query_changes(set: &EvaluationSet, before: &Measured, after: &Measured, metric: Metric) -> QueryChanges {
    let clipped = |pid: u32| {
        let text = set.collection.text(pid);
        let end = text.char_indices().nth(CLIPPED).map_or(text.len(), |(end, _)| end);
        format!("{}{}", &text[..end], if end < text.len() { " ..." } else { "" })
    };
    let mut changes = QueryChanges::default();
    let mut all: Vec<(f64, QueryChange)> = Vec::new();
    for (old, new) in before.queries.iter().zip(&after.queries) {
        let (Some(was), Some(is)) = (old.value, new.value) else { continue };
        let gain = metric.gain(was, is);
        match gain {
            gain if gain > 0.0 => changes.better += 1,
            gain if gain < 0.0 => changes.worse += 1,
            _ => changes.same += 1,
        }
        let first = |ranking: &[u32]| ranking.first().map_or_else(String::new, |&pid| clipped(pid));
        let change = QueryChange {
            query: set.queries.text(old.qid).to_owned(),
            before: was,
            after: is,
            rank_before: old.rank,
            rank_after: new.rank,
            relevant: set.judgements.positives(old.qid).take(SHOWN_RELEVANT).map(clipped).collect(),
            first_before: first(&old.first),
            first_after: first(&new.first),
        };
        all.push((gain, change));
    }
    all.sort_by(|one, other| other.0.total_cmp(&one.0));
    let lost = all.iter().rev().take(SHOWN_QUERIES).filter(|(gain, _)| *gain < 0.0);
    changes.lost = lost.map(|(_, change)| change.clone()).collect();
    let gained = all.into_iter().take(SHOWN_QUERIES).filter(|(gain, _)| *gain > 0.0);
    changes.gained = gained.map(|(_, change)| change).collect();
    changes
}

struct EvaluateJob<'a> {
    pretrained: &'a Pretrained,
    settings: &'a ColbertSettings,
    set: &'a EvaluationSet,
    metric: Metric,
    observer: &'a mut dyn Observer,
}

impl Job for EvaluateJob<'_> {
    type Output = Result<(LoadReport, Measured), Error>;

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
) -> Result<Measured, Error> {
    let total = set.collection.len();
    let mut progress = |done| observer.observe(&Event::Evaluating { done, total });
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

/// `data_report.json` and `data_report.html`, `prepared.json`, and the gist of them in words as `data.txt`.
fn write_reports(data: RunData<'_>, folder: &RunFolder) -> Result<(), Error> {
    let mut words = String::new();
    if let Some(prepared) = data.prepared {
        let json = serde_json::to_string_pretty(prepared).expect("numbers and names have a JSON form");
        folder.write("prepared.json", json.as_bytes())?;
        words = format!("{}\n", prepared.to_string().trim_end());
    }
    if let Some(report) = data.report {
        report.write_json(&folder.path().join("data_report.json"))?;
        report.write_html(&folder.path().join("data_report.html"))?;
        for finding in &report.findings {
            words += &format!("{}: {}; {}\n", finding.severity, finding.message, finding.mend);
        }
    }
    folder.write("data.txt", words.as_bytes())?;
    Ok(())
}

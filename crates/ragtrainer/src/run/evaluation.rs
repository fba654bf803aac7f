//! A model and BM25 on the same queries and documents.

use std::path::Path;

use colbert_config::{EvaluationOptions, Metric};
use colbert_data::{Bm25Index, Candidates, EvaluationSet, TextAnalysis, check_language_code, language_mismatch};
use colbert_kernels::{KernelAutodiffBackend, KernelBackend};
use colbert_model::{Colbert, ColbertSettings, ColbertTokenizer, Encoder, LoadReport, Pretrained};
use colbert_train::{
    Evaluation, EvaluationLimits, Event, Measured, Observer, OneProcess, Processes, QueryResult, Task,
};

use crate::backend::{Backend, Job};
use crate::error::Error;
use crate::source::read_model;

/// Ranking depth of the BM25 comparison: enough for every metric that is reported.
const BM25_DEPTH: usize = 100;

/// The measurements of a model directory, beside BM25 on the same queries.
#[derive(Debug, Clone, PartialEq)]
pub struct DirectoryEvaluation {
    /// Tensors of the directory that were loaded, ignored or drawn.
    pub loaded: LoadReport,
    /// BM25 (k1 1.2, b 0.75).
    pub bm25: Evaluation,
    /// The model.
    pub model: Evaluation,
    /// The queries one by one, as BM25 ranks for them.
    pub bm25_queries: Vec<QueryResult>,
    /// The same queries in the same order, as the model ranks for them.
    pub model_queries: Vec<QueryResult>,
}

impl DirectoryEvaluation {
    /// Returns the mean of several evaluations, each folder counting alike, as NanoBEIR takes it: BM25 and model. Queries
    /// are those of all folders, documents too. A metric that one of them lacks is left out.
    pub fn mean(evaluations: &[Self]) -> (Evaluation, Evaluation) {
        let of = |part: fn(&Self) -> &Evaluation| {
            let parts: Vec<&Evaluation> = evaluations.iter().map(part).collect();
            let metrics = parts.first().map_or(&[][..], |first| &first.metrics).iter();
            let means = metrics.filter_map(|(metric, _)| {
                let values: Option<Vec<f64>> = parts.iter().map(|part| part.value(*metric)).collect();
                Some((*metric, values?.iter().sum::<f64>() / parts.len() as f64))
            });
            Evaluation {
                queries: parts.iter().map(|part| part.queries).sum(),
                documents: parts.iter().map(|part| part.documents).sum(),
                metrics: means.collect(),
            }
        };
        (of(|one| &one.bm25), of(|one| &one.model))
    }
}

/// Choices of how a model directory is measured, beside [`EvaluationOptions`].
#[derive(Debug, Clone)]
pub struct DirectoryChoice<'a> {
    /// Numbers of each vector that are kept, brought back to length 1; none keeps all.
    pub dim: Option<usize>,
    /// Documents that each query is ranked against, by the model and by BM25; none for the whole corpus.
    pub candidates: Option<Candidates>,
    /// Processes that share the documents; all make the same call, and all get the result.
    pub processes: &'a dyn Processes,
}

impl Default for DirectoryChoice<'_> {
    fn default() -> Self {
        Self { dim: None, candidates: None, processes: &OneProcess }
    }
}

/// Measures the model in a directory, or of this name on the hub, with the lengths and masks it declares, beside BM25
/// for the language of the texts on the same queries.
///
/// A directory that is no ColBERT yet gets a random projection; the load report says so. Texts of another language than
/// the code says are a warning in the log: BM25 would be too easy to beat.
///
/// # Errors
/// A language that is not known, a model that cannot be read, or a set without relevant documents.
pub fn evaluate_directory(
    directory: &Path,
    set: &EvaluationSet,
    options: &EvaluationOptions,
    language_code: &str,
    backend: &str,
    observer: &mut dyn Observer,
) -> Result<DirectoryEvaluation, Error> {
    let choice = DirectoryChoice::default();
    evaluate_directory_with(directory, set, options, &choice, language_code, backend, observer)
}

/// As [`evaluate_directory`], with vectors cut to a size, or among candidates. A relevant document that is no candidate
/// counts as not found.
///
/// # Errors
/// As [`evaluate_directory`], or a size that the vectors do not have.
pub fn evaluate_directory_with(
    directory: &Path,
    set: &EvaluationSet,
    options: &EvaluationOptions,
    choice: &DirectoryChoice<'_>,
    language_code: &str,
    backend: &str,
    observer: &mut dyn Observer,
) -> Result<DirectoryEvaluation, Error> {
    check_language_code(language_code)?;
    if let Some(finding) = language_mismatch(&set.queries, &set.collection, language_code) {
        tracing::warn!("{}; {}", finding.message, finding.fix);
    }
    let pretrained = read_model(directory)?;
    let settings = pretrained.declared_settings().unwrap_or_else(|| pretrained.default_settings());
    if let Some(found) = choice.dim.filter(|dim| !(1..=settings.dim).contains(dim)) {
        return Err(Error::NoSuchSize { path: pretrained.directory().to_owned(), found, dim: settings.dim });
    }
    let metric = options.metric;
    let job = EvaluateJob { pretrained: &pretrained, settings: &settings, set, choice, metric, observer };
    let (loaded, own) = Backend::of_process(backend, choice.processes.local_rank())?.run(job)?;
    let words = measured_bm25(set, choice.candidates.as_ref(), options.metric, language_code)?;
    Ok(DirectoryEvaluation {
        loaded,
        bm25: words.evaluation,
        model: own.evaluation,
        bm25_queries: words.queries,
        model_queries: own.queries,
    })
}

/// BM25 on a set.
pub(crate) fn bm25(set: &EvaluationSet, metric: Metric, language_code: &str) -> Result<Evaluation, Error> {
    Ok(measured_bm25(set, None, metric, language_code)?.evaluation)
}

fn measured_bm25(
    set: &EvaluationSet,
    candidates: Option<&Candidates>,
    metric: Metric,
    language_code: &str,
) -> Result<Measured, Error> {
    let index = Bm25Index::new(&set.collection, &TextAnalysis::for_language(language_code))?;
    let rankings = match candidates {
        Some(candidates) => index.rank_among(&set.queries, candidates)?,
        None => index.rank(&set.queries, BM25_DEPTH)?,
    };
    let pids: Vec<Vec<u32>> = rankings.into_iter().map(|row| row.into_iter().map(|hit| hit.pid).collect()).collect();
    let mut measured = Measured::of_rankings(set, &pids, metric)?;
    measured.evaluation.documents = candidates.map_or(set.collection.len(), Candidates::mean);
    Ok(measured)
}

struct EvaluateJob<'a> {
    pretrained: &'a Pretrained,
    settings: &'a ColbertSettings,
    set: &'a EvaluationSet,
    choice: &'a DirectoryChoice<'a>,
    metric: Metric,
    observer: &'a mut dyn Observer,
}

impl Job for EvaluateJob<'_> {
    type Output = Result<(LoadReport, Measured), Error>;

    fn run<B: KernelAutodiffBackend>(self, device: &B::Device) -> Self::Output {
        let tokenizer = self.pretrained.tokenizer(self.settings)?;
        let (mut model, loaded) = self.pretrained.model::<B::InnerBackend>(self.settings, None, 0, device)?;
        model.head.cut_to = self.choice.dim;
        let candidates = self.choice.candidates.as_ref();
        let task = Task { set: self.set, candidates, chosen: self.metric };
        let limits = EvaluationLimits { processes: self.choice.processes, ..EvaluationLimits::default() };
        let total = candidates.map_or(self.set.collection.len(), Candidates::distinct);
        let mut progress = |done| self.observer.observe(&Event::Evaluating { done, total });
        Ok((loaded, task.evaluate(&model, &tokenizer, limits, device, &mut progress)?))
    }
}

/// Evaluates, telling the observer how far it is.
pub(crate) fn evaluate_with<B: KernelBackend, E: Encoder<B>>(
    model: &Colbert<B, E>,
    tokenizer: &ColbertTokenizer,
    set: &EvaluationSet,
    metric: Metric,
    limits: EvaluationLimits<'_>,
    device: &B::Device,
    observer: &mut dyn Observer,
) -> Result<Measured, Error> {
    let total = set.collection.len();
    let mut progress = |done| observer.observe(&Event::Evaluating { done, total });
    let task = Task { set, candidates: None, chosen: metric };
    Ok(task.evaluate(model, tokenizer, limits, device, &mut progress)?)
}

//! Retrieval quality on held-out queries, by exact MaxSim over every document of the set.

use colbert_config::{Metric, Plan, TrainOptions};
use colbert_data::{Candidates, EvaluationSet};
use colbert_kernels::KernelBackend;
use colbert_model::{Colbert, ColbertTokenizer, Encoder};
use serde::{Deserialize, Serialize};

use crate::best::metrics::metric_value;
use crate::best::scoring::{QUERIES_HELD, SCORES_HELD, Scorer};
use crate::best::standing::{REMEMBERED, Standing};
use crate::error::TrainError;
use crate::flow::Flow;
use crate::processes::{OneProcess, Processes};

/// The metrics that are always reported, besides the one that was chosen.
const REPORTED: [Metric; 4] = [Metric::Ndcg(10), Metric::Mrr(10), Metric::Recall(10), Metric::Recall(100)];

/// Retrieval quality of one model on one set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Queries measured: those with a relevant document.
    pub queries: usize,
    /// Documents ranked for each of them; on average, among candidates.
    pub documents: usize,
    /// Each metric and its mean over queries; one that has no finite mean is left out.
    pub metrics: Vec<(Metric, f64)>,
}

/// An evaluation, and the results of its queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Means over queries.
    pub evaluation: Evaluation,
    /// The queries one by one.
    pub queries: Vec<QueryResult>,
}

/// The result of one query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryResult {
    /// Id in the evaluation set.
    pub qid: u32,
    /// Value of the chosen metric; none if it is not finite.
    pub value: Option<f64>,
    /// Rank of the first relevant document, from 1.
    pub rank: Option<usize>,
    /// The first documents of the ranking.
    pub first: Vec<u32>,
}

impl Measured {
    /// Returns how much better each query is here than in `before`, in the metric by which both were chosen. Queries
    /// without a finite value are left out.
    pub fn gains(&self, before: &Self, metric: Metric) -> Vec<f64> {
        let pairs = before.queries.iter().zip(&self.queries);
        pairs.filter_map(|(old, new)| Some(metric.gain(old.value?, new.value?))).collect()
    }
}

impl Evaluation {
    /// Returns the mean of a metric, if it was measured.
    pub fn value(&self, metric: Metric) -> Option<f64> {
        self.metrics.iter().find(|(name, _)| *name == metric).map(|(_, value)| *value)
    }
}

impl Measured {
    /// Evaluates rankings that were made elsewhere, such as by BM25: one for each query of the set, best first. There
    /// is no loss without scores.
    ///
    /// # Errors
    /// No query has a relevant document.
    pub fn of_rankings(set: &EvaluationSet, rankings: &[Vec<u32>], chosen: Metric) -> Result<Self, TrainError> {
        let ranks = |qid: u32| {
            let (ranking, judgements) = (&rankings[qid as usize], set.judgements.of(qid));
            let grade = |pid: &u32| judgements.iter().find(|(judged, _)| judged == pid).map_or(0, |(_, grade)| *grade);
            let ranks = (1..).zip(ranking.iter().map(grade)).filter(|(_, grade)| *grade > 0).collect();
            QueryRanks { qid, ranks, first: ranking.iter().take(REMEMBERED).copied().collect(), loss: None }
        };
        Self::of(set, judged(set).into_iter().map(ranks), chosen)
    }

    /// Makes the evaluation of a model whose vectors are not finite: no query has a value.
    pub(crate) fn without_value(set: &EvaluationSet, chosen: Metric) -> Result<Self, TrainError> {
        let nothing = |qid| QueryRanks { qid, ranks: Vec::new(), first: Vec::new(), loss: None };
        let mut measured = Self::of(set, judged(set).into_iter().map(nothing), chosen)?;
        measured.evaluation.metrics.clear();
        measured.queries.iter_mut().for_each(|query| query.value = None);
        Ok(measured)
    }

    fn of(
        set: &EvaluationSet,
        ranked: impl IntoIterator<Item = QueryRanks>,
        chosen: Metric,
    ) -> Result<Self, TrainError> {
        let mut metrics: Vec<(Metric, f64)> = Vec::new();
        for metric in std::iter::once(chosen).chain(REPORTED) {
            if metrics.iter().all(|(known, _)| *known != metric) {
                metrics.push((metric, 0.0));
            }
        }
        let mut queries = Vec::new();
        for QueryRanks { qid, ranks, first, loss } in ranked {
            let judgements = set.judgements.of(qid);
            let value = |metric: Metric| match metric {
                Metric::Loss => loss.unwrap_or(f64::NAN),
                metric => metric_value(metric, &ranks, judgements),
            };
            metrics.iter_mut().for_each(|(metric, sum)| *sum += value(*metric));
            let chosen = Some(value(chosen)).filter(|value| value.is_finite());
            queries.push(QueryResult { qid, value: chosen, rank: ranks.first().map(|(rank, _)| *rank), first });
        }
        if queries.is_empty() {
            return Err(TrainError::NothingToEvaluate);
        }
        metrics.iter_mut().for_each(|(_, sum)| *sum /= queries.len() as f64);
        metrics.retain(|(_, mean)| mean.is_finite());
        let evaluation = Evaluation { queries: queries.len(), documents: set.collection.len(), metrics };
        Ok(Self { evaluation, queries })
    }
}

/// The ranking of one query, as far as metrics need it.
struct QueryRanks {
    qid: u32,
    /// Ranks, from 1, and grades of the relevant documents, best first.
    ranks: Vec<(usize, i32)>,
    first: Vec<u32>,
    loss: Option<f64>,
}

/// Returns the queries that have a relevant document.
fn judged(set: &EvaluationSet) -> Vec<u32> {
    (0..set.queries.len() as u32).filter(|qid| set.judgements.positives(*qid).next().is_some()).collect()
}

/// Measures a model on a set, in memory that does not grow with the corpus. `progress` receives how many documents are
/// done, and may end the evaluation.
///
/// # Errors
/// A text that the tokenizer refuses, a set without relevant documents, [`TrainError::NonFiniteVectors`], or
/// [`TrainError::Interrupted`].
pub fn evaluate<B: KernelBackend, E: Encoder<B>>(
    model: &Colbert<B, E>,
    tokenizer: &ColbertTokenizer,
    set: &EvaluationSet,
    chosen: Metric,
    device: &B::Device,
    progress: &mut dyn FnMut(usize) -> Flow,
) -> Result<Measured, TrainError> {
    let task = Task { set, candidates: None, chosen };
    task.evaluate(model, tokenizer, EvaluationLimits::default(), device, progress)
}

/// The limits of an evaluation.
#[derive(Debug, Clone, Copy)]
pub struct EvaluationLimits<'a> {
    /// Tokens encoded at once; a longer text is encoded alone.
    pub tokens_at_once: usize,
    /// Processes that share the texts. All of them evaluate the same model on the same set, and all get the result.
    pub processes: &'a dyn Processes,
}

impl EvaluationLimits<'_> {
    /// Returns the tokens that a training step holds at once, every text counted at its longest: where a step fits into
    /// memory, an evaluation that encodes as many at once does too.
    pub fn tokens_of_a_step(options: &TrainOptions, plan: &Plan) -> usize {
        plan.micro_batch_size * (options.query_maxlen + options.nway * options.doc_maxlen)
    }

    /// Returns the bytes of the vectors of `queries` queries that an evaluation, or a miner by late interaction, holds
    /// at most.
    pub fn query_memory(queries: usize, query_maxlen: usize, dim: usize) -> u64 {
        (queries.min(QUERIES_HELD) * query_maxlen * dim * size_of::<f32>()) as u64
    }
}

impl Default for EvaluationLimits<'_> {
    fn default() -> Self {
        Self { tokens_at_once: usize::MAX, processes: &OneProcess }
    }
}

/// The task of an evaluation: the queries of a set, the documents that each is ranked against, the chosen metric.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// Queries, corpus and judgements.
    pub set: &'a EvaluationSet,
    /// The documents that each query is ranked against; none for the whole corpus. A relevant document that is not
    /// among them counts as not found.
    pub candidates: Option<&'a Candidates>,
    /// The metric that comes first.
    pub chosen: Metric,
}

impl Task<'_> {
    /// Measures a model within limits. Neither limits nor the number of processes change a score.
    ///
    /// # Errors
    /// As for [`evaluate`].
    pub fn evaluate<B: KernelBackend, E: Encoder<B>>(
        self,
        model: &Colbert<B, E>,
        tokenizer: &ColbertTokenizer,
        limits: EvaluationLimits<'_>,
        device: &B::Device,
        progress: &mut dyn FnMut(usize) -> Flow,
    ) -> Result<Measured, TrainError> {
        let Self { set, candidates, chosen } = self;
        let qids = judged(set);
        if qids.is_empty() || set.collection.is_empty() {
            return Err(TrainError::NothingToEvaluate);
        }
        let scorer = Scorer {
            model,
            tokenizer,
            set,
            candidates,
            device,
            tokens_at_once: limits.tokens_at_once,
            scores_held: SCORES_HELD,
            with_loss: chosen == Metric::Loss,
            processes: limits.processes,
        };
        let parts = qids.chunks(QUERIES_HELD);
        let total = candidates.map_or(set.collection.len(), Candidates::distinct);
        let count = parts.len();
        let mut ranked = Vec::with_capacity(qids.len());
        for (part, qids) in parts.enumerate() {
            let standings = scorer.standings(qids, &mut |done| progress((part * total + done) / count))?;
            let ranks = |(&qid, standing): (&u32, &Standing)| QueryRanks {
                qid,
                ranks: standing.ranks(),
                first: standing.first(),
                loss: standing.loss(),
            };
            ranked.extend(qids.iter().zip(&standings).map(ranks));
        }
        let mut measured = Measured::of(set, ranked, chosen)?;
        measured.evaluation.documents = candidates.map_or(set.collection.len(), Candidates::mean);
        Ok(measured)
    }
}

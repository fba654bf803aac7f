//! Retrieval quality on held-out queries, by exact MaxSim over every document of the set.

use colbert_config::Metric;
use colbert_data::EvaluationSet;
use colbert_kernels::KernelBackend;
use colbert_model::{Colbert, ColbertTokenizer, Encoder, maxsim};
use serde::{Deserialize, Serialize};

use crate::best::metrics::{cross_entropy, metric_value};
use crate::error::TrainError;
use crate::flow::Flow;

/// Documents encoded and scored between two looks at the host.
const DOCUMENT_BLOCK: usize = 64;

/// Documents remembered of each query's ranking.
const REMEMBERED: usize = 3;

/// What is always reported, besides the metric that was chosen.
const REPORTED: [Metric; 4] = [Metric::Ndcg(10), Metric::Mrr(10), Metric::Recall(10), Metric::Recall(100)];

/// Retrieval quality of one model on one set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Queries measured: those with a relevant document.
    pub queries: usize,
    /// Documents ranked for each of them.
    pub documents: usize,
    /// Each metric and its mean over queries; one that has no finite mean is left out.
    pub metrics: Vec<(Metric, f64)>,
}

/// An evaluation, and what it is the mean of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Means over queries.
    pub evaluation: Evaluation,
    /// The queries one by one.
    pub queries: Vec<QueryResult>,
}

/// How one query went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryResult {
    /// Id in the evaluation set.
    pub qid: u32,
    /// Value of the metric that chooses; none if it is not finite.
    pub value: Option<f64>,
    /// Rank of the first relevant document, from 1.
    pub rank: Option<usize>,
    /// The first documents of the ranking.
    pub first: Vec<u32>,
}

impl Measured {
    /// How much better each query is here than in `before`, in the metric that both were chosen by. Queries without a finite
    /// value are left out.
    pub fn gains(&self, before: &Self, metric: Metric) -> Vec<f64> {
        let pairs = before.queries.iter().zip(&self.queries);
        pairs.filter_map(|(old, new)| Some(metric.gain(old.value?, new.value?))).collect()
    }
}

impl Evaluation {
    /// The mean of a metric, if it was measured.
    pub fn value(&self, metric: Metric) -> Option<f64> {
        self.metrics.iter().find(|(name, _)| *name == metric).map(|(_, value)| *value)
    }
}

impl Measured {
    /// Evaluates rankings that were made elsewhere (BM25, say): one for each query of the set, best first. There is no loss
    /// without scores.
    ///
    /// # Errors
    /// No query has a relevant document.
    pub fn of_rankings(set: &EvaluationSet, rankings: &[Vec<u32>], chosen: Metric) -> Result<Self, TrainError> {
        Self::of(set, rankings, None, chosen)
    }

    fn of(
        set: &EvaluationSet,
        rankings: &[Vec<u32>],
        losses: Option<&[f64]>,
        chosen: Metric,
    ) -> Result<Self, TrainError> {
        let mut metrics: Vec<(Metric, f64)> = Vec::new();
        for metric in std::iter::once(chosen).chain(REPORTED) {
            if metrics.iter().all(|(known, _)| *known != metric) {
                metrics.push((metric, 0.0));
            }
        }
        let mut queries = Vec::new();
        for (qid, ranking) in rankings.iter().enumerate() {
            let judgements = set.judgements.of(qid as u32);
            let relevant = |pid: &u32| judgements.iter().any(|(judged, grade)| judged == pid && *grade > 0);
            if judgements.iter().all(|(_, grade)| *grade <= 0) {
                continue;
            }
            let value = |metric: Metric| match metric {
                Metric::Loss => losses.map_or(f64::NAN, |losses| losses[qid]),
                metric => metric_value(metric, ranking, judgements),
            };
            metrics.iter_mut().for_each(|(metric, sum)| *sum += value(*metric));
            queries.push(QueryResult {
                qid: qid as u32,
                value: Some(value(chosen)).filter(|value| value.is_finite()),
                rank: ranking.iter().position(relevant).map(|place| place + 1),
                first: ranking.iter().take(REMEMBERED).copied().collect(),
            });
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

/// Measures a model on a set. `progress` is told how many documents are done, and may end it.
///
/// # Errors
/// A text that the tokenizer refuses, a set without relevant documents, or [`TrainError::Interrupted`].
pub fn evaluate<B: KernelBackend, E: Encoder<B>>(
    model: &Colbert<B, E>,
    tokenizer: &ColbertTokenizer,
    set: &EvaluationSet,
    chosen: Metric,
    device: &B::Device,
    progress: &mut dyn FnMut(usize) -> Flow,
) -> Result<Measured, TrainError> {
    let scores = score(model, tokenizer, set, device, progress)?;
    let rankings: Vec<Vec<u32>> = scores.iter().map(|row| ranked(row)).collect();
    let losses: Option<Vec<f64>> = (chosen == Metric::Loss).then(|| {
        let loss = |(qid, row): (usize, &Vec<f32>)| cross_entropy(row, set.judgements.of(qid as u32));
        scores.iter().enumerate().map(loss).collect()
    });
    Measured::of(set, &rankings, losses.as_deref(), chosen)
}

/// Scores every document of a set for each of its queries.
fn score<B: KernelBackend, E: Encoder<B>>(
    model: &Colbert<B, E>,
    tokenizer: &ColbertTokenizer,
    set: &EvaluationSet,
    device: &B::Device,
    progress: &mut dyn FnMut(usize) -> Flow,
) -> Result<Vec<Vec<f32>>, TrainError> {
    let texts: Vec<&str> = set.queries.iter().collect();
    if texts.is_empty() || set.collection.is_empty() {
        return Err(TrainError::NothingToEvaluate);
    }
    let queries = model.encode(&tokenizer.queries(&texts)?, device);
    let documents: Vec<&str> = set.collection.iter().collect();
    let sequences = tokenizer.documents(&documents)?;
    let mut scores = vec![vec![0f32; documents.len()]; texts.len()];
    let mut done = 0;
    for block in sequences.chunks(DOCUMENT_BLOCK) {
        let block_scores = maxsim(&queries, &model.encode(block, device)).into_data().convert::<f32>();
        let block_scores = block_scores.into_vec::<f32>().expect("the data was converted to f32");
        for (query, row) in block_scores.chunks(block.len()).enumerate() {
            scores[query][done..done + block.len()].copy_from_slice(row);
        }
        done += block.len();
        if progress(done) != Flow::Continue {
            return Err(TrainError::Interrupted);
        }
    }
    Ok(scores)
}

/// Pids by falling score; a NaN never comes first.
fn ranked(scores: &[f32]) -> Vec<u32> {
    let key = |pid: &u32| {
        let score = scores[*pid as usize];
        if score.is_nan() { f32::NEG_INFINITY } else { score }
    };
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    order.sort_by(|a, b| key(b).total_cmp(&key(a)).then(a.cmp(b)));
    order
}

#[cfg(test)]
mod tests {
    use super::ranked;

    #[test]
    fn ranks_by_score_then_id_and_puts_nan_last() {
        assert_eq!(ranked(&[1.0, 3.0, f32::NAN, 3.0, -0.5]), [1, 3, 0, 4, 2]);
    }
}

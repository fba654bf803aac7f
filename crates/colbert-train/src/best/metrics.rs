//! Metrics of one query. Definitions: trec_eval; nDCG with linear gain, as BEIR and colbert-ai's peers use it.

use colbert_config::Metric;

/// Value of a metric for one query.
///
/// `ranking` is what was retrieved, best first; `judgements` are (document, grade) with grade > 0 meaning relevant.
/// A query without relevant documents scores 0; leave it out of averages. The loss needs scores and is NaN here.
pub fn metric_value(metric: Metric, ranking: &[u32], judgements: &[(u32, i32)]) -> f64 {
    let grade = |document: &u32| {
        let judged = judgements.iter().find(|(judged, _)| judged == document);
        judged.map_or(0, |(_, grade)| (*grade).max(0))
    };
    let first = |k: usize| ranking.iter().take(k);
    match metric {
        Metric::Ndcg(k) => {
            let discounted = |grades: &mut dyn Iterator<Item = i32>| -> f64 {
                grades.enumerate().map(|(rank, grade)| f64::from(grade) / ((rank + 2) as f64).log2()).sum()
            };
            let mut best: Vec<i32> = judgements.iter().map(|(_, grade)| (*grade).max(0)).collect();
            best.sort_unstable_by(|a, b| b.cmp(a));
            let ideal = discounted(&mut best.into_iter().take(k));
            if ideal == 0.0 { 0.0 } else { discounted(&mut first(k).map(grade)) / ideal }
        }
        Metric::Mrr(k) => first(k).position(|d| grade(d) > 0).map_or(0.0, |rank| 1.0 / (rank + 1) as f64),
        Metric::Recall(k) => {
            let relevant = judgements.iter().filter(|(_, grade)| *grade > 0).count();
            let found = first(k).filter(|d| grade(d) > 0).count();
            if relevant == 0 { 0.0 } else { found as f64 / relevant as f64 }
        }
        Metric::Success(k) => f64::from(u8::from(first(k).any(|d| grade(d) > 0))),
        Metric::Loss => f64::NAN,
    }
}

/// Mean over the relevant documents of `-log(e^s / (e^s + sum of e^t over the documents that are not relevant))`: the
/// n-way cross-entropy of training, against every other document there is.
pub(crate) fn cross_entropy(scores: &[f32], judgements: &[(u32, i32)]) -> f64 {
    let relevant: Vec<usize> =
        judgements.iter().filter(|(_, grade)| *grade > 0).map(|(pid, _)| *pid as usize).collect();
    let highest = scores.iter().copied().map(f64::from).fold(f64::NEG_INFINITY, f64::max);
    let weight = |pid: usize| (f64::from(scores[pid]) - highest).exp();
    let others: f64 = (0..scores.len()).filter(|pid| !relevant.contains(pid)).map(weight).sum();
    let loss = |pid: &usize| (weight(*pid) + others).ln() - (f64::from(scores[*pid]) - highest);
    relevant.iter().map(loss).sum::<f64>() / relevant.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUDGED: [(u32, i32); 3] = [(10, 2), (20, 1), (30, 0)];

    /// Worked by hand: gains 0, 2, 1 at ranks 1-3 against the ideal 2, 1.
    #[test]
    fn ndcg_by_hand() {
        let log2 = f64::log2;
        let dcg = 2.0 / log2(3.0) + 1.0 / log2(4.0);
        let ideal = 2.0 / log2(2.0) + 1.0 / log2(3.0);
        assert!((metric_value(Metric::Ndcg(10), &[30, 10, 20], &JUDGED) - dcg / ideal).abs() < 1e-12);
        let cut = metric_value(Metric::Ndcg(1), &[30, 10, 20], &JUDGED);
        assert_eq!(cut, 0.0);
        assert_eq!(metric_value(Metric::Ndcg(2), &[10, 20, 30], &JUDGED), 1.0);
    }

    #[test]
    fn the_others_by_hand() {
        let ranking = [30, 99, 20, 10];
        assert_eq!(metric_value(Metric::Mrr(10), &ranking, &JUDGED), 1.0 / 3.0);
        assert_eq!(metric_value(Metric::Mrr(2), &ranking, &JUDGED), 0.0);
        assert_eq!(metric_value(Metric::Recall(3), &ranking, &JUDGED), 0.5);
        assert_eq!(metric_value(Metric::Recall(4), &ranking, &JUDGED), 1.0);
        assert_eq!(metric_value(Metric::Success(2), &ranking, &JUDGED), 0.0);
        assert_eq!(metric_value(Metric::Success(3), &ranking, &JUDGED), 1.0);
    }

    #[test]
    fn the_loss_by_hand() {
        let scores = [1.0f32, 2.0, 0.5, 3.0];
        let e = f64::exp;
        let others = e(0.5) + e(3.0);
        let expected = -((e(1.0) / (e(1.0) + others)).ln() + (e(2.0) / (e(2.0) + others)).ln()) / 2.0;
        assert!((cross_entropy(&scores, &[(0, 1), (1, 2), (2, 0)]) - expected).abs() < 1e-12);
        // Scores far beyond what exp can hold.
        assert!((cross_entropy(&[1000.0, 999.0], &[(0, 1)]) - (1.0 + e(-1.0)).ln()).abs() < 1e-12);
    }

    #[test]
    fn a_query_without_relevant_documents_scores_nothing() {
        for metric in [Metric::Ndcg(5), Metric::Mrr(5), Metric::Recall(5), Metric::Success(5)] {
            assert_eq!(metric_value(metric, &[30], &[(30, 0)]), 0.0, "{metric}");
        }
    }
}

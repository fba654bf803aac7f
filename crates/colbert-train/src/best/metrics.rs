//! Metrics of one query. Definitions: trec_eval; nDCG with linear gain, as BEIR and colbert-ai's peers use it.

use colbert_config::Metric;

/// Computes a metric of one query.
///
/// `ranks` are the ranks, from 1, of the relevant documents that were retrieved, with their grades, best first;
/// `judgements` are (document, grade) with grade > 0 meaning relevant. A query without relevant documents scores 0;
/// leave it out of averages. The loss needs scores and is NaN here.
pub(crate) fn metric_value(metric: Metric, ranks: &[(usize, i32)], judgements: &[(u32, i32)]) -> f64 {
    let within = |k: usize| ranks.iter().take_while(move |(rank, _)| *rank <= k);
    match metric {
        Metric::Ndcg(k) => {
            let gain = |rank: usize, grade: i32| f64::from(grade) / ((rank + 1) as f64).log2();
            let mut best: Vec<i32> = judgements.iter().map(|(_, grade)| (*grade).max(0)).collect();
            best.sort_unstable_by(|a, b| b.cmp(a));
            let ideal: f64 = (1..).zip(best.into_iter().take(k)).map(|(rank, grade)| gain(rank, grade)).sum();
            let found: f64 = within(k).map(|(rank, grade)| gain(*rank, *grade)).sum();
            if ideal == 0.0 { 0.0 } else { found / ideal }
        }
        Metric::Mrr(k) => within(k).next().map_or(0.0, |(rank, _)| 1.0 / *rank as f64),
        Metric::Recall(k) => {
            let relevant = judgements.iter().filter(|(_, grade)| *grade > 0).count();
            if relevant == 0 { 0.0 } else { within(k).count() as f64 / relevant as f64 }
        }
        Metric::Map(k) => {
            let relevant = judgements.iter().filter(|(_, grade)| *grade > 0).count();
            let precisions: f64 = (1..).zip(within(k)).map(|(found, (rank, _))| f64::from(found) / *rank as f64).sum();
            if relevant == 0 { 0.0 } else { precisions / relevant as f64 }
        }
        Metric::Success(k) => f64::from(u8::from(within(k).next().is_some())),
        Metric::Loss => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use colbert_config::Metric;

    const JUDGED: [(u32, i32); 3] = [(10, 2), (20, 1), (30, 0)];

    /// Computes the metric of a ranking of documents.
    fn metric_value(metric: Metric, ranking: &[u32], judgements: &[(u32, i32)]) -> f64 {
        let grade = |pid: &u32| judgements.iter().find(|(judged, _)| judged == pid).map_or(0, |(_, grade)| *grade);
        let ranks: Vec<_> = (1..).zip(ranking.iter().map(grade)).filter(|(_, grade)| *grade > 0).collect();
        super::metric_value(metric, &ranks, judgements)
    }

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
        let map = |k| metric_value(Metric::Map(k), &ranking, &JUDGED);
        assert!((map(4) - (1.0 / 3.0 + 2.0 / 4.0) / 2.0).abs() < 1e-12);
        assert!((map(3) - (1.0 / 3.0) / 2.0).abs() < 1e-12, "of all relevant documents, found or not");
        assert_eq!(map(2), 0.0);
        assert_eq!(metric_value(Metric::Success(2), &ranking, &JUDGED), 0.0);
        assert_eq!(metric_value(Metric::Success(3), &ranking, &JUDGED), 1.0);
    }

    #[test]
    fn a_query_without_relevant_documents_scores_nothing() {
        for metric in [Metric::Ndcg(5), Metric::Mrr(5), Metric::Recall(5), Metric::Success(5), Metric::Map(5)] {
            assert_eq!(metric_value(metric, &[30], &[(30, 0)]), 0.0, "{metric}");
        }
    }
}

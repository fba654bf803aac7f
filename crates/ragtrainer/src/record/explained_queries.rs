//! Why the best model of a run ranks as it does: a few dev queries with the matches of their documents.

use colbert_config::Metric;
use colbert_data::EvaluationSet;
use colbert_train::{Measured, QueryResult};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::record::explanation_page::{LEGEND, picture, style};
use crate::search::explanation::Explanation;
use crate::search::pretrained::RagPretrainedModel;

/// File of a run's folder.
pub(crate) const FILE: &str = "explanations.json";

/// Queries shown that gained most, and as many that lost most; without gains and losses, the first ones.
const SHOWN: usize = 2;

/// A dev query, and the documents whose scores are explained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainedQuery {
    /// The query.
    pub query: String,
    /// Value of the metric that chooses, before training and for the best model.
    pub values: [Option<f64>; 2],
    /// The best model's first document, and the first relevant one where that is another.
    pub documents: Vec<ExplainedDocument>,
}

/// A document of an explained query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainedDocument {
    /// Whether it is relevant.
    pub is_relevant: bool,
    /// Whether the best model ranks it first.
    pub is_first: bool,
    /// Its score, token by token.
    pub explanation: Explanation,
}

/// Explains the scores of the queries that changed most, by the best model.
///
/// # Errors
/// A text that the model does not take.
pub(crate) fn explain_queries(
    model: &RagPretrainedModel,
    set: &EvaluationSet,
    before: &Measured,
    after: &Measured,
    metric: Metric,
) -> Result<Vec<ExplainedQuery>, Error> {
    let explained = |(old, new): (&QueryResult, &QueryResult)| {
        let query = set.queries.text(new.qid);
        let first = new.first.first().copied();
        let relevant = set.judgements.positives(new.qid).find(|pid| (*pid as usize) < set.collection.len());
        let mut documents = Vec::new();
        for pid in first.into_iter().chain(relevant.filter(|pid| first != Some(*pid))) {
            documents.push(ExplainedDocument {
                is_relevant: set.judgements.is_positive(new.qid, pid),
                is_first: first == Some(pid),
                explanation: model.explain(query, set.collection.text(pid))?,
            });
        }
        Ok(ExplainedQuery { query: query.to_owned(), values: [old.value, new.value], documents })
    };
    chosen(before, after, metric).into_iter().map(explained).collect()
}

/// The queries that gained most and those that lost most; the first ones where none changed.
fn chosen<'a>(before: &'a Measured, after: &'a Measured, metric: Metric) -> Vec<(&'a QueryResult, &'a QueryResult)> {
    let pairs = || before.queries.iter().zip(&after.queries);
    let gain = |(old, new): (&'a QueryResult, &'a QueryResult)| Some((metric.gain(old.value?, new.value?), (old, new)));
    let mut all: Vec<(f64, (&QueryResult, &QueryResult))> = pairs().filter_map(gain).collect();
    all.sort_by(|one, other| other.0.total_cmp(&one.0));
    let gained = all.iter().filter(|(gain, _)| *gain > 0.0).take(SHOWN);
    let lost = all.iter().rev().filter(|(gain, _)| *gain < 0.0).take(SHOWN);
    let changed: Vec<_> = gained.chain(lost).map(|(_, pair)| *pair).collect();
    if changed.is_empty() { pairs().take(SHOWN).collect() } else { changed }
}

/// The part of a run's page.
pub(crate) fn section(queries: &[ExplainedQuery], metric: Metric) -> Markup {
    if queries.is_empty() {
        return Markup::default();
    }
    let value = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    html! {
        (style())
        h2 { "Which tokens matched" }
        p .soft { (LEGEND) }
        @for query in queries {
            @let [before, after] = query.values;
            details {
                summary { (query.query) " " span .soft { (metric) " " (value(before)) " → " (value(after)) } }
                @for document in &query.documents {
                    h3 {
                        @if document.is_first { "First for the best model" } @else { "Not first" }
                        ", "
                        span class=(if document.is_relevant { "good" } else { "bad" }) {
                            @if document.is_relevant { "relevant" } @else { "not relevant" }
                        }
                        " " span .soft { (format!("score {:.3}", document.explanation.score)) }
                    }
                    (picture(&document.explanation))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use colbert_train::Evaluation;

    use super::*;
    use crate::search::explanation::{DocumentToken, TokenMatch};

    fn measured(values: &[Option<f64>]) -> Measured {
        let query = |(qid, value): (u32, &Option<f64>)| QueryResult { qid, value: *value, rank: None, first: vec![0] };
        let evaluation = Evaluation { queries: values.len(), documents: 1, metrics: Vec::new() };
        Measured { evaluation, queries: (0..).zip(values).map(query).collect() }
    }

    #[test]
    fn queries_that_changed_most_are_chosen() {
        let before = measured(&[Some(0.5), Some(0.1), Some(0.9), Some(0.2), None, Some(0.0), Some(1.0)]);
        let after = measured(&[Some(0.5), Some(0.9), Some(0.8), Some(0.5), Some(1.0), Some(0.1), Some(0.0)]);
        let ids = |pairs: Vec<(&QueryResult, &QueryResult)>| pairs.iter().map(|(old, _)| old.qid).collect::<Vec<_>>();
        assert_eq!(ids(chosen(&before, &after, Metric::Ndcg(10))), [1, 3, 6, 2]);
        assert_eq!(ids(chosen(&before, &before, Metric::Ndcg(10))), [0, 1], "none changed");
        // A lower loss is better.
        assert_eq!(ids(chosen(&before, &after, Metric::Loss)), [6, 2, 1, 3]);
    }

    /// A file of a run is data from outside: texts are escaped, and places that there are not change nothing.
    #[test]
    fn a_damaged_explanation_is_drawn_all_the_same() {
        let token =
            TokenMatch { query_token: "<b>".to_owned(), document_token: "x".to_owned(), place: 7, similarity: 0.5 };
        let document = vec![DocumentToken { token: "<script>".to_owned(), is_scored: true }];
        let explanation = Explanation { score: 0.5, document, matches: vec![token] };
        let documents = vec![ExplainedDocument { is_relevant: false, is_first: true, explanation }];
        let query = ExplainedQuery { query: "<i>why".to_owned(), values: [None, Some(0.25)], documents };
        let text = section(&[query], Metric::Mrr(10)).into_string();
        assert!(
            text.contains("&lt;i&gt;why") && text.contains("&lt;script&gt;") && text.contains("- → 0.250"),
            "{text}"
        );
        assert!(
            !text.contains("<script") && text.contains("First for the best model") && text.contains("not relevant")
        );
        assert_eq!(section(&[], Metric::Mrr(10)).into_string(), "");
    }
}

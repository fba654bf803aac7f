//! Results as a table or as JSON.

use ragtrainer::Hit;
use ragtrainer::train::Evaluation;
use serde::Serialize;

use crate::output::{json_line, say};

/// Characters of a text that a line shows.
const SHOWN: usize = 100;

/// A row for each system, a column for each metric, and a line with the numbers of queries and documents.
pub(crate) fn evaluation_table(title: &str, rows: &[(&str, &Evaluation)]) -> String {
    let Some((_, first)) = rows.first() else { return String::new() };
    let counts = format!("({} queries, each against {} documents)", first.queries, first.documents);
    format!("{}\n{counts}", metric_rows(title, rows))
}

/// A row for each system, a column for each metric.
pub(crate) fn metric_rows(title: &str, rows: &[(&str, &Evaluation)]) -> String {
    let Some((_, first)) = rows.first() else { return String::new() };
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max(title.len());
    let mut text = format!("{title:width$}");
    for (metric, _) in &first.metrics {
        text.push_str(&format!("  {:>10}", metric.to_string()));
    }
    for (name, evaluation) in rows {
        text.push_str(&format!("\n{name:width$}"));
        for (metric, _) in &first.metrics {
            let value = evaluation.value(*metric).map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
            text.push_str(&format!("  {value:>10}"));
        }
    }
    text
}

/// A query and its hits.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    /// The query's id, if its file has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    pub(crate) query: String,
    pub(crate) hits: Vec<Hit>,
}

/// Prints the hits of each query: a line for each, or one JSON object per query. `is_one` says that there is no other
/// query, so that the query's text is not printed above its hits.
pub(crate) fn print_hits(answers: &[Answer], is_one: bool, as_json: bool) -> anyhow::Result<()> {
    for answer in answers {
        if as_json {
            json_line(&serde_json::to_string(answer)?);
            continue;
        }
        if !is_one {
            say!("{}", answer.query);
        }
        for hit in &answer.hits {
            let mut id = hit.id.clone().unwrap_or_else(|| hit.index.to_string());
            if hit.passage > 0 {
                id += &format!("#{}", hit.passage);
            }
            let mut text: String = hit.text.split_whitespace().collect::<Vec<_>>().join(" ");
            if let Some((end, _)) = text.char_indices().nth(SHOWN) {
                text.truncate(end);
                text.push_str("...");
            }
            say!("{:>4}  {:>9.4}  {id}  {text}", hit.rank, hit.score);
        }
    }
    Ok(())
}

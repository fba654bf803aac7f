//! Results as a table or as JSON.

use ragtrainer::Hit;
use ragtrainer::train::Evaluation;
use serde_json::json;

use crate::output::{json_line, say};

/// Characters of a text that a line shows.
const SHOWN: usize = 100;

/// A row for each system, a column for each metric.
pub(crate) fn evaluation_table(title: &str, rows: &[(&str, &Evaluation)]) -> String {
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
    text.push_str(&format!("\n({} queries, each against {} documents)", first.queries, first.documents));
    text
}

/// The hits of each query: a line each, or a JSON object for each query, one a line.
pub(crate) fn print_hits(found: &[(String, Vec<Hit>)], as_json: bool) -> anyhow::Result<()> {
    for (query, hits) in found {
        if as_json {
            json_line(&serde_json::to_string(&json!({"query": query, "hits": hits}))?);
            continue;
        }
        if found.len() > 1 {
            say!("{query}");
        }
        for hit in hits {
            let id = hit.id.clone().unwrap_or_else(|| hit.index.to_string());
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

//! Results as a table.

use ragtrainer::train::Evaluation;

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

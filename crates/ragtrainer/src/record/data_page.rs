//! The page of a data report: findings first, then numbers, then histograms.

use std::path::Path;

use colbert_data::{DataReport, Finding, Histogram, Severity, WordLengths};
use maud::{Markup, html};

use crate::error::Error;
use crate::record::page::{document, table, tiles, write};

/// Writes a data report as one HTML page that needs nothing else: no script, no file, no network.
///
/// # Errors
/// The disk refuses.
pub fn write_data_page(report: &DataReport, path: &Path) -> Result<(), Error> {
    write(path, &page(report))
}

fn page(report: &DataReport) -> String {
    let body = html! {
        h1 { "Data report" }
        p .soft .source { (report.source) }
        (verdict(report))
        (tiles(&numbers(report)))
        h2 { "Findings" }
        @if report.findings.is_empty() { p { "None." } }
        @for one in &report.findings { (finding(one)) }
        h2 { "Lengths" }
        (lengths(report))
        @if !report.histograms.is_empty() {
            h2 { "Distributions" }
            .charts { @for histogram in &report.histograms { (chart(histogram)) } }
        }
    };
    document("Data report", false, &body)
}

fn verdict(report: &DataReport) -> Markup {
    let count = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    let counts = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Note, "note")];
    let parts: Vec<_> = counts
        .into_iter()
        .map(|(severity, name)| (count(severity), name))
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}{}", if count == 1 { "" } else { "s" }))
        .collect();
    match report.worst() {
        None => html! { p class="verdict good" { "No findings." } },
        Some(worst) => html! { p class={ "verdict " (worst) } { (parts.join(", ")) } },
    }
}

fn numbers(report: &DataReport) -> Vec<(String, String)> {
    let rows = &report.rows;
    let numbers = [
        ("queries", report.queries as u64, true),
        ("documents", report.documents as u64, true),
        ("positives", report.positives as u64, true),
        ("given negatives", report.negatives as u64, true),
        ("rows: pairs", rows.pairs, false),
        ("rows: labelled pairs", rows.labelled_pairs, false),
        ("rows: triplets", rows.triplets, false),
        ("rows: scored pairs", rows.scored_pairs, false),
        ("ready-made examples", rows.ready_made, false),
        ("judgements", rows.judgements, false),
        ("further documents", rows.documents, false),
        ("rows left out", report.bad_rows.total(), false),
    ];
    let shown = numbers.into_iter().filter(|(_, number, always)| *always || *number > 0);
    shown.map(|(name, number, _)| (name.to_owned(), grouped(number))).collect()
}

fn finding(finding: &Finding) -> Markup {
    html! {
        div class={ "finding " (finding.severity) } {
            p { span .badge { (finding.severity) } (finding.message) }
            @if !finding.examples.is_empty() {
                ul { @for example in &finding.examples { li { (example) } } }
            }
            p .soft { "→ " (finding.fix) }
        }
    }
}

fn lengths(report: &DataReport) -> Markup {
    let words = [("queries", &report.query_words), ("documents", &report.document_words)].map(|(name, words)| {
        let WordLengths { mean, median, p90, p99, max } = words;
        vec![
            name.to_owned(),
            format!("{mean:.1}"),
            median.to_string(),
            p90.to_string(),
            p99.to_string(),
            max.to_string(),
        ]
    });
    html! {
        (table(&["words", "mean", "median", "90 %", "99 %", "max"], &words))
        @if let Some(tokens) = &report.tokens {
            (table(
                &["tokens", "mean", "median", "keeps 99 %", "max", "cut at", "texts cut", "tokens lost", "unknown"],
                &[("queries", &tokens.queries), ("documents", &tokens.documents)].map(|(name, side)| {
                    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
                    vec![
                        name.to_owned(),
                        format!("{:.1}", side.mean),
                        side.median.to_string(),
                        side.keeps_99_percent.to_string(),
                        side.max.to_string(),
                        side.maxlen.to_string(),
                        percent(side.cut_share),
                        percent(side.lost_share),
                        format!("{:.2} %", 100.0 * side.unknown_share),
                    ]
                }),
            ))
            @if tokens.documents.examined < report.documents {
                p .soft {
                    "Tokens were counted in " (grouped(tokens.documents.examined as u64)) " of the "
                    (grouped(report.documents as u64)) " documents, spread evenly."
                }
            }
        }
    }
}

/// Size of a chart in its own units, and the room around the bars.
const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 170.0;
const LEFT: f64 = 8.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 22.0;

fn chart(histogram: &Histogram) -> Markup {
    let Histogram { title, start, width, counts, max, limit, .. } = histogram;
    let highest = counts.iter().copied().max().unwrap_or(1).max(1) as f64;
    // Few bars stay slim.
    let bar = ((WIDTH - 2.0 * LEFT) / counts.len() as f64).min(60.0);
    let right = (LEFT + bar * counts.len() as f64).min(WIDTH - LEFT);
    let room = HEIGHT - TOP - BOTTOM;
    let base = TOP + room;
    let end = |index: usize| if index + 1 == counts.len() { *max } else { start + width * (index + 1) as f64 };
    // A bar of one text among thousands is still seen.
    let height = |count: u64| (room * count as f64 / highest).max(1.0);
    let one = |value: f64| format!("{value:.1}");
    let limit = limit.filter(|limit| *limit >= *start && *limit <= start + width * counts.len() as f64);
    html! {
        figure {
            figcaption { (title) }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label={ "histogram: " (title) } {
                @for (index, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                    rect x=(one(LEFT + bar * index as f64 + 0.5)) y=(one(base - height(count))) width=(one(bar - 1.0))
                        height=(one(height(count)))
                    {
                        title { (short(start + width * index as f64)) " to " (short(end(index))) ": " (grouped(count)) }
                    }
                }
                line x1=(LEFT) y1=(base) x2=(WIDTH - LEFT) y2=(base) {}
                text x=(LEFT) y="13" { "highest bar: " (grouped(highest as u64)) }
                text x=(LEFT) y=(base + 15.0) { (short(*start)) }
                @if counts.len() > 1 { text x=(right) y=(base + 15.0) text-anchor="end" { (short(*max)) } }
                @if let Some(limit) = limit {
                    @let x = LEFT + bar * (limit - start) / width;
                    @let (anchor, shift) = if x > WIDTH / 2.0 { ("end", -4.0) } else { ("start", 4.0) };
                    line .limit x1=(one(x)) y1=(TOP) x2=(one(x)) y2=(base) {}
                    text .limit-name x=(one(x + shift)) y=(TOP + 10.0) text-anchor=(anchor) { "cut at " (short(limit)) }
                }
            }
        }
    }
}

/// A number without needless digits.
fn short(number: f64) -> String {
    let text = if number.fract() == 0.0 { format!("{number:.0}") } else { format!("{number:.3}") };
    if text == "-0" { "0".to_owned() } else { text }
}

/// `12,345`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use colbert_data::{RawData, ReportOptions, Side, TokenCount, TokenLimits};

    use super::*;

    #[test]
    fn the_page_escapes_texts_and_needs_nothing_from_elsewhere() {
        let attack = "<script>alert(1)</script>";
        let raw = RawData::from_pairs([(attack, format!("{attack} ").as_str()), ("\"&'", "x & y")]).unwrap();
        let page = page(&DataReport::new(&raw, None));
        for part in ["&lt;script&gt;alert(1)&lt;/script&gt;", "prefers-color-scheme:dark", "<svg", "</html>"] {
            assert!(page.contains(part), "{part}");
        }
        assert!(!page.contains("<script") && !page.contains("http:") && !page.contains("src="));
    }

    #[test]
    fn lengths_at_which_texts_are_cut_are_marked() {
        let pairs = (0..40).map(|i| (format!("query {i}"), "word ".repeat(1 + i)));
        let raw = RawData::from_pairs(pairs).unwrap();
        let counter = |texts: &[&str], _: Side| {
            Ok(texts.iter().map(|text| TokenCount { tokens: text.split(' ').count(), unknown: 0 }).collect())
        };
        let tokens = TokenLimits { counter: &counter, query_maxlen: 8, doc_maxlen: 30, longest: 512 };
        let options = ReportOptions { tokens: Some(tokens), ..ReportOptions::default() };
        let page = page(&DataReport::with_options(&raw, &options).unwrap());
        assert!(page.contains("cut at 30") && page.contains("texts cut"), "{page}");
    }
}

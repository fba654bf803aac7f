//! The report as one HTML page: findings first, then numbers, then histograms. Everything is inline; every text is
//! escaped.

use super::{DataReport, Finding, Histogram, Severity, WordLengths};

const STYLE: &str = "
:root{color-scheme:light dark;--page:#fff;--ink:#1b1f24;--soft:#57606a;--line:#d8dee4;--card:#f6f8fa;--bar:#3b76c4;
--error:#b3261e;--warning:#8a5a00;--note:#35608a;--good:#1d6b35}
@media(prefers-color-scheme:dark){:root{--page:#14171b;--ink:#e4e8ec;--soft:#9aa4ae;--line:#333a42;--card:#1d2126;--bar:#6ea3e6;
--error:#ff8a80;--warning:#f0b95b;--note:#8fbcec;--good:#7fd196}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:62rem;margin:0 auto;padding:2rem 1.25rem 4rem}h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2.25rem 0 .75rem}
p{margin:.35rem 0}.soft{color:var(--soft)}.source{overflow-wrap:anywhere}.verdict{font-size:1.1rem;font-weight:600;margin:.75rem 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.75rem;margin:1.25rem 0}
.tile,.finding,figure{background:var(--card);border:1px solid var(--line);border-radius:8px}
.tile{padding:.6rem .8rem}.tile b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}
.finding{border-left-width:5px;padding:.7rem 1rem;margin:.6rem 0}.finding p{overflow-wrap:anywhere}
.finding ul{margin:.4rem 0;padding-left:1.2rem;color:var(--soft);overflow-wrap:anywhere}
.badge{font-size:.78rem;font-weight:700;text-transform:uppercase;letter-spacing:.04em;margin-right:.5rem}
.error{border-left-color:var(--error)}.warning{border-left-color:var(--warning)}.note{border-left-color:var(--note)}
.error .badge,.verdict.error{color:var(--error)}.warning .badge,.verdict.warning{color:var(--warning)}
.note .badge,.verdict.note{color:var(--note)}.verdict.good{color:var(--good)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{text-align:right;padding:.3rem .6rem;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left}th{color:var(--soft);font-weight:600}.wide{overflow-x:auto;margin-bottom:1rem}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(19rem,1fr));gap:1rem}figure{margin:0;padding:.8rem}
figcaption{font-weight:600;margin-bottom:.4rem}svg{width:100%;height:auto;display:block}svg rect{fill:var(--bar)}
svg text{fill:var(--soft);font:13px system-ui,sans-serif}svg line{stroke:var(--line)}svg .limit{stroke:var(--error);stroke-dasharray:4 3}
svg .limit-name{fill:var(--error)}";

pub(super) fn page(report: &DataReport) -> String {
    let mut page = String::new();
    let mut put = |text: &str| page.push_str(text);
    put("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    put("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>Data report</title><style>");
    put(STYLE);
    put("</style></head><body><main><h1>Data report</h1>");
    put(&format!("<p class=\"soft source\">{}</p>", escaped(&report.source)));
    put(&verdict(report));
    put(&tiles(report));
    put("<h2>What stands out</h2>");
    if report.findings.is_empty() {
        put("<p>Nothing.</p>");
    }
    report.findings.iter().for_each(|one| put(&finding(one)));
    put("<h2>Lengths</h2>");
    put(&lengths(report));
    if !report.histograms.is_empty() {
        put("<h2>How the numbers are spread</h2><div class=\"charts\">");
        report.histograms.iter().for_each(|histogram| put(&chart(histogram)));
        put("</div>");
    }
    put("</main></body></html>\n");
    page
}

fn verdict(report: &DataReport) -> String {
    let count = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    let counts = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Note, "note")];
    let parts: Vec<_> = counts
        .into_iter()
        .map(|(severity, name)| (count(severity), name))
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}{}", if count == 1 { "" } else { "s" }))
        .collect();
    let (class, text) = match report.worst() {
        None => ("good".to_owned(), "Nothing stands out.".to_owned()),
        Some(worst) => (worst.to_string(), parts.join(", ")),
    };
    format!("<p class=\"verdict {class}\">{text}</p>")
}

fn tiles(report: &DataReport) -> String {
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
    let mut out = "<div class=\"tiles\">".to_owned();
    for (name, number, _) in numbers.into_iter().filter(|(_, number, always)| *always || *number > 0) {
        out += &format!("<div class=\"tile\"><b>{}</b><span class=\"soft\">{name}</span></div>", grouped(number));
    }
    out + "</div>"
}

fn finding(finding: &Finding) -> String {
    let class = finding.severity.to_string();
    let mut out = format!(
        "<div class=\"finding {class}\"><p><span class=\"badge\">{class}</span>{}</p>",
        escaped(&finding.message)
    );
    if !finding.examples.is_empty() {
        out += "<ul>";
        finding.examples.iter().for_each(|example| out += &format!("<li>{}</li>", escaped(example)));
        out += "</ul>";
    }
    out + &format!("<p class=\"soft\">&rarr; {}</p></div>", escaped(&finding.fix))
}

fn lengths(report: &DataReport) -> String {
    let mut out = "<div class=\"wide\"><table><tr><th>words</th><th>mean</th><th>median</th><th>90 %</th><th>99 %</th><th>max</th></tr>".to_owned();
    for (name, words) in [("queries", &report.query_words), ("documents", &report.document_words)] {
        let WordLengths { mean, median, p90, p99, max } = words;
        out += &format!(
            "<tr><td>{name}</td><td>{mean:.1}</td><td>{median}</td><td>{p90}</td><td>{p99}</td><td>{max}</td></tr>"
        );
    }
    out += "</table></div>";
    let Some(tokens) = &report.tokens else { return out };
    out += "<div class=\"wide\"><table><tr><th>tokens</th><th>mean</th><th>median</th><th>keeps 99 %</th><th>max</th><th>cut at</th><th>texts cut</th><th>tokens lost</th><th>unknown</th></tr>";
    for (name, side) in [("queries", &tokens.queries), ("documents", &tokens.documents)] {
        out += &format!(
            "<tr><td>{name}</td><td>{:.1}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.1} %</td><td>{:.1} %</td><td>{:.2} %</td></tr>",
            side.mean,
            side.median,
            side.keeps_99_percent,
            side.max,
            side.maxlen,
            100.0 * side.cut_share,
            100.0 * side.lost_share,
            100.0 * side.unknown_share
        );
    }
    out += "</table></div>";
    let documents = &tokens.documents;
    if documents.examined < report.documents {
        out += &format!(
            "<p class=\"soft\">Tokens were counted in {} of the {} documents, spread evenly.</p>",
            grouped(documents.examined as u64),
            grouped(report.documents as u64)
        );
    }
    out
}

/// Size of a chart in its own units, and the room around the bars.
const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 170.0;
const LEFT: f64 = 8.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 22.0;

fn chart(histogram: &Histogram) -> String {
    let Histogram { start, width, counts, max, limit, .. } = histogram;
    let highest = counts.iter().copied().max().unwrap_or(1).max(1) as f64;
    // Few bars stay slim.
    let bar = ((WIDTH - 2.0 * LEFT) / counts.len() as f64).min(60.0);
    let right = LEFT + bar * counts.len() as f64;
    let room = HEIGHT - TOP - BOTTOM;
    let end = |index: usize| if index + 1 == counts.len() { *max } else { start + width * (index + 1) as f64 };
    let mut out = format!(
        "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"histogram: {0}\">",
        escaped(&histogram.title)
    );
    for (index, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        // A bar of one text among thousands is still seen.
        let height = (room * count as f64 / highest).max(1.0);
        let from = start + width * index as f64;
        out += &format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>{} to {}: {}</title></rect>",
            LEFT + bar * index as f64 + 0.5,
            TOP + room - height,
            bar - 1.0,
            short(from),
            short(end(index)),
            grouped(count)
        );
    }
    let base = TOP + room;
    out += &format!("<line x1=\"{LEFT}\" y1=\"{base}\" x2=\"{}\" y2=\"{base}\"/>", WIDTH - LEFT);
    out += &format!("<text x=\"{LEFT}\" y=\"13\">highest bar: {}</text>", grouped(highest as u64));
    out += &format!("<text x=\"{LEFT}\" y=\"{}\">{}</text>", base + 15.0, short(*start));
    if counts.len() > 1 {
        let anchor = right.min(WIDTH - LEFT);
        out += &format!("<text x=\"{anchor}\" y=\"{}\" text-anchor=\"end\">{}</text>", base + 15.0, short(*max));
    }
    if let Some(limit) = limit.filter(|limit| *limit >= *start && *limit <= start + width * counts.len() as f64) {
        let x = LEFT + bar * (limit - start) / width;
        let (anchor, shift) = if x > WIDTH / 2.0 { ("end", -4.0) } else { ("start", 4.0) };
        out += &format!("<line class=\"limit\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{base}\"/>");
        out += &format!(
            "<text class=\"limit-name\" x=\"{:.1}\" y=\"{}\" text-anchor=\"{anchor}\">cut at {}</text>",
            x + shift,
            TOP + 10.0,
            short(limit)
        );
    }
    out + "</svg></figure>"
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

/// Text that is nothing but text in HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

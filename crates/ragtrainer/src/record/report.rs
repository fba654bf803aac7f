//! The page of a run: one HTML file that needs nothing else, written anew while the run goes on.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use colbert_config::Options;
use colbert_config::durable::replace_file;
use colbert_train::{Comparison, Evaluation, Event, Flow, Observer};
use serde_json::Value;

use crate::error::Error;
use crate::record::chart::{Curve, escaped, figure};
use crate::record::run_record::{Progress, QueryChange, RunRecord};

/// The page is written at most this often while a run goes on.
const PAUSE: Duration = Duration::from_secs(10);

const STYLE: &str = "
:root{color-scheme:light dark;--page:#fff;--ink:#1b1f24;--soft:#57606a;--line:#d8dee4;--card:#f6f8fa;
--c0:#2f6db5;--c1:#b8530d;--c2:#2b7a3d;--c3:#8a3fa0;--c4:#8a6d00;--c5:#a32244;--good:#1d6b35;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--page:#14171b;--ink:#e4e8ec;--soft:#9aa4ae;--line:#333a42;--card:#1d2126;
--c0:#6ea3e6;--c1:#f0964f;--c2:#6cc582;--c3:#c58bdb;--c4:#dcb94a;--c5:#f08aa5;--good:#7fd196;--bad:#ff8a80}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:64rem;margin:0 auto;padding:2rem 1.25rem 4rem}h1{font-size:1.5rem;margin:0;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:2.25rem 0 .75rem}p{margin:.35rem 0}.soft{color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.75rem;margin:1.25rem 0}
.tile,figure,details{background:var(--card);border:1px solid var(--line);border-radius:8px}
.tile{padding:.6rem .8rem}.tile b{display:block;font-size:1.3rem;font-variant-numeric:tabular-nums}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(19rem,100%),1fr));gap:1rem}figure{margin:0;padding:.8rem}
figcaption{font-weight:600;margin-bottom:.4rem}svg{width:100%;height:auto;display:block}
svg text{fill:var(--soft);font:15px system-ui,sans-serif}svg line{stroke:var(--line)}
polyline{fill:none;stroke-width:1.8;stroke-linejoin:round}
polyline.c0{stroke:var(--c0)}polyline.c1{stroke:var(--c1)}polyline.c2{stroke:var(--c2)}polyline.c3{stroke:var(--c3)}
polyline.c4{stroke:var(--c4)}polyline.c5{stroke:var(--c5)}
circle.c0,i.c0{fill:var(--c0);background:var(--c0)}circle.c1,i.c1{fill:var(--c1);background:var(--c1)}
circle.c2,i.c2{fill:var(--c2);background:var(--c2)}circle.c3,i.c3{fill:var(--c3);background:var(--c3)}
circle.c4,i.c4{fill:var(--c4);background:var(--c4)}circle.c5,i.c5{fill:var(--c5);background:var(--c5)}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.85rem;overflow-wrap:anywhere}
.legend i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
th:first-child,td:first-child{text-align:left;min-width:9rem}th{color:var(--soft);font-weight:600}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0;font:13px/1.5 ui-monospace,monospace}
details{padding:.5rem .9rem;margin:.5rem 0}summary{cursor:pointer;overflow-wrap:anywhere}
.good{color:var(--good)}.bad{color:var(--bad)}dt{color:var(--soft);font-size:.85rem;margin-top:.4rem}dd{margin:0;overflow-wrap:anywhere}";

/// Writes `report.html` into the folder of a run, from what is in the folder.
///
/// # Errors
/// There is no run in the folder, or the disk refuses.
pub fn write_report(run: &Path) -> Result<PathBuf, Error> {
    let path = run.join("report.html");
    write_page(&path, &page(&RunRecord::read(run)?))?;
    Ok(path)
}

/// Writes one page that compares runs.
///
/// # Errors
/// The disk refuses.
pub fn write_comparison(runs: &[RunRecord], path: &Path) -> Result<(), Error> {
    write_page(path, &comparison_page(runs))
}

fn write_page(path: &Path, page: &str) -> Result<(), Error> {
    replace_file(path, page.as_bytes()).map_err(|source| Error::Io { action: "write", path: path.to_owned(), source })
}

/// Rewrites the page of a run as it goes.
#[derive(Debug)]
pub(crate) struct ReportWriter {
    run: PathBuf,
    last: Option<Instant>,
}

impl ReportWriter {
    pub(crate) fn new(run: &Path) -> Self {
        Self { run: run.to_owned(), last: None }
    }
}

impl Observer for ReportWriter {
    fn observe(&mut self, event: &Event) -> Flow {
        let due = match event {
            Event::Evaluated { .. } | Event::Finished { .. } => true,
            Event::Step(_) => self.last.is_none_or(|last| last.elapsed() >= PAUSE),
            _ => false,
        };
        if due {
            self.last = Some(Instant::now());
            // A page for looking at is not worth ending a run for; at the end it is written once more, and that must succeed.
            if let Err(error) = write_report(&self.run) {
                tracing::warn!("{error}");
            }
        }
        Flow::Continue
    }
}

fn document(title: &str, refresh: bool, body: &str) -> String {
    let refresh = if refresh { "<meta http-equiv=\"refresh\" content=\"20\">" } else { "" };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">{refresh}\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{}</title><style>{STYLE}</style></head>\
         <body><main>{body}</main></body></html>\n",
        escaped(title)
    )
}

fn page(run: &RunRecord) -> String {
    let name = name(run);
    let running = run.progress == Progress::Running;
    let mut body = format!("<h1>{}</h1>", escaped(&name));
    let steps = run.plan.as_ref().map_or(0, |plan| plan.steps);
    let _ = write!(body, "<p class=\"soft\">{}, {} of {steps} steps</p>", run.progress, run.done());
    body += &tiles(run);
    body += &verdicts(run);
    if !run.notes.is_empty() {
        body += "<h2>What happened</h2><ul>";
        run.notes.iter().for_each(|note| body += &format!("<li>{}</li>", escaped(note)));
        body += "</ul>";
    }
    body += "<h2>Curves</h2><div class=\"charts\">";
    body += &curves(run);
    body += "</div>";
    body += &tables(run);
    body += &queries(run);
    if let Some(plan) = &run.plan {
        let _ = write!(body, "<h2>Plan</h2><pre>{}</pre>", escaped(&plan.to_string()));
    }
    if !run.data.is_empty() {
        let _ = write!(body, "<h2>Data</h2><pre>{}</pre>", escaped(run.data.trim_end()));
    }
    if let Some(options) = &run.options {
        body += "<h2>Options that are not the default</h2><div class=\"wide\"><table><tr><th>option</th><th>value</th></tr>";
        for (name, value) in changed_options(options) {
            let _ = write!(body, "<tr><td>{}</td><td>{}</td></tr>", escaped(&name), escaped(&value));
        }
        body += "</table></div>";
    }
    document(&name, running, &body)
}

fn tiles(run: &RunRecord) -> String {
    let metric = run.metric();
    let value = |value: Option<f64>| value.map(|value| format!("{value:.4}"));
    let seconds: f64 = run.steps.iter().map(|step| step.seconds).sum();
    let numbers = [
        (format!("dev {metric} at the start"), value(run.start())),
        (
            format!("best dev {metric}"),
            value(
                run.outcome.as_ref().and_then(|o| o.dev.as_ref()?[1].value(metric)).or(run.best().map(|best| best.1)),
            ),
        ),
        ("steps".to_owned(), Some(run.done().to_string())),
        ("last loss".to_owned(), run.steps.last().map(|step| format!("{:.4}", step.loss))),
        ("examples a second".to_owned(), mean(run, |step| step.examples_per_second).map(number_one)),
        ("tokens a second".to_owned(), mean(run, |step| step.tokens_per_second).map(|speed| format!("{speed:.0}"))),
        (
            "memory, MiB".to_owned(),
            run.steps.iter().filter_map(|step| step.memory).max().map(|bytes| (bytes >> 20).to_string()),
        ),
        ("time in steps".to_owned(), (seconds > 0.0).then(|| clock(seconds))),
    ];
    let mut out = "<div class=\"tiles\">".to_owned();
    for (name, number) in numbers {
        if let Some(number) = number {
            let _ =
                write!(out, "<div class=\"tile\"><b>{number}</b><span class=\"soft\">{}</span></div>", escaped(&name));
        }
    }
    out + "</div>"
}

fn number_one(value: f64) -> String {
    format!("{value:.1}")
}

fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

fn mean(run: &RunRecord, of: impl Fn(&crate::record::run_record::StepLine) -> f64) -> Option<f64> {
    let count = run.steps.len();
    (count > 0).then(|| run.steps.iter().map(of).sum::<f64>() / count as f64)
}

fn verdicts(run: &RunRecord) -> String {
    let Some(outcome) = &run.outcome else { return String::new() };
    let mut out = String::new();
    let mut put = |split: &str, comparison: &Option<Comparison>| {
        if let Some(comparison) = comparison {
            let class = if comparison.is_clear() { "good" } else { "bad" };
            let text = comparison.verdict(split, outcome.metric);
            let _ = write!(out, "<p class=\"{class}\">{}</p>", escaped(&text));
        }
    };
    put("dev", &outcome.dev_comparison);
    if let Some(test) = &outcome.test {
        put("test", &test.comparison);
    }
    if let Some(parts) = &outcome.best_made_of {
        let _ = write!(out, "<p>The best model is the {}.</p>", escaped(parts));
    }
    if outcome.overflowed > 0 {
        let steps = run.steps.len() + outcome.overflowed + outcome.skipped;
        let _ = write!(
            out,
            "<p>{} of {steps} steps were skipped: their gradient overflowed float16.</p>",
            outcome.overflowed
        );
    }
    out
}

fn curves(run: &RunRecord) -> String {
    let steps = |of: &dyn Fn(&crate::record::run_record::StepLine) -> f64| -> Vec<(f64, f64)> {
        run.steps.iter().map(|step| (step.step as f64, of(step))).collect()
    };
    let one = |points| vec![Curve { name: String::new(), colour: 0, points, marked: false }];
    let metric = run.metric();
    let mut metrics: Vec<_> = run.evaluations.first().map_or_else(Vec::new, |line| line.evaluation.metrics.clone());
    metrics.retain(|(other, _)| (*other == colbert_config::Metric::Loss) == (metric == colbert_config::Metric::Loss));
    let dev = metrics.iter().enumerate().map(|(colour, (metric, _))| Curve {
        name: metric.to_string(),
        colour,
        points: run
            .evaluations
            .iter()
            .filter_map(|line| Some((line.step as f64, line.evaluation.value(*metric)?)))
            .collect(),
        marked: true,
    });
    let scores = [("positives", 2, 0), ("own negatives", 1, 1)].map(|(name, colour, which)| Curve {
        name: name.to_owned(),
        colour,
        points: steps(&|step| if which == 0 { step.positive_score } else { step.negative_score }),
        marked: false,
    });
    let memory = run.steps.iter().filter_map(|step| Some((step.step as f64, step.memory? as f64 / f64::from(1 << 20))));
    [
        figure("Loss of each step", &one(steps(&|step| step.loss))),
        figure("Dev queries", &dev.collect::<Vec<_>>()),
        figure("Learning rate", &one(steps(&|step| step.learning_rate))),
        figure("Gradient norm before clipping", &one(steps(&|step| step.gradient_norm))),
        figure("Mean score", &scores),
        figure("Examples a second", &one(steps(&|step| step.examples_per_second))),
        figure("Memory, MiB", &one(memory.collect())),
    ]
    .concat()
}

fn tables(run: &RunRecord) -> String {
    let Some(outcome) = &run.outcome else { return String::new() };
    let mut out = String::new();
    if let Some([before, after]) = &outcome.dev {
        let rows: Vec<(String, &Evaluation)> = [("before training".to_owned(), before)]
            .into_iter()
            .chain(outcome.candidates.iter().map(|candidate| (candidate.name.clone(), &candidate.evaluation)))
            .chain([("best model".to_owned(), after)])
            .collect();
        out += &table("Dev queries, before and after", &rows);
    }
    if let Some(test) = &outcome.test {
        let rows = [("BM25", &test.bm25), ("before training", &test.start), ("best model", &test.best)];
        out += &table("Test queries", &rows.map(|(name, evaluation)| (name.to_owned(), evaluation)));
    }
    out
}

fn table(title: &str, rows: &[(String, &Evaluation)]) -> String {
    let Some((_, first)) = rows.iter().max_by_key(|(_, evaluation)| evaluation.metrics.len()) else {
        return String::new();
    };
    let mut out = format!("<h2>{title}</h2><div class=\"wide\"><table><tr><th></th>");
    first.metrics.iter().for_each(|(metric, _)| out += &format!("<th>{metric}</th>"));
    out += "</tr>";
    for (name, evaluation) in rows {
        let _ = write!(out, "<tr><td>{}</td>", escaped(name));
        for (metric, _) in &first.metrics {
            let value = evaluation.value(*metric).map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
            let _ = write!(out, "<td>{value}</td>");
        }
        out += "</tr>";
    }
    let _ = write!(
        out,
        "</table></div><p class=\"soft\">{} queries, each against {} documents</p>",
        first.queries, first.documents
    );
    out
}

fn queries(run: &RunRecord) -> String {
    let Some(changes) = &run.queries else { return String::new() };
    let mut out = format!(
        "<h2>Dev queries one by one</h2><p>{} became better, {} worse, {} stayed as they were ({}).</p>",
        changes.better,
        changes.worse,
        changes.same,
        run.metric()
    );
    for (title, queries) in [("Gained most", &changes.gained), ("Lost most", &changes.lost)] {
        if !queries.is_empty() {
            let _ = write!(out, "<h3>{title}</h3>");
            queries.iter().for_each(|change| out += &query(change));
        }
    }
    out
}

fn query(change: &QueryChange) -> String {
    let rank = |rank: Option<usize>| rank.map_or_else(|| "-".to_owned(), |rank| rank.to_string());
    let class = if change.rank_after <= change.rank_before { "good" } else { "bad" };
    let mut out = format!(
        "<details><summary>{} <span class=\"{class}\">{:.3} &rarr; {:.3}</span></summary><dl>\
         <dt>Rank of the first relevant document</dt><dd>{} &rarr; {}</dd>",
        escaped(&change.query),
        change.before,
        change.after,
        rank(change.rank_before),
        rank(change.rank_after)
    );
    for text in &change.relevant {
        let _ = write!(out, "<dt>Relevant</dt><dd>{}</dd>", escaped(text));
    }
    let _ = write!(out, "<dt>First before training</dt><dd>{}</dd>", escaped(&change.first_before));
    let _ = write!(out, "<dt>First for the best model</dt><dd>{}</dd>", escaped(&change.first_after));
    out + "</dl></details>"
}

fn comparison_page(runs: &[RunRecord]) -> String {
    let mut body =
        "<h1>Runs compared</h1><div class=\"wide\"><table><tr><th>run</th><th></th><th>steps</th><th>metric</th>\
                    <th>start</th><th>best</th><th>at step</th><th>test before</th><th>test after</th></tr>"
            .to_owned();
    for run in runs {
        body += "<tr>";
        summary(run).iter().for_each(|cell| body += &format!("<td>{}</td>", escaped(cell)));
        body += "</tr>";
    }
    body += "</table></div><div class=\"charts\">";
    let curves = |of: &dyn Fn(&RunRecord) -> Vec<(f64, f64)>, marked| -> Vec<Curve> {
        let of = |(colour, run)| Curve { name: name(run), colour: colour % 6, points: of(run), marked };
        runs.iter().enumerate().map(of).collect()
    };
    body += &figure(
        "Dev metric that chooses",
        &curves(
            &|run| {
                let metric = run.metric();
                let value = |line: &crate::record::run_record::EvaluationLine| {
                    Some((line.step as f64, line.evaluation.value(metric)?))
                };
                run.evaluations.iter().filter_map(value).collect()
            },
            true,
        ),
    );
    body += &figure(
        "Loss of each step",
        &curves(&|run| run.steps.iter().map(|step| (step.step as f64, step.loss)).collect(), false),
    );
    body += "</div><h2>Options that differ</h2><div class=\"wide\"><table><tr><th>option</th>";
    runs.iter().for_each(|run| body += &format!("<th>{}</th>", escaped(&name(run))));
    body += "</tr>";
    for (option, values) in differing_options(runs) {
        let _ = write!(body, "<tr><td>{}</td>", escaped(&option));
        values.iter().for_each(|value| body += &format!("<td>{}</td>", escaped(value)));
        body += "</tr>";
    }
    document("Runs compared", false, &(body + "</table></div>"))
}

/// Name, progress, steps, metric, start, best, its step, test before, test after: the cells of a list of runs.
pub fn summary(run: &RunRecord) -> [String; 9] {
    let metric = run.metric();
    let value = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
    let outcome = run.outcome.as_ref();
    let test = outcome.and_then(|outcome| outcome.test.as_ref());
    let made_of = outcome.and_then(|outcome| outcome.best_made_of.as_ref());
    let best = outcome.and_then(|outcome| outcome.dev.as_ref()?[1].value(metric)).or(run.best().map(|best| best.1));
    let at = run.best().map_or_else(|| "-".to_owned(), |best| best.0.to_string());
    [
        name(run),
        run.progress.to_string(),
        format!("{}/{}", run.done(), run.plan.as_ref().map_or(0, |plan| plan.steps)),
        metric.to_string(),
        value(run.start()),
        value(best),
        made_of.map_or(at, |_| "averaged".to_owned()),
        value(test.and_then(|test| test.start.value(metric))),
        value(test.and_then(|test| test.best.value(metric))),
    ]
}

/// Options in which runs differ: the name, and each run's value.
pub fn differing_options(runs: &[RunRecord]) -> Vec<(String, Vec<String>)> {
    let all: Vec<Vec<(String, String)>> =
        runs.iter().map(|run| run.options.as_ref().map(flat).unwrap_or_default()).collect();
    let Some(first) = all.iter().find(|options| !options.is_empty()) else { return Vec::new() };
    let value = |options: &Vec<(String, String)>, name: &str| {
        options.iter().find(|(other, _)| other == name).map_or_else(|| "-".to_owned(), |(_, value)| value.clone())
    };
    let rows = first.iter().map(|(name, _)| (name.clone(), all.iter().map(|one| value(one, name)).collect::<Vec<_>>()));
    rows.filter(|(name, values)| name != "output" && values.iter().any(|value| *value != values[0])).collect()
}

fn changed_options(options: &Options) -> Vec<(String, String)> {
    let defaults = flat(&Options::default());
    flat(options).into_iter().zip(defaults).filter(|(own, default)| own != default).map(|(own, _)| own).collect()
}

fn flat(options: &Options) -> Vec<(String, String)> {
    let words = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    options.entries().into_iter().map(|(key, value)| (key.to_owned(), words(value))).collect()
}

fn name(run: &RunRecord) -> String {
    run.path.file_name().map_or_else(|| run.path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

//! The page of a run, written again as the run goes on, and the page that compares runs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use colbert_config::Options;
use colbert_train::{Evaluation, Event, Flow, Observer};
use maud::{Markup, html};

use crate::error::Error;
use crate::record::chart::{Curve, figure};
use crate::record::explained_queries::section;
use crate::record::page::{document, table, tiles, write};
use crate::record::run_record::{Progress, QueryChange, RunRecord};
use crate::record::summary::{RunSummary, differing_options, flat, name};

/// The page is written at most this often while a run goes on.
const PAUSE: Duration = Duration::from_secs(10);

/// Writes `report.html` into the folder of a run, from what is in the folder.
///
/// # Errors
/// There is no run in the folder, or the disk refuses.
pub fn write_report(run: &Path) -> Result<PathBuf, Error> {
    let path = run.join("report.html");
    write(&path, &page(&RunRecord::read(run)?))?;
    Ok(path)
}

/// Writes one page that compares runs.
///
/// # Errors
/// The disk refuses.
pub fn write_comparison(runs: &[RunRecord], path: &Path) -> Result<(), Error> {
    write(path, &comparison_page(runs))
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
            // A page for looking at is not worth ending a run for; at the end it is written once more, and that must
            // succeed.
            if let Err(error) = write_report(&self.run) {
                tracing::warn!("{error}");
            }
        }
        Flow::Continue
    }
}

fn page(run: &RunRecord) -> String {
    let name = name(run);
    let steps = run.plan.as_ref().map_or(0, |plan| plan.steps);
    let body = html! {
        h1 { (name) }
        p .soft { (run.progress) ", " (run.done()) " of " (steps) " steps" }
        (tiles(&numbers(run)))
        (verdicts(run))
        @if !run.notes.is_empty() {
            h2 { "Events" }
            ul { @for note in &run.notes { li { (note) } } }
        }
        h2 { "Curves" }
        .charts { (curves(run)) }
        (tables(run))
        (queries(run))
        (section(&run.explanations, run.metric()))
        @if let Some(plan) = &run.plan {
            h2 { "Plan" }
            pre { (plan) }
        }
        @if !run.data.is_empty() {
            h2 { "Data" }
            pre { (run.data.trim_end()) }
        }
        @if let Some(options) = &run.options {
            h2 { "Options that are not the default" }
            (table(&["option", "value"], &changed_options(options)))
        }
    };
    document(&name, run.progress == Progress::Running, &body)
}

/// The numbers that are known, with their names.
fn numbers(run: &RunRecord) -> Vec<(String, String)> {
    let metric = run.metric();
    let value = |value: Option<f64>| value.map(|value| format!("{value:.4}"));
    let seconds: f64 = run.steps.iter().map(|step| step.seconds).sum();
    let best = run.outcome.as_ref().and_then(|o| o.dev.as_ref()?.best.value(metric)).or(run.best().map(|best| best.1));
    let memory = run.steps.iter().filter_map(|step| step.memory).max().map(|bytes| (bytes >> 20).to_string());
    let numbers = [
        (format!("dev {metric} at the start"), value(run.start())),
        (format!("best dev {metric}"), value(best)),
        ("steps".to_owned(), Some(run.done().to_string())),
        ("last loss".to_owned(), run.steps.last().map(|step| format!("{:.4}", step.loss))),
        ("examples a second".to_owned(), mean(run, |step| step.examples_per_second).map(|speed| format!("{speed:.1}"))),
        ("tokens a second".to_owned(), mean(run, |step| step.tokens_per_second).map(|speed| format!("{speed:.0}"))),
        ("memory, MiB".to_owned(), memory),
        ("time in steps".to_owned(), (seconds > 0.0).then(|| clock(seconds))),
    ];
    numbers.into_iter().filter_map(|(name, number)| Some((name, number?))).collect()
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

fn verdicts(run: &RunRecord) -> Markup {
    let Some(outcome) = &run.outcome else { return Markup::default() };
    let test = outcome.test.as_ref().and_then(|test| test.comparison.as_ref());
    let comparisons = [("dev", outcome.dev_comparison.as_ref()), ("test", test)];
    html! {
        @for (split, comparison) in comparisons.into_iter().filter_map(|(split, one)| Some((split, one?))) {
            p class=(if comparison.is_clear() { "good" } else { "bad" }) {
                (comparison.verdict(split, outcome.metric))
            }
        }
        @if let Some(parts) = &outcome.best_made_of { p { "The best model is the " (parts) "." } }
        @if outcome.overflowed > 0 {
            p {
                (outcome.overflowed) " of " (run.steps.len() + outcome.overflowed + outcome.skipped)
                " steps were skipped: their gradient overflowed float16."
            }
        }
    }
}

fn curves(run: &RunRecord) -> Markup {
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
    let figures = [
        figure("Loss of each step", &one(steps(&|step| step.loss))),
        figure("Dev queries", &dev.collect::<Vec<_>>()),
        figure("Learning rate", &one(steps(&|step| step.learning_rate))),
        figure("Gradient norm before clipping", &one(steps(&|step| step.gradient_norm))),
        figure("Mean score", &scores),
        figure("Examples a second", &one(steps(&|step| step.examples_per_second))),
        figure("Memory, MiB", &one(memory.collect())),
    ];
    html! { @for figure in figures { (figure) } }
}

fn tables(run: &RunRecord) -> Markup {
    let Some(outcome) = &run.outcome else { return Markup::default() };
    html! {
        @if let Some(dev) = &outcome.dev {
            @let rows: Vec<(&str, &Evaluation)> = [("before training", &dev.start)]
                .into_iter()
                .chain(outcome.candidates.iter().map(|candidate| (candidate.name.as_str(), &candidate.evaluation)))
                .chain([("best model", &dev.best)])
                .collect();
            (evaluations("Dev queries, before and after", &rows))
        }
        @if let Some(test) = &outcome.test {
            (evaluations(
                "Test queries",
                &[("BM25", &test.bm25), ("before training", &test.start), ("best model", &test.best)],
            ))
        }
    }
}

fn evaluations(title: &str, rows: &[(&str, &Evaluation)]) -> Markup {
    let Some((_, first)) = rows.iter().max_by_key(|(_, evaluation)| evaluation.metrics.len()) else {
        return Markup::default();
    };
    let headings = [String::new()].into_iter().chain(first.metrics.iter().map(|(metric, _)| metric.to_string()));
    let row = |(name, evaluation): &(&str, &Evaluation)| {
        let value = |metric| evaluation.value(metric).map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
        let values = first.metrics.iter().map(|(metric, _)| value(*metric));
        [(*name).to_owned()].into_iter().chain(values).collect::<Vec<_>>()
    };
    html! {
        h2 { (title) }
        (table(&headings.collect::<Vec<_>>(), &rows.iter().map(row).collect::<Vec<_>>()))
        p .soft { (first.queries) " queries, each against " (first.documents) " documents" }
    }
}

fn queries(run: &RunRecord) -> Markup {
    let Some(changes) = &run.queries else { return Markup::default() };
    let lists = [("Gained most", &changes.gained), ("Lost most", &changes.lost)];
    html! {
        h2 { "Dev queries one by one" }
        p {
            (changes.better) " became better, " (changes.worse) " worse, " (changes.same) " stayed as they were ("
            (run.metric()) ")."
        }
        @for (title, queries) in lists.into_iter().filter(|(_, queries)| !queries.is_empty()) {
            h3 { (title) }
            @for change in queries { (query(change)) }
        }
    }
}

fn query(change: &QueryChange) -> Markup {
    let rank = |rank: Option<usize>| rank.map_or_else(|| "-".to_owned(), |rank| rank.to_string());
    let class = if change.rank_after <= change.rank_before { "good" } else { "bad" };
    html! {
        details {
            summary { (change.query) " " span class=(class) { (format!("{:.3} → {:.3}", change.before, change.after)) } }
            dl {
                dt { "Rank of the first relevant document" }
                dd { (rank(change.rank_before)) " → " (rank(change.rank_after)) }
                @for text in &change.relevant { dt { "Relevant" } dd { (text) } }
                dt { "First before training" }
                dd { (change.first_before) }
                dt { "First for the best model" }
                dd { (change.first_after) }
            }
        }
    }
}

fn comparison_page(runs: &[RunRecord]) -> String {
    let curves = |of: &dyn Fn(&RunRecord) -> Vec<(f64, f64)>, marked| -> Vec<Curve> {
        let of = |(colour, run)| Curve { name: name(run), colour: colour % 6, points: of(run), marked };
        runs.iter().enumerate().map(of).collect()
    };
    let metric = |run: &RunRecord| -> Vec<(f64, f64)> {
        let metric = run.metric();
        run.evaluations.iter().filter_map(|line| Some((line.step as f64, line.evaluation.value(metric)?))).collect()
    };
    let loss = |run: &RunRecord| run.steps.iter().map(|step| (step.step as f64, step.loss)).collect();
    let summaries: Vec<Vec<String>> = runs.iter().map(|run| RunSummary::of(run).cells().to_vec()).collect();
    let headings: Vec<String> = ["option".to_owned()].into_iter().chain(runs.iter().map(name)).collect();
    let rows = differing_options(runs).into_iter().map(|(option, values)| [vec![option], values].concat());
    let body = html! {
        h1 { "Runs compared" }
        (table(&RunSummary::HEADINGS, &summaries))
        .charts {
            (figure("Dev metric that chooses", &curves(&metric, true)))
            (figure("Loss of each step", &curves(&loss, false)))
        }
        h2 { "Options that differ" }
        (table(&headings, &rows.collect::<Vec<_>>()))
    };
    document("Runs compared", false, &body)
}

fn changed_options(options: &Options) -> Vec<Vec<String>> {
    let defaults = flat(&Options::default());
    let changed = flat(options).into_iter().zip(defaults).filter(|(own, default)| own != default);
    changed.map(|((key, value), _)| vec![key, value]).collect()
}

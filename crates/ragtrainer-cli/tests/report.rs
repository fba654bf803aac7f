//! What is seen of runs: pages, lists, comparisons, event files.

use std::fs;

use crate::program::{ragtrainer, train};
use crate::support::{beir_folder, folder, pairs, pretrained};

#[test]
fn the_page_of_a_run_and_the_list_of_runs() {
    let here = folder();
    let data = beir_folder(here.path());
    for (run, rate) in [("slow", "1e-4"), ("fast", "3e-3")] {
        let ran = train(here.path(), &data, &["--learning-rate", rate, "--epochs", "3", "--output", run]);
        assert_eq!(ran.code, Some(0), "{}", ran.errors);
        assert!(ran.output.contains(&format!("report: {run}/report.html")), "{}", ran.output);
    }
    let run = here.path().join("fast");
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    for expected in [
        "Loss of each step",
        "Learning rate",
        "Dev queries",
        "Test queries",
        "BM25",
        "finished, 9 of 9 steps",
        "train.learning_rate",
        "12 queries, each against 12 documents",
        "became better",
        "9 steps of 4 queries",
        "the start:",
        "Which tokens matched",
        "First for the best model",
        "tokens of expansion",
    ] {
        assert!(page.contains(expected), "{expected}");
    }
    // The matches are those of the best model, which rerank --explain draws too.
    let explained = fs::read_to_string(run.join("explanations.json")).unwrap();
    let explained: Vec<serde_json::Value> = serde_json::from_str(&explained).unwrap();
    assert!((1..=4).contains(&explained.len()), "{explained:?}");
    let model = pretrained(run.join("best"));
    for query in &explained {
        let text = query["query"].as_str().unwrap();
        assert!(page.contains(text), "{text}");
        let first = &query["documents"][0];
        assert_eq!(first["is_first"], true);
        let documents: Vec<String> = pairs().into_iter().map(|(_, document)| document).collect();
        let best = &model.rerank(text, &documents, 1).unwrap()[0];
        let score = first["explanation"]["score"].as_f64().unwrap();
        assert!((score - f64::from(best.score)).abs() < 1e-4, "{text}: {score} and {}", best.score);
    }
    assert!(page.matches("<svg").count() >= 6 && page.matches("<svg").count() == page.matches("</svg>").count());
    for outside in ["http://", "https://", "src=", "<script", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}: the page needs something else");
    }
    // Texts are escaped, and what the files do not have is left out: a run that was killed has a page too.
    fs::remove_file(run.join("outcome.json")).unwrap();
    fs::write(run.join("data.txt"), "<b>&").unwrap();
    let ran = ragtrainer(here.path(), &["report", "fast"]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("interrupted") && page.contains("&lt;b&gt;&amp;") && !page.contains("BM25"));

    let ran = ragtrainer(here.path(), &["runs", "."]);
    for expected in ["fast", "slow", "finished", "interrupted", "9/9", "ndcg@10"] {
        assert!(ran.output.contains(expected), "{expected}: {}", ran.output);
    }
    let ran = ragtrainer(here.path(), &["report", "slow", "fast", "--html", "both.html"]);
    assert!(ran.output.contains("train.learning_rate  0.0001  0.003"), "{}", ran.output);
    assert!(!ran.output.contains("train.seed"), "only what differs: {}", ran.output);
    let page = fs::read_to_string(here.path().join("both.html")).unwrap();
    assert!(page.contains("polyline class=\"c1\"") && page.contains("train.learning_rate"));
    let ran = ragtrainer(here.path(), &["report", "nowhere"]);
    assert!(ran.code == Some(1) && ran.errors.contains("nowhere holds no run"), "{}", ran.errors);

    let events: Vec<_> = fs::read_dir(run.join("tensorboard")).unwrap().collect();
    assert_eq!(events.len(), 1);
    let bytes = fs::read(events[0].as_ref().unwrap().path()).unwrap();
    let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    assert!(has(b"brain.Event:2") && has(b"train/loss") && has(b"dev/ndcg@10") && has(b"speed/tokens_per_second"));
}

#[test]
fn dev_queries_are_split_off_and_the_choice_is_explained() {
    let here = folder();
    let data = crate::program::pairs_file(here.path());
    let further = ["--dev-split", "4", "--metric", "loss", "--patience", "2", "--average-best", "2", "--interpolate"];
    let ran = train(
        here.path(),
        &data,
        &[&further[..], &["--ema-decay", "0.5", "--epochs", "4", "--learning-rate", "3e-3"]].concat(),
    );
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    for expected in [
        "dev: 4 queries held out, 8 left to train on; none shares a positive with a training query",
        "dev: 4 queries against 12 documents",
        "moving average of the weights: dev loss",
        "the start: dev loss",
        "paired bootstrap over 4 queries",
    ] {
        assert!(ran.output.contains(expected), "{expected} is not in\n{}", ran.output);
    }
    let outcome: serde_json::Value =
        serde_json::from_slice(&fs::read(here.path().join("run/outcome.json")).unwrap()).unwrap();
    assert!(outcome["candidates"].as_array().is_some_and(|candidates| candidates.len() >= 4), "{outcome}");
    assert!(outcome["dev_comparison"]["p_value"].is_number());
    let ran = train(here.path(), &data, &["--dev-split", "12", "--output", "other"]);
    assert!(ran.errors.contains("data.dev_split") && ran.errors.contains("1 to 11"), "{}", ran.errors);
}

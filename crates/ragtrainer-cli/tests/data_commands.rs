//! Training data on the command line: `prepare`, `check`, bad rows, and where negatives come from.

use std::fs;

use crate::program::{pairs_file, ragtrainer, train};
use crate::support::{beir_folder, folder, tiny_model};

#[test]
fn prepare_writes_the_three_files_and_train_takes_them_up() {
    let here = folder();
    let data = pairs_file(here.path());
    let prepare = [
        "prepare",
        "--train-data",
        data.to_str().unwrap(),
        "--num-new-negatives",
        "2",
        "--hard-negative-minimum-rank",
        "0",
    ];
    let ran = ragtrainer(here.path(), &[&prepare[..], &["--data-out-path", "out"]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    let triples = fs::read_to_string(here.path().join("out/triples.train.colbert.jsonl")).unwrap();
    assert_eq!(triples.lines().count(), 24);
    let again = ragtrainer(here.path(), &[&prepare[..], &["--data-out-path", "again"]].concat());
    assert_eq!(again.code, Some(0));
    for file in ["queries.train.colbert.tsv", "corpus.train.colbert.tsv", "triples.train.colbert.jsonl"] {
        let read = |folder: &str| fs::read(here.path().join(folder).join(file)).unwrap();
        assert_eq!(read("out"), read("again"), "{file}");
    }
    let ran = train(here.path(), &here.path().join("out"), &["--dry-run"]);
    assert!(ran.output.contains("6 steps of 4 queries"), "{}{}", ran.output, ran.errors);
}

#[test]
fn check_reports_and_its_exit_code_says_how_bad_it_is() {
    let here = folder();
    let data = pairs_file(here.path());
    let ran = ragtrainer(here.path(), &["check", "--train-data", data.to_str().unwrap()]);
    assert!([Some(0), Some(3)].contains(&ran.code), "{:?} {}", ran.code, ran.errors);
    assert!(ran.output.contains("12"), "{}", ran.output);
    let model = tiny_model();
    let arguments =
        ["check", "--train-data", data.to_str().unwrap(), "--pretrained-model-name", model.to_str().unwrap()];
    let ran = ragtrainer(here.path(), &[&arguments[..], &["--doc-maxlen", "12", "--html", "report.html"]].concat());
    assert!(ran.output.contains("cut"), "documents of more than 12 tokens are cut\n{}", ran.output);
    let page = fs::read_to_string(here.path().join("report.html")).unwrap();
    assert!(page.starts_with("<!") && page.contains("<svg") && !page.contains("http://"), "{}", &page[..200]);
    let same = here.path().join("same.jsonl");
    fs::write(&same, "[\"a query\", [\"a text\"], [\"a text\"]]\n[\"b query\", [\"b text\"], [\"c text\"]]\n").unwrap();
    let ran = ragtrainer(here.path(), &["check", "--train-data", same.to_str().unwrap(), "--json"]);
    assert_eq!(ran.code, Some(1), "a text that is positive and negative for one query is an error\n{}", ran.output);
    let report: serde_json::Value = serde_json::from_str(&ran.output).unwrap();
    assert!(report["findings"].as_array().is_some_and(|findings| !findings.is_empty()));
}

#[test]
fn bad_rows_end_a_run_or_are_left_out_and_summed_up() {
    let here = folder();
    let good = fs::read_to_string(pairs_file(here.path())).unwrap();
    let bad: String = (0..20).map(|row| format!("[\"query {row}\", \" \"]\n")).collect();
    let path = here.path().join("bad.jsonl");
    fs::write(&path, format!("{good}{bad}[\"q\",\n")).unwrap();
    let ran = train(here.path(), &path, &["--dry-run"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.errors.contains("bad.jsonl, line 13, positive"), "{}", ran.errors);
    let ran = train(here.path(), &path, &["--skip-bad-rows", "--dry-run"]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    for expected in ["21 rows are wrong", "empty text: 20, malformed row: 1", "bad.jsonl, line 13", "3 steps of 4"] {
        assert!(ran.output.contains(expected), "{expected} is not in\n{}", ran.output);
    }
    assert_eq!(ran.output.matches("bad.jsonl, line").count(), 10, "the first ten are shown\n{}", ran.output);
}

#[test]
fn bad_rows_of_a_beir_folder_are_left_out_of_every_split() {
    let here = folder();
    let data = beir_folder(here.path());
    let corpus = fs::read_to_string(data.join("corpus.jsonl")).unwrap();
    fs::write(data.join("corpus.jsonl"), format!("{corpus}no json\n")).unwrap();
    let judged = fs::read_to_string(data.join("qrels/dev.tsv")).unwrap();
    fs::write(data.join("qrels/dev.tsv"), format!("{judged}q1\td99\t1\n")).unwrap();
    assert_eq!(train(here.path(), &data, &["--dry-run"]).code, Some(1));
    let ran = train(here.path(), &data, &["--skip-bad-rows", "--dry-run"]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    for expected in ["1 rows are wrong", "dev: 1 rows are wrong and were left out (unknown id: 1)"] {
        assert!(ran.output.contains(expected), "{expected} is not in\n{}", ran.output);
    }
}

#[test]
fn the_data_report_is_in_the_run_folder_and_mining_says_how_fast_it_was() {
    let here = folder();
    let data = beir_folder(here.path());
    let ran = train(here.path(), &data, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    assert!(ran.output.contains("mining: 12 texts in"), "{}", ran.output);
    let run = here.path().join("run");
    let read = |name: &str| fs::read_to_string(run.join(name)).unwrap();
    let report: serde_json::Value = serde_json::from_str(&read("data_report.json")).unwrap();
    let leaks: Vec<_> =
        report["findings"].as_array().unwrap().iter().filter(|one| one["name"] == "leaked_queries").collect();
    assert_eq!(leaks.len(), 2, "dev and test queries are those that are trained on");
    assert!(read("data_report.html").contains("12 test queries are trained on"));
    let prepared: serde_json::Value = serde_json::from_str(&read("prepared.json")).unwrap();
    assert_eq!(prepared["mined_negatives"], 12);
}

#[test]
fn every_miner_can_be_asked_for() {
    let here = folder();
    let data = pairs_file(here.path());
    let model = tiny_model();
    let model = model.to_str().unwrap();
    let said = |arguments: &[&str], expected: &[&str]| {
        let ran = train(here.path(), &data, &[arguments, &["--dry-run", "--positive-score-share", "2"]].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.errors);
        for expected in expected {
            assert!(ran.output.contains(expected), "{expected} is not in\n{}", ran.output);
        }
    };
    said(&[], &["12 negatives mined by bm25 (en)"]);
    said(
        &["--miner", "dense", "--miner-model", model, "--miner-query-prefix", "query: "],
        &[
            "12 negatives mined by dense (tiny, mean, cosine, 512 tokens, queries after \"query: \")",
            "mining: 24 texts",
        ],
    );
    said(&["--miner", "late_interaction"], &["mined by late interaction on bm25 (en)", "documents rescored in"]);
    said(
        &["--miner", "late_interaction", "--miner-model", model],
        &["mined by late interaction on dense (tiny, mean, cosine, 512 tokens)"],
    );
    said(&["--miner", "random"], &["12 negatives drawn at random"]);
}

#[test]
fn prepare_with_a_sentence_encoder_writes_the_same_bytes_every_time() {
    let here = folder();
    let (data, model) = (pairs_file(here.path()), tiny_model());
    let bytes = |out: &str| {
        let arguments = ["prepare", "--train-data", data.to_str().unwrap(), "--data-out-path", out, "--miner", "dense"];
        let further = ["--miner-model", model.to_str().unwrap(), "--hard-negative-minimum-rank", "0"];
        let ran = ragtrainer(here.path(), &[&arguments[..], &further].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.errors);
        fs::read(here.path().join(out).join("triples.train.colbert.jsonl")).unwrap()
    };
    assert_eq!(bytes("a"), bytes("b"));
}

#[test]
fn negatives_are_chosen_anew_for_every_epoch() {
    let here = folder();
    let data = pairs_file(here.path());
    for (run, miner) in [("bm25", "bm25"), ("late", "late_interaction"), ("random", "random")] {
        let arguments = ["--epochs", "3", "--refresh", "epoch", "--miner", miner, "--output", run];
        let ran = train(here.path(), &data, &[&arguments[..], &["--positive-score-share", "2"]].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.errors);
        for expected in ["epoch 2: negatives chosen again", "epoch 3: negatives chosen again"] {
            assert!(ran.output.contains(expected), "{expected} is not in\n{}", ran.output);
        }
        let negatives = here.path().join(run).join("negatives");
        let read = |file: &str| fs::read_to_string(negatives.join(file)).unwrap();
        assert_eq!(read("epoch-0001.jsonl").lines().count(), 12 + 1);
        assert_ne!(read("epoch-0001.jsonl"), read("epoch-0002.jsonl"), "{miner}");
    }
}

/// Several sources are one data set, on the command line and in an option file.
#[test]
fn several_sources_are_one_data_set() {
    let here = folder();
    for (name, rows) in [("a.jsonl", 0..7), ("b.jsonl", 7..12)] {
        let pairs = &crate::support::pairs()[rows];
        let lines: String = pairs.iter().map(|pair| serde_json::json!(pair).to_string() + "\n").collect();
        fs::write(here.path().join(name), lines).unwrap();
    }
    let ran = ragtrainer(here.path(), &["check", "--json", "--train-data", "a.jsonl", "--train-data", "b.jsonl"]);
    let report: serde_json::Value = serde_json::from_str(&ran.output).unwrap();
    assert_eq!(report["queries"], 12, "{report}");
    fs::write(here.path().join("both.toml"), "[data]\ntrain = ['a.jsonl', 'b.jsonl']\n").unwrap();
    let ran = ragtrainer(here.path(), &["check", "--json", "--config", "both.toml"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&ran.output).unwrap(), report);
    let ran = ragtrainer(here.path(), &["check", "--train-data", "a.jsonl", "--train-data", "a.jsonl"]);
    assert!(ran.code == Some(1) && ran.errors.contains("data.train"), "{}", ran.errors);

    let model = tiny_model();
    let train = ["train", "--train-data", "a.jsonl", "--train-data", "b.jsonl", "--output", "run"];
    let sizes = ["--batch-size", "4", "--dim", "16", "--doc-maxlen", "32", "--miner", "random"];
    let model = ["--pretrained-model-name", model.to_str().unwrap()];
    let ran = ragtrainer(here.path(), &[&train[..], &sizes, &model].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    let card = fs::read_to_string(here.path().join("run/best/README.md")).unwrap();
    assert!(card.contains("`a.jsonl`, `b.jsonl`: "), "{card}");
    assert_eq!(ragtrainer(here.path(), &["train", "--resume", "run", "--epochs", "1"]).code, Some(0));
}

/// What a person types first works.
#[test]
fn check_takes_a_file_and_prepare_an_output() {
    let here = folder();
    let data = pairs_file(here.path());
    let check = ragtrainer(here.path(), &["check", data.to_str().unwrap()]);
    assert!(check.output.contains("12"), "{}{}", check.output, check.errors);
    let arguments = ["prepare", "--train-data", data.to_str().unwrap(), "--output", "here", "--num-new-negatives", "1"];
    let ran = ragtrainer(here.path(), &[&arguments[..], &["--miner", "random"]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    assert!(here.path().join("here/triples.train.colbert.jsonl").exists() && !here.path().join("data").exists());
}

//! A teacher in the program: scores of candidates as training data, or in one command with training.

use std::fs;
use std::path::{Path, PathBuf};

use ragtrainer::Backend;
use ragtrainer::backend::Job;
use ragtrainer::model::Pretrained;
use ragtrainer::model::sentence::CrossEncoder;
use serde_json::Value;

use crate::program::{Ran, pairs_file, ragtrainer, train};
use crate::support::{backend, folder, pretrained, tiny_model};

fn cross_encoder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../colbert-model/tests/cross_encoders/bert")
}

fn score(folder: &Path, teacher: &Path, further: &[&str]) -> Ran {
    let data = pairs_file(folder);
    let (teacher, data) = (teacher.to_str().unwrap(), data.to_str().unwrap());
    let arguments = ["score", "--teacher", teacher, "--train-data", data, "--teacher-cache", "scores"];
    let negatives = ["--num-new-negatives", "2", "--hard-negative-minimum-rank", "0", "--nway", "3"];
    ragtrainer(folder, &[&arguments[..], &negatives, further].concat())
}

fn rows(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

struct Scores<'a> {
    pairs: &'a [(String, String)],
}

impl Job for Scores<'_> {
    type Output = Vec<f32>;

    fn run<B: ragtrainer::model::kernels::KernelAutodiffBackend>(self, device: &B::Device) -> Vec<f32> {
        let model = CrossEncoder::<B::InnerBackend>::read(&cross_encoder(), device).unwrap();
        let pairs: Vec<(&str, &str)> = self.pairs.iter().map(|(q, d)| (q.as_str(), d.as_str())).collect();
        model.scores(&pairs, device).unwrap()
    }
}

/// The (query, document) pairs of rows, and their scores.
fn flat(rows: &[Value]) -> (Vec<(String, String)>, Vec<f32>) {
    let (mut pairs, mut scores) = (Vec::new(), Vec::new());
    for row in rows {
        let documents = row["documents"].as_array().unwrap();
        assert_eq!(documents.len(), row["scores"].as_array().unwrap().len());
        for (document, score) in documents.iter().zip(row["scores"].as_array().unwrap()) {
            pairs.push((row["query"].as_str().unwrap().to_owned(), document.as_str().unwrap().to_owned()));
            scores.push(score.as_f64().unwrap() as f32);
        }
    }
    (pairs, scores)
}

#[test]
fn a_cross_encoder_scores_every_candidate_once_and_the_rows_train_a_model() {
    let here = folder();
    let ran = score(here.path(), &cross_encoder(), &["--out", "scored.jsonl"]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    assert!(
        ran.output.contains("scored by bert (cross-encoder, 40 tokens), 0 of them in an earlier run"),
        "{}",
        ran.output
    );
    let path = here.path().join("scored.jsonl");
    let (pairs, scores) = flat(&rows(&path));
    let expected = Backend::from_name(&backend()).unwrap().run(Scores { pairs: &pairs });
    assert!(scores.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{scores:?} {expected:?}");
    assert!(rows(&path).iter().all(|row| row["documents"].as_array().unwrap().len() == 3));

    // The scores are kept: the same rows again, and the teacher is asked for nothing.
    let first = fs::read(&path).unwrap();
    let ran = score(here.path(), &cross_encoder(), &["--out", "again.jsonl"]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    assert_eq!(fs::read(here.path().join("again.jsonl")).unwrap(), first);
    let line = ran.output.lines().find(|line| line.contains("pairs scored by bert")).unwrap().trim();
    let numbers: Vec<&str> = line.split(' ').filter(|word| word.parse::<usize>().is_ok()).collect();
    assert_eq!(numbers[0], *numbers.iter().rev().find(|number| **number != "40").unwrap(), "{line}");

    let ran = train(here.path(), &path, &["--nway", "3", "--maxsteps", "2"]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
}

#[test]
fn mining_scoring_and_distilling_is_one_command() {
    let here = folder();
    let (data, teacher) = (pairs_file(here.path()), cross_encoder());
    let further =
        ["--teacher", teacher.to_str().unwrap(), "--teacher-cache", "scores", "--nway", "2", "--maxsteps", "2"];
    // The scores of a model with random weights lie so close that the filter would drop nearly every candidate.
    let ran = train(here.path(), &data, &[&further[..], &["--positive-score-share", "off"]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    assert!(ran.output.contains("scored by bert (cross-encoder"), "{}", ran.output);
    assert!(here.path().join("run/best/model.safetensors").is_file());
}

#[test]
fn a_colbert_is_a_teacher_whose_scores_are_those_of_rerank() {
    let here = folder();
    let ran = score(here.path(), &tiny_model(), &["--out", "scored.jsonl"]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    assert!(ran.output.contains("(ColBERT)"), "{}", ran.output);
    let model = pretrained(tiny_model());
    for row in rows(&here.path().join("scored.jsonl")) {
        let documents: Vec<&str> = row["documents"].as_array().unwrap().iter().map(|d| d.as_str().unwrap()).collect();
        for hit in model.rerank(row["query"].as_str().unwrap(), &documents, documents.len()).unwrap() {
            let score = row["scores"][hit.index].as_f64().unwrap() as f32;
            assert!((score - hit.score).abs() < 1e-4, "{score} {}", hit.score);
        }
    }
}

#[test]
fn teachers_that_cannot_teach_are_refused_before_anything_is_written() {
    let here = folder();
    let refused = |ran: Ran, parts: &[&str]| {
        assert_eq!(ran.code, Some(1), "{}", ran.output);
        parts.iter().for_each(|part| assert!(ran.errors.contains(part), "{part}: {}", ran.errors));
        assert!(!here.path().join("scored.jsonl").exists());
    };
    let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("../colbert-model/tests/families/distilbert");
    assert!(Pretrained::read(&plain).unwrap().declared_settings().is_none());
    let out = ["--out", "scored.jsonl"];
    refused(score(here.path(), &plain, &out), &["negatives.teacher", "classification head", "cross-encoder/"]);
    refused(score(here.path(), Path::new("nowhere"), &out), &["nowhere"]);
    refused(score(here.path(), &cross_encoder(), &["--out", "."]), &["--overwrite"]);
    fs::create_dir(here.path().join("scores")).unwrap();
    fs::write(here.path().join("occupied"), "a file").unwrap();
    let cache = ["--out", "scored.jsonl", "--teacher-cache", "occupied"];
    refused(score(here.path(), &cross_encoder(), &cache), &["occupied"]);
    let data = pairs_file(here.path());
    let data = data.to_str().unwrap();
    let before = fs::read(data).unwrap();
    refused(score(here.path(), &cross_encoder(), &["--out", data, "--overwrite"]), &["part of the input"]);
    assert_eq!(fs::read(data).unwrap(), before);
    refused(ragtrainer(here.path(), &["score", "--train-data", data, "--out", "scored.jsonl"]), &["--teacher"]);
    let epoch = ["--teacher", "t", "--refresh", "epoch"];
    refused(train(here.path(), Path::new(data), &epoch), &["negatives.refresh", "negatives.teacher"]);
}

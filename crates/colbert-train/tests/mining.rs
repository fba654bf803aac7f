//! Miners that need a model, against naive rankings in f64.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use colbert_data::{Collection, DataError, MiningProgress, NegativeMiner, Queries, Ranked, Texts};
use colbert_model::maxsim;
use colbert_model::sentence::SentenceEncoder;
use colbert_train::mining::{DenseMiner, LateInteractionMiner};
use serde_json::Value;
use tempfile::TempDir;

use crate::evaluation::filled;
use crate::support::{Inner, device, parity, tiny};

fn fixture() -> Value {
    let path = test_backend::crate_folder().join("../colbert-model/tests/sentence/expected.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The tiny BERT with the files of a recorded variant beside its own.
fn directory(root: &Path, name: &str, files: &Value) -> PathBuf {
    let directory = root.join(name);
    fs::create_dir_all(&directory).unwrap();
    for entry in fs::read_dir(parity("tiny")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, directory.join(path.file_name().unwrap())).unwrap();
    }
    for (path, content) in files.as_object().unwrap() {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content.to_string()).unwrap();
    }
    directory
}

fn texts<Kind>(value: &Value) -> Texts<Kind> {
    let mut texts = Texts::new();
    for text in value.as_array().unwrap() {
        texts.add(text.as_str().unwrap()).unwrap();
    }
    texts
}

/// Fails unless `ranking` is that of `scores` down to its length, but for scores that are as good as equal.
#[track_caller]
fn assert_ranks(ranking: &[Ranked], scores: &[f64], tolerance: f64) {
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let mut seen = std::collections::HashSet::new();
    for (ranked, expected) in ranking.iter().zip(&sorted) {
        assert!(seen.insert(ranked.pid), "{} twice", ranked.pid);
        assert!((f64::from(ranked.score) - expected).abs() < tolerance, "{ranked:?} where {expected} is due");
        assert!((scores[ranked.pid as usize] - expected).abs() < tolerance, "{ranked:?} where {expected} is due");
    }
    assert!(ranking.windows(2).all(|pair| (pair[1].score, pair[0].pid) < (pair[0].score, pair[1].pid)));
}

#[test]
fn dense_rankings_are_those_of_sentence_transformers() {
    let fixture = fixture();
    let root = TempDir::new().unwrap();
    let (queries, collection): (Queries, Collection) = (texts(&fixture["queries"]), texts(&fixture["documents"]));
    assert_eq!((queries.len(), collection.len()), (6, 40));
    for (name, variant) in fixture["variants"].as_object().unwrap() {
        let directory = directory(root.path(), name, &variant["files"]);
        let miner = DenseMiner::<Inner>::read(&directory, None, None, &device()).unwrap();
        for (ranking, row) in miner
            .rank(&queries, &collection, 15, &|_, _, _| ())
            .unwrap()
            .iter()
            .zip(variant["similarity"].as_array().unwrap())
        {
            let scores: Vec<f64> = row.as_array().unwrap().iter().map(|score| score.as_f64().unwrap()).collect();
            assert_eq!(ranking.len(), 15, "{name}");
            // float32 sums of 32 products; plain products reach 30.
            assert_ranks(ranking, &scores, if name == "mean_dot" { 1e-4 } else { 1e-5 });
        }
    }
}

#[test]
fn names_and_prefixes_are_told() {
    let fixture = fixture();
    let root = TempDir::new().unwrap();
    let files = &fixture["variants"]["cls_with_prompts"]["files"];
    let directory = directory(root.path(), "some-model", files);
    let name = |query, document| DenseMiner::<Inner>::read(&directory, query, document, &device()).unwrap().name();
    assert_eq!(
        name(None, None),
        "dense (some-model, CLS, cosine, 12 tokens, queries after \"query: \", documents after \"passage: \")"
    );
    assert_eq!(name(Some(""), Some("d: ")), "dense (some-model, CLS, cosine, 12 tokens, documents after \"d: \")");
}

/// More texts than fit one block on either side, and some that differ only in ways that the encoder ignores.
#[test]
fn blocks_threads_and_ties_change_nothing() {
    let (mut queries, mut collection) = (Queries::new(), Collection::new());
    for number in 0..300 {
        queries.add(&format!("what is smuggled in town {number}")).unwrap();
    }
    for number in 0..350 {
        collection.add(&format!("town {number} smuggles tin")).unwrap();
        collection.add(&format!("Town {number} smuggles tin")).unwrap();
    }
    let miner = DenseMiner::<Inner>::read(&parity("tiny"), None, None, &device()).unwrap();
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| miner.rank(&queries, &collection, 9, &|_, _, _| ()).unwrap())
    };
    let rankings = on(1);
    assert_eq!(rankings, on(3));
    let encoder = SentenceEncoder::<Inner>::read(&parity("tiny"), &device()).unwrap();
    let of = |texts: Vec<&str>, as_queries: bool| {
        let found = if as_queries { encoder.queries(&texts, &device()) } else { encoder.documents(&texts, &device()) };
        found.unwrap().values.chunks(32).map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect()
    };
    let (q, d): (Vec<Vec<f64>>, Vec<Vec<f64>>) =
        (of(queries.iter().collect(), true), of(collection.iter().collect(), false));
    for (ranking, query) in rankings.iter().zip(&q) {
        let scores: Vec<f64> = d.iter().map(|document| query.iter().zip(document).map(|(a, b)| a * b).sum()).collect();
        assert_ranks(ranking, &scores, 1e-6);
        assert_eq!(ranking[0].pid % 2, 0, "of two equal ones the lower pid comes first");
        assert_eq!((ranking[0].pid + 1, ranking[0].score), (ranking[1].pid, ranking[1].score));
    }
    assert!(miner.rank(&Queries::new(), &collection, 9, &|_, _, _| ()).unwrap().is_empty());
    assert_eq!(miner.rank(&queries, &collection, 0, &|_, _, _| ()).unwrap()[7], []);
    assert_eq!(miner.rank(&queries, &collection, 10_000, &|_, _, _| ()).unwrap()[7].len(), 700);
}

#[test]
fn a_directory_that_is_none_is_an_error() {
    let error = DenseMiner::<Inner>::read(Path::new("/no/such"), None, None, &device()).unwrap_err().to_string();
    assert!(error.contains("no model directory at /no/such"), "{error}");
}

/// Gives documents `start..start + depth` to query `start`, and so on.
#[derive(Debug)]
struct Window;

impl NegativeMiner for Window {
    fn name(&self) -> String {
        "window".to_owned()
    }

    fn rank(
        &self,
        queries: &Queries,
        collection: &Collection,
        depth: usize,
        _: &MiningProgress<'_>,
    ) -> Result<Vec<Vec<Ranked>>, DataError> {
        let of = |qid: usize| {
            let pids = (qid..collection.len()).take(depth);
            pids.map(|pid| Ranked { pid: pid as u32, score: -(pid as f32) }).collect()
        };
        Ok((0..queries.len()).map(of).collect())
    }
}

#[test]
fn late_interaction_rescores_the_candidates_and_no_others() {
    let fixture = fixture();
    let (queries, collection): (Queries, Collection) = (texts(&fixture["queries"]), texts(&fixture["documents"]));
    let options = colbert_config::TrainOptions { dim: 16, query_maxlen: 20, doc_maxlen: 32, ..Default::default() };
    let (model, tokenizer) = tiny(&options, None);
    let model = burn::module::AutodiffModule::valid(&model);
    let queries_embedded = model.encode(&tokenizer.queries(&queries.iter().collect::<Vec<_>>()).unwrap(), &device());
    let documents = model.encode(&tokenizer.documents(&collection.iter().collect::<Vec<_>>()).unwrap(), &device());
    let all: Vec<f32> = maxsim(&queries_embedded, &documents).into_data().into_vec().unwrap();
    let miner = LateInteractionMiner::new(model, tokenizer, Arc::new(Window), &device());
    assert_eq!(miner.name(), "late interaction on window");
    let rankings = miner.rank(&queries, &collection, 10, &|_, _, _| ()).unwrap();
    for (qid, (ranking, scores)) in rankings.iter().zip(all.chunks(40)).enumerate() {
        // Twice as many candidates as are wanted: documents qid to qid + 19.
        let candidates = qid..qid + 20;
        let scores: Vec<f64> = (0..40)
            .map(|pid| if candidates.contains(&pid) { f64::from(scores[pid]) } else { f64::NEG_INFINITY })
            .collect();
        assert_eq!(ranking.len(), 10);
        // Sums of 20 numbers up to 1, in float32.
        assert_ranks(ranking, &scores, 1e-5);
    }
    assert_eq!(miner.rank(&queries, &collection, 10, &|_, _, _| ()).unwrap(), rankings);
    assert_eq!(miner.rank(&queries, &collection, 500, &|_, _, _| ()).unwrap()[5].len(), 35);
    assert_eq!(miner.rank(&Queries::new(), &collection, 10, &|_, _, _| ()).unwrap(), Vec::<Vec<Ranked>>::new());
}

#[test]
fn a_model_whose_vectors_are_not_finite_mines_nothing() {
    let fixture = fixture();
    let (queries, collection): (Queries, Collection) = (texts(&fixture["queries"]), texts(&fixture["documents"]));
    let options = colbert_config::TrainOptions { dim: 16, ..Default::default() };
    let (model, tokenizer) = tiny(&options, None);
    let model = burn::module::AutodiffModule::valid(&filled(model, f32::NAN));
    let miner = LateInteractionMiner::new(model, tokenizer, Arc::new(Window), &device());
    let error = miner.rank(&queries, &collection, 10, &|_, _, _| ()).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    let first = format!("not finite (NaN or infinite) for query \"{}\"", queries.text(0));
    assert!(source.contains(&first), "{source}");
}

/// Any encoder, by the output of `make_sentence.py ENCODER OUT.json`.
#[test]
#[ignore = "needs SIMILARITIES, a file that make_sentence.py wrote"]
#[expect(clippy::print_stdout, reason = "figures for a person")]
fn measured_against_sentence_transformers() {
    let path = std::env::var_os("SIMILARITIES").expect("SIMILARITIES names a file");
    let recorded: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let (queries, collection): (Queries, Collection) = (texts(&recorded["queries"]), texts(&recorded["documents"]));
    let miner =
        DenseMiner::<Inner>::read(Path::new(recorded["directory"].as_str().unwrap()), None, None, &device()).unwrap();
    let start = std::time::Instant::now();
    let rankings = miner.rank(&queries, &collection, 110, &|_, _, _| ()).unwrap();
    let texts = queries.len() + collection.len();
    println!("{}: {texts} texts in {:?}", miner.name(), start.elapsed());
    let mut largest = 0f64;
    for (ranking, row) in rankings.iter().zip(recorded["similarity"].as_array().unwrap()) {
        let scores: Vec<f64> = row.as_array().unwrap().iter().map(|score| score.as_f64().unwrap()).collect();
        let differences = ranking.iter().map(|one| (f64::from(one.score) - scores[one.pid as usize]).abs());
        largest = differences.fold(largest, f64::max);
        assert_ranks(ranking, &scores, 1e-5);
    }
    println!("largest difference of a similarity: {largest:e}");
}

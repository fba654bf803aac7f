//! Search over a folder of encoded documents: vectors a second for each number format beside the memory's rate, and on
//! judged data the loss of each format and of the index.
//!
//! `cargo bench -p ragtrainer-benches --bench search` makes a folder of seeded vectors. Variables:
//! - `COLBERT_BENCH_NUMPY=PYTHON` runs `peers/search.py` on the same vectors, in the same run;
//! - `COLBERT_BENCH_PASSAGES=N` changes the number of passages (10,000 of 64 vectors), `COLBERT_BENCH_FORMATS=int8,...`
//!   the number formats (all three);
//! - `COLBERT_BENCH_FOLDER=DIR` (float32), `COLBERT_BENCH_QUERIES=FILE.safetensors` (`ragtrainer encode --queries` of
//!   BEIR/queries.jsonl) and `COLBERT_BENCH_BEIR=BEIR` measure recall and nDCG instead, in folders beside DIR; with
//!   `--features index` also the index of the float32 folder at 2 and 4 bits.
#![expect(clippy::print_stdout, reason = "the figures are the result")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use ragtrainer::data::{Side, read_texts};
use ragtrainer::model::Weights;
use ragtrainer::search::{EncodedSource, TextVectors, VectorFormat, search_vectors};
use ragtrainer::train::memory;
use ragtrainer::{Document, DocumentFolder};
use ragtrainer_benches::quick;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

const DIM: usize = 128;
const QUERY_TOKENS: usize = 32;
const PASSAGE_TOKENS: usize = 64;
/// Passages that are added at once.
const PART: usize = 5000;
/// What divides a document's id from a passage's number in the copies of a judged folder.
const PASSAGE_MARK: char = '#';
/// Queries that are also searched one at a time.
const ALONE: usize = 20;
/// Times that a search is measured; the fastest counts.
const TIMES: usize = 5;

fn variable(name: &str) -> Option<String> {
    std::env::var(format!("COLBERT_BENCH_{name}")).ok()
}

fn main() {
    // cargo test runs benches with this argument, and cargo bench with --bench.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    match variable("FOLDER") {
        Some(folder) => judged(Path::new(&folder)),
        None => speed(),
    }
}

/// Seeded unit vectors, `tokens` for each text.
fn seeded(texts: usize, tokens: usize, seed: u64) -> TextVectors {
    let make = |text: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed.wrapping_mul(1 << 32).wrapping_add(text as u64));
        let mut rows: Vec<f32> = (0..tokens * DIM).map(|_| rng.random_range(-1.0..1.0)).collect();
        for row in rows.chunks_exact_mut(DIM) {
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.iter_mut().for_each(|x| *x /= length);
        }
        rows
    };
    let mut vectors = TextVectors::new(DIM);
    let rows: Vec<Vec<f32>> = (0..texts).into_par_iter().map(make).collect();
    rows.iter().for_each(|rows| vectors.push(rows));
    vectors
}

/// Seconds of the fastest of some calls.
fn seconds<T>(mut work: impl FnMut() -> T) -> f64 {
    let one = |_| {
        let start = Instant::now();
        std::hint::black_box(work());
        start.elapsed().as_secs_f64()
    };
    (0..TIMES).map(one).fold(f64::INFINITY, f64::min)
}

/// Gigabytes a second at which all threads together read memory that no cache holds.
fn memory_rate() -> f64 {
    let numbers = vec![1u64; if quick() { 1 << 20 } else { 1 << 26 }];
    let read = || {
        numbers.par_chunks(1 << 16).map(|part| part.iter().fold(0, |sum: u64, x| sum ^ x)).reduce(|| 0, |a, b| a ^ b)
    };
    numbers.len() as f64 * 8.0 / seconds(read) / 1e9
}

fn scratch() -> PathBuf {
    let path = std::env::temp_dir().join(format!("ragtrainer-bench-search-{}", std::process::id()));
    fs::create_dir_all(&path).expect("the folder for temporary files takes folders");
    path
}

fn speed() {
    let passages = variable("PASSAGES").map_or(if quick() { 200 } else { 10_000 }, |n| n.parse().expect("a number"));
    let here = scratch();
    let memory = memory_rate();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!(
        "\nsearch: {passages} passages of {PASSAGE_TOKENS} vectors, dim {DIM}, {threads} threads; \
         memory {memory:.1} GB/s"
    );
    println!(
        "format     queries   ms a query   million vectors/s   GB/s of vectors   share of memory   open, ms   made, s   peak, MB"
    );
    let one = seeded(1, QUERY_TOKENS, 1);
    let many = seeded(32, QUERY_TOKENS, 2);
    let mut single = 0.0;
    let formats = match variable("FORMATS") {
        Some(names) => names.split(',').map(|name| name.parse().expect("a number format")).collect(),
        None => VectorFormat::ALL.to_vec(),
    };
    for format in formats {
        let path = here.join(format.name());
        let made = fill(&path, format, passages);
        memory::forget_peak();
        let open = seconds(|| DocumentFolder::open(&path).expect("the folder was just written"));
        let folder = DocumentFolder::open(&path).expect("the folder was just written");
        for queries in [&one, &many] {
            let seconds = seconds(|| search_vectors(queries, &folder, 10).expect("the folder can be read"));
            let vectors = folder.vectors() as f64;
            let rate = vectors * format.row_bytes(DIM) as f64 / seconds / 1e9;
            println!(
                "{format:<10} {:>7} {:>12.2} {:>19.2} {rate:>17.2} {:>17.2} {:>10.2} {made:>9.1} {:>10.0}",
                queries.len(),
                seconds * 1e3 / queries.len() as f64,
                vectors * queries.len() as f64 / seconds / 1e6,
                rate / memory,
                open * 1e3,
                memory::peak().unwrap_or(0) as f64 / 1e6,
            );
            if format == VectorFormat::Float32 && queries.len() == 1 {
                single = seconds;
            }
        }
    }
    if let Some(python) = variable("NUMPY") {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/search.py");
        let folder = here.join(VectorFormat::Float32.name());
        let ran = Command::new(python).arg(script).arg(&folder).arg(PASSAGE_TOKENS.to_string()).output();
        let ran = ran.expect("the interpreter of COLBERT_BENCH_NUMPY starts");
        let text = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
        let numpy: f64 = text.parse().unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&ran.stderr)));
        println!("numpy, float32, one query: {:.2} ms; {:.2} times as long as here", numpy * 1e3, numpy / single);
    }
    fs::remove_dir_all(here).expect("the folder was made above");
}

/// Makes the folder; returns the seconds that its part of it took, without the making of vectors.
fn fill(path: &Path, format: VectorFormat, passages: usize) -> f64 {
    let mut taken = 0.0;
    let mut folder = DocumentFolder::create(path, DIM, 1, format).expect("an empty folder");
    for first in (0..passages).step_by(PART) {
        let count = PART.min(passages - first);
        let texts: Vec<String> = (first..first + count).map(|i| format!("passage {i}")).collect();
        let vectors = seeded(count, PASSAGE_TOKENS, 10 + first as u64);
        let start = Instant::now();
        folder.add_vectors(&texts, &vectors).expect("the disk takes them");
        taken += start.elapsed().as_secs_f64();
    }
    taken
}

/// Judgements of the split `test`: for each query its documents and their grades.
fn judgements(beir: &Path) -> HashMap<String, HashMap<String, f64>> {
    let mut all: HashMap<String, HashMap<String, f64>> = HashMap::new();
    for line in fs::read_to_string(beir.join("qrels/test.tsv")).expect("qrels/test.tsv").lines().skip(1) {
        let cells: Vec<&str> = line.split('\t').collect();
        let grade: f64 = cells[2].trim().parse().expect("a grade");
        all.entry(cells[0].to_owned()).or_default().insert(cells[1].to_owned(), grade);
    }
    all
}

/// nDCG@10 with linear gain, as BEIR measures it.
fn ndcg(ids: &[String], judged: &HashMap<String, f64>) -> f64 {
    let gain = |(rank, grade): (usize, f64)| grade / ((rank + 2) as f64).log2();
    let found = ids.iter().take(10).map(|id| judged.get(id).copied().unwrap_or(0.0)).enumerate().map(gain).sum::<f64>();
    let mut best: Vec<f64> = judged.values().copied().collect();
    best.sort_by(|a, b| b.total_cmp(a));
    let ideal = best.into_iter().take(10).enumerate().map(gain).sum::<f64>();
    if ideal > 0.0 { found / ideal } else { 0.0 }
}

/// The judged queries of a file of vectors.
fn judged_queries(beir: &Path, judged: &HashMap<String, HashMap<String, f64>>) -> (Vec<String>, TextVectors) {
    let records = read_texts(&beir.join("queries.jsonl"), Side::Query).expect("queries.jsonl").records;
    let mut weights = Weights::read(Path::new(&variable("QUERIES").expect("COLBERT_BENCH_QUERIES"))).expect("vectors");
    let shape = weights.shape("vectors").expect("vectors").to_vec();
    let vectors = weights.take("vectors", &shape).expect("vectors").values;
    let (tokens, dim) = (shape[0] / records.len(), shape[1]);
    let (mut ids, mut kept) = (Vec::new(), TextVectors::new(dim));
    for (record, rows) in records.iter().zip(vectors.chunks_exact(tokens * dim)) {
        let id = record.id.clone().expect("queries with ids");
        if judged.contains_key(&id) {
            ids.push(id);
            kept.push(rows);
        }
    }
    (ids, kept)
}

fn disk(path: &Path) -> u64 {
    let entries = fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| if entry.path().is_dir() { disk(&entry.path()) } else { entry.metadata().map_or(0, |m| m.len()) })
        .sum()
}

fn judged(source: &Path) {
    let beir = PathBuf::from(variable("BEIR").expect("COLBERT_BENCH_BEIR"));
    let judgements = judgements(&beir);
    let (ids, queries) = judged_queries(&beir, &judgements);
    let source = DocumentFolder::open(source).expect("COLBERT_BENCH_FOLDER");
    println!(
        "\n{}: {} passages, {} vectors, {} queries",
        beir.display(),
        source.passages(),
        source.vectors(),
        ids.len()
    );
    println!(
        "vectors      index   recall@10   nDCG@10   ms a query   ms for one alone   MB on disk   of it index   build, s   \
         peak, MB"
    );
    let exact = search_vectors(&queries, &source, 10).expect("the folder can be read");
    for format in VectorFormat::ALL {
        let path = source.path().with_extension(format.name());
        if path.exists() {
            fs::remove_dir_all(&path).expect("a folder of an earlier run");
        }
        let mut folder =
            DocumentFolder::create(&path, source.dim(), source.fingerprint(), format).expect("a new folder");
        copy(&source, &mut folder);
        measured(&folder, "-", 0.0, &queries, &exact, &ids, &judgements);
        #[cfg(feature = "index")]
        for nbits in [2, 4] {
            // Candidates are scored by the folder's own vectors, so one format is enough to compare indexes.
            if format != VectorFormat::Float32 {
                break;
            }
            memory::forget_peak();
            let start = Instant::now();
            folder.build_index(nbits, &mut |_| {}).expect("an index");
            measured(&folder, &nbits.to_string(), start.elapsed().as_secs_f64(), &queries, &exact, &ids, &judgements);
        }
    }
}

/// Copies all passages.
fn copy(from: &DocumentFolder, to: &mut DocumentFolder) {
    for first in (0..from.places()).step_by(PART) {
        let mut buffer = Vec::new();
        let block = from.block(first..from.places().min(first + PART), &mut buffer).expect("vectors");
        let document = |place: &usize| {
            let passage = from.passage(*place).expect("a passage");
            // Passages of a split document share its id, and a folder takes each id once.
            let id = passage.id.map(|id| format!("{id}{PASSAGE_MARK}{place}"));
            Document { id, text: passage.text, metadata: passage.metadata }
        };
        let documents: Vec<Document> = block.places.iter().map(document).collect();
        to.add_vectors(&documents, &block.text_vectors(from.dim())).expect("the disk takes them");
    }
}

fn measured(
    folder: &DocumentFolder,
    index: &str,
    build: f64,
    queries: &TextVectors,
    exact: &[Vec<(usize, f32)>],
    ids: &[String],
    judgements: &HashMap<String, HashMap<String, f64>>,
) {
    let peak = memory::peak().unwrap_or(0);
    let start = Instant::now();
    let found = search_vectors(queries, folder, 10).expect("the folder can be read");
    let first = start.elapsed().as_secs_f64();
    let again = seconds(|| search_vectors(queries, folder, 10).expect("the folder can be read"));
    let (mut recall, mut gain) = (0.0, 0.0);
    for ((found, exact), id) in found.iter().zip(exact).zip(ids) {
        let common = found.iter().filter(|(place, _)| exact.iter().any(|(other, _)| other == place)).count();
        recall += common as f64 / exact.len() as f64;
        let mut documents: Vec<String> = Vec::new();
        for (place, _) in found {
            let passage = folder.passage(*place).expect("a passage").id.expect("an id");
            let document = passage.rsplit_once(PASSAGE_MARK).expect("a passage's id").0.to_owned();
            if !documents.contains(&document) {
                documents.push(document);
            }
        }
        gain += ndcg(&documents, &judgements[id]);
    }
    let alone = seconds(|| {
        for query in 0..ALONE.min(queries.len()) {
            let mut one = TextVectors::new(queries.dim());
            one.push(queries.rows(query));
            search_vectors(&one, folder, 10).expect("the folder can be read");
        }
    }) / ALONE.min(queries.len()) as f64;
    let queries = queries.len() as f64;
    let all = disk(folder.path()) as f64 / 1e6;
    #[cfg(feature = "index")]
    let of_index = folder.index_path().map_or(0.0, |path| disk(&path) as f64 / 1e6);
    #[cfg(not(feature = "index"))]
    let of_index = 0.0;
    println!(
        "{:<12} {index:>5} {:>11.4} {:>9.4} {:>12.3} {:>18.3} {all:>12.1} {of_index:>13.1} {build:>10.1} {:>10.0}",
        folder.vector_format().name(),
        recall / queries,
        gain / queries,
        again.min(first) * 1e3 / queries,
        alone * 1e3,
        peak as f64 / 1e6,
    );
}

//! Measurements on real data; run by hand with
//! `BEIR_FOLDER=... cargo test --release -p colbert-data -- --ignored --nocapture measured`.

use std::path::PathBuf;
use std::time::Instant;

use colbert_data::{
    BeirFolder, Bm25Index, DataReport, PrepareOptions, RawData, ReadOptions, TextAnalysis, prepare, read_training_data,
};

/// nDCG with linear gains, as in trec_eval; the mean over queries.
fn ndcg_at_10(rankings: &[Vec<colbert_data::Ranked>], judgements: &colbert_data::Judgements) -> f64 {
    let discount = |rank: usize| 1.0 / (rank as f64 + 2.0).log2();
    let of_query = |qid: usize| {
        let judged = judgements.of(qid as u32);
        let gain = |pid: u32| {
            judged.iter().find(|(known, _)| *known == pid).map_or(0.0, |(_, grade)| f64::from((*grade).max(0)))
        };
        let found: f64 =
            rankings[qid].iter().take(10).enumerate().map(|(rank, hit)| gain(hit.pid) * discount(rank)).sum();
        let mut ideal: Vec<f64> = judged.iter().map(|(_, grade)| f64::from((*grade).max(0))).collect();
        ideal.sort_by(|a, b| b.total_cmp(a));
        found / ideal.iter().take(10).enumerate().map(|(rank, gain)| gain * discount(rank)).sum::<f64>()
    };
    (0..rankings.len()).map(of_query).sum::<f64>() / rankings.len() as f64
}

#[test]
#[ignore = "needs BEIR_FOLDER, a folder of real data"]
#[expect(clippy::print_stdout, reason = "figures for a person")]
fn measured_on_a_beir_folder() {
    let folder = PathBuf::from(std::env::var_os("BEIR_FOLDER").expect("BEIR_FOLDER names a folder"));
    let start = Instant::now();
    let beir = BeirFolder::open(&folder).unwrap();
    println!("read in {:?}", start.elapsed());
    for split in ["dev", "test"] {
        let set = beir.evaluation(split).unwrap();
        let start = Instant::now();
        let index = Bm25Index::new(&set.collection, &TextAnalysis::default()).unwrap();
        let indexed = start.elapsed();
        let rankings = index.rank(&set.queries, 100).unwrap();
        let ndcg = ndcg_at_10(&rankings, &set.judgements);
        println!(
            "{split}: {} queries, nDCG@10 {ndcg:.4}; indexed in {indexed:?}, all in {:?}",
            set.queries.len(),
            start.elapsed()
        );
    }
    let raw = read_training_data(&folder, &ReadOptions::default()).unwrap();
    let start = Instant::now();
    println!("{}checked in {:?}\n", DataReport::new(&raw, Some(&beir.evaluation("test").unwrap())), start.elapsed());
    let start = Instant::now();
    let (_, report) = prepare(raw, &PrepareOptions::default(), None).unwrap();
    println!("{report}prepared in {:?}", start.elapsed());
}

#[test]
#[ignore = "takes a while; a figure for a person"]
#[expect(clippy::print_stdout, reason = "figures for a person")]
fn measured_mining_10_000_queries_over_100_000_documents() {
    // A Zipf-like vocabulary of 30,000 words, by a plain linear congruential generator.
    let mut state = 12345_u64;
    let mut text = |words: usize| {
        let mut text = String::new();
        for _ in 0..words {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let uniform = (state >> 11) as f64 / (1_u64 << 53) as f64;
            text.push_str(&format!("w{} ", (30_000_f64.powf(uniform)) as u32));
        }
        text
    };
    let documents: Vec<String> = (0..100_000).map(|_| text(100)).collect();
    let mut raw = RawData::from_pairs((0..10_000).map(|row| (text(8), documents[row].as_str()))).unwrap();
    raw.add_documents(&documents).unwrap();
    let start = Instant::now();
    let (_, report) = prepare(raw, &PrepareOptions::default(), None).unwrap();
    println!("{report}prepared in {:?}", start.elapsed());
}

#[test]
#[ignore = "takes a while; a figure for a person"]
#[expect(clippy::print_stdout, reason = "figures for a person")]
fn measured_reading_1_000_000_pairs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.jsonl");
    let mut content = String::new();
    for row in 0..1_000_000 {
        content.push_str(&format!(
            "[\"query number {row}\", \"document number {row}, {}\"]\n",
            "with some words ".repeat(12)
        ));
    }
    std::fs::write(&path, &content).unwrap();
    let bytes = content.len();
    drop(content);
    println!("{} MB in {path:?}; run `measured_memory` with PAIRS={path:?} for memory", bytes >> 20);
    let start = Instant::now();
    let raw = read_training_data(&path, &ReadOptions::default()).unwrap();
    println!("{}: {} MB in {:?}", raw.announcement(), bytes >> 20, start.elapsed());
}

/// A process of its own, as the peak of a process only ever grows.
#[test]
#[ignore = "needs PAIRS, a file of training data"]
#[expect(clippy::print_stdout, reason = "figures for a person")]
fn measured_memory() {
    let path = PathBuf::from(std::env::var_os("PAIRS").expect("PAIRS names a file"));
    let peak = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    };
    let before = peak();
    let start = Instant::now();
    let raw = read_training_data(&path, &ReadOptions::default()).unwrap();
    let text: usize = raw.queries().iter().chain(raw.collection().iter()).map(str::len).sum();
    let used = peak() - before;
    println!("{} in {:?}", raw.announcement(), start.elapsed());
    println!(
        "{} MB of text kept, {} MB at most in use: {:.2} times",
        text >> 20,
        used >> 20,
        used as f64 / text as f64
    );
}

/// Writes the page for 10 and for 100,000 examples into the folder REPORTS, to be looked at.
#[test]
#[ignore = "needs REPORTS, a folder to write to"]
#[expect(clippy::print_stdout, reason = "figures for a person")]
fn measured_report() {
    use colbert_data::{ReportOptions, Side, TokenCount, TokenLimits};

    let folder = PathBuf::from(std::env::var_os("REPORTS").expect("REPORTS names a folder"));
    let counter = |texts: &[&str], _: Side| {
        let count = |text: &&str| TokenCount { tokens: text.split_whitespace().count() * 4 / 3 + 3, unknown: 0 };
        Ok(texts.iter().map(count).collect())
    };
    for count in [10_u64, 100_000] {
        // Lengths with a long tail, as real texts have.
        let document = |row: u64| {
            let words = 20 + row * 7919 % 60 + if row.is_multiple_of(11) { row * 31 % 400 } else { 0 };
            (0..words).map(|word| format!("w{} ", (row * 131 + word * word * 17) % 5000)).collect::<String>()
        };
        let rows = (0..count).map(|row| {
            let query = format!("what is <b>subject</b> {} of w{}", row - u64::from(row % 50 == 3), row % 5000);
            let mut negatives: Vec<_> = (0..row % 4).map(|other| document(row + other * 1000 + 1)).collect();
            if row % 100 == 7 {
                negatives.push(if row % 200 == 7 { document(row) } else { format!("{} and more", document(row)) });
            }
            (query, vec![document(row)], negatives)
        });
        let start = Instant::now();
        let raw = RawData::from_triplets(rows).unwrap();
        let read = start.elapsed();
        let tokens = TokenLimits { counter: &counter, query_maxlen: 32, doc_maxlen: 256, longest: 512 };
        let options = ReportOptions { tokens: Some(tokens), ..ReportOptions::default() };
        let report = DataReport::with_options(&raw, &options).unwrap();
        println!("{count} rows read in {read:?}, checked in {:?}\n{report}", start.elapsed() - read);
        report.write_json(&folder.join(format!("report-{count}.json"))).unwrap();
    }
}

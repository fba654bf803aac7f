//! A miner of one's own: documents ranked by the share of words they have in common with the query.
//!
//! Shows how to implement [`NegativeMiner`] and hand it to [`prepare`], beside what BM25 finds:
//!
//!     cargo run --release -p ragtrainer-examples --example custom_miner
#![expect(clippy::print_stdout, reason = "an example prints for people")]

use std::collections::{HashMap, HashSet};
use std::path::Path;

use ragtrainer::config::NegativeOptions;
use ragtrainer::data::{
    BeirFolder, Collection, DataError, NegativeMiner, PrepareOptions, Queries, Ranked, TrainingSet, prepare,
};
use ragtrainer_examples::DATA;

/// Jaccard similarity of word sets. A miner only ranks: rank windows, known positives and sampling are not its affair.
#[derive(Debug)]
struct WordOverlap;

impl NegativeMiner for WordOverlap {
    fn name(&self) -> String {
        "word overlap".to_owned()
    }

    fn rank(&self, queries: &Queries, collection: &Collection, depth: usize) -> Result<Vec<Vec<Ranked>>, DataError> {
        let mut containing: HashMap<String, Vec<u32>> = HashMap::new();
        let mut sizes = Vec::with_capacity(collection.len());
        for (pid, text) in (0..).zip(collection.iter()) {
            let words = words(text);
            sizes.push(words.len());
            words.into_iter().for_each(|word| containing.entry(word).or_default().push(pid));
        }
        let rank = |query: &str| {
            let words = words(query);
            let mut shared: HashMap<u32, usize> = HashMap::new();
            for pid in words.iter().filter_map(|word| containing.get(word)).flatten() {
                *shared.entry(*pid).or_default() += 1;
            }
            let score = |pid, shared| shared as f32 / (words.len() + sizes[pid as usize] - shared) as f32;
            let ranked = shared.into_iter().map(|(pid, shared)| Ranked { pid, score: score(pid, shared) });
            let mut ranked: Vec<Ranked> = ranked.collect();
            // Equal scores go by pid, so that the ranking is the same every time.
            ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.pid.cmp(&b.pid)));
            ranked.truncate(depth);
            ranked
        };
        Ok(queries.iter().map(rank).collect())
    }
}

fn words(text: &str) -> HashSet<String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

/// Examples whose negatives `miner` found (BM25 for none), and the report in words.
fn mined(miner: Option<&dyn NegativeMiner>) -> anyhow::Result<TrainingSet> {
    let raw = BeirFolder::open(Path::new(DATA))?.into_raw("train")?;
    let negatives = NegativeOptions {
        num_new_negatives: 1,
        hard_negative_minimum_rank: 0,
        hard_negative_maximum_rank: 10,
        ..NegativeOptions::default()
    };
    let (set, report) = prepare(raw, &PrepareOptions { negatives, ..PrepareOptions::default() }, miner)?;
    println!("{report}");
    Ok(set)
}

fn main() -> anyhow::Result<()> {
    let by_words = mined(Some(&WordOverlap))?;
    let by_bm25 = mined(None)?;
    let negative = |set: &TrainingSet, place: usize| {
        let text = set.collection.text(set.examples[place].documents[1]);
        text.chars().take(90).collect::<String>()
    };
    for place in 0..4 {
        println!("query         {}", by_words.queries.text(by_words.examples[place].query));
        println!("  word overlap  {}", negative(&by_words, place));
        println!("  bm25          {}", negative(&by_bm25, place));
    }
    let pairs = |set: &TrainingSet| -> HashSet<(u32, u32)> {
        set.examples.iter().map(|example| (example.query, example.documents[1])).collect()
    };
    let same = pairs(&by_words).intersection(&pairs(&by_bm25)).count();
    println!("\nthe two chose the same negative for {same} of {} queries", pairs(&by_bm25).len());
    Ok(())
}

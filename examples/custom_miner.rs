//! A miner of another crate: documents ranked by the share of words they have in common with the query.
//!
//! Shows how to implement [`NegativeMiner`] and hand it to a whole run:
//!
//!     cargo run --release -p ragtrainer-examples --example custom_miner
#![expect(clippy::print_stdout, reason = "an example prints for people")]

use std::collections::HashSet;
use std::sync::Arc;

use ragtrainer::prelude::*;
use ragtrainer_examples::{DATA, MODEL};

/// Jaccard similarity of word sets. A miner only ranks: rank windows, known positives and sampling are the caller's.
#[derive(Debug)]
struct WordOverlap;

impl NegativeMiner for WordOverlap {
    fn name(&self) -> String {
        "word overlap".to_owned()
    }

    fn rank(
        &self,
        queries: &Queries,
        collection: &Collection,
        depth: usize,
        _: &MiningProgress<'_>,
    ) -> Result<Vec<Vec<Ranked>>, DataError> {
        let words = |text: &str| text.split_whitespace().map(str::to_lowercase).collect::<HashSet<_>>();
        let documents: Vec<_> = collection.iter().map(words).collect();
        let rank = |query: &str| {
            let query = words(query);
            let score = |text: &HashSet<_>| query.intersection(text).count() as f32 / query.union(text).count() as f32;
            let scored = (0..).zip(&documents).map(|(pid, document)| Ranked { pid, score: score(document) });
            let mut ranked: Vec<Ranked> = scored.collect();
            // Equal scores go by pid, so that the ranking is the same every time.
            ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.pid.cmp(&b.pid)));
            ranked.truncate(depth);
            ranked
        };
        Ok(queries.iter().map(rank).collect())
    }
}

fn main() -> anyhow::Result<()> {
    let mut trainer =
        RagTrainer::new("custom-miner", MODEL).with_output("runs/custom-miner", true).with_miner(Arc::new(WordOverlap));
    let raw = BeirFolder::open(DATA.as_ref())?.into_raw("train")?;
    println!("{}", trainer.prepare_training_data(raw, &PrepareOptions::default())?);
    let options = TrainOptions { batch_size: 16, maxsteps: 8, doc_maxlen: 96, ..TrainOptions::default() };
    println!("{}", trainer.train(&options)?);
    Ok(())
}

//! The training set: texts, examples and known positives.

use crate::texts::judgements::{ALLOCATION, Judgements};
use crate::texts::{Collection, Queries};

/// One query and the documents it is trained against.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Qid.
    pub query: u32,
    /// Pids, the positive first; a triple has two.
    pub documents: Vec<u32>,
    /// Teacher scores for distillation, one per document in the same order.
    pub scores: Option<Vec<f32>>,
}

/// Texts and examples, ready for training.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingSet {
    /// Distinct queries.
    pub queries: Queries,
    /// Distinct documents.
    pub collection: Collection,
    /// Examples in the order of the queries; the trainer shuffles.
    pub examples: Vec<Example>,
    /// Every known positive of every query, so that none is used as an in-batch negative.
    pub positives: Judgements,
    /// First query of each source of the data, rising; empty where there is one source alone.
    pub sources: Vec<u32>,
}

impl TrainingSet {
    /// Places of the examples of each source. One source has them all.
    #[must_use]
    pub fn examples_by_source(&self) -> Vec<Vec<u32>> {
        let mut places = vec![Vec::new(); self.sources.len().max(1)];
        for (example, place) in self.examples.iter().zip(0..) {
            // A query belongs to the last source that begins at it or before; sources without queries of their own
            // begin where the next one does.
            let after = self.sources.partition_point(|first| *first <= example.query);
            places[after.saturating_sub(1)].push(place);
        }
        places
    }
}

impl TrainingSet {
    /// Approximate memory of the set in bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let of_one = |example: &Example| {
            let lists = 1 + usize::from(example.scores.is_some());
            size_of::<Example>() + lists * (ALLOCATION + example.documents.len() * size_of::<u32>())
        };
        let examples: usize = self.examples.iter().map(of_one).sum();
        self.queries.memory() + self.collection.memory() + self.positives.memory() + examples as u64
    }
}

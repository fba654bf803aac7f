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

/// Texts and examples, ready for training. Every example has the same number of documents.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingSet {
    /// Distinct queries.
    pub queries: Queries,
    /// Distinct documents.
    pub collection: Collection,
    /// Examples in the order of the queries; the trainer shuffles.
    pub examples: Vec<Example>,
    /// Every known positive of every query, so that no in-batch negative needs to be one.
    pub positives: Judgements,
}

impl TrainingSet {
    /// Bytes of memory that the set takes, about.
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

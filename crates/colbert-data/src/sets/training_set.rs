//! The training set: texts, examples and known positives.

use crate::texts::judgements::Judgements;
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

//! Batches on the host: which texts, as tokens, and which document belongs to which query.

use std::collections::HashMap;

use colbert_config::{Plan, TrainOptions};
use colbert_data::TrainingSet;
use colbert_model::{ColbertTokenizer, TokenSequence};

use crate::error::TrainError;
use crate::objective::Targets;
use crate::order::ExampleOrder;

/// Texts that one loss is computed over.
#[derive(Debug, Clone)]
pub struct BatchPart {
    /// One a query.
    pub queries: Vec<TokenSequence>,
    /// Distinct documents: one that occurs several times is encoded once.
    pub documents: Vec<TokenSequence>,
    /// Which document belongs to which query.
    pub targets: Targets,
}

/// The examples of one optimizer step.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Optimizer step, from 0.
    pub step: usize,
    /// Places of the examples in the training set.
    pub examples: Vec<usize>,
    /// One part, or one for each micro-batch where the loss does not reach across them.
    pub parts: Vec<BatchPart>,
}

impl Batch {
    /// Real tokens in the batch, markers and `[MASK]` expansion included, padding not.
    pub fn tokens(&self) -> usize {
        let sequences = self.parts.iter().flat_map(|part| part.queries.iter().chain(&part.documents));
        sequences.map(TokenSequence::len).sum()
    }
}

/// Makes the batch of any step. Checks the examples once, when it is made.
#[derive(Debug)]
pub struct Batcher<'a> {
    set: &'a TrainingSet,
    tokenizer: &'a ColbertTokenizer,
    order: ExampleOrder,
    batch_size: usize,
    part_size: usize,
    with_scores: bool,
}

impl<'a> Batcher<'a> {
    /// `whole` puts a batch into one part, whatever `accumsteps` is.
    ///
    /// # Errors
    /// An example that names an unknown text, is not `nway` wide, or has no scores where others have.
    pub fn new(
        set: &'a TrainingSet,
        tokenizer: &'a ColbertTokenizer,
        plan: &Plan,
        options: &TrainOptions,
        whole: bool,
    ) -> Result<Self, TrainError> {
        let with_scores = !options.ignore_scores && set.examples.iter().any(|example| example.scores.is_some());
        for (place, example) in set.examples.iter().enumerate() {
            let unknown = |what, id, count| TrainError::UnknownId { example: place, what, id, count };
            if example.query as usize >= set.queries.len() {
                return Err(unknown("query", example.query, set.queries.len()));
            }
            if let Some(&id) = example.documents.iter().find(|id| **id as usize >= set.collection.len()) {
                return Err(unknown("document", id, set.collection.len()));
            }
            if example.documents.len() != plan.nway {
                let found = example.documents.len();
                return Err(TrainError::WrongWidth { example: place, found, expected: plan.nway });
            }
            let scores = example.scores.as_ref().map_or(0, Vec::len);
            if with_scores && scores != example.documents.len() {
                let documents = example.documents.len();
                return Err(TrainError::MixedScores { example: place, found: scores, documents });
            }
        }
        Ok(Self {
            set,
            tokenizer,
            order: ExampleOrder::new(set.examples.len(), options.seed, options.shuffle),
            batch_size: plan.batch_size,
            part_size: if whole { plan.batch_size } else { plan.micro_batch_size },
            with_scores,
        })
    }

    /// The batch of a step, counted from 0.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn batch(&mut self, step: usize) -> Result<Batch, TrainError> {
        let first = step * self.batch_size;
        let examples: Vec<usize> = (first..first + self.batch_size).map(|at| self.order.example_at(at)).collect();
        let parts = examples.chunks(self.part_size).map(|chunk| self.part(chunk)).collect::<Result<_, _>>()?;
        Ok(Batch { step, examples, parts })
    }

    fn part(&self, examples: &[usize]) -> Result<BatchPart, TrainError> {
        let examples: Vec<_> = examples.iter().map(|&place| &self.set.examples[place]).collect();
        let mut places: HashMap<u32, usize> = HashMap::new();
        let mut pids: Vec<u32> = Vec::new();
        let mut documents = Vec::with_capacity(examples.len());
        for example in &examples {
            let row = example.documents.iter().map(|&pid| {
                *places.entry(pid).or_insert_with(|| {
                    pids.push(pid);
                    pids.len() - 1
                })
            });
            documents.push(row.collect());
        }
        let positives = examples
            .iter()
            .map(|example| {
                let known = self.set.positives.positives(example.query);
                known.chain(example.documents.first().copied()).filter_map(|pid| places.get(&pid).copied()).collect()
            })
            .collect();
        let teacher = self.with_scores.then(|| examples.iter().map(|e| e.scores.clone().unwrap_or_default()).collect());
        let query_texts: Vec<&str> = examples.iter().map(|e| self.set.queries.text(e.query)).collect();
        let document_texts: Vec<&str> = pids.iter().map(|&pid| self.set.collection.text(pid)).collect();
        Ok(BatchPart {
            queries: self.tokenizer.queries(&query_texts)?,
            documents: self.tokenizer.documents(&document_texts)?,
            targets: Targets { documents, teacher, positives },
        })
    }
}

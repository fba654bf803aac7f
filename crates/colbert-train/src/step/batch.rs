//! Batches on the host: the tokens of texts, and which document belongs to which query.

use std::collections::HashMap;

use colbert_config::TrainOptions;
use colbert_data::{Example, TrainingSet};
use colbert_model::{ColbertTokenizer, TokenSequence};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::error::TrainError;
use crate::step::mix::{Mix, MixedOrder};
use crate::step::objective::Targets;
use crate::step::order::ExampleOrder;

/// A number that separates draws of negatives from those of the order, which have the same seed.
const DRAWS: u64 = 0x6e65_6761_7469_7665;

/// The texts of one loss.
#[derive(Debug, Clone)]
pub struct BatchPart {
    /// One for each query.
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
    /// Places of the examples among those of their epoch.
    pub examples: Vec<usize>,
    /// The examples themselves.
    pub rows: Vec<Example>,
    /// One part, or one for each micro-batch if the loss does not span them.
    pub parts: Vec<BatchPart>,
}

impl Batch {
    /// Makes batch `number`, counted from 0, in the order of the options, in one part.
    ///
    /// # Errors
    /// Examples that do not fit together, or a text that the tokenizer refuses.
    pub fn whole(
        set: &TrainingSet,
        tokenizer: &ColbertTokenizer,
        options: &TrainOptions,
        number: usize,
    ) -> Result<Self, TrainError> {
        Batcher::new(set, tokenizer, BatchShape::whole(options))?.batch(number)
    }

    /// Counts the real tokens in the batch, with markers and `[MASK]` expansion, without padding.
    pub fn tokens(&self) -> usize {
        let sequences = self.parts.iter().flat_map(|part| part.queries.iter().chain(&part.documents));
        sequences.map(TokenSequence::len).sum()
    }
}

/// The shape of batches.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BatchShape {
    /// Documents of an example, at most.
    pub(crate) nway: usize,
    /// Examples of a batch.
    pub(crate) batch_size: usize,
    /// Examples of a part: all of the batch if the loss spans micro-batches.
    pub(crate) part_size: usize,
    /// Seed of the order.
    pub(crate) seed: u64,
    /// Whether the order is shuffled.
    pub(crate) shuffle: bool,
    /// Whether teacher scores are left out.
    pub(crate) ignore_scores: bool,
    /// Whether an example may have more documents than `nway`, and some of its negatives are drawn at each use.
    pub(crate) draw_negatives: bool,
    /// How examples of several sources are mixed.
    pub(crate) mix: Mix,
}

impl BatchShape {
    /// Describes batches of one part.
    pub(crate) fn whole(options: &TrainOptions) -> Self {
        Self {
            nway: options.nway,
            batch_size: options.batch_size,
            part_size: options.batch_size,
            seed: options.seed,
            shuffle: options.shuffle,
            ignore_scores: options.ignore_scores,
            draw_negatives: options.draw_negatives,
            mix: Mix::from(options),
        }
    }
}

/// The order of examples: of all alike, or of several sources by their shares.
#[derive(Debug)]
enum Order {
    Plain(ExampleOrder),
    Mixed(MixedOrder),
}

impl Order {
    fn example_at(&mut self, position: usize) -> usize {
        match self {
            Self::Plain(order) => order.example_at(position),
            Self::Mixed(order) => order.example_at(position),
        }
    }
}

/// A maker of the batch of any step. The examples are checked once, when it is made.
#[derive(Debug)]
pub(crate) struct Batcher<'a> {
    set: &'a TrainingSet,
    /// Examples that took the place of the training set's, each from an epoch on.
    refreshed: Vec<(usize, Vec<Example>)>,
    tokenizer: &'a ColbertTokenizer,
    order: Order,
    shape: BatchShape,
    with_scores: bool,
}

impl<'a> Batcher<'a> {
    /// # Errors
    /// An example that names an unknown text, has no negative or more documents than `nway`, or not a score for each;
    /// weights that are not one for each source.
    pub(crate) fn new(
        set: &'a TrainingSet,
        tokenizer: &'a ColbertTokenizer,
        shape: BatchShape,
    ) -> Result<Self, TrainError> {
        let with_scores = !shape.ignore_scores && set.examples.iter().any(|example| example.scores.is_some());
        let order = match MixedOrder::new(set, &shape.mix, shape.batch_size, shape.seed, shape.shuffle)? {
            Some(mixed) => Order::Mixed(mixed),
            None => Order::Plain(ExampleOrder::new(set.examples.len(), shape.seed, shape.shuffle)),
        };
        let batcher = Self { set, refreshed: Vec::new(), tokenizer, order, shape, with_scores };
        batcher.check(&set.examples)?;
        Ok(batcher)
    }

    fn check(&self, examples: &[Example]) -> Result<(), TrainError> {
        let set = self.set;
        for (place, example) in examples.iter().enumerate() {
            let unknown = |what, id, count| TrainError::UnknownId { example: place, what, id, count };
            if example.query as usize >= set.queries.len() {
                return Err(unknown("query", example.query, set.queries.len()));
            }
            if let Some(&id) = example.documents.iter().find(|id| **id as usize >= set.collection.len()) {
                return Err(unknown("document", id, set.collection.len()));
            }
            let found = example.documents.len();
            if found < 2 || (found > self.shape.nway && !self.shape.draw_negatives) {
                return Err(TrainError::WrongWidth { example: place, found, expected: self.shape.nway });
            }
            let scores = example.scores.as_ref().map_or(found, Vec::len);
            if self.with_scores && scores != found {
                return Err(TrainError::MixedScores { example: place, found: scores, documents: found });
            }
        }
        Ok(())
    }

    pub(crate) fn batch_size(&self) -> usize {
        self.shape.batch_size
    }

    /// Returns the number of examples of an epoch.
    pub(crate) fn examples(&self) -> usize {
        self.set.examples.len()
    }

    /// Uses other examples from an epoch on. There must be as many as the training set has.
    ///
    /// # Errors
    /// As [`Batcher::new`], and another number of examples.
    pub(crate) fn replace(&mut self, epoch: usize, examples: Vec<Example>) -> Result<(), TrainError> {
        let expected = self.set.examples.len();
        if examples.len() != expected {
            return Err(TrainError::RefreshedCount { epoch: epoch + 1, found: examples.len(), expected });
        }
        self.check(&examples)?;
        // A batch reaches back into the previous epoch at most, but several small epochs may lie in one batch.
        let reach = 1 + self.shape.batch_size.div_ceil(expected);
        self.refreshed.retain(|(known, _)| *known + reach >= epoch);
        self.refreshed.push((epoch, examples));
        Ok(())
    }

    fn example(&self, epoch: usize, place: usize) -> &Example {
        let latest = self.refreshed.iter().rev().find(|(first, _)| *first <= epoch);
        &latest.map_or(&self.set.examples, |(_, examples)| examples)[place]
    }

    /// Returns the batch of a step, counted from 0.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub(crate) fn batch(&mut self, step: usize) -> Result<Batch, TrainError> {
        let first = step * self.shape.batch_size;
        let positions = first..first + self.shape.batch_size;
        let places: Vec<usize> = positions.clone().map(|at| self.order.example_at(at)).collect();
        let epochs = positions.map(|at| at / self.set.examples.len());
        let examples = epochs.zip(&places).map(|(epoch, &place)| self.example(epoch, place));
        let rows: Vec<Example> =
            examples.zip(first..).map(|(example, position)| self.drawn(example, position)).collect();
        let parts = rows.chunks(self.shape.part_size).map(|chunk| self.part(chunk)).collect::<Result<_, _>>()?;
        Ok(Batch { step, examples: places, rows, parts })
    }

    /// Returns an example with `nway` documents at most: the positive, and a choice of the others that follows from the
    /// seed and the position in the order of all epochs.
    fn drawn(&self, example: &Example, position: usize) -> Example {
        let Example { query, documents, scores } = example;
        let wanted = self.shape.nway - 1;
        if documents.len() - 1 <= wanted {
            return example.clone();
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.shape.seed ^ DRAWS);
        rng.set_stream(position as u64);
        let mut others: Vec<usize> = (1..documents.len()).collect();
        let mut places = vec![0];
        places.extend_from_slice(others.partial_shuffle(&mut rng, wanted).0);
        Example {
            query: *query,
            documents: places.iter().map(|&place| documents[place]).collect(),
            scores: scores.as_ref().map(|scores| places.iter().map(|&place| scores[place]).collect()),
        }
    }

    fn part(&self, examples: &[Example]) -> Result<BatchPart, TrainError> {
        let mut places: HashMap<u32, usize> = HashMap::new();
        let mut pids: Vec<u32> = Vec::new();
        let mut documents = Vec::with_capacity(examples.len());
        for example in examples {
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
                // Over the documents of the batch: a query may have very many positives elsewhere.
                let is_positive = |pid: u32| {
                    example.documents.first() == Some(&pid) || self.set.positives.is_positive(example.query, pid)
                };
                (0..pids.len()).filter(|&place| is_positive(pids[place])).collect()
            })
            .collect();
        let teacher = self.with_scores.then(|| examples.iter().map(|e| e.scores.clone().unwrap_or_default()).collect());
        let query_texts: Vec<&str> = examples.iter().map(|e| self.set.queries.text(e.query)).collect();
        let document_texts: Vec<&str> = pids.iter().map(|&pid| self.set.collection.text(pid)).collect();
        Ok(BatchPart {
            queries: self.tokenizer.queries(&query_texts)?,
            documents: self.tokenizer.documents(&document_texts)?,
            targets: Targets { documents, teacher, positives, block: None },
        })
    }
}

//! Batches on the host: the tokens of texts, and which document belongs to which query.

use std::collections::HashMap;

use colbert_config::TrainOptions;
use colbert_data::{Example, TrainingSet};
use colbert_model::{ColbertTokenizer, ModelError, TokenSequence};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::error::TrainError;
use crate::processes::exchange::gather_words;
use crate::processes::tokens::{read_tokens, write_tokens};
use crate::processes::{OneProcess, Processes};
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

/// A batch in which only the texts of this process's share have their tokens.
#[derive(Debug)]
pub(crate) struct SharedBatch(Batch);

/// The place of this process among those that tokenize a batch together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenShare {
    rank: usize,
    size: usize,
}

impl TokenShare {
    pub(crate) fn of(processes: &dyn Processes) -> Self {
        Self { rank: processes.rank(), size: processes.size() }
    }

    /// Returns whether this process tokenizes the text at a place of a list of part `part`.
    fn has(self, part: usize, place: usize) -> bool {
        owner(part, place, self.size) == self.rank
    }
}

/// The process that tokenizes a text. Long and short ones are spread, and small parts begin with another process each.
fn owner(part: usize, place: usize, size: usize) -> usize {
    (part + place) % size
}

impl SharedBatch {
    /// Returns the whole batch, with the tokens of the other processes' texts.
    pub(crate) fn complete(self, processes: &dyn Processes) -> Batch {
        let Self(mut batch) = self;
        let (rank, size) = (processes.rank(), processes.size());
        if size == 1 {
            return batch;
        }
        let mut texts: Vec<(usize, &mut TokenSequence)> = Vec::new();
        for (part, BatchPart { queries, documents, .. }) in batch.parts.iter_mut().enumerate() {
            for list in [queries, documents] {
                texts.extend(list.iter_mut().enumerate().map(|(place, text)| (owner(part, place, size), text)));
            }
        }
        let mut words = Vec::new();
        texts.iter().filter(|(owner, _)| *owner == rank).for_each(|(_, text)| write_tokens(text, &mut words));
        let of_all = gather_words(processes, &words);
        let mut rest: Vec<&[u32]> = of_all.iter().map(Vec::as_slice).collect();
        for (owner, text) in texts.into_iter().filter(|(owner, _)| *owner != rank) {
            *text = read_tokens(&mut rest[owner]);
        }
        batch
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
        Ok(self.shared_batch(step, TokenShare::of(&OneProcess))?.0)
    }

    /// Makes a batch, and tokenizes only this process's share of its texts.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub(crate) fn shared_batch(&mut self, step: usize, share: TokenShare) -> Result<SharedBatch, TrainError> {
        let first = step * self.shape.batch_size;
        let positions = first..first + self.shape.batch_size;
        let places: Vec<usize> = positions.clone().map(|at| self.order.example_at(at)).collect();
        let epochs = positions.map(|at| at / self.set.examples.len());
        let examples = epochs.zip(&places).map(|(epoch, &place)| self.example(epoch, place));
        let rows: Vec<Example> =
            examples.zip(first..).map(|(example, position)| self.drawn(example, position)).collect();
        let parts = rows.chunks(self.shape.part_size).enumerate();
        let parts = parts.map(|(number, chunk)| self.part(chunk, number, share)).collect::<Result<_, _>>()?;
        Ok(SharedBatch(Batch { step, examples: places, rows, parts }))
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

    fn part(&self, examples: &[Example], number: usize, share: TokenShare) -> Result<BatchPart, TrainError> {
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
        let is_own = |place: usize| share.has(number, place);
        Ok(BatchPart {
            queries: own_tokens(&query_texts, is_own, |texts| self.tokenizer.queries(texts))?,
            documents: own_tokens(&document_texts, is_own, |texts| self.tokenizer.documents(texts))?,
            targets: Targets { documents, teacher, positives, block: None },
        })
    }
}

/// Tokenizes the own texts of a list. The others have no tokens yet.
fn own_tokens(
    texts: &[&str],
    is_own: impl Fn(usize) -> bool,
    tokenize: impl Fn(&[&str]) -> Result<Vec<TokenSequence>, ModelError>,
) -> Result<Vec<TokenSequence>, ModelError> {
    let own: Vec<&str> = texts.iter().enumerate().filter(|(place, _)| is_own(*place)).map(|(_, text)| *text).collect();
    let mut own = tokenize(&own)?.into_iter();
    let none = || TokenSequence { ids: Vec::new(), attended: 0, scored: Vec::new() };
    let tokens = |place| if is_own(place) { own.next() } else { None };
    Ok((0..texts.len()).map(tokens).map(|tokens| tokens.unwrap_or_else(none)).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use colbert_data::{Collection, Judgements, Queries};
    use colbert_model::{ColbertSettings, Pretrained};

    use super::*;

    fn set() -> TrainingSet {
        let (mut queries, mut collection) = (Queries::new(), Collection::new());
        let text = |kind: &str, number: usize| format!("{kind} {number} {}", "hill ".repeat(number % 5));
        for number in 0..12 {
            queries.add(&text("tor", number)).unwrap();
            collection.add(&text("fen", number)).unwrap();
        }
        let example = |query: u32| Example { query, documents: vec![query, (query + 1) % 12, 3], scores: None };
        let examples = (0..12).map(example).collect();
        TrainingSet { queries, collection, examples, positives: Judgements::new(), sources: Vec::new() }
    }

    /// Every text of a batch is tokenized by one process, all have about as many, and what they send makes the batch
    /// whole.
    #[test]
    fn processes_tokenize_shares_of_a_batch() {
        let settings = ColbertSettings { dim: 16, ..ColbertSettings::default() };
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../colbert-model/tests/parity/tiny");
        let tokenizer = Pretrained::read(&tiny).unwrap().tokenizer(&settings).unwrap();
        let (set, options) = (set(), TrainOptions { nway: 3, batch_size: 8, ..TrainOptions::default() });
        for (part_size, size) in [(8, 1), (8, 2), (8, 3), (8, 5), (2, 2), (2, 4), (1, 4)] {
            let shape = BatchShape { part_size, ..BatchShape::whole(&options) };
            let mut batcher = Batcher::new(&set, &tokenizer, shape).unwrap();
            let whole = batcher.batch(1).unwrap();
            let lists = |batch: &Batch| -> Vec<TokenSequence> {
                batch.parts.iter().flat_map(|part| [part.queries.clone(), part.documents.clone()].concat()).collect()
            };
            let expected = lists(&whole);
            let shares: Vec<_> =
                (0..size).map(|rank| lists(&batcher.shared_batch(1, TokenShare { rank, size }).unwrap().0)).collect();
            let counts: Vec<usize> =
                shares.iter().map(|own| own.iter().filter(|text| !text.is_empty()).count()).collect();
            assert_eq!(counts.iter().sum::<usize>(), expected.len(), "{part_size} {size}");
            assert!(counts.iter().all(|own| own * size <= 2 * expected.len()), "{counts:?} of {part_size} {size}");
            for (place, text) in expected.iter().enumerate() {
                let found: Vec<_> = shares.iter().map(|own| &own[place]).filter(|own| !own.is_empty()).collect();
                assert_eq!(found, [text]);
            }
        }
    }
}

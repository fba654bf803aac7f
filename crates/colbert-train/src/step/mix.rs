//! The order of examples of several sources with weights of their own: a function of (seed, position), like the order
//! of one source.

use colbert_config::{MixBatches, TrainOptions};
use colbert_data::TrainingSet;

use crate::error::TrainError;
use crate::step::order::ExampleOrder;

/// The mixture of sources.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mix {
    weights: Vec<f64>,
    exponent: f64,
    one_source: bool,
}

impl From<&TrainOptions> for Mix {
    fn from(options: &TrainOptions) -> Self {
        Self {
            weights: options.mix_weights.0.clone(),
            exponent: options.mix_exponent,
            one_source: options.mix_batches == MixBatches::OneSource,
        }
    }
}

/// Checks that the sources of a set can be mixed as the options say.
///
/// # Errors
/// There are not as many weights as sources, or no source with a weight has an example.
pub fn check_mix(set: &TrainingSet, options: &TrainOptions) -> Result<(), TrainError> {
    MixedOrder::new(set, &Mix::from(options), options.batch_size, options.seed, options.shuffle).map(drop)
}

/// One source: its examples, in an order of its own.
#[derive(Debug, Clone)]
struct Source {
    /// Share of all draws.
    share: f64,
    places: Vec<u32>,
    order: ExampleOrder,
    /// Turns that it had before the current one.
    turns: usize,
}

/// The order over all epochs. A turn is one example, or one batch of one source; each goes to the source that is
/// furthest behind its share, so that every part of the order has the shares as exactly as whole turns allow.
#[derive(Debug, Clone)]
pub(crate) struct MixedOrder {
    sources: Vec<Source>,
    /// Examples of a turn.
    turn_size: usize,
    /// The current turn, and its source.
    current: Option<(usize, usize)>,
}

impl MixedOrder {
    /// Makes the order of a set; none if it is that of a single source, each example equally often.
    ///
    /// # Errors
    /// There are not as many weights as sources, or no source with a weight has an example.
    pub(crate) fn new(
        set: &TrainingSet,
        mix: &Mix,
        batch_size: usize,
        seed: u64,
        shuffle: bool,
    ) -> Result<Option<Self>, TrainError> {
        let places = set.examples_by_source();
        if !mix.weights.is_empty() && mix.weights.len() != places.len() {
            return Err(TrainError::MixWeights { found: mix.weights.len(), sources: places.len() });
        }
        let is_plain = mix.weights.is_empty() && mix.exponent == 1.0 && !mix.one_source;
        if is_plain || places.len() < 2 {
            return Ok(None);
        }
        let weight = |source: usize, examples: usize| match mix.weights.get(source) {
            _ if examples == 0 => 0.0,
            Some(weight) => *weight,
            None => (examples as f64).powf(mix.exponent),
        };
        let all: f64 = places.iter().enumerate().map(|(source, places)| weight(source, places.len())).sum();
        if all <= 0.0 {
            return Err(TrainError::NothingToMix);
        }
        let sources = places.into_iter().enumerate().map(|(number, places)| Source {
            share: weight(number, places.len()) / all,
            // Each source has its own seed, so that sources of equal size are not shuffled alike.
            order: ExampleOrder::new(places.len(), seed.wrapping_add((number as u64) << 32), shuffle),
            places,
            turns: 0,
        });
        let turn_size = if mix.one_source { batch_size } else { 1 };
        Ok(Some(Self { sources: sources.collect(), turn_size, current: None }))
    }

    /// Returns the example at a position counted over all epochs.
    pub(crate) fn example_at(&mut self, position: usize) -> usize {
        let (turn, place) = (position / self.turn_size, position % self.turn_size);
        if self.current.is_some_and(|(current, _)| current > turn) {
            self.sources.iter_mut().for_each(|source| source.turns = 0);
            self.current = None;
        }
        let mut at = self.current;
        let source = loop {
            match at {
                Some((current, source)) if current == turn => break source,
                _ => {
                    let next = at.map_or(0, |(current, source)| {
                        self.sources[source].turns += 1;
                        current + 1
                    });
                    at = Some((next, self.whose(next)));
                }
            }
        };
        self.current = at;
        let Source { places, order, turns, .. } = &mut self.sources[source];
        places[order.example_at(*turns * self.turn_size + place)] as usize
    }

    /// Finds the source that is furthest behind its share before a turn; the first of several.
    fn whose(&self, turn: usize) -> usize {
        let behind = |source: &Source| source.share * (turn + 1) as f64 - source.turns as f64;
        let mut most = 0;
        for (number, source) in self.sources.iter().enumerate() {
            let ahead = source.share > 0.0 && behind(source) > behind(&self.sources[most]);
            if ahead || self.sources[most].share == 0.0 {
                most = number;
            }
        }
        most
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use colbert_config::NumberList;
    use colbert_data::{Collection, Example, Judgements, Queries};

    use super::*;

    /// Sources of 4, 12 and 40 examples.
    fn set() -> TrainingSet {
        let (mut queries, mut collection) = (Queries::new(), Collection::new());
        let examples = (0..56u32).map(|query| {
            queries.add(&format!("query {query}")).unwrap();
            let documents = [0, 1].map(|place| collection.add(&format!("text {query} {place}")).unwrap()).to_vec();
            Example { query, documents, scores: None }
        });
        let examples = examples.collect();
        TrainingSet { queries, collection, examples, positives: Judgements::new(), sources: vec![0, 4, 16] }
    }

    fn source_of(example: usize) -> usize {
        [4, 16, 56].iter().position(|end| example < *end).unwrap()
    }

    fn order(options: &TrainOptions) -> MixedOrder {
        MixedOrder::new(&set(), &Mix::from(options), 8, 3, true).unwrap().unwrap()
    }

    fn counts(options: &TrainOptions, positions: usize) -> [usize; 3] {
        let mut order = order(options);
        let mut counts = [0; 3];
        (0..positions).for_each(|position| counts[source_of(order.example_at(position))] += 1);
        counts
    }

    #[test]
    fn sources_are_taken_by_their_shares() {
        let exponent = |mix_exponent| TrainOptions { mix_exponent, ..TrainOptions::default() };
        assert_eq!(counts(&exponent(0.0), 300), [100, 100, 100]);
        // Roots of 4, 12 and 40: 2, 3.464 and 6.325 of 11.789.
        assert_eq!(counts(&exponent(0.5), 1179), [200, 346, 633]);
        let weights = |weights: &[f64]| TrainOptions { mix_weights: NumberList(weights.to_vec()), ..exponent(1.0) };
        assert_eq!(counts(&weights(&[1.0, 2.0, 1.0]), 400), [100, 200, 100]);
        assert_eq!(counts(&weights(&[0.0, 1.0, 3.0]), 400), [0, 100, 300]);
    }

    #[test]
    fn a_batch_of_one_source_has_no_other_and_sources_keep_their_proportions() {
        let options = TrainOptions { mix_batches: MixBatches::OneSource, ..TrainOptions::default() };
        let mut order = order(&options);
        let mut batches = [0; 3];
        for batch in 0..140 {
            let own: Vec<usize> = (0..8).map(|place| source_of(order.example_at(batch * 8 + place))).collect();
            assert!(own.iter().all(|source| *source == own[0]), "batch {batch}: {own:?}");
            batches[own[0]] += 1;
        }
        assert_eq!(batches, [10, 30, 100]);
    }

    #[test]
    fn a_source_gives_each_example_before_one_comes_again() {
        let mut order = order(&TrainOptions { mix_exponent: 0.5, ..TrainOptions::default() });
        let mut seen: HashMap<usize, usize> = HashMap::new();
        for position in 0..1000 {
            *seen.entry(order.example_at(position)).or_default() += 1;
        }
        for source in 0..3 {
            let own: Vec<usize> = seen.iter().filter(|(e, _)| source_of(**e) == source).map(|(_, n)| *n).collect();
            assert!(own.iter().max().unwrap() - own.iter().min().unwrap() <= 1, "source {source}: {own:?}");
        }
    }

    #[test]
    fn a_position_does_not_depend_on_what_was_asked_before() {
        for mix_batches in [MixBatches::Mixed, MixBatches::OneSource] {
            let options = TrainOptions { mix_exponent: 0.3, mix_batches, ..TrainOptions::default() };
            let mut straight = order(&options);
            let all: Vec<usize> = (0..300).map(|position| straight.example_at(position)).collect();
            for start in [299, 0, 150, 7, 8] {
                assert_eq!(straight.example_at(start), all[start], "{start}, after others");
                assert_eq!(order(&options).example_at(start), all[start], "{start}, at first");
            }
        }
    }

    #[test]
    fn weights_must_fit_the_sources() {
        let weights = |weights: &[f64]| {
            let options = TrainOptions { mix_weights: NumberList(weights.to_vec()), ..TrainOptions::default() };
            MixedOrder::new(&set(), &Mix::from(&options), 8, 3, true)
        };
        let error = weights(&[1.0, 2.0]).unwrap_err().to_string();
        assert!(error.contains("2 weights") && error.contains("3 sources"), "{error}");
        let plain = MixedOrder::new(&set(), &Mix::from(&TrainOptions::default()), 8, 3, true).unwrap();
        assert!(plain.is_none(), "in proportion, one order of all examples");
    }
}

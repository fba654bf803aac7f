//! The order of examples: a function of (seed, position), so that a run can be resumed anywhere.

use std::ops::Range;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// The order of examples over all epochs.
#[derive(Debug, Clone)]
pub(crate) struct ExampleOrder {
    examples: usize,
    seed: u64,
    shuffle: bool,
    epoch: Option<(usize, Vec<u32>)>,
}

impl ExampleOrder {
    /// Makes an order of `examples` examples (not 0), shuffled newly for every epoch unless `shuffle` is false.
    pub(crate) fn new(examples: usize, seed: u64, shuffle: bool) -> Self {
        Self { examples, seed, shuffle, epoch: None }
    }

    /// Returns the example at a position counted over all epochs.
    pub(crate) fn example_at(&mut self, position: usize) -> usize {
        let (epoch, place) = (position / self.examples, position % self.examples);
        if !self.shuffle {
            return place;
        }
        let order = match &mut self.epoch {
            Some((current, order)) if *current == epoch => order,
            other => {
                let mut order: Vec<u32> = (0..self.examples as u32).collect();
                let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
                rng.set_stream(epoch as u64);
                order.shuffle(&mut rng);
                &mut other.insert((epoch, order)).1
            }
        };
        order[place] as usize
    }
}

/// Returns the epochs, except the first, whose first example is in the batch of `step`.
pub(crate) fn epochs_begun(step: usize, batch_size: usize, examples: usize) -> Range<usize> {
    let first = |position: usize| position.div_ceil(examples).max(1);
    first(step * batch_size)..first((step + 1) * batch_size)
}

/// Returns the epoch that the batch before `step` ended in, if it is not the first one and is not complete.
pub(crate) fn epoch_going_on(step: usize, batch_size: usize, examples: usize) -> Option<usize> {
    let position = step * batch_size;
    let epoch = position / examples;
    (epoch > 0 && !position.is_multiple_of(examples)).then_some(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_has_every_example_once_in_an_order_of_its_own() {
        let mut order = ExampleOrder::new(50, 7, true);
        let epochs: Vec<Vec<usize>> = (0..3).map(|e| (0..50).map(|i| order.example_at(e * 50 + i)).collect()).collect();
        for epoch in &epochs {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        }
        assert_ne!(epochs[0], epochs[1]);
        assert_ne!(epochs[1], epochs[2]);
    }

    #[test]
    fn a_position_does_not_depend_on_what_was_asked_before() {
        let mut straight = ExampleOrder::new(31, 3, true);
        let all: Vec<usize> = (0..100).map(|p| straight.example_at(p)).collect();
        for start in [0, 17, 31, 62, 99] {
            assert_eq!(ExampleOrder::new(31, 3, true).example_at(start), all[start]);
        }
        assert_ne!(ExampleOrder::new(31, 4, true).example_at(0), all[0]);
    }

    #[test]
    fn unshuffled_is_the_given_order() {
        let mut order = ExampleOrder::new(3, 1, false);
        assert_eq!((0..7).map(|p| order.example_at(p)).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn every_epoch_begins_in_the_batch_that_has_its_first_example() {
        for (batch_size, examples, steps) in [(4usize, 10usize, 12usize), (5, 10, 9), (3, 3, 5), (7, 3, 4), (1, 1, 3)] {
            let mut next = 1;
            for step in 0..steps {
                let positions = step * batch_size..(step + 1) * batch_size;
                let begun: Vec<usize> = positions
                    .filter(|position| position.is_multiple_of(examples) && *position > 0)
                    .map(|p| p / examples)
                    .collect();
                assert_eq!(epochs_begun(step, batch_size, examples).collect::<Vec<_>>(), begun);
                for epoch in begun {
                    assert_eq!(epoch, next);
                    next += 1;
                }
                let position = (step + 1) * batch_size;
                let expected =
                    (!position.is_multiple_of(examples) && position > examples).then_some(position / examples);
                assert_eq!(epoch_going_on(step + 1, batch_size, examples), expected);
            }
        }
    }
}

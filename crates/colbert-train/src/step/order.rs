//! Which example comes when: a function of (seed, position), so that a run can be taken up anywhere.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// The order of examples over all epochs.
#[derive(Debug, Clone)]
pub struct ExampleOrder {
    examples: usize,
    seed: u64,
    shuffle: bool,
    epoch: Option<(usize, Vec<u32>)>,
}

impl ExampleOrder {
    /// An order of `examples` examples (not 0), shuffled anew for every epoch unless `shuffle` is false.
    pub fn new(examples: usize, seed: u64, shuffle: bool) -> Self {
        Self { examples, seed, shuffle, epoch: None }
    }

    /// The example at a position counted over all epochs.
    pub fn example_at(&mut self, position: usize) -> usize {
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
}

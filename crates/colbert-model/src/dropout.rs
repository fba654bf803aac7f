//! Dropout whose masks depend on a seed and a place alone: not on threads, not on a global generator.

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

/// Where a mask comes from. Each layer, step and text group takes a child of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropoutSeed(u64);

impl DropoutSeed {
    /// The seed of a run.
    pub fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// The seed of a part: a step, a group, a layer.
    pub fn child(self, place: u64) -> Self {
        Self(mix(self.0.wrapping_add(place)))
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014): advance and finalise.
fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Elements whose mask one task makes.
const BLOCK: usize = 1 << 14;

/// Zeroes elements with a probability and scales the others up by its complement.
#[derive(Module, Clone, Debug)]
pub struct Dropout {
    /// Probability of zeroing an element.
    pub probability: f64,
}

impl Dropout {
    /// Same shape in and out; without a seed the input itself.
    pub fn forward<B: Backend, const D: usize>(&self, input: Tensor<B, D>, seed: Option<DropoutSeed>) -> Tensor<B, D> {
        let Some(seed) = seed.filter(|_| self.probability > 0.0) else { return input };
        let shape = input.shape();
        let mut mask = vec![0f32; shape.num_elements()];
        let scale = (1.0 / (1.0 - self.probability)) as f32;
        let limit = (self.probability * 2f64.powi(32)) as u64;
        mask.par_chunks_mut(BLOCK).enumerate().for_each(|(block, mask)| {
            for (place, element) in mask.iter_mut().enumerate() {
                let index = (block * BLOCK + place) as u64;
                let drawn = mix(seed.0 ^ index) >> 32;
                *element = if drawn < limit { 0.0 } else { scale };
            }
        });
        let device = input.device();
        input * Tensor::from_data(TensorData::new(mask, shape), &device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_flex::{Flex, FlexDevice};

    fn dropped(probability: f64, seed: Option<u64>) -> Vec<f32> {
        let ones = Tensor::<Flex, 2>::ones([300, 200], &FlexDevice);
        Dropout { probability }.forward(ones, seed.map(DropoutSeed::new)).into_data().to_vec().unwrap()
    }

    #[test]
    fn drops_the_share_that_was_asked_for_and_keeps_the_mean() {
        let values = dropped(0.3, Some(1));
        let zeros = values.iter().filter(|v| **v == 0.0).count() as f64 / values.len() as f64;
        // Five standard deviations of 60,000 draws.
        assert!((zeros - 0.3).abs() < 0.0094, "{zeros}");
        assert!(values.iter().all(|v| *v == 0.0 || (*v - 1.0 / 0.7).abs() < 1e-6));
    }

    #[test]
    fn the_mask_is_a_function_of_the_seed() {
        assert_eq!(dropped(0.5, Some(3)), dropped(0.5, Some(3)));
        assert_ne!(dropped(0.5, Some(3)), dropped(0.5, Some(4)));
        assert!(dropped(0.5, None).iter().all(|v| *v == 1.0));
        assert!(dropped(0.0, Some(3)).iter().all(|v| *v == 1.0));
    }

    #[test]
    fn children_differ_from_each_other_and_from_other_families() {
        let mut seeds = Vec::new();
        for run in 0..4 {
            for step in 0..8 {
                for piece in 0..8 {
                    seeds.push(DropoutSeed::new(run).child(step).child(piece).0);
                }
            }
        }
        let count = seeds.len();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), count);
    }
}

//! Seeds of dropout masks: one for every place where a mask is used.

use colbert_kernels::Dropout;

/// The seed of a dropout mask. Each step, piece and layer has a child of its own, so that a mask is a function of the
/// run's seed and the place alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropoutSeed(u64);

impl DropoutSeed {
    /// Makes the seed of a run.
    pub fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// Returns the seed of a part: a step, a piece, a layer.
    pub fn child(self, place: u64) -> Self {
        Self(mix(self.0.wrapping_add(place)))
    }

    /// Makes the argument of an operator that drops with this probability; nothing is dropped without a seed.
    pub fn dropout(seed: Option<Self>, probability: f64) -> Dropout {
        seed.map_or(Dropout::NONE, |Self(seed)| Dropout { probability: probability as f32, seed })
    }
}

/// Mixes by SplitMix64 (Steele, Lea and Flood 2014): advance and finalise.
fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn nothing_is_dropped_without_a_seed() {
        assert!(DropoutSeed::dropout(None, 0.5).is_none());
        assert!(DropoutSeed::dropout(Some(DropoutSeed::new(1)), 0.0).is_none());
        assert!(!DropoutSeed::dropout(Some(DropoutSeed::new(1)), 0.5).is_none());
    }
}

//! Random choices that depend on a seed and a text, and on nothing else.

use std::collections::HashSet;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::texts::fingerprint::Fingerprint;

/// Generator for one purpose and one text. The same three arguments give the same numbers on every machine.
pub(crate) fn rng_for(seed: u64, purpose: &str, text: &str) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&Fingerprint::of(purpose.as_bytes()).to_le_bytes());
    key[16..24].copy_from_slice(&Fingerprint::of(text.as_bytes()).to_le_bytes());
    key[24..].copy_from_slice(&(text.len() as u64).to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// `count` distinct numbers below `bound` (all of them if there are fewer), each set equally likely, in a drawn order.
///
/// Source: Floyd's algorithm (Bentley and Floyd, "A sample of brilliance", CACM 1987).
pub(crate) fn distinct_below(rng: &mut ChaCha8Rng, bound: usize, count: usize) -> Vec<usize> {
    let count = count.min(bound);
    let mut seen = HashSet::with_capacity(count);
    let mut drawn = Vec::with_capacity(count);
    for last in bound - count..bound {
        // u64 on every machine: usize ranges draw differently on 32 and 64 bits.
        let candidate = rng.random_range(0..=last as u64) as usize;
        let chosen = if seen.insert(candidate) { candidate } else { last };
        seen.insert(chosen);
        drawn.push(chosen);
    }
    drawn
}

/// `count` distinct numbers below `bound` that are not in `excluded`, which is sorted and without repeats.
pub(crate) fn distinct_outside(rng: &mut ChaCha8Rng, bound: usize, excluded: &[u32], count: usize) -> Vec<u32> {
    let free = bound - excluded.len();
    distinct_below(rng, free, count).into_iter().map(|index| nth_outside(excluded, index)).collect()
}

/// The number with exactly `index` non-excluded numbers below it.
fn nth_outside(excluded: &[u32], index: usize) -> u32 {
    // excluded[i] - i counts the free numbers below excluded[i], and never falls.
    let (mut low, mut high) = (0, excluded.len());
    while low < high {
        let middle = (low + high) / 2;
        if excluded[middle] as usize - middle <= index {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    (index + low) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_distinct_in_range_and_complete() {
        for count in 0..=12 {
            let mut drawn = distinct_below(&mut rng_for(1, "test", "text"), 10, count);
            drawn.sort_unstable();
            drawn.dedup();
            assert_eq!(drawn.len(), count.min(10));
            assert!(drawn.iter().all(|&number| number < 10));
        }
    }

    #[test]
    fn every_number_is_equally_likely() {
        let mut counts = [0u32; 10];
        for round in 0..3000 {
            for number in distinct_below(&mut rng_for(round, "test", "text"), 10, 3) {
                counts[number] += 1;
            }
        }
        // 900 expected each, standard deviation about 25.
        assert!(counts.iter().all(|&count| (775..1025).contains(&count)), "{counts:?}");
    }

    #[test]
    fn exclusion_happens_before_the_draw() {
        let excluded = [0, 3, 4, 9];
        let mut drawn = distinct_outside(&mut rng_for(1, "test", "text"), 10, &excluded, 6);
        drawn.sort_unstable();
        assert_eq!(drawn, [1, 2, 5, 6, 7, 8]);
        assert_eq!(distinct_outside(&mut rng_for(1, "test", "text"), 4, &[0, 1, 2, 3], 6), [0u32; 0]);
    }

    #[test]
    fn seed_purpose_and_text_each_matter() {
        let draw = |seed, purpose, text| distinct_below(&mut rng_for(seed, purpose, text), 1_000_000, 3);
        let base = draw(1, "a", "x");
        assert_eq!(base, draw(1, "a", "x"));
        assert!([draw(2, "a", "x"), draw(1, "b", "x"), draw(1, "a", "y")].iter().all(|other| *other != base));
    }
}

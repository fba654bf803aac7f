//! Lengths of texts in words separated by white space.

use rayon::prelude::*;
use serde::Serialize;

use crate::texts::Texts;

/// Lengths of texts in words (runs of anything but white space). All 0 where there are no texts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct WordLengths {
    /// Mean.
    pub mean: f64,
    /// Half of the texts are at most this long.
    pub median: usize,
    /// 90 % of the texts are at most this long.
    pub p90: usize,
    /// 99 % of the texts are at most this long.
    pub p99: usize,
    /// The longest.
    pub max: usize,
}

impl WordLengths {
    pub(crate) fn of<Kind: Sync>(texts: &Texts<Kind>) -> Self {
        Self::of_lengths((0..texts.len() as u32).into_par_iter().map(|id| words(texts.text(id))).collect())
    }

    pub(crate) fn of_lengths(mut lengths: Vec<usize>) -> Self {
        lengths.sort_unstable();
        let Some(&max) = lengths.last() else { return Self::default() };
        // Nearest rank: the smallest length that at least this share of the texts does not exceed.
        let at = |percent: usize| lengths[(lengths.len() * percent).div_ceil(100) - 1];
        let mean = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
        Self { mean, median: at(50), p90: at(90), p99: at(99), max }
    }
}

/// Length of every text in words, in the order of ids.
pub(super) fn lengths<Kind: Sync>(texts: &Texts<Kind>) -> Vec<f64> {
    (0..texts.len() as u32).into_par_iter().map(|id| words(texts.text(id)) as f64).collect()
}

pub(crate) fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let lengths = WordLengths::of_lengths((1..=200).rev().collect());
        assert_eq!((lengths.median, lengths.p90, lengths.p99, lengths.max), (100, 180, 198, 200));
        assert!((lengths.mean - 100.5).abs() < 1e-12);
        assert_eq!(WordLengths::of_lengths(vec![7]).p90, 7);
        assert_eq!(WordLengths::of_lengths(Vec::new()), WordLengths::default());
    }
}

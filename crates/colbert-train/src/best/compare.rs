//! A test of whether one model is better than another on the same queries, or only by chance.

use colbert_config::Metric;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Resamples of the queries.
const RESAMPLES: usize = 10_000;

/// Share of the resamples left out on each side of the interval: 95 % are within.
const TAIL: f64 = 0.025;

/// A paired bootstrap over queries (Efron and Tibshirani 1993; for retrieval, Sakai 2006): queries are drawn with
/// replacement, and the mean difference is computed each time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Queries that both were measured on.
    pub queries: usize,
    /// Mean gain over these queries; positive if the second is better, also for a loss.
    pub gain: f64,
    /// Lower end of the 95 % interval (percentiles of the resamples).
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Share of the resamples in which the second is not better: (1 + count) / (1 + resamples).
    pub p_value: f64,
}

impl Comparison {
    /// Compares per-query gains, which are differences of a metric (turned round for a loss). None without queries.
    pub fn of_gains(gains: &[f64], seed: u64) -> Option<Self> {
        if gains.is_empty() {
            return None;
        }
        let count = gains.len() as f64;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut means: Vec<f64> = (0..RESAMPLES)
            .map(|_| (0..gains.len()).map(|_| gains[rng.random_range(0..gains.len())]).sum::<f64>() / count)
            .collect();
        means.sort_by(f64::total_cmp);
        let not_better = means.partition_point(|mean| *mean <= 0.0);
        let tail = (RESAMPLES as f64 * TAIL) as usize;
        Some(Self {
            queries: gains.len(),
            gain: gains.iter().sum::<f64>() / count,
            low: means[tail],
            high: means[RESAMPLES - 1 - tail],
            p_value: (1 + not_better) as f64 / (1 + RESAMPLES) as f64,
        })
    }

    /// Returns whether the gain is more than chance: the whole interval lies above 0.
    pub fn is_clear(&self) -> bool {
        self.low > 0.0
    }

    /// Describes it in words, for the best model of a run and its start on the queries of a split.
    pub fn verdict(&self, split: &str, metric: Metric) -> String {
        let Self { queries, gain, low, high, .. } = self;
        let words = if self.is_clear() { "beats" } else { "does not clearly beat" };
        let gain = if metric == Metric::Loss { format!("a loss lower by {gain:.4}") } else { format!("{gain:+.4}") };
        format!(
            "On {split} {metric} the best model {words} the start: {gain}, 95 % interval {low:+.4} to {high:+.4} \
             (paired bootstrap over {queries} queries)."
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_gain_is_clear_and_noise_is_not() {
        let steady: Vec<f64> = (0..100).map(|i| 0.1 + 0.01 * f64::from(i % 5)).collect();
        let found = Comparison::of_gains(&steady, 1).unwrap();
        assert!((found.gain - 0.12).abs() < 1e-12 && found.is_clear(), "{found:?}");
        assert!(found.low <= found.gain && found.gain <= found.high && found.p_value < 1e-3);
        let noise: Vec<f64> = (0..100).map(|i| if i % 2 == 0 { 0.2 } else { -0.2 }).collect();
        let found = Comparison::of_gains(&noise, 1).unwrap();
        assert!(found.gain == 0.0 && !found.is_clear() && found.low < 0.0 && found.high > 0.0, "{found:?}");
        assert!((0.4..0.7).contains(&found.p_value), "{found:?}");
        assert_eq!(Comparison::of_gains(&noise, 1), Comparison::of_gains(&noise, 1));
        assert_eq!(Comparison::of_gains(&[], 1), None);
    }

    /// The interval of a mean of n values with standard deviation s is about 1.96 s / sqrt(n) to each side.
    #[test]
    fn the_interval_is_as_wide_as_the_normal_one() {
        let gains: Vec<f64> = (0..400).map(|i| f64::from(i % 20) / 20.0 - 0.4).collect();
        let mean = gains.iter().sum::<f64>() / 400.0;
        let deviation = (gains.iter().map(|gain| (gain - mean).powi(2)).sum::<f64>() / 400.0).sqrt();
        let expected = 1.96 * deviation / 20.0;
        let found = Comparison::of_gains(&gains, 7).unwrap();
        assert!(((found.high - found.low) / 2.0 - expected).abs() < 0.05 * expected, "{found:?}, {expected}");
    }
}

//! A running mean and variance of the loss, to distinguish a jump from noise.

use serde::{Deserialize, Serialize};

/// Losses seen before a jump is reported.
const SETTLED: usize = 20;

/// Weight of the newest loss in the running mean.
const NEWEST: f64 = 0.05;

/// A jump is this many standard deviations above the running mean, and at least 1.5 times the mean.
const DEVIATIONS: f64 = 6.0;

/// The running mean and variance of the loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LossWatch {
    seen: usize,
    mean: f64,
    variance: f64,
}

impl LossWatch {
    /// Takes a loss in; returns the running mean before it if it jumped.
    pub(crate) fn jump(&mut self, loss: f64) -> Option<f64> {
        let before = self.mean;
        let jumped = self.seen >= SETTLED && loss > before + DEVIATIONS * self.variance.sqrt() && loss > 1.5 * before;
        let weight = NEWEST.max(1.0 / (self.seen + 1) as f64);
        let off = loss - self.mean;
        self.mean += weight * off;
        self.variance = (1.0 - weight) * (self.variance + weight * off * off);
        self.seen += 1;
        jumped.then_some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_loss_is_seen_and_noise_is_not() {
        let mut watch = LossWatch::default();
        for step in 0..200 {
            let noise = f64::from(step * 7919 % 13) / 13.0 - 0.5;
            assert_eq!(watch.jump(2.0 - 0.005 * f64::from(step) + 0.3 * noise), None, "step {step}");
        }
        let mean = watch.jump(4.0).unwrap();
        assert!((1.0..1.3).contains(&mean), "{mean}");
        assert_eq!(LossWatch::default().jump(1e9), None, "nothing to compare with yet");
    }
}

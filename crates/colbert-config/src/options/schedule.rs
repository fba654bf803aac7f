//! The learning rate over a run, and the rates that `"auto"` stands for.

use std::f64::consts::PI;
use std::fmt;

use serde::{Deserialize, Serialize};

/// RAGatouille's learning rate (0.0.9, `RAGTrainer.train`).
pub const REFERENCE_LEARNING_RATE: f64 = 5e-6;

/// Learning rate for a new head, and the reason for it. Both recipes start from a plain encoder, as such a run does.
const NEW_HEAD: (f64, &str) = (
    3e-5,
    "3e-5, as the head is new: the rate of GTE-ModernColBERT (PyLate) and of sentence-transformers' multi-vector example, \
     which start from a plain encoder too",
);

/// The learning rate that `train.learning_rate = "auto"` stands for, and the reason in words.
#[must_use]
pub fn automatic_learning_rate(head_is_trained: bool) -> (f64, &'static str) {
    if head_is_trained {
        (REFERENCE_LEARNING_RATE, "5e-6, the reference's, as training goes on from a trained ColBERT")
    } else {
        NEW_HEAD
    }
}

/// The learning rate after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Linear decay to 0 at the horizon. Source: transformers `get_linear_schedule_with_warmup`, which colbert-ai uses.
    #[default]
    Linear,
    /// Cosine decay to 0 at the horizon, along half a period. Source: transformers `get_cosine_schedule_with_warmup`.
    Cosine,
    /// Constant, then linear decay to 0 over the last `decay_steps`. Source: Hägele et al. 2024, arXiv 2405.18392.
    WarmupStableDecay,
    /// Stays.
    Constant,
}

impl Schedule {
    /// Returns the share of the peak after `done` updates, which are at least `warmup`. It reaches 0 at `horizon`;
    /// [`Schedule::WarmupStableDecay`] decays over the last `decay` updates before it.
    #[must_use]
    pub fn share(self, done: usize, warmup: usize, horizon: usize, decay: usize) -> f64 {
        let left = horizon.saturating_sub(done) as f64;
        let fall = horizon.saturating_sub(warmup).max(1) as f64;
        match self {
            Self::Linear => left / fall,
            Self::Cosine => (1.0 + (PI * (1.0 - left / fall)).cos()) / 2.0,
            Self::WarmupStableDecay => (left / decay.max(1) as f64).min(1.0),
            Self::Constant => 1.0,
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linear => "linear",
            Self::Cosine => "cosine",
            Self::WarmupStableDecay => "warmup_stable_decay",
            Self::Constant => "constant",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the formulas of transformers 4.57, `optimization.py`, evaluated by hand for 2 warm-up steps of 10.
    #[test]
    fn shares_of_the_peak() {
        for (schedule, expected) in [
            (Schedule::Linear, [1.0, 0.75, 0.5, 0.25, 0.0]),
            (Schedule::Cosine, [1.0, 0.853_553_390_6, 0.5, 0.146_446_609_4, 0.0]),
            (Schedule::WarmupStableDecay, [1.0, 1.0, 1.0, 0.5, 0.0]),
            (Schedule::Constant, [1.0; 5]),
        ] {
            for (done, share) in [2, 4, 6, 8, 10].into_iter().zip(expected) {
                let found = schedule.share(done, 2, 10, 4);
                assert!((found - share).abs() < 1e-9, "{schedule} after {done}: {found} instead of {share}");
            }
        }
        assert!(Schedule::Cosine.share(99, 2, 10, 4).abs() < 1e-12, "0 beyond the horizon");
    }

    #[test]
    fn a_new_head_learns_faster() {
        assert_eq!(automatic_learning_rate(true).0, 5e-6);
        assert_eq!(automatic_learning_rate(false).0, 3e-5);
    }
}

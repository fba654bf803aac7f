//! Words of the options that describe the loss.

use serde::{Deserialize, Serialize};

/// Loss of a row with teacher scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DistillationLoss {
    /// Kullback-Leibler divergence of the student's softmax from the teacher's.
    #[default]
    Kl,
    /// Mean square of the difference of margins: the positive's score less that of each other document, the student's
    /// against the teacher's (Hofstätter et al. 2020, arXiv 2010.02666, section 3).
    MarginMse,
}

/// Scale of the scores of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreScale {
    /// As they are.
    #[default]
    Raw,
    /// The row's least score becomes 0 and its largest 1.
    MinMax,
    /// The row's scores get mean 0 and (population) standard deviation 1.
    ZScore,
}

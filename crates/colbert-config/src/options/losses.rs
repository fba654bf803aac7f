//! Values of the options that describe the loss.

use serde::{Deserialize, Serialize};

/// Loss of a row with teacher scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DistillationLoss {
    /// Kullback-Leibler divergence of the student's softmax from the teacher's.
    #[default]
    Kl,
    /// Mean squared difference between the student's and the teacher's margins, a margin being the positive's score
    /// minus that of another document (Hofstätter et al. 2020, arXiv 2010.02666, section 3).
    MarginMse,
}

/// Scale of the scores of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreScale {
    /// As they are.
    #[default]
    Raw,
    /// The row's lowest score becomes 0 and its highest 1.
    MinMax,
    /// The row's scores get mean 0 and (population) standard deviation 1.
    ZScore,
}

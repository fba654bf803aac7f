//! The options of `[evaluation]`: how the best model is chosen.

use serde::{Deserialize, Serialize};

use crate::options::metric::Metric;

/// How "better" is measured, on queries that are not trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationOptions {
    /// Metric that chooses the best model.
    pub metric: Metric,
    /// Documents that dev queries are ranked against: all the relevant ones and random others up to this number.
    /// Empty: the whole corpus.
    pub pool_size: Option<usize>,
    /// Dev queries used, chosen at random by `seed`. Empty: all of them.
    pub max_queries: Option<usize>,
    /// Seed of the choices of `pool_size`, `max_queries` and `data.dev_split`.
    pub seed: u64,
    /// Number of evaluations in a row without a new best after which the run ends. `None`: never.
    pub patience: Option<usize>,
    /// Number of best models whose weights are averaged and measured at the end, and kept if they are better; 0 turns
    /// this off.
    pub average_best: usize,
    /// At the end, also measure the best model's weights moved a quarter, half and three quarters of the way back to
    /// the starting weights, and keep them if they are better.
    pub interpolate: bool,
}

impl Default for EvaluationOptions {
    fn default() -> Self {
        Self {
            metric: Metric::default(),
            pool_size: None,
            max_queries: None,
            seed: 5,
            patience: None,
            average_best: 0,
            interpolate: false,
        }
    }
}

//! Values of the options that mix the examples of several sources.

use serde::{Deserialize, Serialize};

/// Sources of the examples of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MixBatches {
    /// All sources together.
    #[default]
    Mixed,
    /// One source for each batch, so that in-batch negatives come from the query's own source.
    OneSource,
}

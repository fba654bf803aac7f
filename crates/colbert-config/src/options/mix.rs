//! How examples of several sources come together.

use serde::{Deserialize, Serialize};

/// Sources of the examples of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MixBatches {
    /// Any.
    #[default]
    Mixed,
    /// One for a batch, so that in-batch negatives come from the query's own source.
    OneSource,
}

//! The choice of the best model: evaluation, metrics, selection, averages.

pub(crate) mod averaging;
pub(crate) mod compare;
pub(crate) mod evaluate;
pub(crate) mod metrics;
pub(crate) mod scoring;
pub(crate) mod selection;
pub(crate) mod standing;

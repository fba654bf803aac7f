//! Miners that need a model: a sentence encoder, and the ColBERT that is trained.

mod best;
mod dense;
mod late_interaction;

pub use dense::DenseMiner;
pub use late_interaction::LateInteractionMiner;

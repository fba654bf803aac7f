//! Miners that need a model: a sentence encoder, and the ColBERT that is trained. Teachers that score candidates.

mod best;
mod dense;
mod late_interaction;
mod shared;
mod teacher;

pub use dense::DenseMiner;
pub use late_interaction::LateInteractionMiner;
pub use shared::{SharedMiner, SharedScores};
pub use teacher::{ColbertTeacher, CrossEncoderTeacher};

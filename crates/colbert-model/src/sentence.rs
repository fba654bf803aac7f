//! Sentence encoders: one vector per text, for mining negatives. Cross-encoders: one score per pair of texts, to teach.

pub(crate) mod blocks;
pub(crate) mod classifier;
pub(crate) mod cross_encoder;
pub(crate) mod encoder;
pub(crate) mod family;

pub use cross_encoder::CrossEncoder;
pub use encoder::{SentenceEncoder, SentenceSettings};
pub use family::Pooling;

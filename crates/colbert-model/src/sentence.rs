//! Sentence encoders: one vector per text, for mining negatives.

pub(crate) mod encoder;
pub(crate) mod family;

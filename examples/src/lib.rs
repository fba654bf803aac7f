//! The quickstart's files, which the example programs share. See `examples/*.rs`.

mod quickstart;

pub use quickstart::{DATA, MODEL, triples};

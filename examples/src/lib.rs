//! What the example programs beside it share: the quickstart's files. See `examples/*.rs`.

mod quickstart;

pub use quickstart::{DATA, MODEL, triples};

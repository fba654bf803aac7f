//! Holds the example programs beside it; see `examples/*.rs`.

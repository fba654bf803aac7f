//! The commands of the program, one file each.

pub(crate) mod check;
pub(crate) mod encode;
pub(crate) mod evaluate;
pub(crate) mod index;
pub(crate) mod onnx;
pub(crate) mod prepare;
pub(crate) mod rerank;
pub(crate) mod runs;
pub(crate) mod score;
pub(crate) mod search;
pub(crate) mod train;

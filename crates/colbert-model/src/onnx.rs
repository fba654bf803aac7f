//! Parts of an ONNX graph: messages, a graph that is put together, and the layers that encoder families share.
//! Operators are those of opset 17, which has layer normalisation. Writing a model directory's graph is
//! `export/onnx.rs`'s.

pub(crate) mod graph;
pub(crate) mod nodes;
pub(crate) mod proto;

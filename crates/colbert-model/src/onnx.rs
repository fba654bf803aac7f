//! Parts of an ONNX graph: messages, a graph under construction, and the layers that encoder families share. Operators
//! are those of opset 17, which has layer normalisation. `export/onnx.rs` writes a model directory's graph.

pub(crate) mod graph;
pub(crate) mod nodes;
pub(crate) mod proto;

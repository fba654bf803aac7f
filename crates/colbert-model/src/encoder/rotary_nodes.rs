//! Rotary positions as nodes of an ONNX graph.

use crate::error::ModelError;
use crate::onnx::graph::{Setting, Value};
use crate::onnx::nodes::{Mix, Nodes, Tokens};

/// Cosines and sines of rotary positions, `[length, head_size]`.
pub(crate) struct RotationNodes {
    cos: Value,
    sin: Value,
}

impl RotationNodes {
    /// Adds the angles of a head's pairs at every place of a text; `name` tells them from others of the graph.
    pub(crate) fn new(on: &mut Nodes<'_>, name: &str, frequencies: &[f32], tokens: &Tokens) -> Self {
        let row = on.graph.row(&format!("frequencies of {name}"), frequencies);
        let (last, places) = (on.graph.ints(&[1]), on.graph.float32(&tokens.places));
        let places = on.graph.op("Unsqueeze", &[&places, &last]);
        let angles = on.graph.op("Mul", &[&places, &row]);
        let mut both = |operator| {
            let half = on.graph.op(operator, &[&angles]);
            on.graph.op_with("Concat", &[&half, &half], &[("axis", Setting::Int(-1))])
        };
        Self { cos: both("Cos"), sin: both("Sin") }
    }

    /// Rotates heads, `[batch, heads, length, head_size]` in and out.
    pub(crate) fn turn(&self, on: &mut Nodes<'_>, x: &Value) -> Value {
        let halves = on.graph.ops("Split", &[x], &[("axis", Setting::Int(-1))], 2);
        let second = on.graph.op("Neg", &[&halves[1]]);
        let turned = on.graph.op_with("Concat", &[&second, &halves[0]], &[("axis", Setting::Int(-1))]);
        let (kept, turned) = (on.graph.op("Mul", &[x, &self.cos]), on.graph.op("Mul", &[&turned, &self.sin]));
        on.graph.op("Add", &[&kept, &turned])
    }
}

/// Self-attention with one map for query, key and value, rotary positions, and a projection.
pub(crate) struct PackedAttention<'a> {
    /// Name of the map to query, key and value, one after the other.
    pub(crate) qkv: String,
    /// Name of the projection.
    pub(crate) out: String,
    pub(crate) heads: usize,
    /// Size of a hidden vector.
    pub(crate) size: usize,
    pub(crate) rotation: &'a RotationNodes,
    /// Which columns a row may attend to; see [`Mix`].
    pub(crate) allowed: &'a Value,
    pub(crate) may_be_empty: bool,
}

impl PackedAttention<'_> {
    /// Adds the attention of `x`, `[batch, length, size]` in and out.
    pub(crate) fn add(self, on: &mut Nodes<'_>, x: &Value) -> Result<Value, ModelError> {
        let Self { heads, size, rotation, allowed, may_be_empty, .. } = self;
        let all = on.linear(&self.qkv, [3 * size, size], x)?;
        let parts = on.graph.ops("Split", &[&all], &[("axis", Setting::Int(-1))], 3);
        let [query, key, value] = [0, 1, 2].map(|part: usize| on.split_heads(&parts[part], heads, size));
        let parts = [rotation.turn(on, &query), rotation.turn(on, &key), value];
        let mixed = on.attention(&Mix { parts, allowed, may_be_empty, bias: None, heads, hidden: size });
        on.linear(&self.out, [size, size], &mixed)
    }
}

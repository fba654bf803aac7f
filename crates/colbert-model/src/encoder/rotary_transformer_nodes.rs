//! The layers of NomicBERT and GTE as nodes of an ONNX graph, the counterpart of `rotary_transformer.rs`.

use colbert_kernels::Activation;

use crate::encoder::rotary_nodes::{PackedAttention, RotationNodes};
use crate::encoder::rotary_transformer::RotaryLayers;
use crate::error::ModelError;
use crate::onnx::graph::{Setting, Value};
use crate::onnx::nodes::{Nodes, Tokens};

/// Adds the nodes of the last layer's hidden states, `[batch, length, hidden]`.
pub(crate) fn build(
    sizes: &RotaryLayers,
    on: &mut Nodes<'_>,
    embedded: Value,
    tokens: &Tokens,
) -> Result<Value, ModelError> {
    let RotaryLayers { layers, hidden: size, wide, heads, eps, angles, activation, names, .. } = *sizes;
    let rotation = RotationNodes::new(on, "the rotary positions", &angles.frequencies(size / heads), tokens);
    let mut hidden = embedded;
    for i in 0..layers {
        let at = |part: &str| format!("{}.{i}.{part}", names.layers);
        let (qkv, out, rotation, allowed) = (at(names.qkv), at(names.out), &rotation, &tokens.attended);
        let attention = PackedAttention { qkv, out, heads, size, rotation, allowed, may_be_empty: false };
        let projected = attention.add(on, &hidden)?;
        let sum = on.graph.op("Add", &[&projected, &hidden]);
        let attended = on.layer_norm(&at(names.attention_norm), size, eps, &sum)?;
        let (up, gate) = match names.gate {
            Some(gate) => {
                let up = on.linear(&at(names.up), [wide, size], &attended)?;
                (up, on.linear(&at(gate), [wide, size], &attended)?)
            }
            None => {
                let both = on.linear(&at(names.up), [2 * wide, size], &attended)?;
                let halves = on.graph.ops("Split", &[&both], &[("axis", Setting::Int(-1))], 2);
                (halves[0].clone(), halves[1].clone())
            }
        };
        let gate = match activation {
            Activation::Gelu => on.gelu(&gate),
            Activation::Silu => on.silu(&gate),
        };
        let gated = on.graph.op("Mul", &[&up, &gate]);
        let down = on.linear(&at(names.down), [size, wide], &gated)?;
        let sum = on.graph.op("Add", &[&down, &attended]);
        hidden = on.layer_norm(&at(names.feed_forward_norm), size, eps, &sum)?;
    }
    Ok(hidden)
}

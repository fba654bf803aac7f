//! ModernBERT as nodes of an ONNX graph, the counterpart of `modernbert.rs`.

use crate::encoder::families::modernbert_config::ModernBertConfig;
use crate::encoder::rotary::Angles;
use crate::encoder::rotary_nodes::{PackedAttention, RotationNodes};
use crate::error::ModelError;
use crate::onnx::graph::{Setting, Value};
use crate::onnx::nodes::{Nodes, Tokens};

/// Adds the mask of attended tokens within each token's window: bool `[batch, 1, length, length]`.
fn near(on: &mut Nodes<'_>, reach: usize, tokens: &Tokens) -> Value {
    let ([column, row], reach) = (on.column_and_row(&tokens.places), on.graph.int(reach as i64));
    let distance = on.graph.op("Sub", &[&column, &row]);
    let distance = on.graph.op("Abs", &[&distance]);
    let near = on.graph.op("LessOrEqual", &[&distance, &reach]);
    on.graph.op("And", &[&near, &tokens.attended])
}

/// Adds the nodes of the hidden states, `[batch, length, hidden]`.
pub(crate) fn build(
    config: &ModernBertConfig,
    on: &mut Nodes<'_>,
    ids: &Value,
    tokens: &Tokens,
) -> Result<Value, ModelError> {
    let (size, wide, heads) = (config.hidden_size, config.intermediate_size, config.num_attention_heads);
    let norm = |on: &mut Nodes<'_>, name: &str, x: &Value| on.layer_norm(name, size, config.norm_eps, x);
    let rotations = config.thetas().map(|theta| {
        let frequencies = Angles { theta, factor: 1.0 }.frequencies(size / heads);
        RotationNodes::new(on, &format!("{theta:e}"), &frequencies, tokens)
    });
    let near = near(on, config.half_window(), tokens);
    let words = on.rows("embeddings.tok_embeddings.weight", [config.vocab_size, size], ids)?;
    let mut hidden = norm(on, "embeddings.norm", &words)?;
    for i in 0..config.num_hidden_layers {
        let at = |part: &str| format!("layers.{i}.{part}");
        let is_global = i.is_multiple_of(config.global_attn_every_n_layers);
        let rotation = &rotations[usize::from(!is_global)];
        let normed = if i == 0 { hidden.clone() } else { norm(on, &at("attn_norm"), &hidden)? };
        let allowed = if is_global { &tokens.attended } else { &near };
        let (qkv, out, may_be_empty) = (at("attn.Wqkv"), at("attn.Wo"), !is_global);
        let attention = PackedAttention { qkv, out, heads, size, rotation, allowed, may_be_empty };
        let projected = attention.add(on, &normed)?;
        let attended = on.graph.op("Add", &[&hidden, &projected]);
        let normed = norm(on, &at("mlp_norm"), &attended)?;
        let both = on.linear(&at("mlp.Wi"), [2 * wide, size], &normed)?;
        let halves = on.graph.ops("Split", &[&both], &[("axis", Setting::Int(-1))], 2);
        let gate = on.gelu(&halves[0]);
        let gated = on.graph.op("Mul", &[&gate, &halves[1]]);
        let narrow = on.linear(&at("mlp.Wo"), [size, wide], &gated)?;
        hidden = on.graph.op("Add", &[&attended, &narrow]);
    }
    norm(on, "final_norm", &hidden)
}

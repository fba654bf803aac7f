//! The block of Llama as nodes of an ONNX graph, the counterpart of `llama.rs`.

use crate::encoder::families::llama_config::LlamaConfig;
use crate::encoder::rotary_nodes::RotationNodes;
use crate::error::ModelError;
use crate::onnx::graph::Value;
use crate::onnx::nodes::{Mix, Nodes, Tokens};
use crate::weights::HostTensor;

/// Repeats the rows of each head of keys or values for the queries that share it.
fn for_each_query(weight: &HostTensor, heads: usize, key_heads: usize) -> HostTensor {
    let rows = weight.shape[0] / key_heads * heads;
    // An outline of a model has shapes and no values.
    let size = weight.values.len() / key_heads;
    let of_head = |head: usize| &weight.values[head / (heads / key_heads) * size..][..size];
    let values = if size == 0 { Vec::new() } else { (0..heads).flat_map(of_head).copied().collect() };
    HostTensor { shape: vec![rows, weight.shape[1]], values }
}

/// Adds the mask of the tokens up to each token: bool `[batch, 1, length, length]`.
fn behind(on: &mut Nodes<'_>, tokens: &Tokens) -> Value {
    let [column, row] = on.column_and_row(&tokens.places);
    let behind = on.graph.op("LessOrEqual", &[&row, &column]);
    on.graph.op("And", &[&behind, &tokens.attended])
}

/// Adds the nodes of the hidden states, `[batch, length, hidden]`.
pub(crate) fn build(
    config: &LlamaConfig,
    on: &mut Nodes<'_>,
    ids: &Value,
    tokens: &Tokens,
) -> Result<Value, ModelError> {
    let (size, wide, heads) = (config.hidden_size, config.intermediate_size, config.num_attention_heads);
    let (key_heads, head, eps) = (config.key_heads(), config.head_size(), config.eps());
    let all = config.attention_size();
    let rotation = RotationNodes::new(on, "the rotary positions", &config.angles().frequencies(head), tokens);
    let allowed = if config.is_causal() { behind(on, tokens) } else { tokens.attended.clone() };
    let mut hidden = on.rows("embed_tokens.weight", [config.vocab_size, size], ids)?;
    for i in 0..config.num_hidden_layers {
        let at = |part: &str| format!("layers.{i}.{part}");
        let normed = on.rms_norm(&at("input_layernorm"), size, eps, &hidden)?;
        let query = on.linear(&at("self_attn.q_proj"), [all, size], &normed)?;
        let mut query = on.split_heads(&query, heads, all);
        let mut shared = |part: &str| {
            let name = at(part);
            let weight = on.weights.take(&format!("{name}.weight"), &[key_heads * head, size])?;
            let mapped = on.map(&name, &for_each_query(&weight, heads, key_heads), None, &normed)?;
            Ok::<_, ModelError>(on.split_heads(&mapped, heads, all))
        };
        let (mut key, value) = (shared("self_attn.k_proj")?, shared("self_attn.v_proj")?);
        if config.normalises_heads() {
            query = on.rms_norm(&at("self_attn.q_norm"), head, eps, &query)?;
            key = on.rms_norm(&at("self_attn.k_norm"), head, eps, &key)?;
        }
        let parts = [rotation.turn(on, &query), rotation.turn(on, &key), value];
        let mix = Mix { parts, allowed: &allowed, may_be_empty: false, bias: None, heads, hidden: all };
        let mixed = on.attention(&mix);
        let projected = on.linear(&at("self_attn.o_proj"), [size, all], &mixed)?;
        let attended = on.graph.op("Add", &[&hidden, &projected]);
        let normed = on.rms_norm(&at("post_attention_layernorm"), size, eps, &attended)?;
        let gate = on.linear(&at("mlp.gate_proj"), [wide, size], &normed)?;
        let gate = on.silu(&gate);
        let up = on.linear(&at("mlp.up_proj"), [wide, size], &normed)?;
        let gated = on.graph.op("Mul", &[&gate, &up]);
        let down = on.linear(&at("mlp.down_proj"), [size, wide], &gated)?;
        hidden = on.graph.op("Add", &[&attended, &down]);
    }
    on.rms_norm("norm", size, eps, &hidden)
}

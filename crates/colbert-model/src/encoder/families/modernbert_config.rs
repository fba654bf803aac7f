//! The configuration of ModernBERT: the keys that the encoder reads, and what follows from them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::encoder::families::defaults;

/// The part of `config.json` that the encoder reads. Defaults are transformers' `ModernBertConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModernBertConfig {
    /// Rows of the word embedding matrix.
    pub vocab_size: usize,
    /// Size of a hidden vector.
    pub hidden_size: usize,
    /// Size of the feed-forward layer: that of each of its halves.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads of a layer.
    pub num_attention_heads: usize,
    /// Activation of the feed-forward layer; only `gelu` (by the error function) is supported.
    #[serde(default = "defaults::gelu")]
    pub hidden_activation: String,
    /// Longest sequence, in tokens. Default 8192.
    #[serde(default = "defaults::positions_8192")]
    pub max_position_embeddings: usize,
    /// Epsilon of layer normalisation.
    #[serde(default = "defaults::eps_1e_5")]
    pub norm_eps: f64,
    /// Whether norms have biases; only `false` is supported.
    #[serde(default)]
    pub norm_bias: bool,
    /// Base of the rotary angles of global layers.
    #[serde(default = "global_theta")]
    pub global_rope_theta: f64,
    /// Base of the rotary angles of local layers; none means that of global ones.
    #[serde(default = "local_theta")]
    pub local_rope_theta: Option<f64>,
    /// Both, as transformers 5 writes them; this key takes precedence.
    #[serde(default)]
    pub rope_parameters: Option<Value>,
    /// One layer in N is global, the first included.
    #[serde(default = "three")]
    pub global_attn_every_n_layers: usize,
    /// Tokens of a window, half of them to each side.
    #[serde(default = "window")]
    pub local_attention: usize,
    /// Whether attention has biases; only `false` is supported.
    #[serde(default)]
    pub attention_bias: bool,
    /// Whether feed-forward layers have biases; only `false` is supported.
    #[serde(default)]
    pub mlp_bias: bool,
    /// Dropout on attention weights and after the attention's projection.
    #[serde(default)]
    pub attention_dropout: f64,
    /// Dropout inside the feed-forward layer.
    #[serde(default)]
    pub mlp_dropout: f64,
    /// Dropout after the embeddings.
    #[serde(default)]
    pub embedding_dropout: f64,
    /// Standard deviation that new weights are drawn with.
    #[serde(default = "defaults::initializer_range")]
    pub initializer_range: f64,
}

fn global_theta() -> f64 {
    160_000.0
}
#[expect(clippy::unnecessary_wraps, reason = "serde wants the field's type")]
fn local_theta() -> Option<f64> {
    Some(10_000.0)
}
fn three() -> usize {
    3
}
fn window() -> usize {
    128
}

impl ModernBertConfig {
    /// Returns the bases of the rotary angles: of global layers, of local ones.
    pub(super) fn thetas(&self) -> [f64; 2] {
        let newer = |kind: &str| self.rope_parameters.as_ref()?.get(kind)?.get("rope_theta")?.as_f64();
        let global = newer("full_attention").unwrap_or(self.global_rope_theta);
        [global, newer("sliding_attention").or(self.local_rope_theta).unwrap_or(global)]
    }

    /// Returns how many tokens to each side a token sees in local layers.
    pub(super) fn half_window(&self) -> usize {
        self.local_attention / 2
    }
}

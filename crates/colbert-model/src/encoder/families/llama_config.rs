//! The configuration of Llama's block: the keys that the encoder reads, and what follows from them.

use serde::{Deserialize, Serialize};

use crate::encoder::families::defaults;
use crate::encoder::rotary::{Angles, RotaryKeys};

/// The model type of the family that normalises the heads of queries and keys, and is causal.
pub(super) const QWEN3: &str = "qwen3";

/// The base of the rotary angles where the file names none.
pub(super) const THETA: f64 = 10_000.0;

/// The part of `config.json` that the encoder reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlamaConfig {
    /// `eurobert` or `qwen3`.
    pub model_type: String,
    /// Rows of the word embedding matrix.
    pub vocab_size: usize,
    /// Size of a hidden vector.
    pub hidden_size: usize,
    /// Size of each half of the feed-forward layer.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of queries.
    pub num_attention_heads: usize,
    /// Heads of keys and values; none means as many as of queries.
    #[serde(default)]
    pub num_key_value_heads: Option<usize>,
    /// Size of a head; none means `hidden_size / num_attention_heads`, in Qwen3 128.
    #[serde(default)]
    pub head_dim: Option<usize>,
    /// Activation of the feed-forward layer; only `silu` is supported.
    #[serde(default = "defaults::silu")]
    pub hidden_act: String,
    /// Longest sequence, in tokens.
    #[serde(default = "defaults::positions_8192")]
    pub max_position_embeddings: usize,
    /// Epsilon of normalisation.
    #[serde(default)]
    pub rms_norm_eps: Option<f64>,
    /// Rotary positions.
    #[serde(flatten)]
    pub rotary: RotaryKeys,
    /// Whether attention has biases; only `false` is supported.
    #[serde(default)]
    pub attention_bias: bool,
    /// Whether feed-forward layers have biases; only `false` is supported.
    #[serde(default)]
    pub mlp_bias: bool,
    /// Whether attention is in windows; only `false` is supported.
    #[serde(default)]
    pub use_sliding_window: bool,
    /// Whether a token sees only those before it, in Qwen3; none means that it does.
    #[serde(default)]
    pub is_causal: Option<bool>,
    /// Dropout on attention weights.
    #[serde(default)]
    pub attention_dropout: f64,
    /// Dropout in training, after the embeddings and after each part; not part of any file.
    #[serde(skip)]
    pub hidden_dropout: f64,
    /// Standard deviation that new weights are drawn with.
    #[serde(default = "defaults::initializer_range")]
    pub initializer_range: f64,
}

impl LlamaConfig {
    /// Returns whether the heads of queries and keys are normalised.
    pub(super) fn normalises_heads(&self) -> bool {
        self.model_type == QWEN3
    }

    /// Returns whether a token sees only those before it.
    pub(super) fn is_causal(&self) -> bool {
        self.model_type == QWEN3 && self.is_causal.unwrap_or(true)
    }

    /// Returns the number of heads of keys and values.
    pub(super) fn key_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Returns the size of a head.
    pub(super) fn head_size(&self) -> usize {
        let usual = || {
            if self.normalises_heads() { 128 } else { self.hidden_size / self.num_attention_heads.max(1) }
        };
        self.head_dim.unwrap_or_else(usual)
    }

    /// Returns how many numbers a token's query has.
    pub(super) fn attention_size(&self) -> usize {
        self.num_attention_heads.saturating_mul(self.head_size())
    }

    /// Returns the angles of the rotary positions.
    pub(super) fn angles(&self) -> Angles {
        self.rotary.angles(THETA)
    }

    /// Returns the epsilon of normalisation.
    pub(super) fn eps(&self) -> f64 {
        self.rms_norm_eps.unwrap_or(if self.normalises_heads() { 1e-6 } else { 1e-5 })
    }
}

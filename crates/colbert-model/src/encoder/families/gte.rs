//! The encoder of Alibaba's GTE models from 2024 on (Zhang et al. 2024, "mGTE"): rotary positions, GeGLU, normalisation
//! after each part. Model type `new` of their model code, `gte` of transformers 5.24 (`modeling_gte.py`).

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::{Activation, KernelBackend};
use serde::{Deserialize, Serialize};

use crate::encoder::families::defaults;
use crate::encoder::family::{
    ExportFacts, Facts, Family, Loaders, Transformers, Unsupported, check_dropout, check_eps, check_even_heads,
    check_initializer, check_name, check_off, check_sizes,
};
use crate::encoder::rotary::RotaryKeys;
use crate::encoder::rotary_transformer::{RotaryLayers, RotaryNames, RotaryTransformer};
use crate::encoder::rotary_transformer_nodes;
use crate::encoder::token_embeddings::{EMBEDDINGS_NORM, TableSizes, TokenEmbeddings};
use crate::encoder::transformer_nodes::embeddings;
use crate::encoder::{Encoder, EncoderInput};
use crate::error::ModelError;
use crate::onnx::graph::Value;
use crate::onnx::nodes::{Inputs, Nodes, Tokens};
use crate::weights::Weights;

/// The model type of transformers; the other one needs the model code of the source.
const OF_TRANSFORMERS: &str = "gte";

const NAMES: RotaryNames = RotaryNames {
    layers: "encoder.layer",
    qkv: "attention.qkv_proj",
    out: "attention.o_proj",
    attention_norm: "attn_ln",
    up: "mlp.up_gate_proj",
    gate: None,
    down: "mlp.down_proj",
    feed_forward_norm: "mlp_ln",
    biases: [true, true],
};

/// The part of `config.json` that the encoder reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GteConfig {
    /// `gte` or `new`.
    pub model_type: String,
    /// Rows of the word embedding matrix.
    pub vocab_size: usize,
    /// Size of a hidden vector.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads of a layer.
    pub num_attention_heads: usize,
    /// Size of each half of the feed-forward layer.
    pub intermediate_size: usize,
    /// Activation of the feed-forward layer; only `gelu` (by the error function) is supported.
    #[serde(default = "defaults::gelu")]
    pub hidden_act: String,
    /// Dropout after the embeddings, after each part, and inside the feed-forward layer.
    #[serde(default = "defaults::tenth")]
    pub hidden_dropout_prob: f64,
    /// Dropout on attention weights.
    #[serde(default)]
    pub attention_probs_dropout_prob: f64,
    /// Longest sequence, in tokens. Default 8192.
    #[serde(default = "defaults::positions_8192")]
    pub max_position_embeddings: usize,
    /// Rows of the token type embedding matrix; only row 0 is used; 0 if there is none.
    #[serde(default)]
    pub type_vocab_size: Option<usize>,
    /// Epsilon of layer normalisation.
    #[serde(default = "defaults::eps_1e_12")]
    pub layer_norm_eps: f64,
    /// Standard deviation that new weights are drawn with.
    #[serde(default = "defaults::initializer_range")]
    pub initializer_range: f64,
    /// Rotary positions. `new` may have a fixed scaling, of type `ntk`.
    #[serde(flatten)]
    pub rotary: RotaryKeys,
    /// Kind of positions; only `rope` is supported.
    #[serde(default = "rope")]
    pub position_embedding_type: String,
    /// Kind of normalisation; only `layer_norm` is supported.
    #[serde(default = "layer_norm")]
    pub layer_norm_type: String,
    /// Whether query, key and value have one matrix; only `true` is supported.
    #[serde(default = "defaults::yes")]
    pub pack_qkv: bool,
    /// Whether queries are scaled by the logarithm of the length; only `false` is supported.
    #[serde(default)]
    pub logn_attention_scale: bool,
}

fn rope() -> String {
    "rope".to_owned()
}
fn layer_norm() -> String {
    "layer_norm".to_owned()
}

impl GteConfig {
    fn is_of_transformers(&self) -> bool {
        self.model_type == OF_TRANSFORMERS
    }

    /// Returns the base of the rotary angles if the file names none: that of transformers, or of the older model code.
    fn theta(&self) -> f64 {
        if self.is_of_transformers() { 160_000.0 } else { 10_000.0 }
    }

    fn token_types(&self) -> Option<usize> {
        let rows = self.type_vocab_size.unwrap_or(if self.is_of_transformers() { 1 } else { 2 });
        Some(rows).filter(|rows| *rows > 0)
    }

    fn tables(&self) -> TableSizes {
        TableSizes {
            words: self.vocab_size,
            positions: None,
            token_types: self.token_types(),
            size: self.hidden_size,
            norm: EMBEDDINGS_NORM,
            eps: self.layer_norm_eps,
            dropout: self.hidden_dropout_prob,
        }
    }

    fn layers(&self) -> RotaryLayers {
        RotaryLayers {
            layers: self.num_hidden_layers,
            hidden: self.hidden_size,
            wide: self.intermediate_size,
            heads: self.num_attention_heads,
            eps: self.layer_norm_eps,
            angles: self.rotary.angles(self.theta()),
            activation: Activation::Gelu,
            attention_dropout: self.attention_probs_dropout_prob,
            hidden_dropout: self.hidden_dropout_prob,
            gate_dropout: self.hidden_dropout_prob,
            names: NAMES,
        }
    }
}

impl Family for GteConfig {
    const ARCHITECTURES: &'static [(&'static str, &'static str)] =
        &[(OF_TRANSFORMERS, "GteModel"), ("new", "NewModel")];
    const PREFIX: &'static str = "new.";
    const LOADERS: Loaders = Loaders {
        colbert_ai: false,
        pylate_rs: false,
        colbert_ai_punctuation: false,
        transformers: Transformers::From5_24,
    };
    const EXPORT: ExportFacts = ExportFacts { tokenizer_class: None, token_types: true, older_key: None };

    fn loaders(&self) -> Loaders {
        let transformers = if self.is_of_transformers() { Transformers::From5_24 } else { Transformers::None };
        Loaders { transformers, ..Self::LOADERS }
    }

    fn adopt(weights: &mut Weights) -> Result<(), ModelError> {
        NAMES.adopt(weights)
    }

    fn unsupported(&self) -> Option<Unsupported> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        let packed = || (!self.pack_qkv).then(|| ("pack_qkv", "false".to_owned(), "true".to_owned()));
        check_name("hidden_act", &self.hidden_act, "gelu")
            .or_else(|| check_name("position_embedding_type", &self.position_embedding_type, "rope"))
            .or_else(|| check_name("layer_norm_type", &self.layer_norm_type, "layer_norm"))
            .or_else(packed)
            .or_else(|| check_off([("logn_attention_scale", self.logn_attention_scale)]))
            .or_else(|| check_sizes(sizes))
            .or_else(|| check_even_heads(self.hidden_size, self.num_attention_heads))
            .or_else(|| self.rotary.unsupported(self.theta(), !self.is_of_transformers()))
            .or_else(|| check_dropout("hidden_dropout_prob", self.hidden_dropout_prob))
            .or_else(|| check_dropout("attention_probs_dropout_prob", self.attention_probs_dropout_prob))
            .or_else(|| check_eps("layer_norm_eps", self.layer_norm_eps))
            .or_else(|| check_initializer(self.initializer_range))
    }

    fn vocab_size_mut(&mut self) -> &mut usize {
        &mut self.vocab_size
    }

    fn facts(&self) -> Facts {
        Facts {
            vocabulary: self.vocab_size,
            max_length: self.max_position_embeddings,
            initializer_range: self.initializer_range,
            hidden: self.hidden_size,
            // Two halves, one of them a gate.
            wide: self.intermediate_size.saturating_mul(2),
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            attention: self.hidden_size,
            pairs: 0,
            rows: self.vocab_size.saturating_add(self.token_types().unwrap_or(0)),
        }
    }

    fn dropouts_mut(&mut self) -> Vec<&mut f64> {
        vec![&mut self.hidden_dropout_prob, &mut self.attention_probs_dropout_prob]
    }

    fn nodes(&self, on: &mut Nodes<'_>, inputs: &Inputs, tokens: &Tokens) -> Result<Value, ModelError> {
        let embedded = embeddings(&self.tables(), on, inputs, &tokens.places)?;
        rotary_transformer_nodes::build(&self.layers(), on, embedded, tokens)
    }
}

/// GTE: embeddings and a stack of layers.
#[derive(Module, Debug)]
pub struct Gte<B: Backend> {
    embeddings: TokenEmbeddings<B>,
    encoder: RotaryTransformer<B>,
    hidden_size: usize,
}

impl<B: Backend> Gte<B> {
    /// Builds the encoder, taking each tensor it uses out of `weights`.
    pub(crate) fn from_weights(
        config: &GteConfig,
        weights: &mut Weights,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            embeddings: TokenEmbeddings::take(config.tables(), weights, device)?,
            encoder: RotaryTransformer::take(config.layers(), weights, device)?,
            hidden_size: config.hidden_size,
        })
    }
}

impl<B: KernelBackend> Encoder<B> for Gte<B> {
    fn forward(&self, input: &EncoderInput, _: &B::Device) -> Tensor<B, 2> {
        let embedded = self.embeddings.forward(input);
        self.encoder.forward(embedded, input)
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    /// Returns no prefix, as transformers writes them; both model codes read names with and without one.
    fn tensor_prefix(&self) -> &'static str {
        ""
    }

    fn tensor_name(&self, path: &str) -> String {
        NAMES.tensor_name("encoder.layer.", path)
    }
}

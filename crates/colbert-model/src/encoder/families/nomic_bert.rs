//! NomicBERT (Nussbaum et al. 2024): BERT with rotary positions and SwiGLU, without most biases (transformers 5.24,
//! `modeling_nomic_bert.py`). Files have the keys and tensor names of Nomic's own model code or of transformers 5.
//!
//! The mixture of experts of nomic-embed-text-v2-moe is refused.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::{Activation, KernelBackend};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use crate::encoder::families::defaults;
use crate::encoder::family::{
    ExportFacts, Facts, Family, Loaders, Transformers, Unsupported, check_dropout, check_eps, check_even_heads,
    check_initializer, check_off, check_sizes,
};
use crate::encoder::rotary::RotaryKeys;
use crate::encoder::rotary_transformer::{RotaryLayers, RotaryNames, RotaryTransformer};
use crate::encoder::rotary_transformer_nodes;
use crate::encoder::token_embeddings::{TableSizes, TokenEmbeddings};
use crate::encoder::transformer_nodes::embeddings;
use crate::encoder::{Encoder, EncoderInput};
use crate::error::ModelError;
use crate::onnx::graph::Value;
use crate::onnx::nodes::{Inputs, Nodes, Tokens};
use crate::weights::Weights;

/// The base of the rotary angles where transformers' configuration names none.
const THETA: f64 = 1000.0;

/// The base where Nomic's own configuration names none.
const OWN_THETA: f64 = 10_000.0;

const NAMES: RotaryNames = RotaryNames {
    layers: "encoder.layers",
    qkv: "attn.Wqkv",
    out: "attn.out_proj",
    attention_norm: "norm1",
    up: "mlp.fc11",
    gate: Some("mlp.fc12"),
    down: "mlp.fc2",
    feed_forward_norm: "norm2",
    biases: [false, false],
};

/// The part of `config.json` that the encoder reads. A size has the key of transformers 5 or that of Nomic's model
/// code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NomicBertConfig {
    /// Rows of the word embedding matrix.
    pub vocab_size: usize,
    /// Size of a hidden vector.
    #[serde(default)]
    pub hidden_size: Option<usize>,
    /// The same in Nomic's spelling.
    #[serde(default)]
    pub n_embd: Option<usize>,
    /// Layers.
    #[serde(default)]
    pub num_hidden_layers: Option<usize>,
    /// The same in Nomic's spelling.
    #[serde(default)]
    pub n_layer: Option<usize>,
    /// Attention heads of a layer.
    #[serde(default)]
    pub num_attention_heads: Option<usize>,
    /// The same in Nomic's spelling.
    #[serde(default)]
    pub n_head: Option<usize>,
    /// Size of each half of the feed-forward layer.
    #[serde(default)]
    pub intermediate_size: Option<usize>,
    /// The same in Nomic's spelling.
    #[serde(default)]
    pub n_inner: Option<usize>,
    /// Longest sequence, in tokens.
    #[serde(default)]
    pub max_position_embeddings: Option<usize>,
    /// The same in Nomic's spelling.
    #[serde(default)]
    pub n_positions: Option<usize>,
    /// The length beyond which Nomic's model code scales angles by `rotary_scaling_factor`; longer texts are refused.
    #[serde(default)]
    pub max_trained_positions: Option<usize>,
    /// Scaling of the angles of longer texts.
    #[serde(default)]
    pub rotary_scaling_factor: Option<f64>,
    /// Rows of the token type embedding matrix; only row 0 is used.
    #[serde(default = "defaults::two")]
    pub type_vocab_size: usize,
    /// Epsilon of layer normalisation.
    #[serde(default)]
    pub layer_norm_eps: Option<f64>,
    /// The same in Nomic's spelling.
    #[serde(default)]
    pub layer_norm_epsilon: Option<f64>,
    /// Base of the rotary angles, in Nomic's spelling.
    #[serde(default)]
    pub rotary_emb_base: Option<f64>,
    /// Share of a head's numbers that is rotated; only 1 is supported.
    #[serde(default)]
    pub rotary_emb_fraction: Option<f64>,
    /// Whether pairs are neighbours in a head; only `false` is supported.
    #[serde(default)]
    pub rotary_emb_interleaved: bool,
    /// Angles in the spelling of transformers 5.
    #[serde(flatten)]
    pub rotary: RotaryKeys,
    /// Activation of the feed-forward layer; only `silu` is supported.
    #[serde(default)]
    pub hidden_act: Option<String>,
    /// The same in Nomic's spelling, where only `swiglu` is supported.
    #[serde(default)]
    pub activation_function: Option<String>,
    /// Whether the input of each part is normalised instead of its output; only `false` is supported.
    #[serde(default)]
    pub prenorm: bool,
    /// Whether norms divide by the root mean square; only `false` is supported.
    #[serde(default)]
    pub use_rms_norm: Option<bool>,
    /// Whether attention has biases; only `false` is supported.
    #[serde(default)]
    pub qkv_proj_bias: bool,
    /// Only feed-forward layers without bias are supported.
    #[serde(default)]
    pub mlp_fc1_bias: bool,
    /// Only feed-forward layers without bias are supported.
    #[serde(default)]
    pub mlp_fc2_bias: bool,
    /// Whether both parts work on the same input; only `false` is supported.
    #[serde(default)]
    pub parallel_block: bool,
    /// Whether attention is causal; only `false` is supported.
    #[serde(default)]
    pub causal: bool,
    /// Experts of a layer; only none are supported.
    #[serde(default)]
    pub num_experts: Option<usize>,
    /// One layer in N has experts; only none are supported.
    #[serde(default)]
    pub moe_every_n_layers: Option<usize>,
    /// Dropout after the embeddings and after each part.
    #[serde(default)]
    pub hidden_dropout_prob: f64,
    /// Dropout on attention weights.
    #[serde(default)]
    pub attention_probs_dropout_prob: f64,
    /// Standard deviation that new weights are drawn with.
    #[serde(default = "defaults::initializer_range")]
    pub initializer_range: f64,
}

impl NomicBertConfig {
    fn hidden(&self) -> usize {
        self.hidden_size.or(self.n_embd).unwrap_or(0)
    }

    fn layer_count(&self) -> usize {
        self.num_hidden_layers.or(self.n_layer).unwrap_or(0)
    }

    fn heads(&self) -> usize {
        self.num_attention_heads.or(self.n_head).unwrap_or(0)
    }

    fn wide(&self) -> usize {
        self.intermediate_size.or(self.n_inner).unwrap_or(0)
    }

    /// Returns the longest sequence, in tokens.
    fn longest(&self) -> usize {
        let positions = self.max_position_embeddings.or(self.n_positions).unwrap_or(2048);
        let trained = self.rotary_scaling_factor.and(self.max_trained_positions);
        positions.min(trained.unwrap_or(positions))
    }

    fn eps(&self) -> f64 {
        self.layer_norm_eps.or(self.layer_norm_epsilon).unwrap_or(1e-12)
    }

    fn theta(&self) -> f64 {
        // A file of Nomic's model code has n_embd.
        self.rotary_emb_base.unwrap_or(if self.n_embd.is_some() { OWN_THETA } else { THETA })
    }

    fn tables(&self) -> TableSizes {
        TableSizes {
            words: self.vocab_size,
            positions: None,
            token_types: Some(self.type_vocab_size),
            size: self.hidden(),
            norm: "emb_ln",
            eps: self.eps(),
            dropout: self.hidden_dropout_prob,
        }
    }

    fn layers(&self) -> RotaryLayers {
        RotaryLayers {
            layers: self.layer_count(),
            hidden: self.hidden(),
            wide: self.wide(),
            heads: self.heads(),
            eps: self.eps(),
            angles: self.rotary.angles(self.theta()),
            activation: Activation::Silu,
            attention_dropout: self.attention_probs_dropout_prob,
            hidden_dropout: self.hidden_dropout_prob,
            gate_dropout: 0.0,
            names: NAMES,
        }
    }

    /// Returns the first switch that is set to something this encoder does not do.
    fn unsupported_switch(&self) -> Option<Unsupported> {
        let refused = |field, found: String, expected: &str| Some((field, found, expected.to_owned()));
        if let Some(experts) = self.num_experts.filter(|experts| *experts > 0) {
            return refused("num_experts", experts.to_string(), "0: a mixture of experts is not supported");
        }
        if let Some(every) = self.moe_every_n_layers.filter(|every| *every > 0) {
            return refused("moe_every_n_layers", every.to_string(), "0: a mixture of experts is not supported");
        }
        let off = check_off([
            ("rotary_emb_interleaved", self.rotary_emb_interleaved),
            ("prenorm", self.prenorm),
            ("use_rms_norm", self.use_rms_norm.unwrap_or(false)),
            ("qkv_proj_bias", self.qkv_proj_bias),
            ("mlp_fc1_bias", self.mlp_fc1_bias),
            ("mlp_fc2_bias", self.mlp_fc2_bias),
            ("parallel_block", self.parallel_block),
            ("causal", self.causal),
        ]);
        if off.is_some() {
            return off;
        }
        if let Some(share) = self.rotary_emb_fraction.filter(|share| (share - 1.0).abs() > 1e-9) {
            return refused("rotary_emb_fraction", share.to_string(), "1");
        }
        if let Some(name) = self.hidden_act.as_ref().filter(|name| *name != "silu" && self.n_embd.is_none()) {
            return refused("hidden_act", name.clone(), "\"silu\"");
        }
        let own = self.activation_function.as_ref().filter(|name| *name != "swiglu");
        own.and_then(|name| refused("activation_function", name.clone(), "\"swiglu\""))
    }
}

impl Family for NomicBertConfig {
    const ARCHITECTURES: &'static [(&'static str, &'static str)] = &[("nomic_bert", "NomicBertModel")];
    const PREFIX: &'static str = "bert.";
    const LOADERS: Loaders = Loaders {
        colbert_ai: false,
        pylate_rs: false,
        colbert_ai_punctuation: true,
        transformers: Transformers::From5_24,
    };
    const EXPORT: ExportFacts =
        ExportFacts { tokenizer_class: Some("BertTokenizer"), token_types: true, older_key: None };

    fn adopt(weights: &mut Weights) -> Result<(), ModelError> {
        weights.rename("embeddings.LayerNorm", "emb_ln");
        NAMES.adopt(weights)
    }

    fn complete(&self, config: &mut Map<String, Json>) {
        let angles = self.rotary.angles(self.theta());
        for (key, value) in [
            ("hidden_size", json!(self.hidden())),
            ("num_hidden_layers", json!(self.layer_count())),
            ("num_attention_heads", json!(self.heads())),
            ("intermediate_size", json!(self.wide())),
            ("max_position_embeddings", json!(self.longest())),
            ("layer_norm_eps", json!(self.eps())),
            ("hidden_act", json!("silu")),
            ("rope_parameters", json!({"rope_type": "default", "rope_theta": angles.theta})),
        ] {
            config.entry(key).or_insert(value);
        }
    }

    fn unsupported(&self) -> Option<Unsupported> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden()),
            ("intermediate_size", self.wide()),
            ("max_position_embeddings", self.longest()),
            ("type_vocab_size", self.type_vocab_size),
        ];
        self.unsupported_switch()
            .or_else(|| check_sizes(sizes))
            .or_else(|| check_even_heads(self.hidden(), self.heads()))
            .or_else(|| self.rotary.unsupported(self.theta(), false))
            .or_else(|| check_dropout("hidden_dropout_prob", self.hidden_dropout_prob))
            .or_else(|| check_dropout("attention_probs_dropout_prob", self.attention_probs_dropout_prob))
            .or_else(|| check_eps("layer_norm_eps", self.eps()))
            .or_else(|| check_initializer(self.initializer_range))
    }

    fn vocab_size_mut(&mut self) -> &mut usize {
        &mut self.vocab_size
    }

    fn facts(&self) -> Facts {
        Facts {
            vocabulary: self.vocab_size,
            max_length: self.longest(),
            initializer_range: self.initializer_range,
            hidden: self.hidden(),
            // Two halves, one of them a gate.
            wide: self.wide().saturating_mul(2),
            layers: self.layer_count(),
            heads: self.heads(),
            attention: self.hidden(),
            pairs: 0,
            rows: self.vocab_size.saturating_add(self.type_vocab_size),
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

/// NomicBERT: embeddings and a stack of layers.
#[derive(Module, Debug)]
pub struct NomicBert<B: Backend> {
    embeddings: TokenEmbeddings<B>,
    encoder: RotaryTransformer<B>,
    hidden_size: usize,
}

impl<B: Backend> NomicBert<B> {
    /// Builds the encoder, taking each tensor it uses out of `weights`.
    pub(crate) fn from_weights(
        config: &NomicBertConfig,
        weights: &mut Weights,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            embeddings: TokenEmbeddings::take(config.tables(), weights, device)?,
            encoder: RotaryTransformer::take(config.layers(), weights, device)?,
            hidden_size: config.hidden(),
        })
    }
}

impl<B: KernelBackend> Encoder<B> for NomicBert<B> {
    fn forward(&self, input: &EncoderInput, _: &B::Device) -> Tensor<B, 2> {
        let embedded = self.embeddings.forward(input);
        self.encoder.forward(embedded, input)
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    /// Returns no prefix: transformers' class has no prefix of its own in these files.
    fn tensor_prefix(&self) -> &'static str {
        ""
    }

    fn tensor_name(&self, path: &str) -> String {
        NAMES.tensor_name("encoder.layer.", path).replace("embeddings.LayerNorm.", "emb_ln.")
    }
}

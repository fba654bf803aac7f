//! The block of Llama, as encoders use it: EuroBERT (Boizard et al. 2025; transformers 5.24, `modeling_eurobert.py`),
//! which attends to both sides, and Qwen3 (`modeling_qwen3.py`), which is causal unless its configuration says
//! otherwise.
//!
//! Grouped heads for key and value, rotary positions, SwiGLU, division by the root mean square before each part, no
//! biases; in Qwen3 the heads of queries and keys are normalised too.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::{
    Activation, ActiveHalf, AttentionPlan, Gate, GatedFeedForward, KernelBackend, Rotation, Segments, Tables,
    TokenRows, attention, biased_attention, dropout, embed, gated_feed_forward, packed_self_attention, rotate,
};
use serde_json::{Map, Value as Json, json};

use crate::encoder::dropout::DropoutSeed;
use crate::encoder::families::llama_config::{LlamaConfig, QWEN3, THETA};
use crate::encoder::families::llama_nodes;
use crate::encoder::family::{
    ExportFacts, Facts, Family, Loaders, Transformers, Unsupported, check_dropout, check_eps, check_heads,
    check_initializer, check_name, check_off, check_sizes,
};
use crate::encoder::layers::{Embedding, Linear, RmsNorm};
use crate::encoder::rotary::Angles;
use crate::encoder::{EncodeOptions, Encoder, EncoderInput};
use crate::error::ModelError;
use crate::onnx::graph::Value;
use crate::onnx::nodes::{Inputs, Nodes, Tokens};
use crate::weights::Weights;

/// Numbers that composed attention holds for each head and pair of tokens: products, weights, dropped weights and their
/// factors.
const HELD_OF_A_PAIR: usize = 4;

impl Family for LlamaConfig {
    const ARCHITECTURES: &'static [(&'static str, &'static str)] =
        &[("eurobert", "EuroBertModel"), (QWEN3, "Qwen3Model")];
    const PREFIX: &'static str = "model.";
    const WORD_TABLE: &'static str = "embed_tokens.weight";
    const LOADERS: Loaders = Loaders {
        colbert_ai: false,
        pylate_rs: false,
        colbert_ai_punctuation: false,
        transformers: Transformers::From5_3,
    };
    const EXPORT: ExportFacts = ExportFacts { tokenizer_class: None, token_types: false, older_key: None };

    const NEEDS_CLS: bool = false;

    fn loaders(&self) -> Loaders {
        let transformers = match (self.normalises_heads(), self.is_causal()) {
            (true, true) => Transformers::Any,
            (true, false) => Transformers::CausalBefore5_3,
            (false, _) => Transformers::From5_3,
        };
        Loaders { transformers, ..Self::LOADERS }
    }

    fn complete(&self, config: &mut Map<String, Json>) {
        // transformers 4 reads the first key, 5 the second.
        let theta = self.angles().theta;
        config.entry("rope_theta").or_insert(json!(theta));
        config.entry("rope_parameters").or_insert(json!({"rope_type": "default", "rope_theta": theta}));
    }

    fn unsupported(&self) -> Option<Unsupported> {
        let off = [
            ("attention_bias", self.attention_bias),
            ("mlp_bias", self.mlp_bias),
            ("use_sliding_window", self.use_sliding_window),
        ];
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.key_heads()),
            ("head_dim", self.head_size()),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        let (heads, head) = (self.num_attention_heads, self.head_size());
        let odd = || (!head.is_multiple_of(2)).then(|| ("head_dim", head.to_string(), "an even number".to_owned()));
        check_name("hidden_act", &self.hidden_act, "silu")
            .or_else(|| check_off(off))
            .or_else(|| check_sizes(sizes))
            .or_else(|| check_heads(("num_key_value_heads", self.key_heads()), ("num_attention_heads", heads)))
            .or_else(odd)
            .or_else(|| self.rotary.unsupported(THETA, false))
            .or_else(|| check_dropout("attention_dropout", self.attention_dropout))
            .or_else(|| check_eps("rms_norm_eps", self.eps()))
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
            attention: self.attention_size(),
            pairs: if self.is_causal() { HELD_OF_A_PAIR.saturating_mul(self.num_attention_heads) } else { 0 },
            rows: self.vocab_size,
        }
    }

    fn dropouts_mut(&mut self) -> Vec<&mut f64> {
        vec![&mut self.attention_dropout, &mut self.hidden_dropout]
    }

    fn nodes(&self, on: &mut Nodes<'_>, inputs: &Inputs, tokens: &Tokens) -> Result<Value, ModelError> {
        llama_nodes::build(self, on, &inputs.ids, tokens)
    }
}

#[derive(Module, Debug)]
struct SelfAttention<B: Backend> {
    q_proj: Linear<B>,
    k_proj: Linear<B>,
    v_proj: Linear<B>,
    o_proj: Linear<B>,
    q_norm: Option<RmsNorm<B>>,
    k_norm: Option<RmsNorm<B>>,
}

#[derive(Module, Debug)]
struct FeedForward<B: Backend> {
    gate_proj: Linear<B>,
    up_proj: Linear<B>,
    down_proj: Linear<B>,
}

#[derive(Module, Debug)]
struct Layer<B: Backend> {
    self_attn: SelfAttention<B>,
    mlp: FeedForward<B>,
    input_layernorm: RmsNorm<B>,
    post_attention_layernorm: RmsNorm<B>,
}

/// The block of Llama: embeddings, a stack of layers, and a last norm.
#[derive(Module, Debug)]
pub struct Llama<B: Backend> {
    embed_tokens: Embedding<B>,
    layers: Vec<Layer<B>>,
    norm: RmsNorm<B>,
    heads: usize,
    key_heads: usize,
    head_size: usize,
    hidden_size: usize,
    theta: f64,
    is_causal: bool,
    attention_dropout: f64,
    hidden_dropout: f64,
}

impl<B: Backend> Llama<B> {
    /// Builds the encoder, taking each tensor it uses out of `weights`.
    pub(crate) fn from_weights(
        config: &LlamaConfig,
        weights: &mut Weights,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        let (hidden, wide, head, eps) =
            (config.hidden_size, config.intermediate_size, config.head_size(), config.eps());
        let (queries, keys) = (config.attention_size(), config.key_heads() * head);
        // The number in config.json is not trusted for an allocation before the tensors are there.
        let mut layers = Vec::new();
        for i in 0..config.num_hidden_layers {
            let at = |part: &str| format!("layers.{i}.{part}");
            let mut linear = |part: &str, shape| Linear::bare(&at(part), shape, weights, device);
            let [q_proj, k_proj, v_proj, o_proj] = [
                linear("self_attn.q_proj", [queries, hidden])?,
                linear("self_attn.k_proj", [keys, hidden])?,
                linear("self_attn.v_proj", [keys, hidden])?,
                linear("self_attn.o_proj", [hidden, queries])?,
            ];
            let mlp = FeedForward {
                gate_proj: linear("mlp.gate_proj", [wide, hidden])?,
                up_proj: linear("mlp.up_proj", [wide, hidden])?,
                down_proj: linear("mlp.down_proj", [hidden, wide])?,
            };
            let mut norm = |part: &str, size| RmsNorm::take(&at(part), size, eps, weights, device);
            let (mut q_norm, mut k_norm) = (None, None);
            if config.normalises_heads() {
                q_norm = Some(norm("self_attn.q_norm", head)?);
                k_norm = Some(norm("self_attn.k_norm", head)?);
            }
            layers.push(Layer {
                input_layernorm: norm("input_layernorm", hidden)?,
                post_attention_layernorm: norm("post_attention_layernorm", hidden)?,
                self_attn: SelfAttention { q_proj, k_proj, v_proj, o_proj, q_norm, k_norm },
                mlp,
            });
        }
        Ok(Self {
            embed_tokens: Embedding::take("embed_tokens", [config.vocab_size, hidden], weights, device)?,
            layers,
            norm: RmsNorm::take("norm", hidden, eps, weights, device)?,
            heads: config.num_attention_heads,
            key_heads: config.key_heads(),
            head_size: head,
            hidden_size: hidden,
            theta: config.angles().theta,
            is_causal: config.is_causal(),
            attention_dropout: config.attention_dropout,
            hidden_dropout: config.hidden_dropout,
        })
    }
}

impl<B: KernelBackend> Llama<B> {
    /// Repeats each head of keys or values for the queries that share it. `[rows, key_heads * size]` to
    /// `[rows, heads * size]`.
    fn for_each_query(&self, packed: Tensor<B, 2>) -> Tensor<B, 2> {
        if self.heads == self.key_heads {
            return packed;
        }
        let [rows, size] = packed.dims();
        let (shared, head) = (self.heads / self.key_heads, size / self.key_heads);
        let repeated = packed.reshape([rows, self.key_heads, 1, head]).expand([rows, self.key_heads, shared, head]);
        repeated.reshape([rows, self.heads * head])
    }

    /// Repeats the rows of a weight, `[key_heads * head_size, in]`, likewise.
    fn weight_for_each_query(&self, weight: Tensor<B, 2>) -> Tensor<B, 2> {
        if self.heads == self.key_heads {
            return weight;
        }
        let [_, input] = weight.dims();
        let (shared, head) = (self.heads / self.key_heads, self.head_size);
        let repeated = weight.reshape([self.key_heads, 1, head, input]).expand([self.key_heads, shared, head, input]);
        repeated.reshape([self.heads * head, input])
    }

    fn normalised(&self, packed: Tensor<B, 2>, norm: Option<&RmsNorm<B>>) -> Tensor<B, 2> {
        let Some(norm) = norm else { return packed };
        let [tokens, size] = packed.dims();
        norm.forward(packed.reshape([tokens * size / self.head_size, self.head_size])).reshape([tokens, size])
    }

    fn attention(
        &self,
        attn: &SelfAttention<B>,
        input: Tensor<B, 2>,
        segments: &Segments,
        rotation: &Rotation,
        options: EncodeOptions,
    ) -> Tensor<B, 2> {
        let precision = options.precision;
        let dropout = DropoutSeed::dropout(options.child(0).dropout, self.attention_dropout);
        let plan = AttentionPlan { segments: segments.clone(), heads: self.heads, reach: None, dropout, precision };
        if attn.q_norm.is_none() && !self.is_causal {
            // One map for all three, for the fused operator. Shared heads are multiplied once for each query.
            let weight = Tensor::cat(
                vec![
                    attn.q_proj.weight.val(),
                    self.weight_for_each_query(attn.k_proj.weight.val()),
                    self.weight_for_each_query(attn.v_proj.weight.val()),
                ],
                0,
            );
            return packed_self_attention(input, weight, None, Some(rotation), &plan);
        }
        let query = self.normalised(attn.q_proj.forward(input.clone(), precision), attn.q_norm.as_ref());
        let key = self.normalised(attn.k_proj.forward(input.clone(), precision), attn.k_norm.as_ref());
        let value = self.for_each_query(attn.v_proj.forward(input, precision));
        let query = rotate(query, rotation, segments, self.heads);
        let key = self.for_each_query(rotate(key, rotation, segments, self.key_heads));
        if self.is_causal {
            return biased_attention([query, key, value], None, true, &plan);
        }
        attention(query, key, value, &plan)
    }

    fn layer(
        &self,
        layer: &Layer<B>,
        input: Tensor<B, 2>,
        segments: &Segments,
        rotation: &Rotation,
        options: EncodeOptions,
    ) -> Tensor<B, 2> {
        let precision = options.precision;
        let drop = |x, place| dropout(x, DropoutSeed::dropout(options.child(place).dropout, self.hidden_dropout));
        let normed = layer.input_layernorm.forward(input.clone());
        let mixed = self.attention(&layer.self_attn, normed, segments, rotation, options);
        let hidden = input + drop(layer.self_attn.o_proj.forward(mixed, precision), 1);
        let network = GatedFeedForward {
            norm: None,
            up: Tensor::cat(vec![layer.mlp.gate_proj.weight.val(), layer.mlp.up_proj.weight.val()], 0),
            up_bias: None,
            gate: Gate {
                activation: Activation::Silu,
                active: ActiveHalf::First,
                dropout: colbert_kernels::Dropout::NONE,
            },
            down: layer.mlp.down_proj.weight.val(),
            down_bias: None,
            residual: false,
            precision,
        };
        let normed = layer.post_attention_layernorm.forward(hidden.clone());
        hidden + drop(gated_feed_forward(normed, network), 2)
    }
}

impl<B: KernelBackend> Encoder<B> for Llama<B> {
    fn forward(&self, input: &EncoderInput, _: &B::Device) -> Tensor<B, 2> {
        let rows = TokenRows { ids: input.ids.clone(), positions: input.segments.positions() };
        let word = self.embed_tokens.weight.val();
        let embedded = embed(Tables { word, position: None, token_type: None }, &rows);
        let seed = input.options.child(0).dropout;
        let embedded = dropout(embedded, DropoutSeed::dropout(seed, self.hidden_dropout));
        let angles = Angles { theta: self.theta, factor: 1.0 };
        let rotation = angles.rotation(self.head_size, input.segments.max_length());
        let layers = self.layers.iter().zip(1..);
        let hidden = layers
            .fold(embedded, |x, (layer, i)| self.layer(layer, x, &input.segments, &rotation, input.options.child(i)));
        self.norm.forward(hidden)
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    /// Returns no prefix, as transformers writes the bare encoder.
    fn tensor_prefix(&self) -> &'static str {
        ""
    }
}

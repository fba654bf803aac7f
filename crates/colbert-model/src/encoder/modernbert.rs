//! ModernBERT (Warner et al. 2024): rotary positions, attention in a window in most layers, GeGLU, normalisation
//! before each part, no biases (transformers 4.55, `modeling_modernbert.py`).
//!
//! Field names spell the checkpoint's: `w_qkv` stands for `Wqkv`, `w_o` for `Wo`, `w_i` for `Wi`.

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use colbert_kernels::{AttentionPlan, KernelBackend, Segments, attention, dropout, gelu};
use serde::{Deserialize, Serialize};

use crate::encoder::dropout::DropoutSeed;
use crate::encoder::family::{
    ExportFacts, Family, Loaders, Sizes, Unsupported, check_dropout, check_eps, check_initializer, check_sizes,
};
use crate::encoder::layers::{Embedding, Linear};
use crate::encoder::modernbert_nodes;
use crate::encoder::window_attention::{Window, window_attention};
use crate::encoder::{EncodeOptions, Encoder, EncoderInput};
use crate::error::ModelError;
use crate::onnx::graph::Value;
use crate::onnx::nodes::{Inputs, Nodes, Tokens};
use crate::weights::Weights;

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
    #[serde(default = "gelu_name")]
    pub hidden_activation: String,
    /// Longest sequence, in tokens. Default 8192.
    #[serde(default = "positions")]
    pub max_position_embeddings: usize,
    /// Epsilon of layer normalisation.
    #[serde(default = "eps")]
    pub norm_eps: f64,
    /// Only norms without bias are supported.
    #[serde(default)]
    pub norm_bias: bool,
    /// Base of the rotary angles of global layers.
    #[serde(default = "global_theta")]
    pub global_rope_theta: f64,
    /// Base of those of local layers; none means that of global ones.
    #[serde(default = "local_theta")]
    pub local_rope_theta: Option<f64>,
    /// The same two where transformers 5 writes them; they go before.
    #[serde(default)]
    pub rope_parameters: Option<serde_json::Value>,
    /// One layer in N is global, the first included.
    #[serde(default = "three")]
    pub global_attn_every_n_layers: usize,
    /// Tokens of a window, half of them to each side.
    #[serde(default = "window")]
    pub local_attention: usize,
    /// Only attention without bias is supported.
    #[serde(default)]
    pub attention_bias: bool,
    /// Only feed-forward layers without bias are supported.
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
    #[serde(default = "init_range")]
    pub initializer_range: f64,
}

fn gelu_name() -> String {
    "gelu".to_owned()
}
fn positions() -> usize {
    8192
}
fn eps() -> f64 {
    1e-5
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
fn init_range() -> f64 {
    0.02
}

impl ModernBertConfig {
    /// Bases of the rotary angles: of global layers, of local ones.
    pub(crate) fn thetas(&self) -> [f64; 2] {
        let newer = |kind: &str| self.rope_parameters.as_ref()?.get(kind)?.get("rope_theta")?.as_f64();
        let global = newer("full_attention").unwrap_or(self.global_rope_theta);
        [global, newer("sliding_attention").or(self.local_rope_theta).unwrap_or(global)]
    }
}

impl Family for ModernBertConfig {
    const ARCHITECTURES: &'static [(&'static str, &'static str)] = &[("modernbert", "ModernBertModel")];
    const PREFIX: &'static str = "model.";
    const WORD_TABLE: &'static str = "embeddings.tok_embeddings.weight";
    const LOADERS: Loaders = Loaders { colbert_ai: false, pylate_rs: true, colbert_ai_punctuation: false };
    const EXPORT: ExportFacts = ExportFacts {
        tokenizer_class: None,
        token_types: false,
        // pylate-rs wants the older key too.
        older_key: Some(("norm_eps", "layer_norm_eps", 1e-5)),
    };

    fn unsupported(&self) -> Option<Unsupported> {
        if self.hidden_activation != "gelu" {
            return Some(("hidden_activation", self.hidden_activation.clone(), "\"gelu\"".to_owned()));
        }
        for (field, set) in
            [("norm_bias", self.norm_bias), ("attention_bias", self.attention_bias), ("mlp_bias", self.mlp_bias)]
        {
            if set {
                return Some((field, "true".to_owned(), "false".to_owned()));
            }
        }
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("global_attn_every_n_layers", self.global_attn_every_n_layers),
        ];
        if let Some(wrong) = check_sizes(sizes) {
            return Some(wrong);
        }
        let heads = self.num_attention_heads;
        if heads == 0 || !self.hidden_size.is_multiple_of(2 * heads) {
            let expected = format!("heads of an even size: a divisor of half of hidden_size = {}", self.hidden_size);
            return Some(("num_attention_heads", heads.to_string(), expected));
        }
        // The angles are computed in float32.
        let theta = self.thetas().into_iter().find(|theta| !(1.0..=1e30).contains(theta));
        theta
            .map(|theta| ("rope_theta", format!("{theta:e}"), "a number from 1 to 1e30".to_owned()))
            .or_else(|| check_dropout("attention_dropout", self.attention_dropout))
            .or_else(|| check_dropout("mlp_dropout", self.mlp_dropout))
            .or_else(|| check_dropout("embedding_dropout", self.embedding_dropout))
            .or_else(|| check_eps("norm_eps", self.norm_eps))
            .or_else(|| check_initializer(self.initializer_range))
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn set_vocab_size(&mut self, rows: usize) {
        self.vocab_size = rows;
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            hidden: self.hidden_size,
            // Two halves, one of them a gate.
            wide: self.intermediate_size.saturating_mul(2),
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            rows: self.vocab_size,
        }
    }

    fn max_length(&self) -> usize {
        self.max_position_embeddings
    }

    fn initializer_range(&self) -> f64 {
        self.initializer_range
    }

    fn set_dropout(&mut self, probability: f64) {
        self.attention_dropout = probability;
        self.mlp_dropout = probability;
        self.embedding_dropout = probability;
    }

    fn takes_token_types(&self) -> bool {
        false
    }

    fn nodes(&self, on: &mut Nodes<'_>, inputs: &Inputs, tokens: &Tokens) -> Result<Value, ModelError> {
        modernbert_nodes::build(self, on, &inputs.ids, tokens)
    }
}

/// Layer normalisation without a bias.
#[derive(Module, Debug)]
struct Norm<B: Backend> {
    weight: burn::module::Param<Tensor<B, 1>>,
    eps: f64,
}

impl<B: Backend> Norm<B> {
    fn take(
        name: &str,
        config: &ModernBertConfig,
        weights: &mut Weights,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        let weight = weights.param(&format!("{name}.weight"), [config.hidden_size], device)?;
        Ok(Self { weight, eps: config.norm_eps })
    }
}

impl<B: KernelBackend> Norm<B> {
    fn forward(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        let weight = self.weight.val();
        let bias = Tensor::zeros(weight.dims(), &weight.device());
        colbert_kernels::layer_norm(input, weight, bias, self.eps)
    }
}

#[derive(Module, Debug)]
struct SelfAttention<B: Backend> {
    w_qkv: Linear<B>,
    w_o: Linear<B>,
}

#[derive(Module, Debug)]
struct FeedForward<B: Backend> {
    w_i: Linear<B>,
    w_o: Linear<B>,
}

#[derive(Module, Debug)]
struct Layer<B: Backend> {
    attn_norm: Option<Norm<B>>,
    attn: SelfAttention<B>,
    mlp_norm: Norm<B>,
    mlp: FeedForward<B>,
}

#[derive(Module, Debug)]
struct Embeddings<B: Backend> {
    tok_embeddings: Embedding<B>,
    norm: Norm<B>,
}

/// ModernBERT: embeddings, a stack of layers, and a last norm.
#[derive(Module, Debug)]
pub struct ModernBert<B: Backend> {
    embeddings: Embeddings<B>,
    layers: Vec<Layer<B>>,
    final_norm: Norm<B>,
    heads: usize,
    hidden_size: usize,
    global_every: usize,
    /// Tokens to each side that a local layer sees.
    reach: usize,
    /// Bases of the rotary angles, of global and of local layers.
    thetas: [f64; 2],
    attention_dropout: f64,
    mlp_dropout: f64,
    embedding_dropout: f64,
}

impl<B: Backend> ModernBert<B> {
    /// Builds the encoder out of `weights`, taking each tensor it uses.
    ///
    /// # Errors
    /// A missing tensor, one of a wrong shape or with a value that is not finite, by name.
    pub fn from_weights(
        config: &ModernBertConfig,
        weights: &mut Weights,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        // Not as many as config.json says before they are there.
        let mut layers = Vec::new();
        for i in 0..config.num_hidden_layers {
            let mut linear = |name: &str, shape: [usize; 2]| {
                let weight = weights.param(&format!("layers.{i}.{name}.weight"), shape, device)?;
                Ok::<_, ModelError>(Linear { weight, bias: None })
            };
            let attn = SelfAttention {
                w_qkv: linear("attn.Wqkv", [3 * hidden, hidden])?,
                w_o: linear("attn.Wo", [hidden, hidden])?,
            };
            let mlp =
                FeedForward { w_i: linear("mlp.Wi", [2 * wide, hidden])?, w_o: linear("mlp.Wo", [hidden, wide])? };
            let mut norm = |name: &str| Norm::take(&format!("layers.{i}.{name}"), config, weights, device);
            // The embeddings are normalised already.
            let attn_norm = if i == 0 { None } else { Some(norm("attn_norm")?) };
            layers.push(Layer { attn_norm, attn, mlp_norm: norm("mlp_norm")?, mlp });
        }
        let rows = [config.vocab_size, hidden];
        Ok(Self {
            embeddings: Embeddings {
                tok_embeddings: Embedding::take("embeddings.tok_embeddings", rows, weights, device)?,
                norm: Norm::take("embeddings.norm", config, weights, device)?,
            },
            layers,
            final_norm: Norm::take("final_norm", config, weights, device)?,
            heads: config.num_attention_heads,
            hidden_size: hidden,
            global_every: config.global_attn_every_n_layers,
            reach: config.local_attention / 2,
            thetas: config.thetas(),
            attention_dropout: config.attention_dropout,
            mlp_dropout: config.mlp_dropout,
            embedding_dropout: config.embedding_dropout,
        })
    }
}

/// Cosines and sines that turn queries and keys by their positions (Su et al. 2021, section 3.4.2), for every head:
/// `[tokens, hidden_size]`. The two halves of a head are one pair of numbers each.
#[derive(Debug, Clone)]
struct Rotation<B: Backend> {
    cos: Tensor<B, 2>,
    sin: Tensor<B, 2>,
}

impl<B: Backend> Rotation<B> {
    fn new(theta: f64, segments: &Segments, heads: usize, hidden: usize, device: &B::Device) -> Self {
        let half = hidden / heads / 2;
        // In float32 and in this order, as in transformers.
        let frequency = |i: usize| 1.0 / (theta as f32).powf((2 * i) as f32 / (2 * half) as f32);
        let frequencies: Vec<f32> = (0..half).map(frequency).collect();
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in segments.positions().iter() {
            let angles: Vec<f32> = frequencies.iter().map(|frequency| *position as f32 * frequency).collect();
            for _ in 0..2 * heads {
                cos.extend(angles.iter().map(|angle| angle.cos()));
                sin.extend(angles.iter().map(|angle| angle.sin()));
            }
        }
        let shape = [segments.tokens(), hidden];
        let tensor = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, shape), device);
        Self { cos: tensor(cos), sin: tensor(sin) }
    }

    fn turn(&self, input: Tensor<B, 2>, heads: usize) -> Tensor<B, 2> {
        let [tokens, hidden] = input.dims();
        let halves = input.clone().reshape([tokens, heads, 2, hidden / heads / 2]);
        let (first, second) = (halves.clone().narrow(2, 0, 1), halves.narrow(2, 1, 1));
        let turned = Tensor::cat(vec![second.neg(), first], 2).reshape([tokens, hidden]);
        input * self.cos.clone() + turned * self.sin.clone()
    }
}

impl<B: KernelBackend> ModernBert<B> {
    fn is_global(&self, layer: usize) -> bool {
        layer.is_multiple_of(self.global_every)
    }

    fn attention(
        &self,
        layer: usize,
        input: Tensor<B, 2>,
        segments: &Segments,
        rotation: &Rotation<B>,
        options: EncodeOptions,
    ) -> Tensor<B, 2> {
        let attn = &self.layers[layer].attn;
        let (heads, hidden) = (self.heads, self.hidden_size);
        let precision = options.precision;
        let all = attn.w_qkv.forward(input, precision);
        let part = |i: usize| all.clone().narrow(1, i * hidden, hidden);
        let (query, key, value) = (rotation.turn(part(0), heads), rotation.turn(part(1), heads), part(2));
        let place = |place| options.child(place).dropout;
        let weights = DropoutSeed::dropout(place(0), self.attention_dropout);
        // Where every token is in every window of its text, a local layer is a global one.
        let mixed = if self.is_global(layer) || segments.max_length() <= self.reach + 1 {
            attention(
                query,
                key,
                value,
                &AttentionPlan { segments: segments.clone(), heads, dropout: weights, precision },
            )
        } else {
            window_attention(query, key, value, &Window { segments, heads, reach: self.reach, dropout: weights })
        };
        dropout(attn.w_o.forward(mixed, precision), DropoutSeed::dropout(place(1), self.attention_dropout))
    }

    fn feed_forward(&self, layer: usize, input: Tensor<B, 2>, options: EncodeOptions) -> Tensor<B, 2> {
        let mlp = &self.layers[layer].mlp;
        let both = mlp.w_i.forward(input, options.precision);
        let wide = both.dims()[1] / 2;
        let gated = gelu(both.clone().narrow(1, 0, wide)) * both.narrow(1, wide, wide);
        let gated = dropout(gated, DropoutSeed::dropout(options.dropout, self.mlp_dropout));
        mlp.w_o.forward(gated, options.precision)
    }

    /// The output of the embeddings and of every layer, `[tokens, hidden_size]` each; the last one normalised.
    pub fn hidden_states(&self, input: &EncoderInput, device: &B::Device) -> Vec<Tensor<B, 2>> {
        let ids: Vec<i64> = input.ids.iter().map(|id| i64::from(*id)).collect();
        let ids = Tensor::<B, 1, burn::tensor::Int>::from_data(TensorData::from(ids.as_slice()), device);
        let embedded = self.embeddings.tok_embeddings.weight.val().select(0, ids);
        let embedded = self.embeddings.norm.forward(embedded);
        let mut states =
            vec![dropout(embedded, DropoutSeed::dropout(input.options.child(0).dropout, self.embedding_dropout))];
        let rotations =
            self.thetas.map(|theta| Rotation::new(theta, &input.segments, self.heads, self.hidden_size, device));
        for (i, layer) in self.layers.iter().enumerate() {
            let last = states[states.len() - 1].clone();
            let place = |part| input.options.child(1 + i as u64).child(part);
            let rotation = &rotations[usize::from(!self.is_global(i))];
            let normed = layer.attn_norm.as_ref().map_or_else(|| last.clone(), |norm| norm.forward(last.clone()));
            let hidden = last + self.attention(i, normed, &input.segments, rotation, place(0));
            let wide = self.feed_forward(i, layer.mlp_norm.forward(hidden.clone()), place(1));
            states.push(hidden + wide);
        }
        let last = states.pop().expect("the embeddings are there");
        states.push(self.final_norm.forward(last));
        states
    }
}

impl<B: KernelBackend> Encoder<B> for ModernBert<B> {
    fn forward(&self, input: &EncoderInput, device: &B::Device) -> Tensor<B, 2> {
        self.hidden_states(input, device).pop().expect("the embeddings are there")
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    /// None: PyLate, sentence-transformers and pylate-rs read the names without one; colbert-ai wants `model.`.
    fn tensor_prefix(&self) -> &'static str {
        ""
    }
}

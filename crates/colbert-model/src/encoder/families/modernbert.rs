//! ModernBERT (Warner et al. 2024): rotary positions, attention in a window in most layers, GeGLU, normalisation
//! before each part, no biases (transformers 4.55, `modeling_modernbert.py`).
//!
//! Field names spell the checkpoint's: `w_qkv` stands for `Wqkv`, `w_o` for `Wo`, `w_i` for `Wi`.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::{
    Activation, ActiveHalf, AttentionPlan, AttentionSublayer, Gate, GatedFeedForward, KernelBackend, Rotation,
    Segments, Tables, TokenRows, attention_sublayer, dropout, embed, gated_feed_forward,
};
use serde_json::{Map, Value as Json, json};

use crate::encoder::dropout::DropoutSeed;
use crate::encoder::families::modernbert_config::ModernBertConfig;
use crate::encoder::families::modernbert_nodes;
use crate::encoder::family::{
    ExportFacts, Facts, Family, Loaders, Transformers, Unsupported, check_dropout, check_eps, check_even_heads,
    check_initializer, check_name, check_off, check_sizes,
};
use crate::encoder::layers::{Embedding, LayerNorm, Linear};
use crate::encoder::rotary::{Angles, check_theta};
use crate::encoder::{EncodeOptions, Encoder, EncoderInput};
use crate::error::ModelError;
use crate::onnx::graph::Value;
use crate::onnx::nodes::{Inputs, Nodes, Tokens};
use crate::weights::Weights;

impl Family for ModernBertConfig {
    const ARCHITECTURES: &'static [(&'static str, &'static str)] = &[("modernbert", "ModernBertModel")];
    const PREFIX: &'static str = "model.";
    const WORD_TABLE: &'static str = "embeddings.tok_embeddings.weight";
    const LOADERS: Loaders =
        Loaders { colbert_ai: false, pylate_rs: true, colbert_ai_punctuation: false, transformers: Transformers::Any };
    const EXPORT: ExportFacts = ExportFacts {
        tokenizer_class: None,
        token_types: false,
        // pylate-rs reads the older key.
        older_key: Some(("norm_eps", "layer_norm_eps", 1e-5)),
    };

    fn complete(&self, config: &mut Map<String, Json>) {
        // transformers 4 reads these, and takes its defaults for those of a file that transformers 5 wrote.
        let [global, local] = self.thetas();
        config.entry("global_rope_theta").or_insert(json!(global));
        config.entry("local_rope_theta").or_insert(json!(local));
    }

    fn reach(&self) -> Option<usize> {
        Some(self.half_window())
    }

    fn unsupported(&self) -> Option<Unsupported> {
        let off = [("norm_bias", self.norm_bias), ("attention_bias", self.attention_bias), ("mlp_bias", self.mlp_bias)];
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("global_attn_every_n_layers", self.global_attn_every_n_layers),
        ];
        check_name("hidden_activation", &self.hidden_activation, "gelu")
            .or_else(|| check_off(off))
            .or_else(|| check_sizes(sizes))
            .or_else(|| check_even_heads(self.hidden_size, self.num_attention_heads))
            .or_else(|| self.thetas().into_iter().find_map(check_theta))
            .or_else(|| check_dropout("attention_dropout", self.attention_dropout))
            .or_else(|| check_dropout("mlp_dropout", self.mlp_dropout))
            .or_else(|| check_dropout("embedding_dropout", self.embedding_dropout))
            .or_else(|| check_eps("norm_eps", self.norm_eps))
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
            rows: self.vocab_size,
        }
    }

    fn dropouts_mut(&mut self) -> Vec<&mut f64> {
        vec![&mut self.attention_dropout, &mut self.mlp_dropout, &mut self.embedding_dropout]
    }

    fn nodes(&self, on: &mut Nodes<'_>, inputs: &Inputs, tokens: &Tokens) -> Result<Value, ModelError> {
        modernbert_nodes::build(self, on, &inputs.ids, tokens)
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
    attn_norm: Option<LayerNorm<B>>,
    attn: SelfAttention<B>,
    mlp_norm: LayerNorm<B>,
    mlp: FeedForward<B>,
}

#[derive(Module, Debug)]
struct Embeddings<B: Backend> {
    tok_embeddings: Embedding<B>,
    norm: LayerNorm<B>,
}

/// ModernBERT: embeddings, a stack of layers, and a last norm.
#[derive(Module, Debug)]
pub struct ModernBert<B: Backend> {
    embeddings: Embeddings<B>,
    layers: Vec<Layer<B>>,
    final_norm: LayerNorm<B>,
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
    /// Builds the encoder, taking each tensor it uses out of `weights`.
    pub(crate) fn from_weights(
        config: &ModernBertConfig,
        weights: &mut Weights,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        let (hidden, wide, eps) = (config.hidden_size, config.intermediate_size, config.norm_eps);
        // The number in config.json is not trusted for an allocation before the tensors are there.
        let mut layers = Vec::new();
        for i in 0..config.num_hidden_layers {
            let mut linear = |name: &str, shape| Linear::bare(&format!("layers.{i}.{name}"), shape, weights, device);
            let attn = SelfAttention {
                w_qkv: linear("attn.Wqkv", [3 * hidden, hidden])?,
                w_o: linear("attn.Wo", [hidden, hidden])?,
            };
            let mlp =
                FeedForward { w_i: linear("mlp.Wi", [2 * wide, hidden])?, w_o: linear("mlp.Wo", [hidden, wide])? };
            let mut norm = |name: &str| LayerNorm::bare(&format!("layers.{i}.{name}"), hidden, eps, weights, device);
            // The embeddings are normalised already.
            let attn_norm = if i == 0 { None } else { Some(norm("attn_norm")?) };
            layers.push(Layer { attn_norm, attn, mlp_norm: norm("mlp_norm")?, mlp });
        }
        let rows = [config.vocab_size, hidden];
        Ok(Self {
            embeddings: Embeddings {
                tok_embeddings: Embedding::take("embeddings.tok_embeddings", rows, weights, device)?,
                norm: LayerNorm::bare("embeddings.norm", hidden, eps, weights, device)?,
            },
            layers,
            final_norm: LayerNorm::bare("final_norm", hidden, eps, weights, device)?,
            heads: config.num_attention_heads,
            hidden_size: hidden,
            global_every: config.global_attn_every_n_layers,
            reach: config.half_window(),
            thetas: config.thetas(),
            attention_dropout: config.attention_dropout,
            mlp_dropout: config.mlp_dropout,
            embedding_dropout: config.embedding_dropout,
        })
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
        rotation: &Rotation,
        options: EncodeOptions,
    ) -> Tensor<B, 2> {
        let Layer { attn_norm, attn, .. } = &self.layers[layer];
        let place = |place| DropoutSeed::dropout(options.child(place).dropout, self.attention_dropout);
        // If every window covers its whole text, a local layer is a global one.
        let is_global = self.is_global(layer) || segments.max_length() <= self.reach + 1;
        let plan = AttentionPlan {
            segments: segments.clone(),
            heads: self.heads,
            reach: (!is_global).then_some(self.reach),
            dropout: place(0),
            precision: options.precision,
        };
        let sublayer = AttentionSublayer {
            norm: attn_norm.as_ref().map(LayerNorm::affine),
            qkv: attn.w_qkv.weight.val(),
            rotation: Some(rotation.clone()),
            plan,
            out: attn.w_o.weight.val(),
            dropout: place(1),
        };
        attention_sublayer(input, sublayer)
    }

    fn feed_forward(&self, layer: usize, input: Tensor<B, 2>, options: EncodeOptions) -> Tensor<B, 2> {
        let Layer { mlp_norm, mlp, .. } = &self.layers[layer];
        let dropout = DropoutSeed::dropout(options.dropout, self.mlp_dropout);
        let network = GatedFeedForward {
            norm: Some(mlp_norm.affine()),
            up: mlp.w_i.weight.val(),
            up_bias: None,
            gate: Gate { activation: Activation::Gelu, active: ActiveHalf::First, dropout },
            down: mlp.w_o.weight.val(),
            down_bias: None,
            residual: true,
            precision: options.precision,
        };
        gated_feed_forward(input, network)
    }

    /// Returns the output of the embeddings and of every layer; the last one is normalised.
    ///
    /// # Shapes
    /// `[tokens, hidden_size]` each.
    pub fn hidden_states(&self, input: &EncoderInput) -> Vec<Tensor<B, 2>> {
        let rows = TokenRows { ids: input.ids.clone(), positions: input.segments.positions() };
        let word = self.embeddings.tok_embeddings.weight.val();
        let embedded = embed(Tables { word, position: None, token_type: None }, &rows);
        let embedded = self.embeddings.norm.forward(embedded);
        let mut states =
            vec![dropout(embedded, DropoutSeed::dropout(input.options.child(0).dropout, self.embedding_dropout))];
        let (head_size, positions) = (self.hidden_size / self.heads, input.segments.max_length());
        let rotations = self.thetas.map(|theta| Angles { theta, factor: 1.0 }.rotation(head_size, positions));
        for i in 0..self.layers.len() {
            let last = states[states.len() - 1].clone();
            let place = |part| input.options.child(1 + i as u64).child(part);
            let rotation = &rotations[usize::from(!self.is_global(i))];
            let hidden = self.attention(i, last, &input.segments, rotation, place(0));
            states.push(self.feed_forward(i, hidden, place(1)));
        }
        let last = states.pop().expect("the embeddings are there");
        states.push(self.final_norm.forward(last));
        states
    }
}

impl<B: KernelBackend> Encoder<B> for ModernBert<B> {
    fn forward(&self, input: &EncoderInput, _: &B::Device) -> Tensor<B, 2> {
        self.hidden_states(input).pop().expect("the embeddings are there")
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    /// Returns no prefix: PyLate, sentence-transformers and pylate-rs read the names without one; colbert-ai wants
    /// `model.`.
    fn tensor_prefix(&self) -> &'static str {
        ""
    }
}

//! The BERT encoder (Devlin et al. 2018), with Hugging Face's tensor names (transformers 4.55, `modeling_bert.py`).
//!
//! Field names spell the checkpoint's: `self_` stands for `self`, `layer_norm` for `LayerNorm`.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::{AttentionPlan, KernelBackend, Segments, Tables, TokenRows, attention, dropout, embed};
use serde::{Deserialize, Serialize};

use crate::dropout::DropoutSeed;
use crate::encoder::{EncodeOptions, Encoder, EncoderInput};
use crate::error::ModelError;
use crate::layers::{Embedding, LayerNorm, Linear, feed_forward};
use crate::weights::Weights;

/// The part of `config.json` that the encoder reads. Defaults are transformers' `BertConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BertConfig {
    /// Rows of the word embedding matrix.
    pub vocab_size: usize,
    /// Size of a hidden vector.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads of a layer.
    pub num_attention_heads: usize,
    /// Size of the feed-forward layer.
    pub intermediate_size: usize,
    /// Activation of the feed-forward layer; only `gelu` (by the error function) is supported.
    #[serde(default = "gelu_name")]
    pub hidden_act: String,
    /// Dropout after embeddings, attention output and feed-forward output.
    #[serde(default = "tenth")]
    pub hidden_dropout_prob: f64,
    /// Dropout on attention weights.
    #[serde(default = "tenth")]
    pub attention_probs_dropout_prob: f64,
    /// Longest sequence, in tokens.
    #[serde(default = "positions")]
    pub max_position_embeddings: usize,
    /// Rows of the token type embedding matrix; only row 0 is used.
    #[serde(default = "two")]
    pub type_vocab_size: usize,
    /// Epsilon of layer normalisation.
    #[serde(default = "tiny")]
    pub layer_norm_eps: f64,
    /// Standard deviation that new weights are drawn with.
    #[serde(default = "init_range")]
    pub initializer_range: f64,
    /// Only `absolute` is supported.
    #[serde(default = "absolute")]
    pub position_embedding_type: String,
}

fn gelu_name() -> String {
    "gelu".to_owned()
}
fn absolute() -> String {
    "absolute".to_owned()
}
fn tenth() -> f64 {
    0.1
}
fn positions() -> usize {
    512
}
fn two() -> usize {
    2
}
fn tiny() -> f64 {
    1e-12
}
fn init_range() -> f64 {
    0.02
}

impl BertConfig {
    /// Names the first field that asks for something this encoder does not do: (field, found, expected).
    pub(crate) fn unsupported(&self) -> Option<(&'static str, String, String)> {
        if self.hidden_act != "gelu" {
            return Some(("hidden_act", self.hidden_act.clone(), "\"gelu\"".to_owned()));
        }
        if self.position_embedding_type != "absolute" {
            return Some(("position_embedding_type", self.position_embedding_type.clone(), "\"absolute\"".to_owned()));
        }
        if self.num_attention_heads == 0 || !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let expected = format!("a divisor of hidden_size = {}", self.hidden_size);
            return Some(("num_attention_heads", self.num_attention_heads.to_string(), expected));
        }
        None
    }
}

#[derive(Module, Debug)]
struct BertEmbeddings<B: Backend> {
    word_embeddings: Embedding<B>,
    position_embeddings: Embedding<B>,
    token_type_embeddings: Embedding<B>,
    layer_norm: LayerNorm<B>,
    dropout: f64,
}

impl<B: KernelBackend> BertEmbeddings<B> {
    fn forward(&self, input: &EncoderInput, seed: Option<DropoutSeed>) -> Tensor<B, 2> {
        let tables = Tables {
            word: self.word_embeddings.weight.val(),
            position: self.position_embeddings.weight.val(),
            token_type: self.token_type_embeddings.weight.val(),
        };
        let rows = TokenRows { ids: input.ids.clone(), positions: input.segments.positions() };
        dropout(self.layer_norm.forward(embed(tables, &rows)), DropoutSeed::dropout(seed, self.dropout))
    }
}

#[derive(Module, Debug)]
struct SelfAttention<B: Backend> {
    query: Linear<B>,
    key: Linear<B>,
    value: Linear<B>,
    dropout: f64,
}

/// A projection, dropout, and the normalised sum with the input before it.
#[derive(Module, Debug)]
struct ResidualOutput<B: Backend> {
    dense: Linear<B>,
    layer_norm: LayerNorm<B>,
    dropout: f64,
}

impl<B: KernelBackend> ResidualOutput<B> {
    /// `projected` is what `dense` gives.
    fn join(&self, projected: Tensor<B, 2>, input: Tensor<B, 2>, options: EncodeOptions) -> Tensor<B, 2> {
        self.layer_norm.forward_residual(projected, input, DropoutSeed::dropout(options.dropout, self.dropout))
    }
}

#[derive(Module, Debug)]
struct Attention<B: Backend> {
    self_: SelfAttention<B>,
    output: ResidualOutput<B>,
}

#[derive(Module, Debug)]
struct Intermediate<B: Backend> {
    dense: Linear<B>,
}

#[derive(Module, Debug)]
struct BertLayer<B: Backend> {
    attention: Attention<B>,
    intermediate: Intermediate<B>,
    output: ResidualOutput<B>,
}

impl<B: KernelBackend> BertLayer<B> {
    fn forward(&self, input: Tensor<B, 2>, segments: &Segments, heads: usize, options: EncodeOptions) -> Tensor<B, 2> {
        let (place, precision) = (|place| options.child(place), options.precision);
        let a = &self.attention.self_;
        let dropout = DropoutSeed::dropout(place(0).dropout, a.dropout);
        let plan = AttentionPlan { segments: segments.clone(), heads, dropout, precision };
        let (query, key) = (a.query.forward(input.clone(), precision), a.key.forward(input.clone(), precision));
        let mixed = attention(query, key, a.value.forward(input.clone(), precision), &plan);
        let output = &self.attention.output;
        let hidden = output.join(output.dense.forward(mixed, precision), input, place(1));
        let projected = feed_forward(hidden.clone(), &self.intermediate.dense, &self.output.dense, precision);
        self.output.join(projected, hidden, place(2))
    }
}

#[derive(Module, Debug)]
struct BertLayers<B: Backend> {
    layer: Vec<BertLayer<B>>,
}

/// The pooler of a checkpoint: carried along so that an exported directory has it, never used.
#[derive(Module, Debug)]
struct Pooler<B: Backend> {
    dense: Linear<B>,
}

/// BERT: embeddings and a stack of transformer layers.
#[derive(Module, Debug)]
pub struct Bert<B: Backend> {
    embeddings: BertEmbeddings<B>,
    encoder: BertLayers<B>,
    pooler: Option<Pooler<B>>,
    heads: usize,
    hidden_size: usize,
}

impl<B: Backend> Bert<B> {
    /// Builds the encoder out of `weights`, taking each tensor it uses. The pooler is taken if it is there.
    ///
    /// # Errors
    /// A missing tensor, one of a wrong shape or with a value that is not finite, by name.
    pub fn from_weights(config: &BertConfig, weights: &mut Weights, device: &B::Device) -> Result<Self, ModelError> {
        let hidden = config.hidden_size;
        let dropout = config.hidden_dropout_prob;
        let mut layer = Vec::with_capacity(config.num_hidden_layers);
        for i in 0..config.num_hidden_layers {
            let at = |part: &str| format!("encoder.layer.{i}.{part}");
            layer.push(BertLayer {
                attention: Attention {
                    self_: SelfAttention {
                        query: weights.linear(&at("attention.self.query"), [hidden, hidden], device)?,
                        key: weights.linear(&at("attention.self.key"), [hidden, hidden], device)?,
                        value: weights.linear(&at("attention.self.value"), [hidden, hidden], device)?,
                        dropout: config.attention_probs_dropout_prob,
                    },
                    output: ResidualOutput {
                        dense: weights.linear(&at("attention.output.dense"), [hidden, hidden], device)?,
                        layer_norm: weights.layer_norm(&at("attention.output.LayerNorm"), config, device)?,
                        dropout,
                    },
                },
                intermediate: Intermediate {
                    dense: weights.linear(&at("intermediate.dense"), [config.intermediate_size, hidden], device)?,
                },
                output: ResidualOutput {
                    dense: weights.linear(&at("output.dense"), [hidden, config.intermediate_size], device)?,
                    layer_norm: weights.layer_norm(&at("output.LayerNorm"), config, device)?,
                    dropout,
                },
            });
        }
        let pooler = if weights.contains("pooler.dense.weight") {
            Some(Pooler { dense: weights.linear("pooler.dense", [hidden, hidden], device)? })
        } else {
            None
        };
        let table = |weights: &mut Weights, name: &str, rows: usize| {
            weights.embedding(&format!("embeddings.{name}"), [rows, hidden], device)
        };
        Ok(Self {
            embeddings: BertEmbeddings {
                word_embeddings: table(weights, "word_embeddings", config.vocab_size)?,
                position_embeddings: table(weights, "position_embeddings", config.max_position_embeddings)?,
                token_type_embeddings: table(weights, "token_type_embeddings", config.type_vocab_size)?,
                layer_norm: weights.layer_norm("embeddings.LayerNorm", config, device)?,
                dropout,
            },
            encoder: BertLayers { layer },
            pooler,
            heads: config.num_attention_heads,
            hidden_size: hidden,
        })
    }
}

impl<B: KernelBackend> Bert<B> {
    /// The output of the embeddings and of every layer, `[tokens, hidden_size]` each.
    pub fn hidden_states(&self, input: &EncoderInput) -> Vec<Tensor<B, 2>> {
        let place = |place| input.options.child(place);
        let mut states = vec![self.embeddings.forward(input, place(0).dropout)];
        for (layer, i) in self.encoder.layer.iter().zip(1..) {
            let last = states[states.len() - 1].clone();
            states.push(layer.forward(last, &input.segments, self.heads, place(i)));
        }
        states
    }
}

impl<B: KernelBackend> Encoder<B> for Bert<B> {
    fn forward(&self, input: &EncoderInput, _: &B::Device) -> Tensor<B, 2> {
        let place = |place| input.options.child(place);
        let embedded = self.embeddings.forward(input, place(0).dropout);
        let layers = self.encoder.layer.iter().zip(1..);
        layers.fold(embedded, |hidden, (layer, i)| layer.forward(hidden, &input.segments, self.heads, place(i)))
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn tensor_prefix(&self) -> &'static str {
        "bert."
    }
}

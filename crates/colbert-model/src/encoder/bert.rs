//! The BERT encoder (Devlin et al. 2018), with Hugging Face's tensor names (transformers 4.55, `modeling_bert.py`).

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::KernelBackend;
use serde::{Deserialize, Serialize};

use crate::encoder::layers::Linear;
use crate::encoder::token_embeddings::{TableSizes, TokenEmbeddings};
use crate::encoder::transformer::{BERT_NAMES, LayerSizes, Transformer};
use crate::encoder::{Encoder, EncoderInput};
use crate::error::ModelError;
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
        if self.hidden_size == 0 || self.type_vocab_size == 0 {
            let field = if self.hidden_size == 0 { "hidden_size" } else { "type_vocab_size" };
            return Some((field, "0".to_owned(), "1 or more".to_owned()));
        }
        if self.num_attention_heads == 0 || !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let expected = format!("a divisor of hidden_size = {}", self.hidden_size);
            return Some(("num_attention_heads", self.num_attention_heads.to_string(), expected));
        }
        None
    }

    pub(crate) fn layers(&self) -> LayerSizes {
        LayerSizes {
            layers: self.num_hidden_layers,
            hidden: self.hidden_size,
            wide: self.intermediate_size,
            eps: self.layer_norm_eps,
            attention_dropout: self.attention_probs_dropout_prob,
            projection_dropout: self.hidden_dropout_prob,
            output_dropout: self.hidden_dropout_prob,
        }
    }

    pub(crate) fn tables(&self) -> TableSizes {
        TableSizes {
            words: self.vocab_size,
            positions: self.max_position_embeddings,
            token_types: Some(self.type_vocab_size),
            size: self.hidden_size,
            eps: self.layer_norm_eps,
            dropout: self.hidden_dropout_prob,
        }
    }
}

/// The pooler of a checkpoint: carried along so that an exported directory has it, never used.
#[derive(Module, Debug)]
pub(crate) struct Pooler<B: Backend> {
    dense: Linear<B>,
}

impl<B: Backend> Pooler<B> {
    /// The pooler of a checkpoint that has one.
    pub(crate) fn take(hidden: usize, weights: &mut Weights, device: &B::Device) -> Result<Option<Self>, ModelError> {
        if !weights.contains("pooler.dense.weight") {
            return Ok(None);
        }
        Ok(Some(Self { dense: weights.linear("pooler.dense", [hidden, hidden], device)? }))
    }
}

/// BERT: embeddings and a stack of transformer layers.
#[derive(Module, Debug)]
pub struct Bert<B: Backend> {
    embeddings: TokenEmbeddings<B>,
    encoder: Transformer<B>,
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
        Ok(Self {
            embeddings: TokenEmbeddings::take(config.tables(), weights, device)?,
            encoder: Transformer::take(config.layers(), BERT_NAMES, weights, device)?,
            pooler: Pooler::take(config.hidden_size, weights, device)?,
            heads: config.num_attention_heads,
            hidden_size: config.hidden_size,
        })
    }
}

impl<B: KernelBackend> Bert<B> {
    /// The output of the embeddings and of every layer, `[tokens, hidden_size]` each.
    pub fn hidden_states(&self, input: &EncoderInput) -> Vec<Tensor<B, 2>> {
        let seed = input.options.child(0).dropout;
        let embedded = self.embeddings.forward(&input.ids, input.segments.positions(), seed);
        self.encoder.states(embedded, &input.segments, self.heads, input.options)
    }
}

impl<B: KernelBackend> Encoder<B> for Bert<B> {
    fn forward(&self, input: &EncoderInput, _: &B::Device) -> Tensor<B, 2> {
        let seed = input.options.child(0).dropout;
        let embedded = self.embeddings.forward(&input.ids, input.segments.positions(), seed);
        self.encoder.forward(embedded, &input.segments, self.heads, input.options)
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn tensor_prefix(&self) -> &'static str {
        "bert."
    }
}

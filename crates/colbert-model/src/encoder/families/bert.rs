//! The BERT encoder (Devlin et al. 2018), with Hugging Face's tensor names (transformers 4.55, `modeling_bert.py`).

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::KernelBackend;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::encoder::families::defaults;
use crate::encoder::family::{
    ExportFacts, Facts, Family, Loaders, Transformers, Unsupported, check_dropout, check_eps, check_heads,
    check_initializer, check_name, check_sizes,
};
use crate::encoder::layers::Linear;
use crate::encoder::token_embeddings::{EMBEDDINGS_NORM, TableSizes, TokenEmbeddings};
use crate::encoder::transformer::{BERT_NAMES, LayerSizes, Transformer};
use crate::encoder::transformer_nodes::TransformerNodes;
use crate::encoder::{Encoder, EncoderInput};
use crate::error::ModelError;
use crate::onnx::graph::Value;
use crate::onnx::nodes::{Inputs, Nodes, Tokens};
use crate::weights::{HostTensor, Weights, normal_tensor};

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
    #[serde(default = "defaults::gelu")]
    pub hidden_act: String,
    /// Dropout after embeddings, attention output and feed-forward output.
    #[serde(default = "defaults::tenth")]
    pub hidden_dropout_prob: f64,
    /// Dropout on attention weights.
    #[serde(default = "defaults::tenth")]
    pub attention_probs_dropout_prob: f64,
    /// Longest sequence, in tokens.
    #[serde(default = "defaults::positions_512")]
    pub max_position_embeddings: usize,
    /// Rows of the token type embedding matrix; only row 0 is used.
    #[serde(default = "defaults::two")]
    pub type_vocab_size: usize,
    /// Epsilon of layer normalisation.
    #[serde(default = "defaults::eps_1e_12")]
    pub layer_norm_eps: f64,
    /// Standard deviation that new weights are drawn with.
    #[serde(default = "defaults::initializer_range")]
    pub initializer_range: f64,
    /// Kind of position embeddings; only `absolute` is supported.
    #[serde(default = "absolute")]
    pub position_embedding_type: String,
}

fn absolute() -> String {
    "absolute".to_owned()
}

impl BertConfig {
    /// Draws the weights of an untrained model: normal weights of `initializer_range`, zero biases, unit layer norms.
    pub fn random_weights(&self, seed: u64) -> Weights {
        let mut tensors = BTreeMap::new();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut normal = |name: String, shape: &[usize]| {
            tensors.insert(name, normal_tensor(shape, self.initializer_range, &mut rng));
        };
        let hidden = self.hidden_size;
        normal("embeddings.word_embeddings.weight".into(), &[self.vocab_size, hidden]);
        normal("embeddings.position_embeddings.weight".into(), &[self.max_position_embeddings, hidden]);
        normal("embeddings.token_type_embeddings.weight".into(), &[self.type_vocab_size, hidden]);
        let mut constant = vec![("embeddings.LayerNorm".to_owned(), hidden, true)];
        for i in 0..self.num_hidden_layers {
            for (part, output, input) in [
                ("attention.self.query", hidden, hidden),
                ("attention.self.key", hidden, hidden),
                ("attention.self.value", hidden, hidden),
                ("attention.output.dense", hidden, hidden),
                ("intermediate.dense", self.intermediate_size, hidden),
                ("output.dense", hidden, self.intermediate_size),
            ] {
                normal(format!("encoder.layer.{i}.{part}.weight"), &[output, input]);
                constant.push((format!("encoder.layer.{i}.{part}"), output, false));
            }
            for part in ["attention.output.LayerNorm", "output.LayerNorm"] {
                constant.push((format!("encoder.layer.{i}.{part}"), hidden, true));
            }
        }
        for (name, size, is_norm) in constant {
            if is_norm {
                tensors.insert(format!("{name}.weight"), HostTensor { shape: vec![size], values: vec![1.0; size] });
            }
            tensors.insert(format!("{name}.bias"), HostTensor { shape: vec![size], values: vec![0.0; size] });
        }
        Weights::new("random weights", tensors)
    }

    /// Returns the encoder as nodes of an ONNX graph; families with the same layers replace the parts that differ.
    pub(super) fn transformer_nodes(&self) -> TransformerNodes {
        TransformerNodes {
            layers: self.layers(),
            names: BERT_NAMES,
            tables: self.tables(),
            heads: self.num_attention_heads,
            padding: None,
            relative: None,
        }
    }

    pub(super) fn layers(&self) -> LayerSizes {
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

    pub(super) fn tables(&self) -> TableSizes {
        TableSizes {
            norm: EMBEDDINGS_NORM,
            words: self.vocab_size,
            positions: Some(self.max_position_embeddings),
            token_types: Some(self.type_vocab_size),
            size: self.hidden_size,
            eps: self.layer_norm_eps,
            dropout: self.hidden_dropout_prob,
        }
    }
}

impl Family for BertConfig {
    const ARCHITECTURES: &'static [(&'static str, &'static str)] = &[("bert", "BertModel")];
    const PREFIX: &'static str = "bert.";
    const LOADERS: Loaders =
        Loaders { colbert_ai: true, pylate_rs: true, colbert_ai_punctuation: true, transformers: Transformers::Any };
    const EXPORT: ExportFacts =
        ExportFacts { tokenizer_class: Some("BertTokenizer"), token_types: true, older_key: None };
    const TAKES_TOKEN_TYPES: bool = true;

    fn unsupported(&self) -> Option<Unsupported> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ];
        let heads =
            || check_heads(("num_attention_heads", self.num_attention_heads), ("hidden_size", self.hidden_size));
        check_name("hidden_act", &self.hidden_act, "gelu")
            .or_else(|| check_name("position_embedding_type", &self.position_embedding_type, "absolute"))
            .or_else(|| check_sizes(sizes))
            .or_else(heads)
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
            wide: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            attention: self.hidden_size,
            pairs: 0,
            rows: self.vocab_size.saturating_add(self.max_position_embeddings).saturating_add(self.type_vocab_size),
        }
    }

    fn dropouts_mut(&mut self) -> Vec<&mut f64> {
        vec![&mut self.hidden_dropout_prob, &mut self.attention_probs_dropout_prob]
    }

    fn nodes(&self, on: &mut Nodes<'_>, inputs: &Inputs, tokens: &Tokens) -> Result<Value, ModelError> {
        self.transformer_nodes().build(on, inputs, tokens)
    }
}

/// The pooler of a checkpoint: kept for an exported directory, never used.
#[derive(Module, Debug)]
pub(crate) struct Pooler<B: Backend> {
    dense: Linear<B>,
}

impl<B: Backend> Pooler<B> {
    /// Takes the pooler of a checkpoint that has one.
    pub(crate) fn take(hidden: usize, weights: &mut Weights, device: &B::Device) -> Result<Option<Self>, ModelError> {
        if !weights.contains("pooler.dense.weight") {
            return Ok(None);
        }
        Ok(Some(Self { dense: Linear::take("pooler.dense", [hidden, hidden], weights, device)? }))
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
    /// Builds the encoder, taking each tensor it uses out of `weights`.
    pub(crate) fn from_weights(
        config: &BertConfig,
        weights: &mut Weights,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
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
    /// Returns the output of the embeddings and of every layer.
    ///
    /// # Shapes
    /// `[tokens, hidden_size]` each.
    pub fn hidden_states(&self, input: &EncoderInput) -> Vec<Tensor<B, 2>> {
        let embedded = self.embeddings.forward(input);
        self.encoder.states(embedded, &input.segments, self.heads, input.options)
    }
}

impl<B: KernelBackend> Encoder<B> for Bert<B> {
    fn forward(&self, input: &EncoderInput, _: &B::Device) -> Tensor<B, 2> {
        let embedded = self.embeddings.forward(input);
        self.encoder.forward(embedded, &input.segments, self.heads, None, input.options)
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn tensor_prefix(&self) -> &'static str {
        "bert."
    }
}

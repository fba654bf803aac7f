//! DistilBERT (Sanh et al. 2019): BERT's layers under other names, without token types (transformers 4.55,
//! `modeling_distilbert.py`).

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::KernelBackend;
use serde::{Deserialize, Serialize};

use crate::encoder::families::defaults;
use crate::encoder::family::{
    ExportFacts, Facts, Family, Loaders, Transformers, Unsupported, check_dropout, check_heads, check_initializer,
    check_name, check_sizes,
};
use crate::encoder::token_embeddings::{EMBEDDINGS_NORM, TableSizes, TokenEmbeddings};
use crate::encoder::transformer::{LayerNames, LayerSizes, Transformer};
use crate::encoder::transformer_nodes::TransformerNodes;
use crate::encoder::{Encoder, EncoderInput};
use crate::error::ModelError;
use crate::onnx::graph::Value;
use crate::onnx::nodes::{Inputs, Nodes, Tokens};
use crate::weights::Weights;

/// Epsilon of layer normalisation, which `config.json` does not name.
const EPS: f64 = 1e-12;

/// The family's names of the layers' tensors.
const NAMES: LayerNames = LayerNames {
    layers: "transformer.layer",
    parts: [
        "attention.q_lin",
        "attention.k_lin",
        "attention.v_lin",
        "attention.out_lin",
        "sa_layer_norm",
        "ffn.lin1",
        "ffn.lin2",
        "output_layer_norm",
    ],
};

/// The part of `config.json` that the encoder reads. Defaults are transformers' `DistilBertConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DistilBertConfig {
    /// Rows of the word embedding matrix.
    pub vocab_size: usize,
    /// Size of a hidden vector.
    pub dim: usize,
    /// Layers.
    pub n_layers: usize,
    /// Attention heads of a layer.
    pub n_heads: usize,
    /// Size of the feed-forward layer.
    pub hidden_dim: usize,
    /// Activation of the feed-forward layer; only `gelu` (by the error function) is supported.
    #[serde(default = "defaults::gelu")]
    pub activation: String,
    /// Dropout after embeddings and feed-forward output.
    #[serde(default = "defaults::tenth")]
    pub dropout: f64,
    /// Dropout on attention weights.
    #[serde(default = "defaults::tenth")]
    pub attention_dropout: f64,
    /// Longest sequence, in tokens.
    #[serde(default = "defaults::positions_512")]
    pub max_position_embeddings: usize,
    /// Standard deviation that new weights are drawn with.
    #[serde(default = "defaults::initializer_range")]
    pub initializer_range: f64,
}

impl DistilBertConfig {
    fn tables(&self) -> TableSizes {
        TableSizes {
            norm: EMBEDDINGS_NORM,
            words: self.vocab_size,
            positions: Some(self.max_position_embeddings),
            token_types: None,
            size: self.dim,
            eps: EPS,
            dropout: self.dropout,
        }
    }

    fn layers(&self) -> LayerSizes {
        LayerSizes {
            layers: self.n_layers,
            hidden: self.dim,
            wide: self.hidden_dim,
            eps: EPS,
            attention_dropout: self.attention_dropout,
            // DistilBERT has no dropout after the attention's projection.
            projection_dropout: 0.0,
            output_dropout: self.dropout,
        }
    }
}

impl Family for DistilBertConfig {
    const ARCHITECTURES: &'static [(&'static str, &'static str)] = &[("distilbert", "DistilBertModel")];
    const PREFIX: &'static str = "distilbert.";
    const LOADERS: Loaders =
        Loaders { colbert_ai: true, pylate_rs: false, colbert_ai_punctuation: true, transformers: Transformers::Any };
    const EXPORT: ExportFacts = ExportFacts { tokenizer_class: None, token_types: false, older_key: None };

    fn unsupported(&self) -> Option<Unsupported> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("dim", self.dim),
            ("hidden_dim", self.hidden_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        check_name("activation", &self.activation, "gelu")
            .or_else(|| check_sizes(sizes))
            .or_else(|| check_heads(("n_heads", self.n_heads), ("dim", self.dim)))
            .or_else(|| check_dropout("dropout", self.dropout))
            .or_else(|| check_dropout("attention_dropout", self.attention_dropout))
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
            hidden: self.dim,
            wide: self.hidden_dim,
            layers: self.n_layers,
            heads: self.n_heads,
            attention: self.dim,
            pairs: 0,
            rows: self.vocab_size.saturating_add(self.max_position_embeddings),
        }
    }

    fn dropouts_mut(&mut self) -> Vec<&mut f64> {
        vec![&mut self.dropout, &mut self.attention_dropout]
    }

    fn nodes(&self, on: &mut Nodes<'_>, inputs: &Inputs, tokens: &Tokens) -> Result<Value, ModelError> {
        let (layers, tables, heads) = (self.layers(), self.tables(), self.n_heads);
        TransformerNodes { layers, names: NAMES, tables, heads, padding: None, relative: None }
            .build(on, inputs, tokens)
    }
}

/// DistilBERT: embeddings and a stack of transformer layers.
#[derive(Module, Debug)]
pub struct DistilBert<B: Backend> {
    embeddings: TokenEmbeddings<B>,
    transformer: Transformer<B>,
    heads: usize,
    hidden_size: usize,
}

impl<B: Backend> DistilBert<B> {
    /// Builds the encoder, taking each tensor it uses out of `weights`.
    pub(crate) fn from_weights(
        config: &DistilBertConfig,
        weights: &mut Weights,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            embeddings: TokenEmbeddings::take(config.tables(), weights, device)?,
            transformer: Transformer::take(config.layers(), NAMES, weights, device)?,
            heads: config.n_heads,
            hidden_size: config.dim,
        })
    }
}

impl<B: KernelBackend> Encoder<B> for DistilBert<B> {
    fn forward(&self, input: &EncoderInput, _: &B::Device) -> Tensor<B, 2> {
        let embedded = self.embeddings.forward(input);
        self.transformer.forward(embedded, &input.segments, self.heads, None, input.options)
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn tensor_prefix(&self) -> &'static str {
        "distilbert."
    }

    fn tensor_name(&self, path: &str) -> String {
        format!("{}{}", DistilBertConfig::PREFIX, NAMES.tensor_name("transformer.layer.", path))
    }
}

#[cfg(test)]
mod tests {
    use super::NAMES;

    #[test]
    fn field_paths_become_the_files_names() {
        for (path, name) in [
            ("transformer.layer.0.attention.self.query.weight", "transformer.layer.0.attention.q_lin.weight"),
            ("transformer.layer.11.attention.output.LayerNorm.bias", "transformer.layer.11.sa_layer_norm.bias"),
            ("transformer.layer.3.output.dense.weight", "transformer.layer.3.ffn.lin2.weight"),
            ("embeddings.LayerNorm.weight", "embeddings.LayerNorm.weight"),
        ] {
            assert_eq!(NAMES.tensor_name("transformer.layer.", path), name);
        }
    }
}

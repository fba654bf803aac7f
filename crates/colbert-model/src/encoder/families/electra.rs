//! ELECTRA (Clark et al. 2020): BERT's layers; its embeddings may be narrower than its layers, with a projection
//! between (transformers 4.55, `modeling_electra.py`).

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::KernelBackend;
use serde::{Deserialize, Serialize};

use crate::encoder::families::bert::BertConfig;
use crate::encoder::family::{ExportFacts, Facts, Family, Loaders, Transformers, Unsupported, check_sizes};
use crate::encoder::layers::Linear;
use crate::encoder::token_embeddings::{TableSizes, TokenEmbeddings};
use crate::encoder::transformer::{BERT_NAMES, Transformer};
use crate::encoder::transformer_nodes::TransformerNodes;
use crate::encoder::{Encoder, EncoderInput};
use crate::error::ModelError;
use crate::onnx::graph::Value;
use crate::onnx::nodes::{Inputs, Nodes, Tokens};
use crate::weights::Weights;

/// The part of `config.json` that the encoder reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ElectraConfig {
    /// Fields that ELECTRA shares with BERT.
    #[serde(flatten)]
    pub bert: BertConfig,
    /// Size of a row of the embedding tables. Default 128.
    #[serde(default = "narrow")]
    pub embedding_size: usize,
}

fn narrow() -> usize {
    128
}

impl Family for ElectraConfig {
    const ARCHITECTURES: &'static [(&'static str, &'static str)] = &[("electra", "ElectraModel")];
    const PREFIX: &'static str = "electra.";
    const LOADERS: Loaders =
        Loaders { colbert_ai: true, pylate_rs: false, colbert_ai_punctuation: true, transformers: Transformers::Any };
    const EXPORT: ExportFacts = ExportFacts { tokenizer_class: None, token_types: true, older_key: None };
    const TAKES_TOKEN_TYPES: bool = true;

    fn unsupported(&self) -> Option<Unsupported> {
        self.bert.unsupported().or_else(|| check_sizes([("embedding_size", self.embedding_size)]))
    }

    fn vocab_size_mut(&mut self) -> &mut usize {
        &mut self.bert.vocab_size
    }

    fn facts(&self) -> Facts {
        self.bert.facts()
    }

    fn dropouts_mut(&mut self) -> Vec<&mut f64> {
        self.bert.dropouts_mut()
    }

    fn nodes(&self, on: &mut Nodes<'_>, inputs: &Inputs, tokens: &Tokens) -> Result<Value, ModelError> {
        let nodes = self.bert.transformer_nodes();
        let tables = TableSizes { size: self.embedding_size, ..nodes.tables };
        TransformerNodes { tables, ..nodes }.build(on, inputs, tokens)
    }
}

/// ELECTRA: embeddings, a projection where they are narrower, and a stack of transformer layers.
#[derive(Module, Debug)]
pub struct Electra<B: Backend> {
    embeddings: TokenEmbeddings<B>,
    embeddings_project: Option<Linear<B>>,
    encoder: Transformer<B>,
    heads: usize,
    hidden_size: usize,
}

impl<B: Backend> Electra<B> {
    /// Builds the encoder, taking each tensor it uses out of `weights`.
    pub(crate) fn from_weights(
        config: &ElectraConfig,
        weights: &mut Weights,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        let (bert, size) = (&config.bert, config.embedding_size);
        Ok(Self {
            embeddings: TokenEmbeddings::take(TableSizes { size, ..bert.tables() }, weights, device)?,
            embeddings_project: if size == bert.hidden_size {
                None
            } else {
                Some(Linear::take("embeddings_project", [bert.hidden_size, size], weights, device)?)
            },
            encoder: Transformer::take(bert.layers(), BERT_NAMES, weights, device)?,
            heads: bert.num_attention_heads,
            hidden_size: bert.hidden_size,
        })
    }
}

impl<B: KernelBackend> Encoder<B> for Electra<B> {
    fn forward(&self, input: &EncoderInput, _: &B::Device) -> Tensor<B, 2> {
        let embedded = self.embeddings.forward(input);
        let wide = match &self.embeddings_project {
            Some(projection) => projection.forward(embedded, input.options.precision),
            None => embedded,
        };
        self.encoder.forward(wide, &input.segments, self.heads, None, input.options)
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn tensor_prefix(&self) -> &'static str {
        "electra."
    }
}

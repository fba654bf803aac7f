//! RoBERTa (Liu et al. 2019), XLM-RoBERTa and CamemBERT: BERT's layers, positions that begin after the padding id, and
//! one token type (transformers 4.55, `modeling_roberta.py`).

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::KernelBackend;
use serde::{Deserialize, Serialize};

use crate::encoder::families::bert::{BertConfig, Pooler};
use crate::encoder::family::{ExportFacts, Facts, Family, Loaders, Transformers, Unsupported};
use crate::encoder::token_embeddings::TokenEmbeddings;
use crate::encoder::transformer::{BERT_NAMES, Transformer};
use crate::encoder::transformer_nodes::TransformerNodes;
use crate::encoder::{Encoder, EncoderInput};
use crate::error::ModelError;
use crate::onnx::graph::Value;
use crate::onnx::nodes::{Inputs, Nodes, Tokens};
use crate::weights::Weights;

/// The part of `config.json` that the encoder reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RobertaConfig {
    /// Fields that RoBERTa shares with BERT.
    #[serde(flatten)]
    pub bert: BertConfig,
    /// Id of the padding token; the first token of a text has the position after it. Default 1.
    #[serde(default = "one")]
    pub pad_token_id: u32,
}

fn one() -> u32 {
    1
}

impl Family for RobertaConfig {
    const ARCHITECTURES: &'static [(&'static str, &'static str)] =
        &[("roberta", "RobertaModel"), ("xlm-roberta", "XLMRobertaModel"), ("camembert", "CamembertModel")];
    const PREFIX: &'static str = "roberta.";
    const LOADERS: Loaders =
        Loaders { colbert_ai: true, pylate_rs: false, colbert_ai_punctuation: false, transformers: Transformers::Any };
    const EXPORT: ExportFacts = ExportFacts { tokenizer_class: None, token_types: false, older_key: None };

    fn unsupported(&self) -> Option<Unsupported> {
        let padding = self.pad_token_id as usize;
        let fits = padding < self.bert.vocab_size;
        let wrong = || ("pad_token_id", padding.to_string(), format!("below vocab_size = {}", self.bert.vocab_size));
        self.bert.unsupported().or_else(|| (!fits).then(wrong))
    }

    fn vocab_size_mut(&mut self) -> &mut usize {
        &mut self.bert.vocab_size
    }

    fn facts(&self) -> Facts {
        // The table's rows up to the padding id are not used.
        let max_length = self.bert.max_position_embeddings.saturating_sub(self.pad_token_id as usize + 1);
        Facts { max_length, ..self.bert.facts() }
    }

    fn dropouts_mut(&mut self) -> Vec<&mut f64> {
        self.bert.dropouts_mut()
    }

    fn nodes(&self, on: &mut Nodes<'_>, inputs: &Inputs, tokens: &Tokens) -> Result<Value, ModelError> {
        let nodes = self.bert.transformer_nodes();
        TransformerNodes { padding: Some(self.pad_token_id), ..nodes }.build(on, inputs, tokens)
    }
}

/// RoBERTa: embeddings and a stack of transformer layers.
#[derive(Module, Debug)]
pub struct Roberta<B: Backend> {
    embeddings: TokenEmbeddings<B>,
    encoder: Transformer<B>,
    pooler: Option<Pooler<B>>,
    heads: usize,
    hidden_size: usize,
    padding: u32,
}

impl<B: Backend> Roberta<B> {
    /// Builds the encoder, taking each tensor it uses out of `weights`.
    pub(crate) fn from_weights(
        config: &RobertaConfig,
        weights: &mut Weights,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        let bert = &config.bert;
        Ok(Self {
            embeddings: TokenEmbeddings::take(bert.tables(), weights, device)?,
            encoder: Transformer::take(bert.layers(), BERT_NAMES, weights, device)?,
            pooler: Pooler::take(bert.hidden_size, weights, device)?,
            heads: bert.num_attention_heads,
            hidden_size: bert.hidden_size,
            padding: config.pad_token_id,
        })
    }
}

/// Returns the position of every token: padding has the padding id, the others are counted from the one after it.
pub(super) fn positions(input: &EncoderInput, padding: u32) -> Arc<[u32]> {
    let mut positions = Vec::with_capacity(input.ids.len());
    for segment in input.segments.as_slice() {
        let mut next = padding;
        for id in &input.ids[segment.start..segment.start + segment.length] {
            if *id == padding {
                positions.push(padding);
            } else {
                next += 1;
                positions.push(next);
            }
        }
    }
    positions.into()
}

impl<B: KernelBackend> Encoder<B> for Roberta<B> {
    fn forward(&self, input: &EncoderInput, _: &B::Device) -> Tensor<B, 2> {
        let embedded = self.embeddings.forward_at(positions(input, self.padding), input);
        self.encoder.forward(embedded, &input.segments, self.heads, None, input.options)
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn tensor_prefix(&self) -> &'static str {
        "roberta."
    }
}

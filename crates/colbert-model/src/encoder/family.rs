//! Which encoder a directory holds: `model_type` in its `config.json` decides, and nothing else.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::KernelBackend;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::encoder::bert::{Bert, BertConfig};
use crate::encoder::distilbert::{DistilBert, DistilBertConfig};
use crate::encoder::electra::{Electra, ElectraConfig};
use crate::encoder::modernbert::{ModernBert, ModernBertConfig};
use crate::encoder::roberta::{Roberta, RobertaConfig};
use crate::encoder::{Encoder, EncoderInput};
use crate::error::ModelError;
use crate::weights::Weights;

/// Values of `model_type` that can be loaded.
const SUPPORTED: &str = "bert, distilbert, roberta, xlm-roberta, camembert, electra, modernbert";

/// The configuration of an encoder of any family.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum EncoderConfig {
    /// `bert`
    Bert(BertConfig),
    /// `distilbert`
    DistilBert(DistilBertConfig),
    /// `roberta`, `xlm-roberta`, `camembert`
    Roberta(RobertaConfig),
    /// `electra`
    Electra(ElectraConfig),
    /// `modernbert`
    ModernBert(ModernBertConfig),
}

impl EncoderConfig {
    /// Reads the configuration; `path` appears in messages.
    ///
    /// # Errors
    /// A `model_type` that is not supported, a field that is missing, or one that asks for something the encoder does not
    /// do.
    pub(crate) fn from_json(json: &Value, path: &Path) -> Result<Self, ModelError> {
        let config = match json["model_type"].as_str() {
            Some("bert") => Self::Bert(fields(json, path)?),
            Some("distilbert") => Self::DistilBert(fields(json, path)?),
            Some("roberta" | "xlm-roberta" | "camembert") => Self::Roberta(fields(json, path)?),
            Some("electra") => Self::Electra(fields(json, path)?),
            Some("modernbert") => Self::ModernBert(fields(json, path)?),
            found => {
                let found = found.unwrap_or("(none)").to_owned();
                return Err(ModelError::UnknownArchitecture { path: path.to_owned(), found, supported: SUPPORTED });
            }
        };
        let unsupported = match &config {
            Self::Bert(config) => config.unsupported(),
            Self::Roberta(config) => config.bert.unsupported(),
            Self::Electra(config) => config.bert.unsupported(),
            Self::DistilBert(config) => config.unsupported(),
            Self::ModernBert(config) => config.unsupported(),
        };
        match unsupported {
            None => Ok(config),
            Some((field, found, expected)) => {
                Err(ModelError::UnsupportedConfig { path: path.to_owned(), field, found, expected })
            }
        }
    }

    /// Rows of the word embedding matrix.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Bert(config) => config.vocab_size,
            Self::DistilBert(config) => config.vocab_size,
            Self::Roberta(config) => config.bert.vocab_size,
            Self::Electra(config) => config.bert.vocab_size,
            Self::ModernBert(config) => config.vocab_size,
        }
    }

    pub(crate) fn set_vocab_size(&mut self, rows: usize) {
        match self {
            Self::Bert(config) => config.vocab_size = rows,
            Self::DistilBert(config) => config.vocab_size = rows,
            Self::Roberta(config) => config.bert.vocab_size = rows,
            Self::Electra(config) => config.bert.vocab_size = rows,
            Self::ModernBert(config) => config.vocab_size = rows,
        }
    }

    /// Name of the word embedding matrix, without the family's prefix.
    pub(crate) fn word_table(&self) -> &'static str {
        match self {
            Self::ModernBert(_) => "embeddings.tok_embeddings.weight",
            _ => "embeddings.word_embeddings.weight",
        }
    }

    /// Size of a hidden vector.
    pub fn hidden_size(&self) -> usize {
        match self {
            Self::Bert(config) => config.hidden_size,
            Self::DistilBert(config) => config.dim,
            Self::Roberta(config) => config.bert.hidden_size,
            Self::Electra(config) => config.bert.hidden_size,
            Self::ModernBert(config) => config.hidden_size,
        }
    }

    /// Size of a hidden vector, of the feed-forward layer, layers, heads, and rows of the embedding tables.
    pub(crate) fn sizes(&self) -> [usize; 5] {
        let of_bert = |bert: &BertConfig| {
            let rows = bert.vocab_size + bert.max_position_embeddings + bert.type_vocab_size;
            [bert.hidden_size, bert.intermediate_size, bert.num_hidden_layers, bert.num_attention_heads, rows]
        };
        match self {
            Self::Bert(bert) => of_bert(bert),
            Self::Roberta(config) => of_bert(&config.bert),
            Self::Electra(config) => of_bert(&config.bert),
            Self::DistilBert(c) => {
                [c.dim, c.hidden_dim, c.n_layers, c.n_heads, c.vocab_size + c.max_position_embeddings]
            }
            Self::ModernBert(c) => {
                // Two halves, one of which is a gate.
                [c.hidden_size, 2 * c.intermediate_size, c.num_hidden_layers, c.num_attention_heads, c.vocab_size]
            }
        }
    }

    /// Longest sequence, in tokens.
    pub fn max_length(&self) -> usize {
        match self {
            Self::Bert(config) => config.max_position_embeddings,
            Self::DistilBert(config) => config.max_position_embeddings,
            Self::Roberta(config) => config.max_length(),
            Self::Electra(config) => config.bert.max_position_embeddings,
            Self::ModernBert(config) => config.max_position_embeddings,
        }
    }

    /// Standard deviation that new weights are drawn with.
    pub fn initializer_range(&self) -> f64 {
        match self {
            Self::Bert(config) => config.initializer_range,
            Self::DistilBert(config) => config.initializer_range,
            Self::Roberta(config) => config.bert.initializer_range,
            Self::Electra(config) => config.bert.initializer_range,
            Self::ModernBert(config) => config.initializer_range,
        }
    }

    /// Every dropout set to one probability.
    pub(crate) fn with_dropout(mut self, probability: f64) -> Self {
        match &mut self {
            Self::Bert(bert)
            | Self::Roberta(RobertaConfig { bert, .. })
            | Self::Electra(ElectraConfig { bert, .. }) => {
                bert.hidden_dropout_prob = probability;
                bert.attention_probs_dropout_prob = probability;
            }
            Self::DistilBert(config) => {
                config.dropout = probability;
                config.attention_dropout = probability;
            }
            Self::ModernBert(config) => {
                config.attention_dropout = probability;
                config.mlp_dropout = probability;
                config.embedding_dropout = probability;
            }
        }
        self
    }

    /// What tensor names of this family may begin with in a weight file.
    pub(crate) fn prefix(&self) -> &'static str {
        match self {
            Self::Bert(_) => "bert.",
            Self::DistilBert(_) => "distilbert.",
            Self::Roberta(_) => "roberta.",
            Self::Electra(_) => "electra.",
            Self::ModernBert(_) => "model.",
        }
    }

    /// Name of the bare encoder's class in transformers.
    pub(crate) fn architecture(json: &Value) -> &'static str {
        match json["model_type"].as_str() {
            Some("distilbert") => "DistilBertModel",
            Some("roberta") => "RobertaModel",
            Some("xlm-roberta") => "XLMRobertaModel",
            Some("camembert") => "CamembertModel",
            Some("electra") => "ElectraModel",
            Some("modernbert") => "ModernBertModel",
            _ => "BertModel",
        }
    }

    /// The encoder on a device, taking its tensors out of `weights`.
    ///
    /// # Errors
    /// A missing tensor, one of a wrong shape or with a value that is not finite, by name.
    pub(crate) fn build<B: Backend>(
        &self,
        weights: &mut Weights,
        device: &B::Device,
    ) -> Result<PretrainedEncoder<B>, ModelError> {
        Ok(match self {
            Self::Bert(config) => PretrainedEncoder::Bert(Bert::from_weights(config, weights, device)?),
            Self::DistilBert(config) => {
                PretrainedEncoder::DistilBert(DistilBert::from_weights(config, weights, device)?)
            }
            Self::Roberta(config) => PretrainedEncoder::Roberta(Roberta::from_weights(config, weights, device)?),
            Self::Electra(config) => PretrainedEncoder::Electra(Electra::from_weights(config, weights, device)?),
            Self::ModernBert(config) => {
                PretrainedEncoder::ModernBert(ModernBert::from_weights(config, weights, device)?)
            }
        })
    }
}

fn fields<T: DeserializeOwned>(json: &Value, path: &Path) -> Result<T, ModelError> {
    serde_json::from_value(json.clone()).map_err(|source| ModelError::Json {
        path: path.to_owned(),
        expected: "the fields of this model_type's configuration",
        source,
    })
}

/// An encoder of any family that can be loaded.
#[derive(Module, Debug)]
pub enum PretrainedEncoder<B: Backend> {
    /// BERT.
    Bert(Bert<B>),
    /// DistilBERT.
    DistilBert(DistilBert<B>),
    /// RoBERTa, XLM-RoBERTa, CamemBERT.
    Roberta(Roberta<B>),
    /// ELECTRA.
    Electra(Electra<B>),
    /// ModernBERT.
    ModernBert(ModernBert<B>),
}

/// Runs an expression on whichever encoder it is.
macro_rules! each {
    ($encoder:expr, $inner:ident => $result:expr) => {
        match $encoder {
            PretrainedEncoder::Bert($inner) => $result,
            PretrainedEncoder::DistilBert($inner) => $result,
            PretrainedEncoder::Roberta($inner) => $result,
            PretrainedEncoder::Electra($inner) => $result,
            PretrainedEncoder::ModernBert($inner) => $result,
        }
    };
}

impl<B: KernelBackend> Encoder<B> for PretrainedEncoder<B> {
    fn forward(&self, input: &EncoderInput, device: &B::Device) -> Tensor<B, 2> {
        each!(self, encoder => encoder.forward(input, device))
    }

    fn hidden_size(&self) -> usize {
        each!(self, encoder => Encoder::<B>::hidden_size(encoder))
    }

    fn tensor_prefix(&self) -> &'static str {
        each!(self, encoder => Encoder::<B>::tensor_prefix(encoder))
    }

    fn tensor_name(&self, path: &str) -> String {
        each!(self, encoder => Encoder::<B>::tensor_name(encoder, path))
    }
}

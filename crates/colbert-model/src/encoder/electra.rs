//! ELECTRA (Clark et al. 2020): BERT's layers; its embeddings may be narrower than its layers, with a projection between
//! (transformers 4.55, `modeling_electra.py`).

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::KernelBackend;
use serde::{Deserialize, Serialize};

use crate::encoder::bert::BertConfig;
use crate::encoder::layers::Linear;
use crate::encoder::token_embeddings::{TableSizes, TokenEmbeddings};
use crate::encoder::transformer::{BERT_NAMES, Transformer};
use crate::encoder::{Encoder, EncoderInput};
use crate::error::ModelError;
use crate::weights::Weights;

/// The part of `config.json` that the encoder reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ElectraConfig {
    /// What ELECTRA shares with BERT.
    #[serde(flatten)]
    pub bert: BertConfig,
    /// Size of a row of the embedding tables. Default 128.
    #[serde(default = "narrow")]
    pub embedding_size: usize,
}

fn narrow() -> usize {
    128
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
    /// Builds the encoder out of `weights`, taking each tensor it uses.
    ///
    /// # Errors
    /// A missing tensor, one of a wrong shape or with a value that is not finite, by name.
    pub fn from_weights(config: &ElectraConfig, weights: &mut Weights, device: &B::Device) -> Result<Self, ModelError> {
        let (bert, size) = (&config.bert, config.embedding_size);
        Ok(Self {
            embeddings: TokenEmbeddings::take(TableSizes { size, ..bert.tables() }, weights, device)?,
            embeddings_project: if size == bert.hidden_size {
                None
            } else {
                Some(weights.linear("embeddings_project", [bert.hidden_size, size], device)?)
            },
            encoder: Transformer::take(bert.layers(), BERT_NAMES, weights, device)?,
            heads: bert.num_attention_heads,
            hidden_size: bert.hidden_size,
        })
    }
}

impl<B: KernelBackend> Encoder<B> for Electra<B> {
    fn forward(&self, input: &EncoderInput, _: &B::Device) -> Tensor<B, 2> {
        let seed = input.options.child(0).dropout;
        let embedded = self.embeddings.forward(&input.ids, input.segments.positions(), seed);
        let wide = match &self.embeddings_project {
            Some(projection) => projection.forward(embedded, input.options.precision),
            None => embedded,
        };
        self.encoder.forward(wide, &input.segments, self.heads, input.options)
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn tensor_prefix(&self) -> &'static str {
        "electra."
    }
}

//! The sum of word, position and token type embeddings, normalised (Devlin et al. 2018, figure 2).

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::{KernelBackend, Tables, TokenRows, dropout, embed};

use crate::encoder::EncoderInput;
use crate::encoder::dropout::DropoutSeed;
use crate::encoder::layers::{Embedding, LayerNorm};
use crate::error::ModelError;
use crate::weights::Weights;

/// BERT's name of the norm.
pub(crate) const EMBEDDINGS_NORM: &str = "embeddings.LayerNorm";

/// Sizes of the tables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableSizes {
    pub(crate) words: usize,
    /// None if positions are not embedded.
    pub(crate) positions: Option<usize>,
    /// None if a family has no token types.
    pub(crate) token_types: Option<usize>,
    /// Numbers of a row.
    pub(crate) size: usize,
    /// Name of the norm.
    pub(crate) norm: &'static str,
    pub(crate) eps: f64,
    pub(crate) dropout: f64,
}

#[derive(Module, Debug)]
pub(crate) struct TokenEmbeddings<B: Backend> {
    word_embeddings: Embedding<B>,
    position_embeddings: Option<Embedding<B>>,
    token_type_embeddings: Option<Embedding<B>>,
    layer_norm: LayerNorm<B>,
    dropout: f64,
}

impl<B: Backend> TokenEmbeddings<B> {
    /// Takes the tables out of `weights`, under `embeddings.`
    pub(crate) fn take(sizes: TableSizes, weights: &mut Weights, device: &B::Device) -> Result<Self, ModelError> {
        let mut table = |name: &str, rows: usize| {
            Embedding::take(&format!("embeddings.{name}"), [rows, sizes.size], weights, device)
        };
        Ok(Self {
            word_embeddings: table("word_embeddings", sizes.words)?,
            position_embeddings: sizes.positions.map(|rows| table("position_embeddings", rows)).transpose()?,
            token_type_embeddings: sizes.token_types.map(|rows| table("token_type_embeddings", rows)).transpose()?,
            layer_norm: LayerNorm::take(sizes.norm, sizes.size, sizes.eps, weights, device)?,
            dropout: sizes.dropout,
        })
    }
}

impl<B: KernelBackend> TokenEmbeddings<B> {
    /// Embeds the tokens of an input, each at its place in its text, `[tokens, size]`.
    pub(crate) fn forward(&self, input: &EncoderInput) -> Tensor<B, 2> {
        self.forward_at(input.segments.positions(), input)
    }

    /// Embeds the tokens at these positions, `[tokens, size]`.
    pub(crate) fn forward_at(&self, positions: Arc<[u32]>, input: &EncoderInput) -> Tensor<B, 2> {
        let word = self.word_embeddings.weight.val();
        let of = |table: &Option<Embedding<B>>| table.as_ref().map(|table| table.weight.val());
        let (position, token_type) = (of(&self.position_embeddings), of(&self.token_type_embeddings));
        let tables = Tables { word, position, token_type };
        let rows = TokenRows { ids: input.ids.clone(), positions };
        let seed = input.options.child(0).dropout;
        dropout(self.layer_norm.forward(embed(tables, &rows)), DropoutSeed::dropout(seed, self.dropout))
    }
}

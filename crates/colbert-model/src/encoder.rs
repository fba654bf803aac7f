//! The seam between a ColBERT head and the token encoder under it.

use std::sync::Arc;

use burn::module::{Module, ModuleDisplay};
use burn::tensor::Tensor;
use colbert_kernels::{KernelBackend, Segments};

use crate::dropout::DropoutSeed;
use crate::tokens::TokenSequence;

/// Sequences packed one after the other, without padding.
#[derive(Debug, Clone)]
pub struct EncoderInput {
    /// Token ids of all sequences, `[tokens]`.
    pub ids: Arc<[u32]>,
    /// Where each sequence lies, and how many of its first tokens can be attended to.
    pub segments: Segments,
    /// Seed of dropout in training; none means no dropout.
    pub dropout: Option<DropoutSeed>,
}

impl EncoderInput {
    /// Packs sequences in their order.
    pub fn new(sequences: &[TokenSequence], dropout: Option<DropoutSeed>) -> Self {
        Self {
            ids: sequences.iter().flat_map(|sequence| sequence.ids.iter().copied()).collect(),
            segments: Segments::new(sequences.iter().map(|sequence| (sequence.len(), sequence.attended))),
            dropout,
        }
    }
}

/// Turns token ids into one hidden vector a token.
///
/// Implement it to put a ColBERT head on an encoder of your own; [`crate::Bert`] is the one that comes along. A sequence's
/// hidden vectors must not depend on what else is in the batch.
pub trait Encoder<B: KernelBackend>: Module<B> + ModuleDisplay {
    /// Hidden states of every token, `[tokens, hidden_size]`, in the order of the ids.
    fn forward(&self, input: &EncoderInput, device: &B::Device) -> Tensor<B, 2>;

    /// Size of a hidden vector.
    fn hidden_size(&self) -> usize;

    /// Prefix of this encoder's tensor names in a weight file, such as `bert.`.
    fn tensor_prefix(&self) -> &'static str;
}

//! The model itself: encoder, head, masks, unit length.

use burn::module::Module;
use burn::tensor::backend::Backend;
use colbert_kernels::KernelBackend;

use crate::embeddings::{Embeddings, scored_texts, unit_length};
use crate::encoder::{EncodeOptions, Encoder, EncoderInput};
use crate::head::{Head, file_name};
use crate::tokenizer::sequence::TokenSequence;

/// A token encoder with a ColBERT head.
#[derive(Module, Debug)]
pub struct Colbert<B: Backend, E: Module<B>> {
    /// The token encoder.
    pub encoder: E,
    /// The head, which turns hidden vectors into vectors of `dim` numbers.
    pub head: Head<B>,
}

impl<B: KernelBackend, E: Encoder<B>> Colbert<B, E> {
    /// Encodes texts, without padding; a text's vectors do not depend on the others.
    ///
    /// # Shapes
    /// The vectors are `[tokens, dim]`, the tokens of all texts one after the other.
    ///
    /// # Panics
    /// If there is no text.
    pub fn encode(&self, sequences: &[TokenSequence], device: &B::Device) -> Embeddings<B> {
        self.encode_with(sequences, EncodeOptions::default(), device)
    }

    /// Encodes texts as in training: with dropout, whose masks depend on the seed and on the place of a text in the
    /// list, or in another precision. The head is always float32.
    ///
    /// # Shapes
    /// As [`encode`](Self::encode).
    ///
    /// # Panics
    /// If there is no text.
    pub fn encode_with(
        &self,
        sequences: &[TokenSequence],
        options: EncodeOptions,
        device: &B::Device,
    ) -> Embeddings<B> {
        assert!(!sequences.is_empty(), "there is no text to encode");
        let hidden = self.encoder.forward(&EncoderInput::new(sequences, options), device);
        let vectors = self.head.forward(hidden);
        Embeddings { vectors: unit_length(vectors), texts: scored_texts(sequences) }
    }

    /// Returns the name in a weight file of the parameter at this field path.
    pub fn tensor_name(&self, path: &str) -> String {
        match path.strip_prefix("encoder.") {
            Some(rest) => self.encoder.tensor_name(rest),
            None => file_name(path),
        }
    }
}

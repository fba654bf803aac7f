//! The model itself: encoder, projection, optional ReLU, masks, unit length.

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor, TensorData};

use crate::dropout::DropoutSeed;
use crate::embeddings::{EmbeddingGroup, Embeddings};
use crate::encoder::{Encoder, EncoderInput};
use crate::layers::Linear;
use crate::tokens::{TokenSequence, length_groups};

/// Smallest length a vector is divided by (torch `normalize`, eps 1e-12), squared.
const MIN_SQUARED_NORM: f64 = 1e-24;

/// Tokens encoded together at most: enough for full matrix products, few enough to stay in cache.
const GROUP_TOKENS: usize = 4096;

/// A token encoder with a ColBERT head.
#[derive(Module, Debug)]
pub struct Colbert<B: Backend, E: Module<B>> {
    /// The token encoder.
    pub encoder: E,
    /// Projection to `dim`, without bias.
    pub linear: Linear<B>,
    /// ReLU after the projection.
    pub use_relu: bool,
}

impl<B: Backend, E: Encoder<B>> Colbert<B, E> {
    /// Embeddings of texts. Sequences of similar length are computed together; what a text's vectors are does not
    /// depend on the others.
    pub fn encode(&self, sequences: &[TokenSequence], device: &B::Device) -> Embeddings<B> {
        self.encode_with_dropout(sequences, None, device)
    }

    /// The same with dropout, as in training; the masks depend on the seed and on the lengths of the texts.
    pub fn encode_with_dropout(
        &self,
        sequences: &[TokenSequence],
        seed: Option<DropoutSeed>,
        device: &B::Device,
    ) -> Embeddings<B> {
        let lengths: Vec<usize> = sequences.iter().map(TokenSequence::len).collect();
        let groups = length_groups(&lengths, GROUP_TOKENS).into_iter().zip(0..);
        let groups = groups
            .map(|(members, place)| self.encode_group(sequences, members, seed.map(|seed| seed.child(place)), device));
        Embeddings { groups: groups.collect() }
    }

    fn encode_group(
        &self,
        all: &[TokenSequence],
        members: Vec<usize>,
        dropout: Option<DropoutSeed>,
        device: &B::Device,
    ) -> EmbeddingGroup<B> {
        let sequences = members.iter().map(|&i| &all[i]);
        let hidden = self.encoder.forward(EncoderInput { dropout, ..EncoderInput::new(sequences.clone(), device) });
        let [count, length, _] = hidden.dims();
        let mut scored = vec![false; count * length];
        for (row, sequence) in sequences.enumerate() {
            scored[row * length..row * length + sequence.len()].copy_from_slice(&sequence.scored);
        }
        let all_scored = scored.iter().all(|s| *s);
        let scored = Tensor::<B, 2, Bool>::from_data(TensorData::new(scored, [count, length]), device);
        let mut vectors = self.linear.forward(hidden);
        if self.use_relu {
            vectors = relu(vectors);
        }
        // The square root of a clamped sum has a finite gradient where a clamped root would give 0/0.
        let norm = vectors.clone().square().sum_dim(2).clamp_min(MIN_SQUARED_NORM).sqrt();
        let mut vectors = vectors / norm;
        if !all_scored {
            vectors = vectors * scored.clone().float().unsqueeze_dim::<3>(2);
        }
        EmbeddingGroup { vectors, scored, all_scored, members }
    }

    /// Names of the parameters in a weight file, in the module's own order: encoder under its prefix, `linear.weight`.
    pub fn tensor_names(&self) -> Vec<String> {
        crate::parameters::parameter_names::<B, Self>(self).into_iter().map(|name| self.tensor_name(&name)).collect()
    }

    /// Name in a weight file of the parameter at this field path.
    pub fn tensor_name(&self, path: &str) -> String {
        match path.strip_prefix("encoder.") {
            Some(rest) => format!("{}{rest}", self.encoder.tensor_prefix()),
            None => path.to_owned(),
        }
    }
}

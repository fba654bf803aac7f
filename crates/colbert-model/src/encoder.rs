//! The seam between a ColBERT head and the token encoder under it.

use burn::module::{Module, ModuleDisplay};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::dropout::DropoutSeed;
use crate::tokens::TokenSequence;

/// A group of sequences of similar length, padded to the longest of them.
#[derive(Debug, Clone)]
pub struct EncoderInput<B: Backend> {
    /// Token ids `[sequences, length]`; padding holds id 0.
    pub ids: Tensor<B, 2, Int>,
    /// True where a token can be attended to `[sequences, length]`; the first token of a sequence always can.
    pub attended: Tensor<B, 2, Bool>,
    /// Seed of dropout in training; none means no dropout.
    pub dropout: Option<DropoutSeed>,
}

impl<B: Backend> EncoderInput<B> {
    /// Pads `sequences` to the longest of them.
    ///
    /// # Panics
    /// If `sequences` is empty.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a TokenSequence> + Clone, device: &B::Device) -> Self {
        let length = sequences.clone().into_iter().map(TokenSequence::len).max().expect("a group has a sequence");
        let count = sequences.clone().into_iter().count();
        let mut ids = vec![0i32; count * length];
        let mut attended = vec![false; count * length];
        for (row, sequence) in sequences.into_iter().enumerate() {
            for (column, id) in sequence.ids.iter().enumerate() {
                ids[row * length + column] = *id as i32;
            }
            attended[row * length..row * length + sequence.attended].fill(true);
        }
        Self {
            ids: Tensor::from_data(TensorData::new(ids, [count, length]), device),
            attended: Tensor::from_data(TensorData::new(attended, [count, length]), device),
            dropout: None,
        }
    }
}

/// Turns token ids into one hidden vector a token.
///
/// Implement it to put a ColBERT head on an encoder of your own; [`crate::Bert`] is the one that comes along. A sequence's
/// hidden vectors must not depend on what else is in the batch, nor on padding.
pub trait Encoder<B: Backend>: Module<B> + ModuleDisplay {
    /// Hidden states of every token.
    ///
    /// # Shapes
    /// - ids, attended: `[sequences, length]`
    /// - output: `[sequences, length, hidden_size]`; rows of padding may hold anything finite.
    fn forward(&self, input: EncoderInput<B>) -> Tensor<B, 3>;

    /// Size of a hidden vector.
    fn hidden_size(&self) -> usize;

    /// Longest sequence, in tokens.
    fn max_positions(&self) -> usize;

    /// Prefix of this encoder's tensor names in a weight file, such as `bert.`.
    fn tensor_prefix(&self) -> &'static str;
}

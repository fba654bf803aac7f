//! The interface between a ColBERT head and the token encoder under it.

pub(crate) mod dropout;
pub mod families;
pub(crate) mod family;
pub(crate) mod layers;
pub(crate) mod rotary;
pub(crate) mod rotary_nodes;
pub(crate) mod rotary_transformer;
pub(crate) mod rotary_transformer_nodes;
pub(crate) mod token_embeddings;
pub(crate) mod transformer;
pub(crate) mod transformer_nodes;

use std::sync::Arc;

use burn::module::{Module, ModuleDisplay};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};
use colbert_kernels::{KernelBackend, Precision, Segments};

use crate::encoder::dropout::DropoutSeed;
use crate::tokenizer::sequence::TokenSequence;

/// Options of an encoding pass. The default is plain encoding.
#[derive(Debug, Clone, Copy, Default)]
pub struct EncodeOptions {
    /// Seed of dropout; none means no dropout.
    pub dropout: Option<DropoutSeed>,
    /// Number format of matmuls.
    pub precision: Precision,
}

impl EncodeOptions {
    /// Encodes plainly in the precision of a plan. (A plan has no `auto`; it means float32 here.)
    pub fn in_precision(precision: colbert_config::Precision) -> Self {
        let precision = match precision {
            colbert_config::Precision::Tf32 => Precision::Tf32,
            colbert_config::Precision::Bf16 => Precision::Bf16,
            colbert_config::Precision::F16 => Precision::F16,
            colbert_config::Precision::F32 | colbert_config::Precision::Auto => Precision::F32,
        };
        Self { dropout: None, precision }
    }

    /// Returns the options of a part: a step, a piece, a layer.
    pub fn child(self, place: u64) -> Self {
        Self { dropout: self.dropout.map(|seed| seed.child(place)), ..self }
    }
}

/// Sequences packed one after the other, without padding.
#[derive(Debug, Clone)]
pub struct EncoderInput {
    /// Token ids of all sequences, `[tokens]`.
    pub ids: Arc<[u32]>,
    /// The place of each sequence, and how many of its first tokens can be attended to.
    pub segments: Segments,
    /// Dropout and precision.
    pub options: EncodeOptions,
}

impl EncoderInput {
    /// Packs sequences in their order.
    pub fn new(sequences: &[TokenSequence], options: EncodeOptions) -> Self {
        Self {
            ids: sequences.iter().flat_map(|sequence| sequence.ids.iter().copied()).collect(),
            segments: Segments::new(sequences.iter().map(|sequence| (sequence.len(), sequence.attended))),
            options,
        }
    }

    /// Pads the sequences to the longest with id 0: returns ids, and which of them can be attended to. For layers that
    /// do not know packed sequences; [`EncoderInput::pack`] is the inverse.
    ///
    /// # Shapes
    /// Both `[sequences, longest]`.
    pub fn padded<B: Backend>(&self, device: &B::Device) -> (Tensor<B, 2, Int>, Tensor<B, 2, Bool>) {
        let (sequences, longest) = (self.segments.as_slice(), self.segments.max_length());
        let (mut ids, mut attended) = (vec![0; sequences.len() * longest], vec![false; sequences.len() * longest]);
        for (segment, first) in sequences.iter().zip((0..).step_by(longest.max(1))) {
            let own = self.ids[segment.start..segment.start + segment.length].iter().map(|id| *id as i32);
            ids[first..first + segment.length].iter_mut().zip(own).for_each(|(place, id)| *place = id);
            attended[first..first + segment.attended].fill(true);
        }
        let shape = [sequences.len(), longest];
        let ids = Tensor::from_data(TensorData::new(ids, shape), device);
        (ids, Tensor::from_data(TensorData::new(attended, shape), device))
    }

    /// Packs a layer's output on padded sequences.
    ///
    /// # Shapes
    /// From `[sequences, longest, size]` to `[tokens, size]`.
    pub fn pack<B: Backend>(&self, padded: Tensor<B, 3>) -> Tensor<B, 2> {
        let (device, [_, longest, _]) = (padded.device(), padded.dims());
        let starts = (0..).step_by(longest.max(1));
        let rows = self.segments.as_slice().iter().zip(starts);
        let rows: Vec<i32> = rows.flat_map(|(segment, first)| first..first + segment.length as i32).collect();
        let tokens = rows.len();
        padded.flatten::<2>(0, 1).select(0, Tensor::from_data(TensorData::new(rows, [tokens]), &device))
    }
}

/// An encoder: turns token ids into one hidden vector for each token.
///
/// Implement it to put a ColBERT head on your own encoder; [`crate::PretrainedEncoder`] has the built-in ones. A
/// sequence's hidden vectors must not depend on the rest of the batch.
pub trait Encoder<B: KernelBackend>: Module<B> + ModuleDisplay + 'static {
    /// Computes the hidden states of every token, in the order of the ids.
    ///
    /// # Shapes
    /// `[tokens, hidden_size]`
    fn forward(&self, input: &EncoderInput, device: &B::Device) -> Tensor<B, 2>;

    /// Returns the size of a hidden vector.
    fn hidden_size(&self) -> usize;

    /// Returns the prefix of this encoder's tensor names in a weight file, such as `bert.`.
    fn tensor_prefix(&self) -> &'static str {
        "encoder."
    }

    /// Returns the name in a weight file of the parameter at this field path of the encoder.
    fn tensor_name(&self, path: &str) -> String {
        format!("{}{path}", self.tensor_prefix())
    }
}

//! Dropout as a pure function of seed and place, so that every backend, thread count and second pass drops the same
//! elements.
//!
//! Source of the integer hash: Chris Wellons, hash-prospector, "two round functions" (constants found by search).

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn::tensor::ops::FloatTensor;
use burn_autodiff::NodeId;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};

use crate::backend::{KernelBackend, Kernels};
use crate::node::record;
use crate::primitive::{floats, primitive, tensor};

/// Which elements an operator drops.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Probability of zeroing an element, at least 0 and below 1; the others are scaled by 1 / (1 - probability).
    pub probability: f32,
    /// Two uses with different seeds drop independently.
    pub seed: u64,
}

/// The golden ratio in 64 bits: consecutive multiples of it are far apart.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of SplitMix64 (Steele, Lea and Flood 2014, section 5).
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Dropout {
    /// Drops nothing.
    pub const NONE: Self = Self { probability: 0.0, seed: 0 };

    /// The same probability at another place: `counter` numbers the steps, or the uses within a step.
    pub fn at(self, counter: u64) -> Self {
        Self { seed: mix(self.seed.wrapping_add(GOLDEN).wrapping_add(mix(counter.wrapping_mul(GOLDEN)))), ..self }
    }

    /// Whether nothing is dropped.
    pub fn is_none(self) -> bool {
        self.probability == 0.0
    }

    /// Factors of the elements of a `[rows, columns]` matrix: 0 where dropped, 1 / (1 - probability) elsewhere.
    pub fn mask(self, rows: usize, columns: usize) -> Vec<f32> {
        (0..rows)
            .flat_map(|row| {
                let row = self.row(row);
                (0..columns).map(move |column| row.factor(column as u32))
            })
            .collect()
    }

    /// The factors of one row.
    #[inline]
    pub(crate) fn row(self, row: usize) -> DropoutRow {
        assert!((0.0..1.0).contains(&self.probability), "dropout probability {} is not in [0, 1)", self.probability);
        let key = mix(self.seed ^ mix((row as u64).wrapping_mul(GOLDEN)));
        DropoutRow {
            key: key as u32,
            flip: (key >> 32) as u32,
            threshold: (f64::from(self.probability) * 4_294_967_296.0) as u32,
            scale: 1.0 / (1.0 - self.probability),
        }
    }
}

/// The factors of one row of a matrix.
#[derive(Clone, Copy)]
pub(crate) struct DropoutRow {
    key: u32,
    flip: u32,
    threshold: u32,
    scale: f32,
}

impl DropoutRow {
    /// 0 or the scale, without a branch.
    #[inline(always)]
    pub(crate) fn factor(self, column: u32) -> f32 {
        let x = column.wrapping_mul(GOLDEN as u32).wrapping_add(self.key);
        let x = (x ^ (x >> 16)).wrapping_mul(0x21f0_aaad);
        let x = (x ^ (x >> 15)).wrapping_mul(0xd35a_2d97);
        let x = (x ^ (x >> 15)) ^ self.flip;
        if x >= self.threshold { self.scale } else { 0.0 }
    }
}

/// Zeroes elements of `[rows, columns]` and scales the others up.
///
/// # Panics
/// If the probability is not in [0, 1).
pub fn dropout<B: KernelBackend>(input: Tensor<B, 2>, dropout: Dropout) -> Tensor<B, 2> {
    if dropout.is_none() {
        return input;
    }
    tensor(B::kernel_dropout(primitive(input), dropout))
}

pub(crate) fn composed<B: Kernels>(input: FloatTensor<B>, dropout: Dropout) -> FloatTensor<B> {
    let input = tensor::<B, 2>(input);
    let [rows, columns] = input.dims();
    let mask = floats(dropout.mask(rows, columns), [rows, columns], &input.device());
    primitive(input * mask)
}

#[derive(Debug)]
struct Node;

impl<B: Kernels> Backward<B, 1> for Node {
    type State = Dropout;

    fn backward(self, ops: Ops<Dropout, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [input]: [Option<NodeId>; 1] = ops.parents.map(|parent| parent.map(|node| node.id));
        if let Some(input) = input {
            gradients.register::<B>(input, B::dropout_forward(gradient, ops.state));
        }
    }
}

pub(crate) fn differentiable<B: Kernels, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
    dropout: Dropout,
) -> FloatTensor<Autodiff<B, C>> {
    let output = B::dropout_forward(input.primitive.clone(), dropout);
    record::<_, B, C, 1>(Node, [&input], output, dropout)
}

//! Dropout as a pure function of seed and place, so that every backend, thread count and second pass drops the same
//! elements.
//!
//! Source of the integer hash: Chris Wellons, hash-prospector, "two round functions" (constants found by search).

use burn::backend::Autodiff;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{ElementConversion, Int, Tensor, TensorData};
use burn_autodiff::NodeId;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};
use rayon::prelude::*;

use crate::backend::Kernels;
use crate::backend::differentiable::KernelBackend;
use crate::operators::node::record;
use crate::operators::primitive::{floats, primitive, tensor};

/// The choice of elements that an operator drops.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Probability of zeroing an element, at least 0 and below 1; the others are scaled by 1 / (1 - probability).
    pub probability: f32,
    /// Seed; two uses with different seeds drop independently.
    pub seed: u64,
}

/// The golden ratio in 64 bits: consecutive multiples of it are far apart.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The multipliers of the integer hash.
const FIRST: u32 = 0x21f0_aaad;
const SECOND: u32 = 0xd35a_2d97;

/// Applies the output function of SplitMix64 (Steele, Lea and Flood 2014, section 5).
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Dropout {
    /// No dropout.
    pub const NONE: Self = Self { probability: 0.0, seed: 0 };

    /// Returns the same probability at another place: `counter` numbers the steps, or the uses within a step.
    pub fn at(self, counter: u64) -> Self {
        Self { seed: mix(self.seed.wrapping_add(GOLDEN).wrapping_add(mix(counter.wrapping_mul(GOLDEN)))), ..self }
    }

    /// Returns whether nothing is dropped.
    pub fn is_none(self) -> bool {
        self.probability == 0.0
    }

    /// Returns the factors of the elements of a `[rows, columns]` matrix: 0 where dropped, 1 / (1 - probability)
    /// elsewhere.
    pub fn mask(self, rows: usize, columns: usize) -> Vec<f32> {
        self.factors(&(0..rows).collect::<Vec<usize>>(), columns)
    }

    /// Returns the factors of the given rows of a matrix, `[rows, columns]`.
    fn factors(self, rows: &[usize], columns: usize) -> Vec<f32> {
        let mut factors = vec![0.0; rows.len() * columns];
        factors.par_chunks_mut(columns.max(1)).zip(rows).for_each(|(factors, row)| {
            let row = self.row(*row);
            factors.iter_mut().enumerate().for_each(|(column, factor)| *factor = row.factor(column as u32));
        });
        factors
    }

    /// Returns the 32-bit number below which numbers are dropped. It is even, so that the lowest bit of a number need
    /// not be checked.
    pub(crate) fn threshold(self) -> u32 {
        (f64::from(self.probability) * 4_294_967_296.0) as u32 & !1
    }

    /// Returns the factors of one row.
    #[inline]
    pub(crate) fn row(self, row: usize) -> DropoutRow {
        assert!((0.0..1.0).contains(&self.probability), "dropout probability {} is not in [0, 1)", self.probability);
        let key = mix(self.seed ^ mix((row as u64).wrapping_mul(GOLDEN)));
        DropoutRow {
            key: key as u32,
            flip: (key >> 32) as u32,
            threshold: self.threshold(),
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
    /// Returns 0 or the scale, without a branch.
    #[inline(always)]
    pub(crate) fn factor(self, column: u32) -> f32 {
        let x = column.wrapping_mul(GOLDEN as u32).wrapping_add(self.key);
        let x = (x ^ (x >> 16)).wrapping_mul(FIRST);
        let x = (x ^ (x >> 15)).wrapping_mul(SECOND);
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
    let rows: Vec<usize> = (0..rows).collect();
    primitive(input.clone() * tensor::<B, 2>(B::dropout_factors(dropout, &rows, columns, &input.device())))
}

/// Makes the factors on the host and copies them to the device.
pub(crate) fn factors_from_host<B: Kernels>(
    dropout: Dropout,
    rows: &[usize],
    columns: usize,
    device: &B::Device,
) -> FloatTensor<B> {
    primitive(floats::<B, 2>(dropout.factors(rows, columns), [rows.len(), columns], device))
}

/// Makes the same factors on the device; only two numbers a row are copied there.
///
/// The hash is of 32 bits without sign; a device has 32 or 64 with one. Only the lower 32 bits are ever looked at, and
/// shifts are masked, so both give the same.
#[cfg_attr(not(any(test, feature = "tch")), expect(dead_code, reason = "flex and CubeCL have their own"))]
pub(crate) fn factors_on_device<B: Kernels>(
    dropout: Dropout,
    rows: &[usize],
    columns: usize,
    device: &B::Device,
) -> FloatTensor<B> {
    let shape = [rows.len(), columns];
    let (keys, flips): (Vec<i32>, Vec<i32>) = rows
        .par_iter()
        .map(|row| {
            let row = dropout.row(*row);
            (row.key as i32, row.flip as i32)
        })
        .unzip();
    let of_rows = |numbers: Vec<i32>| {
        Tensor::<B, 2, Int>::from_data(TensorData::new(numbers, [rows.len(), 1]), device).expand(shape)
    };
    let shifted = |x: Tensor<B, 2, Int>, by: i32| {
        let kept = (1_i64 << (32 - by)) - 1;
        x.clone().bitwise_xor(x.bitwise_right_shift_scalar(by.elem()).bitwise_and_scalar(kept.elem()))
    };
    let columns = Tensor::<B, 1, Int>::arange(0..columns as i64, device).unsqueeze::<2>().expand(shape);
    let x = columns.mul_scalar(GOLDEN as u32 as i32) + of_rows(keys);
    let x = shifted(x, 16).mul_scalar(FIRST as i32);
    let x = shifted(x, 15).mul_scalar(SECOND as i32);
    let x = shifted(x, 15).bitwise_xor(of_rows(flips));
    // Without the lowest bit a number has 31 bits, so it is positive as a signed 32-bit integer.
    let half = x.bitwise_right_shift_scalar(1.elem()).bitwise_and_scalar(i32::MAX.elem());
    let kept = half.greater_equal_elem((dropout.threshold() >> 1) as i32);
    primitive(kept.float() * (1.0 / (1.0 - dropout.probability)))
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

#[cfg(test)]
mod tests {
    use test_backend::{TestBackend, device};

    use super::*;

    #[test]
    fn factors_made_on_a_device_are_those_made_here() {
        let rows = [0, 1, 2, 77, 1_000_003];
        for (probability, seed) in [(0.1, 7), (0.5, 8), (0.9, 9)] {
            let dropout = Dropout { probability, seed };
            let here = dropout.factors(&rows, 1000);
            let kept = here.iter().filter(|factor| **factor > 0.0).count() as f32 / here.len() as f32;
            assert!((kept - (1.0 - probability)).abs() < 0.03, "{kept} kept at {probability}");
            let there = factors_on_device::<TestBackend>(dropout, &rows, 1000, &device());
            let there = tensor::<TestBackend, 2>(there);
            assert_eq!(there.into_data().to_vec::<f32>().unwrap(), here);
        }
    }
}

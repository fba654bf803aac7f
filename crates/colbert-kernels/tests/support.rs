//! Functions that the tests share.

use burn::tensor::{Tensor, TensorData};
use colbert_kernels::{AttentionPlan, Dropout, Precision, Segments};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use test_backend::{TestAutodiff, device};

pub(crate) type Back = TestAutodiff;

/// A matrix of numbers in [-1, 1).
pub(crate) fn random([rows, columns]: [usize; 2], seed: u64) -> Tensor<Back, 2> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let numbers: Vec<f32> = (0..rows * columns).map(|_| random.random_range(-1.0..1.0)).collect();
    Tensor::from_data(TensorData::new(numbers, [rows, columns]), &device())
}

pub(crate) fn numbers<const D: usize>(tensor: Tensor<Back, D>) -> Vec<f32> {
    tensor.into_data().to_vec().expect("float32")
}

/// Output of an operator, and gradients of its inputs when the output's elements are weighed at random.
pub(crate) fn run(
    inputs: &[Tensor<Back, 2>],
    operator: &dyn Fn(&[Tensor<Back, 2>]) -> Tensor<Back, 2>,
) -> (Vec<f32>, Vec<Vec<f32>>) {
    let inputs: Vec<Tensor<Back, 2>> = inputs.iter().map(|input| input.clone().detach().require_grad()).collect();
    let output = operator(&inputs);
    let weights = random(output.dims(), 1234);
    let gradients = (output.clone() * weights).sum().backward();
    let of = |input: &Tensor<Back, 2>| {
        let gradient = input.grad(&gradients).expect("every input has a gradient");
        gradient.into_data().to_vec().expect("float32")
    };
    (numbers(output), inputs.iter().map(of).collect())
}

/// A plan of attention in float32, to all attended tokens and without dropout.
pub(crate) fn plain_attention(segments: &Segments, heads: usize) -> AttentionPlan {
    AttentionPlan { segments: segments.clone(), heads, reach: None, dropout: Dropout::NONE, precision: Precision::F32 }
}

//! Layers with torch's tensor layout and arithmetic: linear, embedding, layer norm, attention.
//!
//! Weights are `[out, in]`, as every checkpoint stores them, so that loading and export copy bytes.

use burn::module::{Module, Param};
use burn::tensor::activation::{gelu, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor};

use crate::dropout::{Dropout, DropoutSeed};

/// `x W^T + b`.
#[derive(Module, Debug)]
pub struct Linear<B: Backend> {
    /// `[out, in]`
    pub weight: Param<Tensor<B, 2>>,
    /// `[out]`
    pub bias: Option<Param<Tensor<B, 1>>>,
}

impl<B: Backend> Linear<B> {
    /// # Shapes
    /// - input: `[a, b, in]`
    /// - output: `[a, b, out]`
    pub fn forward(&self, input: Tensor<B, 3>) -> Tensor<B, 3> {
        let [a, b, size] = input.dims();
        // One 2-D product: a 3-D one would be a batch of small products with a broadcast weight.
        let mut output = input.reshape([a * b, size]).matmul(self.weight.val().transpose());
        if let Some(bias) = &self.bias {
            output = output + bias.val().unsqueeze::<2>();
        }
        let size = output.dims()[1];
        output.reshape([a, b, size])
    }
}

/// A table of vectors, looked up by id.
#[derive(Module, Debug)]
pub(crate) struct Embedding<B: Backend> {
    /// `[rows, size]`
    pub(crate) weight: Param<Tensor<B, 2>>,
}

impl<B: Backend> Embedding<B> {
    /// ids `[a, b]` to vectors `[a, b, size]`.
    pub(crate) fn forward(&self, ids: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        burn::tensor::module::embedding(self.weight.val(), ids)
    }
}

/// Layer normalisation over the last axis.
#[derive(Module, Debug)]
pub(crate) struct LayerNorm<B: Backend> {
    pub(crate) weight: Param<Tensor<B, 1>>,
    pub(crate) bias: Param<Tensor<B, 1>>,
    pub(crate) eps: f64,
}

impl<B: Backend> LayerNorm<B> {
    pub(crate) fn forward(&self, input: Tensor<B, 3>) -> Tensor<B, 3> {
        let centred = input.clone() - input.mean_dim(2);
        let variance = centred.clone().square().mean_dim(2);
        let scale = (variance + self.eps).sqrt().recip();
        centred * scale * self.weight.val().unsqueeze::<3>() + self.bias.val().unsqueeze::<3>()
    }
}

/// GELU by the error function, as BERT was trained with.
pub(crate) fn gelu_erf<B: Backend>(input: Tensor<B, 3>) -> Tensor<B, 3> {
    gelu(input)
}

/// Scaled dot-product attention of all heads.
///
/// # Shapes
/// - query, key, value: `[sequences, length, heads * head_size]`
/// - attended: `[sequences, length]`, true where a token can be attended to
/// - output: as query
pub(crate) fn attention<B: Backend>(
    [query, key, value]: [Tensor<B, 3>; 3],
    attended: &Tensor<B, 2, Bool>,
    heads: usize,
    (dropout, seed): (&Dropout, Option<DropoutSeed>),
) -> Tensor<B, 3> {
    let [sequences, length, size] = query.dims();
    let head_size = size / heads;
    let split = |x: Tensor<B, 3>| x.reshape([sequences, length, heads, head_size]).swap_dims(1, 2);
    let (query, key, value) = (split(query), split(key), split(value));
    let hidden = attended.clone().bool_not().reshape([sequences, 1, 1, length]);
    // Every row has an attended token (the first), so no softmax row is empty.
    let weights = query
        .matmul(key.transpose())
        .mul_scalar(1.0 / (head_size as f64).sqrt())
        .mask_fill(hidden.expand([sequences, heads, length, length]), f32::NEG_INFINITY);
    let mixed = dropout.forward(softmax(weights, 3), seed).matmul(value);
    mixed.swap_dims(1, 2).reshape([sequences, length, size])
}

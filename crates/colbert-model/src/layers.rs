//! Parameters with torch's names and layout, and the operators of `colbert-kernels` on them.
//!
//! Weights are `[out, in]`, as every checkpoint stores them, so that loading and export copy bytes.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::{Dropout, KernelBackend, layer_norm, linear, linear_gelu, residual_layer_norm};

/// `x W^T + b`.
#[derive(Module, Debug)]
pub struct Linear<B: Backend> {
    /// `[out, in]`
    pub weight: Param<Tensor<B, 2>>,
    /// `[out]`
    pub bias: Option<Param<Tensor<B, 1>>>,
}

impl<B: KernelBackend> Linear<B> {
    /// # Shapes
    /// - input: `[tokens, in]`
    /// - output: `[tokens, out]`
    pub fn forward(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        linear(input, self.weight.val(), self.bias.as_ref().map(Param::val))
    }

    /// The same, and GELU by the error function after it, as BERT was trained with.
    ///
    /// # Panics
    /// If there is no bias.
    pub(crate) fn forward_gelu(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        let bias = self.bias.as_ref().expect("the layer before a GELU has a bias in every BERT");
        linear_gelu(input, self.weight.val(), bias.val())
    }
}

/// A table of vectors, looked up by id.
#[derive(Module, Debug)]
pub(crate) struct Embedding<B: Backend> {
    /// `[rows, size]`
    pub(crate) weight: Param<Tensor<B, 2>>,
}

/// Layer normalisation over the numbers of a token.
#[derive(Module, Debug)]
pub(crate) struct LayerNorm<B: Backend> {
    pub(crate) weight: Param<Tensor<B, 1>>,
    pub(crate) bias: Param<Tensor<B, 1>>,
    pub(crate) eps: f64,
}

impl<B: KernelBackend> LayerNorm<B> {
    /// `[tokens, size]` in and out.
    pub(crate) fn forward(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        layer_norm(input, self.weight.val(), self.bias.val(), self.eps)
    }

    /// The normalised sum of `dropout(input)` and `residual`.
    pub(crate) fn forward_residual(
        &self,
        input: Tensor<B, 2>,
        residual: Tensor<B, 2>,
        dropout: Dropout,
    ) -> Tensor<B, 2> {
        residual_layer_norm(input, residual, self.weight.val(), self.bias.val(), self.eps, dropout)
    }
}

//! Parameters with torch's names and layout, and the operators of `colbert-kernels` on them.
//!
//! Weights are `[out, in]`, as every checkpoint stores them, so that loading and export copy bytes.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::{
    Affine, Dropout, KernelBackend, Map, PostNorm, Precision, layer_norm, linear, residual_layer_norm,
};

use crate::error::ModelError;
use crate::weights::Weights;

/// A linear map, `x W^T + b`.
#[derive(Module, Debug)]
pub struct Linear<B: Backend> {
    /// `[out, in]`
    pub weight: Param<Tensor<B, 2>>,
    /// `[out]`
    pub bias: Option<Param<Tensor<B, 1>>>,
}

impl<B: Backend> Linear<B> {
    /// Takes `name.weight` `[out, in]` and `name.bias` `[out]` out of `weights`.
    pub(crate) fn take(
        name: &str,
        shape: [usize; 2],
        weights: &mut Weights,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            weight: weights.param(&format!("{name}.weight"), shape, device)?,
            bias: Some(weights.param(&format!("{name}.bias"), [shape[0]], device)?),
        })
    }
}

impl<B: Backend> Linear<B> {
    /// Takes `name.weight` `[out, in]` of a map without a bias out of `weights`.
    pub(crate) fn bare(
        name: &str,
        shape: [usize; 2],
        weights: &mut Weights,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        Ok(Self { weight: weights.param(&format!("{name}.weight"), shape, device)?, bias: None })
    }
}

impl<B: KernelBackend> Linear<B> {
    /// Applies the map.
    ///
    /// # Shapes
    /// - input: `[tokens, in]`
    /// - output: `[tokens, out]`
    pub fn forward(&self, input: Tensor<B, 2>, precision: Precision) -> Tensor<B, 2> {
        linear(input, self.weight.val(), self.bias.as_ref().map(Param::val), precision)
    }

    /// Returns weight and bias of a map that has a bias, as all maps of BERT do.
    pub(crate) fn parameters(&self) -> Map<Tensor<B, 2>, Tensor<B, 1>> {
        let bias = self.bias.as_ref().expect("a bias");
        Map { weight: self.weight.val(), bias: bias.val() }
    }
}

/// A table of vectors, looked up by id.
#[derive(Module, Debug)]
pub(crate) struct Embedding<B: Backend> {
    /// `[rows, size]`
    pub(crate) weight: Param<Tensor<B, 2>>,
}

impl<B: Backend> Embedding<B> {
    /// Takes `name.weight` `[rows, size]` out of `weights`.
    pub(crate) fn take(
        name: &str,
        shape: [usize; 2],
        weights: &mut Weights,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        Ok(Self { weight: weights.param(&format!("{name}.weight"), shape, device)? })
    }
}

/// Layer normalisation over the numbers of a token.
#[derive(Module, Debug)]
pub(crate) struct LayerNorm<B: Backend> {
    weight: Param<Tensor<B, 1>>,
    bias: Option<Param<Tensor<B, 1>>>,
    eps: f64,
}

impl<B: Backend> LayerNorm<B> {
    /// Takes `name.weight` and `name.bias`, `[size]` each, out of `weights`.
    pub(crate) fn take(
        name: &str,
        size: usize,
        eps: f64,
        weights: &mut Weights,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            weight: weights.param(&format!("{name}.weight"), [size], device)?,
            bias: Some(weights.param(&format!("{name}.bias"), [size], device)?),
            eps,
        })
    }

    /// Takes `name.weight` `[size]` of a normalisation without a bias out of `weights`.
    pub(crate) fn bare(
        name: &str,
        size: usize,
        eps: f64,
        weights: &mut Weights,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        Ok(Self { weight: weights.param(&format!("{name}.weight"), [size], device)?, bias: None, eps })
    }
}

impl<B: KernelBackend> LayerNorm<B> {
    /// Normalises each token, `[tokens, size]` in and out.
    pub(crate) fn forward(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        layer_norm(input, self.weight.val(), self.bias.as_ref().map(Param::val), self.eps)
    }

    /// Returns the parameters, `[size]` each, for an operator that normalises.
    pub(crate) fn affine(&self) -> Affine<Tensor<B, 1>> {
        Affine { weight: self.weight.val(), bias: self.bias.as_ref().map(Param::val), eps: self.eps }
    }

    /// Returns the end of a sublayer that this normalises.
    pub(crate) fn after(&self, map: &Linear<B>, dropout: Dropout) -> PostNorm<Tensor<B, 2>, Tensor<B, 1>> {
        let map = Map { weight: map.weight.val(), bias: map.bias.as_ref().map(Param::val) };
        PostNorm { map, dropout, norm: self.affine() }
    }

    /// Computes the normalised sum of `dropout(input)` and `residual`.
    pub(crate) fn forward_residual(
        &self,
        input: Tensor<B, 2>,
        residual: Tensor<B, 2>,
        dropout: Dropout,
    ) -> Tensor<B, 2> {
        let bias = self.bias.as_ref().expect("a bias, as every norm of a sum has").val();
        residual_layer_norm(input, residual, self.weight.val(), bias, self.eps, dropout)
    }
}

/// Division by the root mean square of a token's numbers (Zhang and Sennrich 2019, section 4), composed of burn's
/// operators.
#[derive(Module, Debug)]
pub(crate) struct RmsNorm<B: Backend> {
    pub(crate) weight: Param<Tensor<B, 1>>,
    pub(crate) eps: f64,
}

impl<B: Backend> RmsNorm<B> {
    /// Takes `name.weight` `[size]` out of `weights`.
    pub(crate) fn take(
        name: &str,
        size: usize,
        eps: f64,
        weights: &mut Weights,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        Ok(Self { weight: weights.param(&format!("{name}.weight"), [size], device)?, eps })
    }

    /// Normalises each row, `[rows, size]` in and out.
    pub(crate) fn forward(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        let root = (input.clone().square().mean_dim(1) + self.eps).sqrt();
        input / root * self.weight.val().unsqueeze::<2>()
    }
}

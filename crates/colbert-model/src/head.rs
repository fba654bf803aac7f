//! The head of a ColBERT as a module: the layers that turn hidden vectors into those that are scored.

pub(crate) mod activation;
pub(crate) mod components;
pub(crate) mod config;
pub(crate) mod files;
pub(crate) mod fresh;

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::{KernelBackend, Precision};

use crate::encoder::layers::Linear;
use crate::head::activation::Activation;
use crate::head::config::{HeadConfig, tensor_name};
use crate::weights::{HostTensor, to_param};

/// One layer of a head; [`DenseConfig`](crate::DenseConfig) says what it computes.
#[derive(Module, Debug)]
pub struct Dense<B: Backend> {
    /// `[out, in]`, with or without bias.
    pub linear: Linear<B>,
    /// After the linear map.
    #[module(skip)]
    pub activation: Activation,
    /// The input is added at the end.
    pub use_residual: bool,
    /// `[out, in]`: maps the input to the size of the output before it is added.
    pub residual: Option<Linear<B>>,
}

impl<B: KernelBackend> Dense<B> {
    /// Applies the layers, `[tokens, in]` to `[tokens, out]`, in float32.
    fn forward(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        if !self.use_residual {
            return self.activation.apply(self.linear.forward(input, Precision::F32));
        }
        let projected = self.activation.apply(self.linear.forward(input.clone(), Precision::F32));
        projected
            + self.residual.as_ref().map_or_else(|| input.clone(), |map| map.forward(input.clone(), Precision::F32))
    }
}

/// The layers of a head, one after the other. Most have one.
#[derive(Module, Debug)]
pub struct Head<B: Backend> {
    /// At least one.
    pub dense: Vec<Dense<B>>,
    /// Numbers of a vector that are kept, the first ones; none keeps all.
    #[module(skip)]
    pub cut_to: Option<usize>,
}

impl<B: Backend> Head<B> {
    /// Makes a head of one matrix, `[dim, hidden_size]`, with or without ReLU.
    pub fn linear(linear: Linear<B>, use_relu: bool) -> Self {
        let activation = if use_relu { Activation::Relu } else { Activation::Identity };
        Self { dense: vec![Dense { linear, activation, use_residual: false, residual: None }], cut_to: None }
    }

    /// Builds layers of this kind, with the tensors that `take` returns for a place and a name in a module folder.
    pub(crate) fn build(
        config: &HeadConfig,
        mut take: impl FnMut(usize, &str) -> Option<HostTensor>,
        device: &B::Device,
    ) -> Self {
        let mut dense = Vec::with_capacity(config.layers.len());
        for (place, layer) in config.layers.iter().enumerate() {
            let mut matrix = |name: &str| take(place, name).map(|tensor| to_param(tensor, device));
            let weight = matrix("linear.weight").expect("every layer has a matrix");
            let residual = matrix("residual.weight").map(|weight| Linear { weight, bias: None });
            let bias = take(place, "linear.bias").map(|tensor| to_param(tensor, device));
            let linear = Linear { weight, bias };
            dense.push(Dense { linear, activation: layer.activation, use_residual: layer.use_residual, residual });
        }
        Self { dense, cut_to: None }
    }
}

impl<B: KernelBackend> Head<B> {
    /// # Shapes
    /// - input: `[tokens, hidden_size]`
    /// - output: `[tokens, dim]`, or `[tokens, cut_to]`
    pub(crate) fn forward(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        let vectors = self.dense.iter().fold(input, |vectors, layer| layer.forward(vectors));
        match self.cut_to {
            Some(dim) => vectors.clone().slice([0..vectors.dims()[0], 0..dim]),
            None => vectors,
        }
    }
}

/// Returns the name in a weight file of a head's parameter, by its field path in the model.
pub(crate) fn file_name(path: &str) -> String {
    let of_layer = || {
        let (place, name) = path.strip_prefix("head.dense.")?.split_once('.')?;
        Some(tensor_name(place.parse().ok()?, name))
    };
    of_layer().unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_layer_is_named_as_a_lone_projection() {
        assert_eq!(file_name("linear.weight"), "linear.weight");
        assert_eq!(file_name("head.dense.0.linear.bias"), "linear.bias");
        assert_eq!(file_name("head.dense.2.residual.weight"), "3_Dense.residual.weight");
    }
}

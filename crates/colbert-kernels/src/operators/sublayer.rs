//! The parts around both sublayers of a transformer layer: the normalisation of the input, and its sum with the output.

use burn::backend::Autodiff;
use burn::tensor::ops::FloatTensor;
use burn_autodiff::NodeId;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;

use crate::backend::Kernels;
use crate::operators::layer_norm::{self, Affine};
use crate::operators::linear::{self, Asking, Saved};
use crate::precision::Precision;

/// The input of a sublayer and the state of its normalisation. The normalised numbers are recomputed when they are
/// needed.
#[derive(Debug, Clone)]
pub(crate) struct Normed<T> {
    input: T,
    /// Statistics and parameters, if it was normalised at all.
    norm: Option<(T, Affine<T>)>,
}

impl<T: Clone> Normed<T> {
    /// Returns the state for the backward pass, and the normalised input, for linear maps of this precision.
    pub(crate) fn forward<B: Kernels<FloatTensorPrimitive = T>>(
        input: T,
        norm: Option<Affine<T>>,
        precision: Precision,
    ) -> (Self, T) {
        let Some(affine) = norm else { return (Self { input: input.clone(), norm: None }, input) };
        let found = B::layer_norm_for_maps(input.clone(), affine.clone(), precision);
        (Self { input, norm: Some((found.statistics, affine)) }, found.output)
    }

    /// Returns the normalised input again.
    pub(crate) fn again<B: Kernels<FloatTensorPrimitive = T>>(&self, precision: Precision) -> T {
        match &self.norm {
            None => self.input.clone(),
            Some((statistics, affine)) => {
                B::layer_norm_again(self.input.clone(), statistics.clone(), affine.clone(), precision)
            }
        }
    }
}

/// Registers the gradients of the input and of the norm's weight and bias. `of_mapped` is the gradient of the output of
/// the map that takes the normalised input, `beside` that of the input's other use.
pub(crate) fn propagate<B: Kernels>(
    [input, weight, bias]: [Option<NodeId>; 3],
    normed: Normed<FloatTensor<B>>,
    of_mapped: FloatTensor<B>,
    map: FloatTensor<B>,
    beside: Option<FloatTensor<B>>,
    precision: Precision,
    gradients: &mut Gradients,
) {
    match normed.norm {
        None => {
            let asking = Asking { input, weights: [None], biases: [None] };
            let saved = Saved { input: normed.input, weights: [map], precision };
            linear::propagate::<B, 1>(asking, [of_mapped], beside, saved, gradients);
        }
        Some((statistics, affine)) => {
            if input.is_none() && weight.is_none() && bias.is_none() {
                return;
            }
            let of_inner = B::inner_input_gradient(of_mapped, map, precision);
            let found = B::layer_norm_gradient(normed.input, statistics, affine, of_inner, beside);
            layer_norm::register::<B>([weight, bias], found.weight, found.bias, gradients);
            if let Some(node) = input {
                gradients.register::<B>(node, found.sum);
            }
        }
    }
}

/// Returns weight and bias of a norm as parents of a sublayer. The input takes the place of those that are missing.
pub(crate) fn parents<'a, B: Kernels, C: CheckpointStrategy>(
    norm: Option<&'a Affine<FloatTensor<Autodiff<B, C>>>>,
    input: &'a FloatTensor<Autodiff<B, C>>,
) -> [&'a FloatTensor<Autodiff<B, C>>; 2] {
    let weight = norm.map_or(input, |norm| &norm.weight);
    [weight, norm.and_then(|norm| norm.bias.as_ref()).unwrap_or(input)]
}

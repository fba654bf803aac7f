//! Attention of query, key and value that are linear maps of one input, each with its own weight and bias.

use burn::tensor::Tensor;
use burn::tensor::ops::FloatTensor;

use crate::backend::Kernels;
use crate::operators::attention::{Attended, AttentionPlan};
use crate::operators::linear::Map;
use crate::operators::primitive::{primitive, tensor};
use crate::precision::Precision;

/// Query, key and value as a backend keeps them for the backward pass, with the weights that it multiplied by.
#[derive(Debug, Clone)]
pub enum Mapped<T> {
    /// `[tokens, size]` and `[size, in]` each.
    Apart([T; 3], [T; 3]),
    /// Side by side, `[tokens, 3 * size]`, and their weights below each other, `[3 * size, in]`.
    Joined(T, T),
}

/// The results of the forward pass.
#[derive(Debug, Clone)]
pub struct MappedAttention<T> {
    /// Output and log-sum-exp.
    pub attended: Attended<T>,
    /// Query, key and value.
    pub mapped: Mapped<T>,
}

/// The gradients of what the forward pass took.
#[derive(Debug, Clone)]
pub(crate) struct Gradients<T> {
    pub(crate) input: T,
    /// Of the maps of query, key and value.
    pub(crate) maps: [Map<T, T>; 3],
}

pub(crate) fn composed<B: Kernels>(
    input: FloatTensor<B>,
    maps: [Map<FloatTensor<B>, FloatTensor<B>>; 3],
    plan: &AttentionPlan,
) -> MappedAttention<FloatTensor<B>> {
    let weights = maps.each_ref().map(|map| map.weight.clone());
    let maps = maps.map(|Map { weight, bias }| Map { weight, bias: Some(bias) });
    let qkv = B::inner_linears_forward(input, maps, plan.precision);
    MappedAttention { attended: B::attention_forward(qkv.clone(), plan), mapped: Mapped::Apart(qkv, weights) }
}

/// Computes the gradients of input and maps. `gradient` is that of the output, `beside` that of the input's other use,
/// which is added to its own.
pub(crate) fn gradients<B: Kernels>(
    input: FloatTensor<B>,
    forward: MappedAttention<FloatTensor<B>>,
    gradient: FloatTensor<B>,
    beside: FloatTensor<B>,
    plan: &AttentionPlan,
) -> Gradients<FloatTensor<B>> {
    let MappedAttention { attended, mapped } = forward;
    match mapped {
        Mapped::Apart(qkv, weights) => {
            let of_qkv = B::attention_gradient(qkv, attended, gradient, plan);
            let (biases, of_weights, input) = of_maps::<B, 3>(of_qkv, weights, input, beside, plan.precision);
            Gradients { input, maps: pairs(of_weights, biases) }
        }
        Mapped::Joined(qkv, weight) => {
            let of_qkv = B::packed_attention_gradient(qkv, attended, gradient, None, plan);
            let ([bias], [of_weight], input) = of_maps::<B, 1>([of_qkv], [weight], input, beside, plan.precision);
            Gradients { input, maps: pairs(thirds::<B, 2>(of_weight), thirds::<B, 1>(bias)) }
        }
    }
}

/// Returns the gradients of the biases, the weights and the input of maps, from those of their outputs.
fn of_maps<B: Kernels, const N: usize>(
    of_outputs: [FloatTensor<B>; N],
    weights: [FloatTensor<B>; N],
    input: FloatTensor<B>,
    beside: FloatTensor<B>,
    precision: Precision,
) -> ([FloatTensor<B>; N], [FloatTensor<B>; N], FloatTensor<B>) {
    let biases = of_outputs.clone().map(B::sum_rows);
    let of_outputs = of_outputs.map(|gradient| B::rounded(gradient, precision));
    let of_weights = B::linears_weight_gradients(of_outputs.clone(), input, precision);
    (biases, of_weights, B::residual_input_gradient(of_outputs, weights, beside, precision))
}

fn pairs<T>(weights: [T; 3], biases: [T; 3]) -> [Map<T, T>; 3] {
    let mut biases = biases.into_iter();
    weights.map(|weight| Map { weight, bias: biases.next().expect("as many biases as weights") })
}

/// Cuts a tensor in three along its first axis.
fn thirds<B: Kernels, const D: usize>(all: FloatTensor<B>) -> [FloatTensor<B>; 3] {
    let all: Tensor<B, D> = tensor(all);
    let size = all.dims()[0] / 3;
    [0, 1, 2].map(|i| primitive(all.clone().narrow(0, i * size, size)))
}

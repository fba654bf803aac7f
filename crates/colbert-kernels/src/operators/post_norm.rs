//! The end of a sublayer that is normalised after it, as in BERT: a linear map, dropout, the sum with the sublayer's
//! input, and its normalisation.

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn::tensor::ops::FloatTensor;
use burn_autodiff::NodeId;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};

use crate::backend::Kernels;
use crate::backend::differentiable::KernelBackend;
use crate::operators::dropout::Dropout;
use crate::operators::layer_norm::{self, Affine, NormGradients, Normalised};
use crate::operators::linear::{self, Map, register_weights};
use crate::operators::node::record;
use crate::operators::primitive::{primitive, tensor};
use crate::precision::Precision;

/// The parts of a sublayer's end.
#[derive(Debug, Clone)]
pub struct PostNorm<W, V> {
    /// `[size, in]`, and `[size]` if it has a bias
    pub map: Map<W, Option<V>>,
    /// Dropout of what was mapped.
    pub dropout: Dropout,
    /// Normalisation of the sum.
    pub norm: Affine<V>,
}

/// Gradients of a sublayer's end.
#[derive(Debug, Clone)]
pub struct PostNormGradients<T> {
    /// Of the normalisation; its sum is the gradient of the sublayer's input.
    pub norm: NormGradients<T>,
    /// Of the map's output, `[tokens, size]`.
    pub mapped: T,
    /// Of the map's bias, `[size]`, if it has one.
    pub bias: Option<T>,
}

/// Computes `layer_norm(dropout(map(input)) + residual)`.
///
/// # Shapes
/// - input: `[tokens, in]`
/// - residual, output: `[tokens, size]`
///
/// # Panics
/// If the shapes do not fit.
pub fn post_norm_linear<B: KernelBackend>(
    input: Tensor<B, 2>,
    residual: Tensor<B, 2>,
    end: PostNorm<Tensor<B, 2>, Tensor<B, 1>>,
    precision: Precision,
) -> Tensor<B, 2> {
    assert_eq!(input.dims()[0], residual.dims()[0], "tokens of input and residual");
    let end = checked(input.dims()[1], &residual, end);
    tensor(B::kernel_post_norm_linear(primitive(input), primitive(residual), end, precision))
}

/// A sublayer's end, on a backend.
pub(crate) type FloatPostNorm<B> = PostNorm<FloatTensor<B>, FloatTensor<B>>;

/// Fails if the parts do not fit inputs of this size or the residual.
pub(crate) fn checked<B: KernelBackend>(
    size: usize,
    residual: &Tensor<B, 2>,
    end: PostNorm<Tensor<B, 2>, Tensor<B, 1>>,
) -> FloatPostNorm<B> {
    let PostNorm { map: Map { weight, bias }, dropout, norm } = end;
    linear::check(size, &weight, bias.as_ref());
    assert_eq!(weight.dims()[0], residual.dims()[1], "the map's output has the size of the residual that is added");
    let norm = layer_norm::affine(residual, norm);
    PostNorm { map: Map { weight: primitive(weight), bias: bias.map(primitive) }, dropout, norm }
}

pub(crate) fn forward<B: Kernels>(
    input: FloatTensor<B>,
    residual: FloatTensor<B>,
    end: FloatPostNorm<B>,
    precision: Precision,
) -> Normalised<FloatTensor<B>> {
    B::post_norm_forward(input, end.map, residual, end.dropout, end.norm, precision)
}

/// The state for the backward pass.
#[derive(Debug, Clone)]
pub(crate) struct Ended<T> {
    sum: T,
    statistics: T,
    pub(crate) end: PostNorm<T, T>,
    pub(crate) precision: Precision,
}

impl<T: Clone> Ended<T> {
    /// Returns the output and the state.
    pub(crate) fn forward<B: Kernels<FloatTensorPrimitive = T>>(
        input: T,
        residual: T,
        end: PostNorm<T, T>,
        precision: Precision,
    ) -> (T, Self) {
        let Normalised { output, sum, statistics } = forward::<B>(input, residual, end.clone(), precision);
        (output, Self { sum, statistics, end, precision })
    }

    /// Registers the gradients of the map's bias and of the norm's weight and bias, in this order. Returns those of the
    /// map's output and of the residual.
    pub(crate) fn go_back<B: Kernels<FloatTensorPrimitive = T>>(
        self,
        gradient: T,
        [map_bias, weight, bias]: [Option<NodeId>; 3],
        gradients: &mut Gradients,
    ) -> (T, T) {
        let Self { sum, statistics, end, precision } = self;
        let PostNorm { map, dropout, norm } = end;
        let has_bias = map_bias.is_some() && map.bias.is_some();
        let found = B::post_norm_gradient(sum, statistics, norm, gradient, dropout, has_bias, precision);
        layer_norm::register::<B>([weight, bias], found.norm.weight, found.norm.bias, gradients);
        if let (Some(node), Some(found)) = (map_bias, found.bias) {
            gradients.register::<B>(node, found);
        }
        (found.mapped, found.norm.sum)
    }
}

/// Returns weight and bias of the map and of the norm as parents of a sublayer. The input takes the place of those that
/// are missing.
pub(crate) fn parents<'a, B: Kernels, C: CheckpointStrategy>(
    end: &'a FloatPostNorm<Autodiff<B, C>>,
    input: &'a FloatTensor<Autodiff<B, C>>,
) -> [&'a FloatTensor<Autodiff<B, C>>; 4] {
    let PostNorm { map, norm, .. } = end;
    let (bias, norm_bias) = (map.bias.as_ref().unwrap_or(input), norm.bias.as_ref().unwrap_or(input));
    [&map.weight, bias, &norm.weight, norm_bias]
}

/// Returns the parts on the inner backend.
pub(crate) fn inner<B: Kernels, C: CheckpointStrategy>(end: &FloatPostNorm<Autodiff<B, C>>) -> FloatPostNorm<B> {
    let PostNorm { map: Map { weight, bias }, dropout, norm } = end;
    let map = Map { weight: weight.primitive.clone(), bias: bias.as_ref().map(|bias| bias.primitive.clone()) };
    PostNorm { map, dropout: *dropout, norm: layer_norm::inner::<B, C>(norm) }
}

/// Parents: input, residual, and those of the end.
#[derive(Debug)]
struct Node;

/// The state for the backward pass of the map alone.
#[derive(Debug, Clone)]
struct State<T> {
    /// The map's input, rounded.
    input: T,
    ended: Ended<T>,
}

impl<B: Kernels> Backward<B, 6> for Node {
    type State = State<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 6>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [input, residual, weight, bias, norm, norm_bias] = ops.parents.map(|parent| parent.map(|node| node.id));
        let State { input: factor, ended } = ops.state;
        let (map, precision) = (ended.end.map.weight.clone(), ended.precision);
        let (of_mapped, of_residual) = ended.go_back::<B>(gradient, [bias, norm, norm_bias], gradients);
        register_weights::<B, 1>([weight], [of_mapped.clone()], factor, precision, gradients);
        if let Some(node) = input {
            gradients.register::<B>(node, B::linears_input_gradient([of_mapped], [map], precision));
        }
        if let Some(node) = residual {
            gradients.register::<B>(node, of_residual);
        }
    }
}

pub(crate) fn differentiable<B: Kernels, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
    residual: FloatTensor<Autodiff<B, C>>,
    end: FloatPostNorm<Autodiff<B, C>>,
    precision: Precision,
) -> FloatTensor<Autodiff<B, C>> {
    let factor = B::rounded(input.primitive.clone(), precision);
    let (output, ended) =
        Ended::forward::<B>(factor.clone(), residual.primitive.clone(), inner::<B, C>(&end), precision);
    let [weight, bias, norm, norm_bias] = parents::<B, C>(&end, &input);
    let parents = [&input, &residual, weight, bias, norm, norm_bias];
    record::<_, B, C, 6>(Node, parents, output, State { input: factor, ended })
}

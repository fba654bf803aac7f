//! Affine maps of packed tokens.

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
use crate::operators::matmul;
use crate::operators::node::record;
use crate::operators::primitive::{primitive, tensor};
use crate::precision::Precision;

/// Computes `input weight^T + bias`.
///
/// # Shapes
/// - input: `[tokens, in]`
/// - weight: `[out, in]`, as torch stores it
/// - bias: `[out]`
/// - output: `[tokens, out]`
///
/// # Panics
/// If the shapes do not fit.
pub fn linear<B: KernelBackend>(
    input: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
    precision: Precision,
) -> Tensor<B, 2> {
    check(input.dims()[1], &weight, bias.as_ref());
    tensor(B::kernel_linear(primitive(input), primitive(weight), bias.map(primitive), precision))
}

/// Weight and bias of a linear map.
#[derive(Debug, Clone)]
pub struct Map<W, V> {
    /// `[out, in]`
    pub weight: W,
    /// `[out]`
    pub bias: V,
}

pub(crate) fn check<B: KernelBackend>(size: usize, weight: &Tensor<B, 2>, bias: Option<&Tensor<B, 1>>) {
    let [out, expected] = weight.dims();
    assert_eq!(size, expected, "a weight of [{out}, {expected}] takes inputs of {expected} numbers, not {size}");
    if let Some(bias) = bias {
        assert_eq!(bias.dims(), [out], "the bias of a weight of [{out}, {expected}]");
    }
}

pub(crate) fn composed<B: Kernels>(
    input: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
    precision: Precision,
) -> FloatTensor<B> {
    let output = matmul::composed::<B, 2>(tensor::<B, 2>(input), tensor::<B, 2>(weight).transpose(), precision);
    primitive(match bias {
        Some(bias) => output + tensor::<B, 1>(bias).unsqueeze::<2>(),
        None => output,
    })
}

pub(crate) fn composed_input_gradient<B: Kernels>(
    gradient: FloatTensor<B>,
    weight: FloatTensor<B>,
    precision: Precision,
) -> FloatTensor<B> {
    primitive(matmul::composed::<B, 2>(tensor::<B, 2>(gradient), tensor::<B, 2>(weight), precision))
}

pub(crate) fn composed_inputs_gradient<B: Kernels, const N: usize>(
    gradients: [FloatTensor<B>; N],
    weights: [FloatTensor<B>; N],
    precision: Precision,
) -> FloatTensor<B> {
    let each = gradients.into_iter().zip(weights);
    let each = each.map(|(gradient, weight)| composed_input_gradient::<B>(gradient, weight, precision));
    each.reduce(B::float_add).expect("one map at least")
}

pub(crate) fn composed_weight_gradient<B: Kernels>(
    gradient: FloatTensor<B>,
    input: FloatTensor<B>,
    precision: Precision,
) -> FloatTensor<B> {
    primitive(matmul::composed::<B, 2>(tensor::<B, 2>(gradient).transpose(), tensor::<B, 2>(input), precision))
}

pub(crate) fn composed_sum_rows<B: Kernels>(gradient: FloatTensor<B>) -> FloatTensor<B> {
    primitive(tensor::<B, 2>(gradient).sum_dim(0).squeeze_dim::<1>(0))
}

/// The state that the backward pass of linear maps of one input needs.
#[derive(Debug, Clone)]
pub(crate) struct Saved<T, const N: usize> {
    pub(crate) input: T,
    pub(crate) weights: [T; N],
    pub(crate) precision: Precision,
}

/// The requested gradients of linear maps of one input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking<const N: usize> {
    pub(crate) input: Option<NodeId>,
    pub(crate) weights: [Option<NodeId>; N],
    pub(crate) biases: [Option<NodeId>; N],
}

/// Registers the requested gradients, computed from those of the maps' outputs. `beside` is the gradient of the input's
/// other use.
pub(crate) fn propagate<B: Kernels, const N: usize>(
    asking: Asking<N>,
    of_outputs: [FloatTensor<B>; N],
    beside: Option<FloatTensor<B>>,
    saved: Saved<FloatTensor<B>, N>,
    gradients: &mut Gradients,
) {
    register_biases::<B, N>(asking.biases, of_outputs.clone(), gradients);
    let of_outputs = of_outputs.map(|gradient| B::rounded(gradient, saved.precision));
    register_weights::<B, N>(asking.weights, of_outputs.clone(), saved.input, saved.precision, gradients);
    if let Some(node) = asking.input {
        let of_input = match beside {
            Some(beside) => B::residual_input_gradient(of_outputs, saved.weights, beside, saved.precision),
            None => B::linears_input_gradient(of_outputs, saved.weights, saved.precision),
        };
        gradients.register::<B>(node, of_input);
    }
}

/// Registers the requested gradients of biases.
pub(crate) fn register_biases<B: Kernels, const N: usize>(
    biases: [Option<NodeId>; N],
    of_outputs: [FloatTensor<B>; N],
    gradients: &mut Gradients,
) {
    for (node, gradient) in biases.into_iter().zip(of_outputs) {
        if let Some(node) = node {
            gradients.register::<B>(node, B::sum_rows(gradient));
        }
    }
}

/// Registers the requested gradients of weights of maps of one input.
pub(crate) fn register_weights<B: Kernels, const N: usize>(
    weights: [Option<NodeId>; N],
    of_outputs: [FloatTensor<B>; N],
    input: FloatTensor<B>,
    precision: Precision,
    gradients: &mut Gradients,
) {
    if weights.iter().any(Option::is_some) {
        let of_weights = B::linears_weight_gradients(of_outputs, input, precision);
        for (node, gradient) in weights.into_iter().zip(of_weights) {
            if let Some(node) = node {
                gradients.register::<B>(node, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct Node;

impl<B: Kernels> Backward<B, 2> for Node {
    type State = Saved<FloatTensor<B>, 1>;

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [input, weight] = ops.parents.map(|parent| parent.map(|node| node.id));
        let asking = Asking { input, weights: [weight], biases: [None] };
        propagate::<B, 1>(asking, [gradient], None, ops.state, gradients);
    }
}

impl<B: Kernels> Backward<B, 3> for Node {
    type State = Saved<FloatTensor<B>, 1>;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [input, weight, bias] = ops.parents.map(|parent| parent.map(|node| node.id));
        let asking = Asking { input, weights: [weight], biases: [bias] };
        propagate::<B, 1>(asking, [gradient], None, ops.state, gradients);
    }
}

pub(crate) fn differentiable<B: Kernels, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
    bias: Option<FloatTensor<Autodiff<B, C>>>,
    precision: Precision,
) -> FloatTensor<Autodiff<B, C>> {
    let (x, w) = (B::rounded(input.primitive.clone(), precision), weight.primitive.clone());
    let output = B::linear_forward(x.clone(), w.clone(), bias.as_ref().map(|bias| bias.primitive.clone()), precision);
    let state = Saved { input: x, weights: [w], precision };
    match bias {
        Some(bias) => record::<_, B, C, 3>(Node, [&input, &weight, &bias], output, state),
        None => record::<_, B, C, 2>(Node, [&input, &weight], output, state),
    }
}

/// Weight and bias, on a backend.
pub(crate) type FloatMap<B> = Map<FloatTensor<B>, FloatTensor<B>>;

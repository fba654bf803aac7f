//! Layer normalisation (Ba, Kiros and Hinton 2016, section 3), alone or of a residual sum with dropout.

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn::tensor::ops::FloatTensor;
use burn_autodiff::NodeId;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};

use crate::backend::{KernelBackend, Kernels};
use crate::operators::dropout::Dropout;
use crate::operators::node::record;
use crate::operators::primitive::{primitive, tensor};

/// Scale, shift and epsilon of a layer normalisation.
#[derive(Debug, Clone)]
pub struct Affine<T> {
    /// `[size]`
    pub weight: T,
    /// `[size]`
    pub bias: T,
    /// Added to the variance.
    pub eps: f64,
}

/// The results of the forward pass of a normalisation.
#[derive(Debug, Clone)]
pub struct Normalised<T> {
    /// `[tokens, size]`
    pub output: T,
    /// The numbers that were normalised, `[tokens, size]`.
    pub sum: T,
    /// Mean and reciprocal standard deviation of every token, `[tokens, 2]`.
    pub statistics: T,
}

/// Gradients of a normalisation.
#[derive(Debug, Clone)]
pub struct NormGradients<T> {
    /// Of what was normalised, `[tokens, size]`.
    pub sum: T,
    /// `[size]`
    pub weight: T,
    /// `[size]`
    pub bias: T,
}

/// Each token minus its mean, over its standard deviation, scaled and shifted.
///
/// # Shapes
/// - input, output: `[tokens, size]`
/// - weight, bias: `[size]`
///
/// # Panics
/// If the shapes do not fit.
pub fn layer_norm<B: KernelBackend>(
    input: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    bias: Tensor<B, 1>,
    eps: f64,
) -> Tensor<B, 2> {
    let affine = affine(&input, weight, bias, eps);
    tensor(B::kernel_layer_norm(primitive(input), None, Dropout::NONE, affine))
}

/// `layer_norm(dropout(input) + residual)`: what stands after every sublayer of BERT.
///
/// Shapes and panics as [`layer_norm`]; residual is as input.
pub fn residual_layer_norm<B: KernelBackend>(
    input: Tensor<B, 2>,
    residual: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    bias: Tensor<B, 1>,
    eps: f64,
    dropout: Dropout,
) -> Tensor<B, 2> {
    assert_eq!(input.dims(), residual.dims(), "input and residual");
    let affine = affine(&input, weight, bias, eps);
    tensor(B::kernel_layer_norm(primitive(input), Some(primitive(residual)), dropout, affine))
}

fn affine<B: KernelBackend>(
    input: &Tensor<B, 2>,
    weight: Tensor<B, 1>,
    bias: Tensor<B, 1>,
    eps: f64,
) -> Affine<FloatTensor<B>> {
    let size = input.dims()[1];
    assert_eq!((weight.dims(), bias.dims()), ([size], [size]), "weight and bias of a normalisation of {size} numbers");
    Affine { weight: primitive(weight), bias: primitive(bias), eps }
}

pub(crate) fn composed<B: Kernels>(
    input: FloatTensor<B>,
    residual: Option<FloatTensor<B>>,
    dropout: Dropout,
    affine: Affine<FloatTensor<B>>,
) -> Normalised<FloatTensor<B>> {
    let mut sum = tensor::<B, 2>(if dropout.is_none() { input } else { B::dropout_forward(input, dropout) });
    if let Some(residual) = residual {
        sum = sum + tensor::<B, 2>(residual);
    }
    let mean = sum.clone().mean_dim(1);
    let centred = sum.clone() - mean.clone();
    let scale = (centred.clone().square().mean_dim(1) + affine.eps).sqrt().recip();
    let output = centred * scale.clone() * tensor::<B, 1>(affine.weight).unsqueeze::<2>()
        + tensor::<B, 1>(affine.bias).unsqueeze::<2>();
    let statistics = Tensor::cat(vec![mean, scale], 1);
    Normalised { output: primitive(output), sum: primitive(sum), statistics: primitive(statistics) }
}

pub(crate) fn composed_gradient<B: Kernels>(
    sum: FloatTensor<B>,
    statistics: FloatTensor<B>,
    weight: FloatTensor<B>,
    gradient: FloatTensor<B>,
) -> NormGradients<FloatTensor<B>> {
    let (sum, statistics) = (tensor::<B, 2>(sum), tensor::<B, 2>(statistics));
    let gradient = tensor::<B, 2>(gradient);
    let scale = statistics.clone().narrow(1, 1, 1);
    let normal = (sum - statistics.narrow(1, 0, 1)) * scale.clone();
    let weighted = gradient.clone() * tensor::<B, 1>(weight).unsqueeze::<2>();
    let along = normal.clone() * (weighted.clone() * normal.clone()).mean_dim(1);
    NormGradients {
        sum: primitive((weighted.clone() - weighted.mean_dim(1) - along) * scale),
        weight: primitive((gradient.clone() * normal).sum_dim(0).squeeze_dim::<1>(0)),
        bias: primitive(gradient.sum_dim(0).squeeze_dim::<1>(0)),
    }
}

/// Parents: input, weight, bias, and in the second form the residual.
#[derive(Debug)]
struct Node;

/// The state that the backward pass needs.
#[derive(Debug, Clone)]
struct State<T> {
    sum: T,
    statistics: T,
    weight: T,
    dropout: Dropout,
}

fn propagate<B: Kernels>(
    [input_node, weight_node, bias_node, residual_node]: [Option<NodeId>; 4],
    gradient: FloatTensor<B>,
    state: State<FloatTensor<B>>,
    gradients: &mut Gradients,
) {
    let found = B::layer_norm_gradient(state.sum, state.statistics, state.weight, gradient);
    if let Some(node) = weight_node {
        gradients.register::<B>(node, found.weight);
    }
    if let Some(node) = bias_node {
        gradients.register::<B>(node, found.bias);
    }
    if let Some(node) = input_node {
        let through = found.sum.clone();
        let through = if state.dropout.is_none() { through } else { B::dropout_forward(through, state.dropout) };
        gradients.register::<B>(node, through);
    }
    if let Some(node) = residual_node {
        gradients.register::<B>(node, found.sum);
    }
}

impl<B: Kernels> Backward<B, 3> for Node {
    type State = State<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [input, weight, bias] = ops.parents.map(|parent| parent.map(|node| node.id));
        propagate::<B>([input, weight, bias, None], gradient, ops.state, gradients);
    }
}

impl<B: Kernels> Backward<B, 4> for Node {
    type State = State<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 4>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        propagate::<B>(ops.parents.map(|parent| parent.map(|node| node.id)), gradient, ops.state, gradients);
    }
}

pub(crate) fn differentiable<B: Kernels, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
    residual: Option<FloatTensor<Autodiff<B, C>>>,
    dropout: Dropout,
    affine: Affine<FloatTensor<Autodiff<B, C>>>,
) -> FloatTensor<Autodiff<B, C>> {
    let Affine { weight, bias, eps } = affine;
    let inner = Affine { weight: weight.primitive.clone(), bias: bias.primitive.clone(), eps };
    let residual_inner = residual.as_ref().map(|residual| residual.primitive.clone());
    let found = B::layer_norm_forward(input.primitive.clone(), residual_inner, dropout, inner);
    let state = State { sum: found.sum, statistics: found.statistics, weight: weight.primitive.clone(), dropout };
    match residual {
        Some(residual) => record::<_, B, C, 4>(Node, [&input, &weight, &bias, &residual], found.output, state),
        None => record::<_, B, C, 3>(Node, [&input, &weight, &bias], found.output, state),
    }
}

//! Affine maps of packed tokens, alone or followed by GELU.

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn::tensor::ops::FloatTensor;
use burn_autodiff::NodeId;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};

use crate::backend::{KernelBackend, Kernels};
use crate::node::record;
use crate::primitive::{primitive, tensor};

/// `input weight^T + bias`.
///
/// # Shapes
/// - input: `[tokens, in]`
/// - weight: `[out, in]`, as torch stores it
/// - bias: `[out]`
/// - output: `[tokens, out]`
///
/// # Panics
/// If the shapes do not fit.
pub fn linear<B: KernelBackend>(input: Tensor<B, 2>, weight: Tensor<B, 2>, bias: Option<Tensor<B, 1>>) -> Tensor<B, 2> {
    check(&input, &weight, bias.as_ref());
    tensor(B::kernel_linear(primitive(input), primitive(weight), bias.map(primitive)))
}

/// `gelu(input weight^T + bias)`, GELU by the error function. Shapes and panics as [`linear`].
pub fn linear_gelu<B: KernelBackend>(input: Tensor<B, 2>, weight: Tensor<B, 2>, bias: Tensor<B, 1>) -> Tensor<B, 2> {
    check(&input, &weight, Some(&bias));
    tensor(B::kernel_linear_gelu(primitive(input), primitive(weight), primitive(bias)))
}

fn check<B: KernelBackend>(input: &Tensor<B, 2>, weight: &Tensor<B, 2>, bias: Option<&Tensor<B, 1>>) {
    let ([_, size], [out, expected]) = (input.dims(), weight.dims());
    assert_eq!(size, expected, "a weight of [{out}, {expected}] takes inputs of {expected} numbers, not {size}");
    if let Some(bias) = bias {
        assert_eq!(bias.dims(), [out], "the bias of a weight of [{out}, {expected}]");
    }
}

pub(crate) fn composed<B: Kernels>(
    input: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
) -> FloatTensor<B> {
    let output = tensor::<B, 2>(input).matmul(tensor::<B, 2>(weight).transpose());
    primitive(match bias {
        Some(bias) => output + tensor::<B, 1>(bias).unsqueeze::<2>(),
        None => output,
    })
}

pub(crate) fn composed_input_gradient<B: Kernels>(gradient: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    primitive(tensor::<B, 2>(gradient).matmul(tensor::<B, 2>(weight)))
}

pub(crate) fn composed_weight_gradient<B: Kernels>(gradient: FloatTensor<B>, input: FloatTensor<B>) -> FloatTensor<B> {
    primitive(tensor::<B, 2>(gradient).transpose().matmul(tensor::<B, 2>(input)))
}

pub(crate) fn composed_sum_rows<B: Kernels>(gradient: FloatTensor<B>) -> FloatTensor<B> {
    primitive(tensor::<B, 2>(gradient).sum_dim(0).squeeze_dim::<1>(0))
}

/// Registers the gradients of input, weight and bias, those that are asked for.
fn propagate<B: Kernels>(
    [input_node, weight_node, bias_node]: [Option<NodeId>; 3],
    gradient: FloatTensor<B>,
    input: FloatTensor<B>,
    weight: FloatTensor<B>,
    gradients: &mut Gradients,
) {
    if let Some(node) = bias_node {
        gradients.register::<B>(node, B::sum_rows(gradient.clone()));
    }
    if let Some(node) = weight_node {
        gradients.register::<B>(node, B::linear_weight_gradient(gradient.clone(), input));
    }
    if let Some(node) = input_node {
        gradients.register::<B>(node, B::linear_input_gradient(gradient, weight));
    }
}

#[derive(Debug)]
struct Node;

impl<B: Kernels> Backward<B, 2> for Node {
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [input_node, weight_node] = ops.parents.map(|parent| parent.map(|node| node.id));
        let [input, weight] = ops.state;
        propagate::<B>([input_node, weight_node, None], gradient, input, weight, gradients);
    }
}

impl<B: Kernels> Backward<B, 3> for Node {
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [input, weight] = ops.state;
        propagate::<B>(ops.parents.map(|parent| parent.map(|node| node.id)), gradient, input, weight, gradients);
    }
}

pub(crate) fn differentiable<B: Kernels, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
    bias: Option<FloatTensor<Autodiff<B, C>>>,
) -> FloatTensor<Autodiff<B, C>> {
    let state = [input.primitive.clone(), weight.primitive.clone()];
    let [x, w] = state.clone();
    let output = B::linear_forward(x, w, bias.as_ref().map(|bias| bias.primitive.clone()));
    match bias {
        Some(bias) => record::<_, B, C, 3>(Node, [&input, &weight, &bias], output, state),
        None => record::<_, B, C, 2>(Node, [&input, &weight], output, state),
    }
}

#[derive(Debug)]
struct GeluNode;

impl<B: Kernels> Backward<B, 3> for GeluNode {
    /// Input, weight, and the sum before GELU.
    type State = [FloatTensor<B>; 3];

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [input, weight, sum] = ops.state;
        let gradient = B::gelu_gradient(sum, gradient);
        propagate::<B>(ops.parents.map(|parent| parent.map(|node| node.id)), gradient, input, weight, gradients);
    }
}

pub(crate) fn differentiable_gelu<B: Kernels, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
    bias: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let (x, w) = (input.primitive.clone(), weight.primitive.clone());
    let (output, sum) = B::linear_gelu_forward(x.clone(), w.clone(), bias.primitive.clone());
    record::<_, B, C, 3>(GeluNode, [&input, &weight, &bias], output, [x, w, sum])
}

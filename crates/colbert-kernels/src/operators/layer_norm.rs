//! Layer normalisation (Ba, Kiros and Hinton 2016, section 3), alone or of a residual sum with dropout.

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
use crate::operators::node::record;
use crate::operators::primitive::{primitive, tensor};

/// Scale, shift and epsilon of a layer normalisation.
#[derive(Debug, Clone)]
pub struct Affine<T> {
    /// `[size]`
    pub weight: T,
    /// `[size]`; none is zeros.
    pub bias: Option<T>,
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
    /// Gradient of the normalised sum, `[tokens, size]`.
    pub sum: T,
    /// `[size]`
    pub weight: T,
    /// `[size]`; none without a bias.
    pub bias: Option<T>,
}

/// Normalises each token: minus its mean, over its standard deviation, scaled and shifted.
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
    bias: Option<Tensor<B, 1>>,
    eps: f64,
) -> Tensor<B, 2> {
    let affine = affine(&input, Affine { weight, bias, eps });
    tensor(B::kernel_layer_norm(primitive(input), None, Dropout::NONE, affine))
}

/// Computes `layer_norm(dropout(input) + residual)`, as after every sublayer of BERT.
///
/// # Shapes
/// - input, residual, output: `[tokens, size]`
/// - weight, bias: `[size]`
///
/// # Panics
/// If the shapes do not fit.
pub fn residual_layer_norm<B: KernelBackend>(
    input: Tensor<B, 2>,
    residual: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    bias: Tensor<B, 1>,
    eps: f64,
    dropout: Dropout,
) -> Tensor<B, 2> {
    assert_eq!(input.dims(), residual.dims(), "input and residual");
    let affine = affine(&input, Affine { weight, bias: Some(bias), eps });
    tensor(B::kernel_layer_norm(primitive(input), Some(primitive(residual)), dropout, affine))
}

/// Fails if the parameters do not fit the input.
pub(crate) fn affine<B: KernelBackend>(input: &Tensor<B, 2>, affine: Affine<Tensor<B, 1>>) -> Affine<FloatTensor<B>> {
    let size = input.dims()[1];
    let Affine { weight, bias, eps } = affine;
    for parameter in std::iter::once(&weight).chain(&bias) {
        assert_eq!(parameter.dims(), [size], "weight and bias of a normalisation of {size} numbers");
    }
    Affine { weight: primitive(weight), bias: bias.map(primitive), eps }
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
    let output = scaled::<B>(centred * scale.clone(), affine.weight, affine.bias);
    let statistics = Tensor::cat(vec![mean, scale], 1);
    Normalised { output: primitive(output), sum: primitive(sum), statistics: primitive(statistics) }
}

fn scaled<B: Kernels>(normal: Tensor<B, 2>, weight: FloatTensor<B>, bias: Option<FloatTensor<B>>) -> Tensor<B, 2> {
    let output = normal * tensor::<B, 1>(weight).unsqueeze::<2>();
    match bias {
        Some(bias) => output + tensor::<B, 1>(bias).unsqueeze::<2>(),
        None => output,
    }
}

/// Recomputes the output from the state of the forward pass.
pub(crate) fn composed_again<B: Kernels>(
    sum: FloatTensor<B>,
    statistics: FloatTensor<B>,
    affine: Affine<FloatTensor<B>>,
) -> FloatTensor<B> {
    let (sum, statistics) = (tensor::<B, 2>(sum), tensor::<B, 2>(statistics));
    let normal = (sum - statistics.clone().narrow(1, 0, 1)) * statistics.narrow(1, 1, 1);
    primitive(scaled::<B>(normal, affine.weight, affine.bias))
}

pub(crate) fn composed_gradient<B: Kernels>(
    sum: FloatTensor<B>,
    statistics: FloatTensor<B>,
    affine: Affine<FloatTensor<B>>,
    gradient: FloatTensor<B>,
    beside: Option<FloatTensor<B>>,
) -> NormGradients<FloatTensor<B>> {
    let (sum, statistics) = (tensor::<B, 2>(sum), tensor::<B, 2>(statistics));
    let gradient = tensor::<B, 2>(gradient);
    let scale = statistics.clone().narrow(1, 1, 1);
    let normal = (sum - statistics.narrow(1, 0, 1)) * scale.clone();
    let weighted = gradient.clone() * tensor::<B, 1>(affine.weight).unsqueeze::<2>();
    let along = normal.clone() * (weighted.clone() * normal.clone()).mean_dim(1);
    let of_sum = (weighted.clone() - weighted.mean_dim(1) - along) * scale;
    let of_sum = match beside {
        Some(beside) => of_sum + tensor::<B, 2>(beside),
        None => of_sum,
    };
    NormGradients {
        sum: primitive(of_sum),
        weight: primitive((gradient.clone() * normal).sum_dim(0).squeeze_dim::<1>(0)),
        bias: affine.bias.map(|_| primitive(gradient.sum_dim(0).squeeze_dim::<1>(0))),
    }
}

/// Parents: input, weight, bias, residual; the input takes the place of a missing bias or residual.
#[derive(Debug)]
struct Node;

/// The state that the backward pass needs.
#[derive(Debug, Clone)]
struct State<T> {
    sum: T,
    statistics: T,
    affine: Affine<T>,
    dropout: Dropout,
    has_residual: bool,
}

impl<B: Kernels> Backward<B, 4> for Node {
    type State = State<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 4>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [input, weight, bias, residual] = ops.parents.map(|parent| parent.map(|node| node.id));
        let State { sum, statistics, affine, dropout, has_residual } = ops.state;
        let found = B::layer_norm_gradient(sum, statistics, affine, gradient, None);
        register::<B>([weight, bias], found.weight, found.bias, gradients);
        if let Some(node) = input {
            let through = found.sum.clone();
            let through = if dropout.is_none() { through } else { B::dropout_forward(through, dropout) };
            gradients.register::<B>(node, through);
        }
        if let (Some(node), true) = (residual, has_residual) {
            gradients.register::<B>(node, found.sum);
        }
    }
}

/// Registers the gradients of a weight and a bias; of the latter only what was found.
pub(crate) fn register<B: Kernels>(
    [weight_node, bias_node]: [Option<NodeId>; 2],
    weight: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
    gradients: &mut Gradients,
) {
    if let Some(node) = weight_node {
        gradients.register::<B>(node, weight);
    }
    if let (Some(node), Some(bias)) = (bias_node, bias) {
        gradients.register::<B>(node, bias);
    }
}

/// Returns the parameters on the inner backend.
pub(crate) fn inner<B: Kernels, C: CheckpointStrategy>(
    affine: &Affine<FloatTensor<Autodiff<B, C>>>,
) -> Affine<FloatTensor<B>> {
    Affine {
        weight: affine.weight.primitive.clone(),
        bias: affine.bias.as_ref().map(|bias| bias.primitive.clone()),
        eps: affine.eps,
    }
}

pub(crate) fn differentiable<B: Kernels, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
    residual: Option<FloatTensor<Autodiff<B, C>>>,
    dropout: Dropout,
    affine: Affine<FloatTensor<Autodiff<B, C>>>,
) -> FloatTensor<Autodiff<B, C>> {
    let inside = inner::<B, C>(&affine);
    let residual_inside = residual.as_ref().map(|residual| residual.primitive.clone());
    let found = B::layer_norm_forward(input.primitive.clone(), residual_inside, dropout, inside.clone());
    let has_residual = residual.is_some();
    let state = State { sum: found.sum, statistics: found.statistics, affine: inside, dropout, has_residual };
    let (bias, residual) = (affine.bias.as_ref().unwrap_or(&input), residual.as_ref().unwrap_or(&input));
    record::<_, B, C, 4>(Node, [&input, &affine.weight, bias, residual], found.output, state)
}

//! A feed-forward network with a gate; a normalisation before it and the sum with its input after it are optional.
//!
//! The state for the backward pass is the input and both halves. The normalised input and the gate's output are
//! recomputed.

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn::tensor::ops::FloatTensor;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};

use crate::backend::Kernels;
use crate::backend::differentiable::KernelBackend;
use crate::operators::gate::Gate;
use crate::operators::layer_norm::{self, Affine};
use crate::operators::linear::{self, register_biases, register_weights};
use crate::operators::node::record;
use crate::operators::primitive::{primitive, tensor};
use crate::operators::sublayer::{self, Normed};
use crate::precision::Precision;

/// The parts of a feed-forward network with a gate.
#[derive(Debug, Clone)]
pub struct GatedFeedForward<W, V> {
    /// Normalisation of the input, if any.
    pub norm: Option<Affine<V>>,
    /// Both halves, `[2 * wide, in]`.
    pub up: W,
    /// `[2 * wide]`
    pub up_bias: Option<V>,
    /// The function of both halves.
    pub gate: Gate,
    /// `[out, wide]`
    pub down: W,
    /// `[out]`
    pub down_bias: Option<V>,
    /// Whether the input is added to the output.
    pub residual: bool,
    /// Number format of the matmuls.
    pub precision: Precision,
}

/// Computes `down(gate(up(norm(input))))`, plus the input if requested: the second half of a transformer layer.
///
/// # Shapes
/// - input: `[tokens, in]`
/// - output: `[tokens, out]`
///
/// # Panics
/// If the shapes do not fit.
pub fn gated_feed_forward<B: KernelBackend>(
    input: Tensor<B, 2>,
    network: GatedFeedForward<Tensor<B, 2>, Tensor<B, 1>>,
) -> Tensor<B, 2> {
    let GatedFeedForward { norm, up, up_bias, gate, down, down_bias, residual, precision } = network;
    let size = input.dims()[1];
    linear::check(size, &up, up_bias.as_ref());
    let both = up.dims()[0];
    assert!(both.is_multiple_of(2), "{both} numbers have no two halves");
    linear::check(both / 2, &down, down_bias.as_ref());
    assert!(!residual || down.dims()[0] == size, "the output has the size of the input that is added");
    let network = GatedFeedForward {
        norm: norm.map(|norm| layer_norm::affine(&input, norm)),
        up: primitive(up),
        up_bias: up_bias.map(primitive),
        gate,
        down: primitive(down),
        down_bias: down_bias.map(primitive),
        residual,
        precision,
    };
    tensor(B::kernel_gated_feed_forward(primitive(input), network))
}

/// The output, and the state for the backward pass.
pub(crate) struct Forward<T> {
    pub(crate) output: T,
    normed: Normed<T>,
    both: T,
}

pub(crate) fn forward<B: Kernels>(
    input: FloatTensor<B>,
    network: &GatedFeedForward<FloatTensor<B>, FloatTensor<B>>,
) -> Forward<FloatTensor<B>> {
    let GatedFeedForward { norm, up, up_bias, gate, down, down_bias, residual, precision } = network.clone();
    let (normed, inner) = Normed::forward::<B>(input.clone(), norm, precision);
    let (gated, both) = B::gated_forward(inner, up, up_bias, gate, precision);
    let output = match residual {
        true => B::residual_linear_forward(gated, down, down_bias, input, precision),
        false => B::linear_forward(gated, down, down_bias, precision),
    };
    Forward { output, normed, both }
}

/// The operator in the autodiff graph. Parents: input, then weight and bias of the norm, of `up` and of `down`; the
/// input takes the place of those that are missing.
#[derive(Debug)]
struct Node;

/// The state for the backward pass.
#[derive(Debug, Clone)]
struct State<T> {
    normed: Normed<T>,
    both: T,
    up: T,
    down: T,
    gate: Gate,
    residual: bool,
    precision: Precision,
    /// Whether the two maps have biases.
    biases: [bool; 2],
}

impl<B: Kernels> Backward<B, 7> for Node {
    type State = State<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 7>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [input, norm, norm_bias, up_node, up_bias, down_node, down_bias] =
            ops.parents.map(|parent| parent.map(|node| node.id));
        let State { normed, both, up, down, gate, residual, precision, biases } = ops.state;
        register_biases::<B, 1>([down_bias.filter(|_| biases[1])], [gradient.clone()], gradients);
        let rounded = B::rounded(gradient.clone(), precision);
        let (gated, of_both) = B::gated_gradient(both, rounded.clone(), down, gate, precision);
        register_weights::<B, 1>([down_node], [rounded], gated, precision, gradients);
        register_biases::<B, 1>([up_bias.filter(|_| biases[0])], [of_both.clone()], gradients);
        register_weights::<B, 1>([up_node], [of_both.clone()], normed.again::<B>(precision), precision, gradients);
        let beside = residual.then_some(gradient);
        sublayer::propagate::<B>([input, norm, norm_bias], normed, of_both, up, beside, precision, gradients);
    }
}

/// A tensor whose history is recorded.
type Recorded<B, C> = FloatTensor<Autodiff<B, C>>;

pub(crate) fn differentiable<B: Kernels, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
    network: GatedFeedForward<Recorded<B, C>, Recorded<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let inside = |bias: &Option<FloatTensor<Autodiff<B, C>>>| bias.as_ref().map(|bias| bias.primitive.clone());
    let GatedFeedForward { gate, residual, precision, .. } = network;
    let inner = GatedFeedForward {
        norm: network.norm.as_ref().map(layer_norm::inner::<B, C>),
        up: network.up.primitive.clone(),
        up_bias: inside(&network.up_bias),
        gate,
        down: network.down.primitive.clone(),
        down_bias: inside(&network.down_bias),
        residual,
        precision,
    };
    let Forward { output, normed, both } = forward::<B>(input.primitive.clone(), &inner);
    let biases = [inner.up_bias.is_some(), inner.down_bias.is_some()];
    let state = State { normed, both, up: inner.up, down: inner.down, gate, residual, precision, biases };
    let [norm, norm_bias] = sublayer::parents::<B, C>(network.norm.as_ref(), &input);
    let or_input = |bias| Option::unwrap_or(bias, &input);
    let (up_bias, down_bias) = (or_input(network.up_bias.as_ref()), or_input(network.down_bias.as_ref()));
    let parents = [&input, norm, norm_bias, &network.up, up_bias, &network.down, down_bias];
    record::<_, B, C, 7>(Node, parents, output, state)
}

//! The feed-forward network of a transformer layer that is normalised after it.

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn::tensor::ops::FloatTensor;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};

use crate::backend::Kernels;
use crate::backend::differentiable::KernelBackend;
use crate::operators::linear::{self, Asking, FloatMap, Map, Saved, propagate, register_weights};
use crate::operators::node::record;
use crate::operators::post_norm::{self, Ended, FloatPostNorm, PostNorm};
use crate::operators::primitive::{primitive, tensor};
use crate::precision::Precision;

/// Computes `layer_norm(dropout(down(gelu(up(input)))) + input)`, GELU by the error function and `down` being the end's
/// map: the second half of a transformer layer (Vaswani et al. 2017, section 3.3; Devlin et al. 2018).
///
/// Its wide inner activations are kept once, before GELU; the backward pass computes them after GELU again.
///
/// # Shapes
/// - input, output: `[tokens, size]`
/// - up: `[wide, size]` and `[wide]`
/// - the end's map: `[size, wide]` and `[size]`
///
/// # Panics
/// If the shapes do not fit.
pub fn post_norm_feed_forward<B: KernelBackend>(
    input: Tensor<B, 2>,
    up: Map<Tensor<B, 2>, Tensor<B, 1>>,
    end: PostNorm<Tensor<B, 2>, Tensor<B, 1>>,
    precision: Precision,
) -> Tensor<B, 2> {
    linear::check(input.dims()[1], &up.weight, Some(&up.bias));
    let end = post_norm::checked(up.weight.dims()[0], &input, end);
    let up = Map { weight: primitive(up.weight), bias: primitive(up.bias) };
    tensor(B::kernel_post_norm_feed_forward(primitive(input), up, end, precision))
}

/// Parents: input, weight and bias of `up`, and those of the end.
#[derive(Debug)]
struct Node;

/// The state for the backward pass.
#[derive(Debug, Clone)]
struct State<T> {
    up: Saved<T, 1>,
    /// The input of GELU.
    sum: T,
    ended: Ended<T>,
}

impl<B: Kernels> Backward<B, 7> for Node {
    type State = State<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 7>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [input, up_weight, up_bias, down, down_bias, norm, norm_bias] =
            ops.parents.map(|parent| parent.map(|node| node.id));
        let State { up, sum, ended } = ops.state;
        let (precision, weight) = (up.precision, ended.end.map.weight.clone());
        let (of_mapped, of_residual) = ended.go_back::<B>(gradient, [down_bias, norm, norm_bias], gradients);
        let found = B::linear_gelu_gradient(sum, of_mapped.clone(), weight, precision);
        register_weights::<B, 1>([down], [of_mapped], found.output, precision, gradients);
        if let Some(node) = up_bias {
            gradients.register::<B>(node, found.bias);
        }
        let asking = Asking { input, weights: [up_weight], biases: [None] };
        propagate::<B, 1>(asking, [found.sum], Some(of_residual), up, gradients);
    }
}

pub(crate) fn differentiable<B: Kernels, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
    up: FloatMap<Autodiff<B, C>>,
    end: FloatPostNorm<Autodiff<B, C>>,
    precision: Precision,
) -> FloatTensor<Autodiff<B, C>> {
    let x = B::rounded(input.primitive.clone(), precision);
    let (w, b) = (up.weight.primitive.clone(), up.bias.primitive.clone());
    let saved = Saved { input: x.clone(), weights: [w.clone()], precision };
    let (wide, sum) = B::linear_gelu_forward(x, w, b, precision);
    let inside = post_norm::inner::<B, C>(&end);
    let (output, ended) = Ended::forward::<B>(wide, input.primitive.clone(), inside, precision);
    let [down, down_bias, norm, norm_bias] = post_norm::parents::<B, C>(&end, &input);
    let parents = [&input, &up.weight, &up.bias, down, down_bias, norm, norm_bias];
    record::<_, B, C, 7>(Node, parents, output, State { up: saved, sum, ended })
}

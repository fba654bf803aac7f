//! Query, key and value of one linear map, queries and keys rotated by their positions, and attention of them.

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
use crate::operators::attention::{self, Attended, AttentionPlan};
use crate::operators::linear::{self, Asking, Map, Saved, propagate};
use crate::operators::node::record;
use crate::operators::primitive::{primitive, tensor};
use crate::operators::rotation::Rotation;

/// Computes the self-attention of a transformer layer before its projection, where one map gives query, key and value,
/// one after the other, and positions are rotary. See [`attention()`](crate::attention()); the map is multiplied in the
/// plan's precision too.
///
/// # Shapes
/// - input: `[tokens, in]`, the sequences one after the other
/// - weight: `[3 * heads * head_size, in]`
/// - bias: `[3 * heads * head_size]`
/// - output: `[tokens, heads * head_size]`
///
/// # Panics
/// If the shapes do not fit, the tokens are not the segments', or the rotation has too few positions.
pub fn packed_self_attention<B: KernelBackend>(
    input: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
    rotation: Option<&Rotation>,
    plan: &AttentionPlan,
) -> Tensor<B, 2> {
    let [tokens, size] = input.dims();
    linear::check(size, &weight, bias.as_ref());
    let [out, _] = weight.dims();
    assert!(out.is_multiple_of(3), "{out} numbers cannot be divided among query, key and value");
    attention::check([tokens, out / 3], plan);
    if let Some(rotation) = rotation {
        rotation.check(plan.segments.max_length(), out / 3 / plan.heads);
    }
    let bias = bias.map(primitive);
    tensor(B::kernel_packed_self_attention(primitive(input), primitive(weight), bias, rotation.cloned(), plan.clone()))
}

fn split<B: Kernels>(qkv: FloatTensor<B>, rotation: Option<&Rotation>, plan: &AttentionPlan) -> [FloatTensor<B>; 3] {
    let qkv = tensor::<B, 2>(qkv);
    let size = qkv.dims()[1] / 3;
    let part = |i: usize| qkv.clone().narrow(1, i * size, size);
    let rotated = |part: Tensor<B, 2>| match rotation {
        Some(rotation) => rotation.composed(part, &plan.segments, plan.heads, false),
        None => part,
    };
    [rotated(part(0)), rotated(part(1)), part(2)].map(primitive)
}

pub(crate) fn composed<B: Kernels>(
    qkv: FloatTensor<B>,
    rotation: Option<&Rotation>,
    plan: &AttentionPlan,
) -> (Attended<FloatTensor<B>>, FloatTensor<B>) {
    (B::attention_forward(split::<B>(qkv.clone(), rotation, plan), plan), qkv)
}

pub(crate) fn composed_gradient<B: Kernels>(
    qkv: FloatTensor<B>,
    forward: Attended<FloatTensor<B>>,
    gradient: FloatTensor<B>,
    rotation: Option<&Rotation>,
    plan: &AttentionPlan,
) -> FloatTensor<B> {
    let found = B::attention_gradient(split::<B>(qkv, rotation, plan), forward, gradient, plan);
    let [query, key, value] = found.map(tensor::<B, 2>);
    let back = |part: Tensor<B, 2>| match rotation {
        Some(rotation) => rotation.composed(part, &plan.segments, plan.heads, true),
        None => part,
    };
    primitive(Tensor::cat(vec![back(query), back(key), value], 1))
}

#[derive(Debug)]
struct Node;

/// The state for the backward pass.
#[derive(Debug, Clone)]
struct State<T> {
    map: Saved<T, 1>,
    /// In the backend's own form.
    qkv: T,
    forward: Attended<T>,
    rotation: Option<Rotation>,
    plan: AttentionPlan,
}

fn go_back<B: Kernels>(
    [input, weight, bias]: [Option<NodeId>; 3],
    gradient: FloatTensor<B>,
    state: State<FloatTensor<B>>,
    gradients: &mut Gradients,
) {
    let State { map, qkv, forward, rotation, plan } = state;
    let of_qkv = B::packed_attention_gradient(qkv, forward, gradient, rotation.as_ref(), &plan);
    propagate::<B, 1>(Asking { input, weights: [weight], biases: [bias] }, [of_qkv], None, map, gradients);
}

impl<B: Kernels> Backward<B, 2> for Node {
    type State = State<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [input, weight] = ops.parents.map(|parent| parent.map(|node| node.id));
        go_back::<B>([input, weight, None], gradient, ops.state, gradients);
    }
}

impl<B: Kernels> Backward<B, 3> for Node {
    type State = State<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        go_back::<B>(ops.parents.map(|parent| parent.map(|node| node.id)), gradient, ops.state, gradients);
    }
}

pub(crate) fn differentiable<B: Kernels, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
    bias: Option<FloatTensor<Autodiff<B, C>>>,
    rotation: Option<Rotation>,
    plan: AttentionPlan,
) -> FloatTensor<Autodiff<B, C>> {
    let (x, w) = (B::rounded(input.primitive.clone(), plan.precision), weight.primitive.clone());
    let map = Saved { input: x.clone(), weights: [w.clone()], precision: plan.precision };
    let inner = Map { weight: w, bias: bias.as_ref().map(|bias| bias.primitive.clone()) };
    let [qkv] = B::inner_linears_forward(x, [inner], plan.precision);
    let (forward, qkv) = B::packed_attention_forward(qkv, rotation.as_ref(), &plan);
    let output = B::unrounded(forward.output.clone());
    let state = State { map, qkv, forward, rotation, plan };
    match bias {
        Some(bias) => record::<_, B, C, 3>(Node, [&input, &weight, &bias], output, state),
        None => record::<_, B, C, 2>(Node, [&input, &weight], output, state),
    }
}

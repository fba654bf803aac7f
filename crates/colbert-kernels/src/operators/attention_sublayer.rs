//! The attention of a transformer layer with the normalisation before it, and the projection and the sum with the input
//! after it.
//!
//! The state for the backward pass is the input, query, key and value, and the output of the attention. The normalised
//! input is recomputed.

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn::tensor::ops::FloatTensor;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};

use crate::backend::Kernels;
use crate::backend::differentiable::KernelBackend;
use crate::operators::attention::{self, Attended, AttentionPlan};
use crate::operators::dropout::Dropout;
use crate::operators::layer_norm::{self, Affine};
use crate::operators::linear::{self, Map, register_weights};
use crate::operators::node::record;
use crate::operators::primitive::{primitive, tensor};
use crate::operators::rotation::Rotation;
use crate::operators::sublayer::{self, Normed};

/// The parts of an attention sublayer without biases.
#[derive(Debug, Clone)]
pub struct AttentionSublayer<W, V> {
    /// Normalisation of the input, if any.
    pub norm: Option<Affine<V>>,
    /// Query, key and value, one after the other: `[3 * heads * head_size, size]`.
    pub qkv: W,
    /// Rotary positions, if any.
    pub rotation: Option<Rotation>,
    /// Sequences, heads and window; its precision applies to all matmuls.
    pub plan: AttentionPlan,
    /// The projection, `[size, heads * head_size]`.
    pub out: W,
    /// Dropout of the projected numbers.
    pub dropout: Dropout,
}

/// Computes `input + dropout(out(attention(qkv(norm(input)))))`: the first half of a transformer layer.
///
/// # Shapes
/// - input, output: `[tokens, size]`, the sequences one after the other
///
/// # Panics
/// If the shapes do not fit, the tokens are not the segments', or the rotation has too few positions.
pub fn attention_sublayer<B: KernelBackend>(
    input: Tensor<B, 2>,
    sublayer: AttentionSublayer<Tensor<B, 2>, Tensor<B, 1>>,
) -> Tensor<B, 2> {
    let AttentionSublayer { norm, qkv, rotation, plan, out, dropout } = sublayer;
    let [tokens, size] = input.dims();
    linear::check(size, &qkv, None);
    let wide = qkv.dims()[0];
    assert!(wide.is_multiple_of(3), "{wide} numbers cannot be divided among query, key and value");
    attention::check([tokens, wide / 3], &plan);
    if let Some(rotation) = &rotation {
        rotation.check(plan.segments.max_length(), wide / 3 / plan.heads);
    }
    linear::check(wide / 3, &out, None);
    assert_eq!(out.dims()[0], size, "the output has the size of the input that is added");
    let norm = norm.map(|norm| layer_norm::affine(&input, norm));
    let sublayer = AttentionSublayer { norm, qkv: primitive(qkv), rotation, plan, out: primitive(out), dropout };
    tensor(B::kernel_attention_sublayer(primitive(input), sublayer))
}

/// The output, and the state for the backward pass.
pub(crate) struct Forward<T> {
    pub(crate) output: T,
    normed: Normed<T>,
    /// In the backend's own form.
    qkv: T,
    attended: Attended<T>,
}

pub(crate) fn forward<B: Kernels>(
    input: FloatTensor<B>,
    sublayer: &AttentionSublayer<FloatTensor<B>, FloatTensor<B>>,
) -> Forward<FloatTensor<B>> {
    let AttentionSublayer { norm, qkv, rotation, plan, out, dropout } = sublayer.clone();
    let precision = plan.precision;
    let (normed, inner) = Normed::forward::<B>(input.clone(), norm, precision);
    let [qkv] = B::inner_linears_forward(inner, [Map { weight: qkv, bias: None }], precision);
    let (attended, qkv) = B::packed_attention_forward(qkv, rotation.as_ref(), &plan);
    let output = if dropout.is_none() {
        B::residual_linear_forward(attended.output.clone(), out, None, input, precision)
    } else {
        let projected = B::linear_forward(attended.output.clone(), out, None, precision);
        B::float_add(B::dropout_forward(projected, dropout), input)
    };
    Forward { output, normed, qkv, attended }
}

/// The operator in the autodiff graph. Parents: input, weight and bias of the norm, both maps; the input takes the
/// place of those that are missing.
#[derive(Debug)]
struct Node;

/// The state for the backward pass.
#[derive(Debug, Clone)]
struct State<T> {
    normed: Normed<T>,
    qkv: T,
    attended: Attended<T>,
    sublayer: AttentionSublayer<T, T>,
}

impl<B: Kernels> Backward<B, 5> for Node {
    type State = State<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 5>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [input, norm, norm_bias, qkv_node, out_node] = ops.parents.map(|parent| parent.map(|node| node.id));
        let State { normed, qkv, attended, sublayer } = ops.state;
        let AttentionSublayer { qkv: weight, rotation, plan, out, dropout, .. } = sublayer;
        let precision = plan.precision;
        let projected = gradient.clone();
        let projected = if dropout.is_none() { projected } else { B::dropout_forward(projected, dropout) };
        let projected = B::rounded(projected, precision);
        register_weights::<B, 1>([out_node], [projected.clone()], attended.output.clone(), precision, gradients);
        let of_attended = B::inner_input_gradient(projected, out, precision);
        let of_qkv = B::packed_attention_gradient(qkv, attended, of_attended, rotation.as_ref(), &plan);
        register_weights::<B, 1>([qkv_node], [of_qkv.clone()], normed.again::<B>(precision), precision, gradients);
        let nodes = [input, norm, norm_bias];
        sublayer::propagate::<B>(nodes, normed, of_qkv, weight, Some(gradient), precision, gradients);
    }
}

/// A tensor whose history is recorded.
type Recorded<B, C> = FloatTensor<Autodiff<B, C>>;

pub(crate) fn differentiable<B: Kernels, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
    sublayer: AttentionSublayer<Recorded<B, C>, Recorded<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let inner = AttentionSublayer {
        norm: sublayer.norm.as_ref().map(layer_norm::inner::<B, C>),
        qkv: sublayer.qkv.primitive.clone(),
        rotation: sublayer.rotation.clone(),
        plan: sublayer.plan.clone(),
        out: sublayer.out.primitive.clone(),
        dropout: sublayer.dropout,
    };
    let Forward { output, normed, qkv, attended } = forward::<B>(input.primitive.clone(), &inner);
    let [norm, norm_bias] = sublayer::parents::<B, C>(sublayer.norm.as_ref(), &input);
    let parents = [&input, norm, norm_bias, &sublayer.qkv, &sublayer.out];
    record::<_, B, C, 5>(Node, parents, output, State { normed, qkv, attended, sublayer: inner })
}

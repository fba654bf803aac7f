//! Scaled dot-product attention of packed sequences (Vaswani et al. 2017, section 3.2).
//!
//! Going back recomputes the attention weights from queries, keys and each row's log-sum-exp, as in Dao et al. 2022
//! (FlashAttention, section 3.1), so that no weights outlive a sequence.

use burn::backend::Autodiff;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Bool, Int, Tensor, TensorData};
use burn_autodiff::NodeId;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};

use crate::backend::{KernelBackend, Kernels};
use crate::dropout::Dropout;
use crate::node::record;
use crate::precision::{Precision, composed_product};
use crate::primitive::{floats, indices, primitive, tensor};
use crate::segments::Segments;

/// What attention is computed over, besides its three tensors.
#[derive(Debug, Clone)]
pub struct AttentionPlan {
    /// Where the sequences lie, and which of their tokens can be attended to.
    pub segments: Segments,
    /// Heads that a token's numbers are divided among.
    pub heads: usize,
    /// Dropout of the attention weights. Element (token * heads + head, position of the key) decides.
    pub dropout: Dropout,
    /// Format of the factors of its products.
    pub precision: Precision,
}

/// What the forward pass of attention leaves.
#[derive(Debug, Clone)]
pub struct Attended<T> {
    /// `[tokens, heads * head_size]`
    pub output: T,
    /// Logarithm of the sum of the exponentials of each row of scaled products, `[tokens, heads]`.
    pub log_sum_exp: T,
}

/// Attention of every token to the attended tokens of its own sequence, products scaled by 1 / sqrt(head_size).
///
/// # Shapes
/// - query, key, value: `[tokens, heads * head_size]`, the sequences one after the other
/// - output: as query
///
/// # Panics
/// If the shapes differ, do not have the segments' tokens, or cannot be divided among the heads.
pub fn attention<B: KernelBackend>(
    query: Tensor<B, 2>,
    key: Tensor<B, 2>,
    value: Tensor<B, 2>,
    plan: &AttentionPlan,
) -> Tensor<B, 2> {
    let [tokens, size] = query.dims();
    assert!(key.dims() == [tokens, size] && value.dims() == [tokens, size], "query, key and value have one shape");
    assert_eq!(tokens, plan.segments.tokens(), "tokens of the tensors and of the segments");
    assert!(
        plan.heads > 0 && size.is_multiple_of(plan.heads),
        "{size} numbers cannot be divided among {} heads",
        plan.heads
    );
    tensor(B::kernel_attention([primitive(query), primitive(key), primitive(value)], plan.clone()))
}

/// The packed tensors laid out as `[sequences, heads, length, head_size]`.
struct Padded<B: Kernels> {
    /// Row of each padded place; padding repeats row 0.
    rows: Tensor<B, 1, Int>,
    /// Padded place of each row.
    places: Tensor<B, 1, Int>,
    /// 1 for a token, 0 for padding, `[sequences, 1, length, 1]`.
    real: Tensor<B, 4>,
    /// True where a key takes no part, `[sequences, 1, 1, length]`.
    hidden: Tensor<B, 4, Bool>,
    /// Factors of the weights, `[sequences, heads, length, length]`.
    dropped: Option<Tensor<B, 4>>,
    shape: [usize; 4],
    precision: Precision,
}

impl<B: Kernels> Padded<B> {
    fn new(plan: &AttentionPlan, size: usize, device: &B::Device) -> Self {
        let segments = plan.segments.as_slice();
        let (count, length, heads) = (segments.len(), plan.segments.max_length(), plan.heads);
        let mut rows = vec![0; count * length];
        let mut places = Vec::with_capacity(plan.segments.tokens());
        let mut real = vec![0.0; count * length];
        let mut hidden = vec![true; count * length];
        for (i, segment) in segments.iter().enumerate() {
            for position in 0..segment.length {
                rows[i * length + position] = segment.start + position;
                places.push(i * length + position);
                real[i * length + position] = 1.0;
                hidden[i * length + position] = position >= segment.attended;
            }
        }
        let dropped = (!plan.dropout.is_none()).then(|| {
            let mut factors = vec![0.0; count * heads * length * length];
            for (i, segment) in segments.iter().enumerate() {
                for (head, position) in (0..heads).flat_map(|head| (0..segment.length).map(move |p| (head, p))) {
                    let row = plan.dropout.row((segment.start + position) * heads + head);
                    let at = ((i * heads + head) * length + position) * length;
                    for (column, factor) in factors[at..at + segment.attended].iter_mut().enumerate() {
                        *factor = row.factor(column as u32);
                    }
                }
            }
            floats(factors, [count, heads, length, length], device)
        });
        Self {
            rows: indices::<B>(rows.into_iter(), device),
            places: indices::<B>(places.into_iter(), device),
            real: floats(real, [count, 1, length, 1], device),
            hidden: Tensor::from_data(TensorData::new(hidden, [count, 1, 1, length]), device),
            dropped,
            shape: [count, heads, length, size / heads],
            precision: plan.precision,
        }
    }

    fn split(&self, packed: FloatTensor<B>) -> Tensor<B, 4> {
        let [count, heads, length, head_size] = self.shape;
        let padded = tensor::<B, 2>(packed).select(0, self.rows.clone());
        padded.reshape([count, length, heads, head_size]).swap_dims(1, 2)
    }

    fn join(&self, split: Tensor<B, 4>) -> FloatTensor<B> {
        let [count, heads, length, size] = split.dims();
        primitive(split.swap_dims(1, 2).reshape([count * length, heads * size]).select(0, self.places.clone()))
    }

    fn product(&self, left: Tensor<B, 4>, right: Tensor<B, 4>) -> Tensor<B, 4> {
        composed_product::<B, 4>(left, right, self.precision)
    }

    /// Scaled products, minus infinity where a key takes no part.
    fn scaled(&self, query: Tensor<B, 4>, key: Tensor<B, 4>) -> Tensor<B, 4> {
        let [count, heads, length, head_size] = self.shape;
        let hidden = self.hidden.clone().expand([count, heads, length, length]);
        (self.product(query, key.swap_dims(2, 3)) * scale(head_size)).mask_fill(hidden, f32::NEG_INFINITY)
    }

    fn drop(&self, weights: Tensor<B, 4>) -> Tensor<B, 4> {
        match &self.dropped {
            Some(factors) => weights * factors.clone(),
            None => weights,
        }
    }
}

/// What products of queries and keys are multiplied by.
pub(crate) fn scale(head_size: usize) -> f32 {
    1.0 / (head_size as f32).sqrt()
}

pub(crate) fn composed<B: Kernels>(qkv: [FloatTensor<B>; 3], plan: &AttentionPlan) -> Attended<FloatTensor<B>> {
    let first = tensor::<B, 2>(qkv[0].clone());
    let padded = Padded::<B>::new(plan, first.dims()[1], &first.device());
    let [query, key, value] = qkv.map(|packed| padded.split(packed));
    let products = padded.scaled(query, key);
    let most = products.clone().max_dim(3);
    let weights = (products - most.clone()).exp();
    let sum = weights.clone().sum_dim(3);
    let output = padded.product(padded.drop(weights / sum.clone()), value);
    Attended { output: padded.join(output), log_sum_exp: padded.join(sum.log() + most) }
}

pub(crate) fn composed_gradient<B: Kernels>(
    qkv: [FloatTensor<B>; 3],
    forward: Attended<FloatTensor<B>>,
    gradient: FloatTensor<B>,
    plan: &AttentionPlan,
) -> [FloatTensor<B>; 3] {
    let output = tensor::<B, 2>(forward.output.clone());
    let padded = Padded::<B>::new(plan, output.dims()[1], &output.device());
    let [query, key, value] = qkv.map(|packed| padded.split(packed));
    let gradient = padded.split(gradient) * padded.real.clone();
    // Of each row, the weighted mean of the weights' gradients: the product of output and its gradient.
    let mean = (padded.split(forward.output) * gradient.clone()).sum_dim(3);
    let [count, heads, length, head_size] = padded.shape;
    let log_sum_exp = tensor::<B, 2>(forward.log_sum_exp).select(0, padded.rows.clone());
    let log_sum_exp = log_sum_exp.reshape([count, length, heads, 1]).swap_dims(1, 2);
    // Padding repeats the log-sum-exp of row 0, which is not its own: its exponentials could overflow.
    let products = padded.scaled(query.clone(), key.clone()) - log_sum_exp;
    let idle = padded.real.clone().equal_elem(0.0).expand([count, heads, length, length]);
    let weights = products.exp().mask_fill(idle, 0.0);
    let of_value = padded.product(padded.drop(weights.clone()).swap_dims(2, 3), gradient.clone());
    let of_weights = padded.drop(padded.product(gradient, value.swap_dims(2, 3)));
    let of_products = weights * (of_weights - mean) * scale(head_size);
    let of_query = padded.product(of_products.clone(), key);
    let of_key = padded.product(of_products.swap_dims(2, 3), query);
    [padded.join(of_query), padded.join(of_key), padded.join(of_value)]
}

#[derive(Debug)]
struct Node;

/// What going back needs.
#[derive(Debug, Clone)]
struct State<T> {
    qkv: [T; 3],
    forward: Attended<T>,
    plan: AttentionPlan,
}

impl<B: Kernels> Backward<B, 3> for Node {
    type State = State<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let State { qkv, forward, plan } = ops.state;
        let found = B::attention_gradient(qkv, forward, gradient, &plan);
        let nodes: [Option<NodeId>; 3] = ops.parents.map(|parent| parent.map(|node| node.id));
        for (node, found) in nodes.into_iter().zip(found) {
            if let Some(node) = node {
                gradients.register::<B>(node, found);
            }
        }
    }
}

pub(crate) fn differentiable<B: Kernels, C: CheckpointStrategy>(
    qkv: [FloatTensor<Autodiff<B, C>>; 3],
    plan: AttentionPlan,
) -> FloatTensor<Autodiff<B, C>> {
    let inner = [qkv[0].primitive.clone(), qkv[1].primitive.clone(), qkv[2].primitive.clone()];
    let forward = B::attention_forward(inner.clone(), &plan);
    let output = forward.output.clone();
    let [query, key, value] = &qkv;
    record::<_, B, C, 3>(Node, [query, key, value], output, State { qkv: inner, forward, plan })
}

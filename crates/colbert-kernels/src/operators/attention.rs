//! Scaled dot-product attention of packed sequences (Vaswani et al. 2017, section 3.2).
//!
//! The backward pass recomputes the attention weights from queries, keys and each row's log-sum-exp, as in Dao et al.
//! 2022 (FlashAttention, section 3.1), so that no weights outlive a sequence.

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
use crate::operators::padded::{by_length, gradient_by_length};
use crate::operators::primitive::{primitive, tensor};
use crate::precision::Precision;
use crate::segments::{Segment, Segments};

/// The shape of attention, besides its three tensors.
#[derive(Debug, Clone)]
pub struct AttentionPlan {
    /// The places of the sequences, and which of their tokens can be attended to.
    pub segments: Segments,
    /// Number of heads.
    pub heads: usize,
    /// Tokens to each side that a token sees (Beltagy et al. 2020, section 3.1); none means all. A token that sees no
    /// attended token, such as a query's \[MASK\] expansion far after the text, gets zeros.
    pub reach: Option<usize>,
    /// Dropout of the attention weights. Element (token * heads + head, position of the key) decides; with a window,
    /// element (head * length + position, position of the key) of a mask of each sequence.
    pub dropout: Dropout,
    /// Number format of its matmuls.
    pub precision: Precision,
}

impl AttentionPlan {
    /// Returns the mask of a query's weights and its row; the key's position is the column. Without windows it is row
    /// (token * heads + head) of one mask; with them, row (head * length + position) of a mask of the sequence.
    pub(crate) fn weights_row(&self, segment: Segment, head: usize, position: usize) -> (Dropout, usize) {
        match self.reach {
            None => (self.dropout, (segment.start + position) * self.heads + head),
            Some(_) => {
                let seed = self.dropout.seed ^ (segment.start as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                (Dropout { seed, ..self.dropout }, head * segment.length + position)
            }
        }
    }
}

/// The results of the forward pass of attention.
#[derive(Debug, Clone)]
pub struct Attended<T> {
    /// `[tokens, heads * head_size]`
    pub output: T,
    /// Logarithm of the sum of the exponentials of each row of scaled products, `[tokens, heads]`; 0 where there are
    /// none.
    pub log_sum_exp: T,
}

/// Attends from every token to the attended tokens of its own sequence; products are scaled by 1 / sqrt(head_size).
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
    check([tokens, size], plan);
    tensor(B::kernel_attention([primitive(query), primitive(key), primitive(value)], plan.clone()))
}

/// Fails if tensors of this shape do not fit the plan.
pub(crate) fn check([tokens, size]: [usize; 2], plan: &AttentionPlan) {
    assert_eq!(tokens, plan.segments.tokens(), "tokens of the tensors and of the segments");
    assert!(
        plan.heads > 0 && size.is_multiple_of(plan.heads),
        "{size} numbers cannot be divided among {} heads",
        plan.heads
    );
}

/// The value of a product that does not count, for rows that may have no other. Its exponential is 0 without
/// subtracting a maximum.
pub(crate) const NEVER: f32 = -1e30;

/// Returns the factor on products of queries and keys.
pub(crate) fn scale(head_size: usize) -> f32 {
    1.0 / (head_size as f32).sqrt()
}

pub(crate) fn composed<B: Kernels>(qkv: [FloatTensor<B>; 3], plan: &AttentionPlan) -> Attended<FloatTensor<B>> {
    by_length::<B>(qkv, plan, |[query, key, value], padded| {
        let products = padded.scaled(query, key);
        let mut most = products.clone().max_dim(3);
        if plan.reach.is_some() {
            // Rows without any key: their weights become 0.
            let alone = most.clone().lower_elem(NEVER / 2.0);
            most = most.mask_fill(alone, 0.0);
        }
        let weights = (products - most.clone()).exp();
        let mut sum = weights.clone().sum_dim(3);
        if plan.reach.is_some() {
            let alone = sum.clone().equal_elem(0.0);
            sum = sum.mask_fill(alone, 1.0);
        }
        let output = padded.product(padded.drop(weights / sum.clone()), value);
        Attended { output, log_sum_exp: sum.log() + most }
    })
}

pub(crate) fn composed_gradient<B: Kernels>(
    qkv: [FloatTensor<B>; 3],
    forward: Attended<FloatTensor<B>>,
    gradient: FloatTensor<B>,
    plan: &AttentionPlan,
) -> [FloatTensor<B>; 3] {
    gradient_by_length::<B>(qkv, forward, gradient, plan, |[query, key, value], forward, gradient, padded| {
        // Of each row, the weighted mean of the weights' gradients: the product of output and its gradient.
        let mean = (forward.output * gradient.clone()).sum_dim(3);
        let weights = (padded.scaled(query.clone(), key.clone()) - forward.log_sum_exp).exp();
        let of_value = padded.product(padded.drop(weights.clone()).swap_dims(2, 3), gradient.clone());
        let of_weights = padded.drop(padded.product(gradient, value.swap_dims(2, 3)));
        let of_products = weights * (of_weights - mean) * scale(padded.head_size());
        let of_query = padded.product(of_products.clone(), key);
        let of_key = padded.product(of_products.swap_dims(2, 3), query);
        [of_query, of_key, of_value]
    })
}

#[derive(Debug)]
struct Node;

/// The state that the backward pass needs.
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

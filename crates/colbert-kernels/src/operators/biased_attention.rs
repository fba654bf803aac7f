//! Attention with a bias for each head, query and key, and causal attention: composed of burn's operators on every
//! backend, forward and backward, one sequence after the other.
//!
//! The weights of a sequence are kept for the backward pass, so memory grows with the square of its length. The matmuls
//! are float32, whatever precision the plan requests.

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Tensor, TensorData};

use crate::backend::differentiable::KernelBackend;
use crate::operators::attention::{AttentionPlan, NEVER, check, scale};
use crate::operators::dropout::{Dropout, dropout};
use crate::operators::matmul::float32_matmul;
use crate::segments::Segment;

/// Attends with a bias from every token to the attended tokens of its own sequence; with `causal`, only to those that
/// do not come after it. A window ([`AttentionPlan::reach`]) is not supported.
///
/// # Shapes
/// - query, key, value: `[tokens, heads * head_size]`, the sequences one after the other
/// - bias: `[heads, positions, positions]`, of the query's position and the key's, with as many positions as the
///   longest sequence has tokens, or more
/// - output: as query
///
/// # Panics
/// If the shapes do not fit, or the plan has a window.
pub fn biased_attention<B: KernelBackend>(
    [query, key, value]: [Tensor<B, 2>; 3],
    bias: Option<&Tensor<B, 3>>,
    causal: bool,
    plan: &AttentionPlan,
) -> Tensor<B, 2> {
    let [tokens, size] = query.dims();
    assert!(key.dims() == [tokens, size] && value.dims() == [tokens, size], "query, key and value have one shape");
    check([tokens, size], plan);
    assert!(plan.reach.is_none(), "attention with a bias has no windows");
    let (heads, head_size) = (plan.heads, size / plan.heads);
    if let Some(bias) = bias {
        let [of, rows, columns] = bias.dims();
        let longest = plan.segments.max_length();
        assert!(of == heads && rows >= longest && columns >= longest, "a bias of {heads} heads, {longest} positions");
    }
    let of_sequence = |segment: &Segment| {
        let Segment { start, length, attended } = *segment;
        let split = |packed: &Tensor<B, 2>, rows: usize| {
            packed.clone().narrow(0, start, rows).reshape([rows, heads, head_size]).swap_dims(0, 1)
        };
        let products = float32_matmul(split(&query, length), split(&key, attended).swap_dims(1, 2));
        let mut products = products * scale(head_size);
        if let Some(bias) = bias {
            products = products + bias.clone().narrow(1, 0, length).narrow(2, 0, attended);
        }
        if causal {
            let behind: Vec<bool> = (0..length).flat_map(|row| (0..attended).map(move |column| column > row)).collect();
            let behind = TensorData::new(behind, [1, length, attended]);
            let behind = Tensor::<B, 3, Bool>::from_data(behind, &query.device());
            products = products.mask_fill(behind.expand([heads, length, attended]), NEVER);
        }
        let weights = softmax(products, 2).reshape([heads * length, attended]);
        // Each sequence has its own mask, as with windows.
        let seed = plan.dropout.seed ^ (start as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let weights = dropout(weights, Dropout { seed, ..plan.dropout }).reshape([heads, length, attended]);
        float32_matmul(weights, split(&value, attended)).swap_dims(0, 1).reshape([length, size])
    };
    Tensor::cat(plan.segments.as_slice().iter().map(of_sequence).collect(), 0)
}

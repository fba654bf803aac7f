//! Attention in a window: a token sees the attended tokens of its own sequence that are at most `reach` places away
//! (Beltagy et al. 2020, section 3.1).

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Tensor, TensorData};
use colbert_kernels::{Dropout, KernelBackend, Segments, dropout};

/// Stands for a product that does not count. Less would overflow where a row has no other.
const NEVER: f32 = -1e30;

/// Arguments of attention in a window, besides its three tensors.
#[derive(Debug)]
pub(crate) struct Window<'a> {
    pub(crate) segments: &'a Segments,
    pub(crate) heads: usize,
    /// Tokens to each side.
    pub(crate) reach: usize,
    /// Of the weights.
    pub(crate) dropout: Dropout,
}

/// Attention of every token to those in its window, products scaled by 1 / sqrt(head_size).
///
/// A token that has none in its window gets a vector of zeros: nothing is mixed into it. That is a query's `[MASK]`
/// expansion that may not be attended to, further than `reach` behind the last real token. (What transformers gives
/// there depends on its attention backend.)
///
/// # Shapes
/// - query, key, value: `[tokens, heads * head_size]`, the sequences one after the other
/// - output: as query
pub(crate) fn window_attention<B: KernelBackend>(
    query: Tensor<B, 2>,
    key: Tensor<B, 2>,
    value: Tensor<B, 2>,
    window: &Window<'_>,
) -> Tensor<B, 2> {
    let [_, size] = query.dims();
    let (heads, head_size) = (window.heads, size / window.heads);
    let device = query.device();
    let mut outputs = Vec::with_capacity(window.segments.as_slice().len());
    for segment in window.segments.as_slice() {
        let (length, attended) = (segment.length, segment.attended);
        let split = |packed: &Tensor<B, 2>, rows: usize| {
            packed.clone().narrow(0, segment.start, rows).reshape([rows, heads, head_size]).swap_dims(0, 1)
        };
        let far: Vec<bool> =
            (0..length).flat_map(|row| (0..attended).map(move |column| row.abs_diff(column) > window.reach)).collect();
        let far = Tensor::<B, 3, Bool>::from_data(TensorData::new(far, [1, length, attended]), &device);
        let far = far.expand([heads, length, attended]);
        let products = split(&query, length).matmul(split(&key, attended).swap_dims(1, 2));
        let products = products * (1.0 / (head_size as f32).sqrt());
        // Masked twice, so that a row without any key has weights of 0 rather than equal ones.
        let weights = softmax(products.mask_fill(far.clone(), NEVER), 2).mask_fill(far, 0.0);
        let weights = if window.dropout.is_none() {
            weights
        } else {
            // Rows of different sequences must not share a mask.
            let seed = window.dropout.seed ^ (segment.start as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let rows = weights.reshape([heads * length, attended]);
            dropout(rows, Dropout { seed, ..window.dropout }).reshape([heads, length, attended])
        };
        outputs.push(weights.matmul(split(&value, attended)).swap_dims(0, 1).reshape([length, size]));
    }
    Tensor::cat(outputs, 0)
}

//! Attention of packed sequences, one cube for some rows of a sequence and a head. Weights are never written: forward
//! accumulates them block by block (Milakov and Gimelshein 2018, "Online normalizer calculation for softmax"), and
//! backward recomputes them from the log-sum-exp (Dao et al. 2022, FlashAttention, section 3.1).
//!
//! Query, key and value and their gradients are of the type `F` in memory; all else, and all arithmetic, is float32.

mod backward;
mod forward;

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

pub(crate) use self::backward::gradient;
pub(crate) use self::forward::forward;
use crate::cube::random::{Mask, row_key, seed_of_sequence};
use crate::device::limits::LEAST_SHARED_BYTES;
use crate::operators::attention::{AttentionPlan, scale};

/// Units that share a row.
pub(crate) const LANES: usize = 4;

/// The value of a product that does not count.
pub(crate) const NEVER: f32 = -1e30;

/// The limit above which a product counts.
pub(crate) const HARDLY: f32 = -5e29;

/// The parameters that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Form {
    /// Numbers of a token in one head.
    pub(crate) head_size: usize,
    /// Numbers of a row that one lane has.
    pub(crate) each: usize,
    /// Rows of a cube.
    pub(crate) rows: usize,
    /// Tokens on the other side that a cube processes together.
    pub(crate) others: usize,
    /// Whether tokens see only those near them.
    pub(crate) windowed: bool,
    /// Whether weights are dropped.
    pub(crate) drops: bool,
}

impl Form {
    /// Chooses the largest blocks whose backward pass fits the shared memory that every device has; none if the heads
    /// are too large.
    pub(crate) fn of(plan: &AttentionPlan, head_size: usize) -> Option<Self> {
        let fits = |(rows, others): &(usize, usize)| {
            // Rows and others are held twice each, with two blocks of weights, and four numbers for each of the others.
            let numbers = 2 * (rows + others) * head_size + 2 * rows * others + 4 * others;
            numbers * size_of::<f32>() <= LEAST_SHARED_BYTES as usize
        };
        let (rows, others) = [(32, 16), (32, 8), (16, 16), (16, 8), (8, 8), (8, 4)].into_iter().find(fits)?;
        let (windowed, drops) = (plan.reach.is_some(), !plan.dropout.is_none());
        Some(Self { head_size, each: head_size.div_ceil(LANES), rows, others, windowed, drops })
    }

    fn units(self) -> u32 {
        (self.rows * LANES) as u32
    }
}

/// The numbers of a plan, for a kernel.
struct Numbers {
    /// Start, length and attended tokens of its sequence, and its first position, for each block of rows.
    blocks: Vec<u32>,
    heads: usize,
    size: usize,
    scale: f32,
    reach: u32,
    mask: Mask,
}

impl Numbers {
    fn new(plan: &AttentionPlan, form: Form) -> Self {
        let mut blocks = Vec::new();
        for segment in plan.segments.as_slice() {
            for first in (0..segment.length).step_by(form.rows) {
                blocks.extend([segment.start, segment.length, segment.attended, first].map(|number| number as u32));
            }
        }
        let size = form.head_size * plan.heads;
        // No sequence is longer than the largest reach, which is added to a position without overflow.
        let reach = plan.reach.unwrap_or(0).min(1 << 30) as u32;
        Self { blocks, heads: plan.heads, size, scale: scale(form.head_size), reach, mask: plan.dropout.into() }
    }

    fn cubes(&self) -> usize {
        self.blocks.len() / 4 * self.heads
    }
}

/// Returns whether these kernels can compute a plan: the blocks of its heads must fit shared memory.
pub(crate) fn can<R: CubeRuntime>(query: &CubeTensor<R>, plan: &AttentionPlan) -> bool {
    let size = query.meta.shape()[1];
    Form::of(plan, size / plan.heads).is_some()
}

/// Returns key and flip of the dropout factors of a query's weights ([`AttentionPlan::weights_row`]).
#[cube]
pub(crate) fn weights_key(
    seed_high: u32,
    seed_low: u32,
    start: u32,
    length: u32,
    position: u32,
    head: u32,
    heads: u32,
    #[comptime] windowed: bool,
) -> crate::cube::random::Wide {
    if comptime!(windowed) {
        let seed = seed_of_sequence(seed_high, seed_low, start);
        row_key(seed.high, seed.low, head * length + position)
    } else {
        row_key(seed_high, seed_low, (start + position) * heads + head)
    }
}

/// Copies a head's numbers of some tokens to shared memory, zeros after the last.
#[cube]
pub(crate) fn load<F: Float>(
    from: &Array<F>,
    to: &mut SharedMemory<f32>,
    start: usize,
    first: usize,
    end: usize,
    head: usize,
    size: usize,
    factor: f32,
    #[comptime] tokens: usize,
    #[comptime] head_size: usize,
    #[comptime] units: usize,
) {
    let mut i = UNIT_POS as usize;
    while i < comptime!(tokens * head_size) {
        let position = first + i / comptime!(head_size);
        let mut number = 0.0f32;
        if position < end {
            let at = (start + position) * size + head * comptime!(head_size) + i % comptime!(head_size);
            number = f32::cast_from(from[at]) * factor;
        }
        to[i] = number;
        i += comptime!(units);
    }
}

/// Computes the product of a row in one block with a row in another.
#[cube]
pub(crate) fn dot(
    left: &SharedMemory<f32>,
    right: &SharedMemory<f32>,
    left_row: usize,
    right_row: usize,
    #[comptime] head_size: usize,
) -> f32 {
    let mut sum = 0.0f32;
    for n in 0..head_size {
        sum += left[left_row * comptime!(head_size) + n] * right[right_row * comptime!(head_size) + n];
    }
    sum
}

/// Returns whether a key is within reach of a query.
#[cube]
pub(crate) fn near(one: usize, other: usize, reach: u32) -> bool {
    one <= other + reach as usize && other <= one + reach as usize
}

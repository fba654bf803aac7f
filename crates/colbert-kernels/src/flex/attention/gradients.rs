//! The places where the gradients of query, key and value are summed up: the result's own, or aside where the result is
//! rounded.

use half::bf16;

use crate::flex::attention::head::Head;
use crate::flex::buffer::{Plain, Shared};
use crate::flex::pack::round_row;

/// A type of the numbers of gradients.
pub(crate) trait Gradient: Plain + Sync {
    /// Returns how many numbers a head needs to sum up the gradients of its `tokens` tokens, `size` numbers each.
    fn aside(tokens: usize, size: usize) -> usize;

    /// Returns where a head sums up the gradients of query, key and value: the first token of each, and the distance
    /// of tokens. These are the head's own places in the result, or in `aside`.
    ///
    /// # Safety
    /// No one else may touch this head's places.
    unsafe fn places(to: Target<Self>, head: &Head<'_>, aside: &mut [f32]) -> ([Shared; 3], usize);

    /// Writes what was summed up aside to the result.
    ///
    /// # Safety
    /// As [`places`](Self::places).
    unsafe fn finish(to: Target<Self>, head: &Head<'_>, aside: &[f32]);
}

impl Gradient for f32 {
    fn aside(_: usize, _: usize) -> usize {
        0
    }

    unsafe fn places(to: Target<Self>, head: &Head<'_>, _: &mut [f32]) -> ([Shared; 3], usize) {
        // SAFETY: this head's first token.
        (to.parts.map(|(part, first)| unsafe { part.part(first + head.offset(to.stride)) }), to.stride)
    }

    unsafe fn finish(_: Target<Self>, _: &Head<'_>, _: &[f32]) {}
}

impl Gradient for bf16 {
    fn aside(tokens: usize, size: usize) -> usize {
        3 * tokens * size
    }

    unsafe fn places(_: Target<Self>, head: &Head<'_>, aside: &mut [f32]) -> ([Shared; 3], usize) {
        let each = head.segment.length * head.size;
        let start = Shared::new(aside);
        // SAFETY: each has its third of the numbers.
        ([0, 1, 2].map(|i| unsafe { start.part(i * each) }), head.size)
    }

    unsafe fn finish(to: Target<Self>, head: &Head<'_>, aside: &[f32]) {
        let rows = aside.chunks_exact(head.size);
        for (i, row) in rows.enumerate() {
            let (part, first) = to.parts[i / head.segment.length];
            let at = first + head.offset(to.stride) + i % head.segment.length * to.stride;
            // SAFETY: this token and head's own numbers.
            round_row(head.level, row, unsafe { part.slice(at, head.size) });
        }
    }
}

/// Where gradients of query, key and value are written, each from a first number on, tokens `stride` numbers apart.
#[derive(Clone, Copy)]
pub(crate) struct Target<T> {
    pub(super) parts: [(Shared<T>, usize); 3],
    pub(super) stride: usize,
}

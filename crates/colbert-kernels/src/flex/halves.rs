//! Rows that are kept in bfloat16, and what is computed of them, a piece at a time in float32.

use half::bf16;

use crate::flex::buffer::{Buffer, Shared};
use crate::flex::elementwise::{gelu_block, gelu_both_block};
use crate::flex::gate::{Dropped, gate_row, gradient_row};
use crate::flex::level::Level;
use crate::flex::pack::{round_row, widen_row};
use crate::flex::parallel::for_each_block;
use crate::operators::gate::{ActiveHalf, Gate};

/// Numbers in a piece: few enough that all of its versions stay in the first cache.
const PIECE: usize = 256;

/// Numbers that a thread rounds at a time.
const BLOCK: usize = 1 << 14;

/// Rounds numbers as products of pairs round their factors.
pub(crate) fn round(level: Level, numbers: &[f32]) -> Buffer<bf16> {
    let mut rounded = Buffer::new(numbers.len());
    let shared = Shared::new(&mut rounded);
    for_each_block(numbers.len(), BLOCK, |own| {
        // SAFETY: this block's own numbers.
        round_row(level, &numbers[own.clone()], unsafe { shared.slice(own.start, own.len()) });
    });
    rounded
}

/// Rounds sums to `kept`, and writes their GELU to `output`.
pub(crate) fn gelu(level: Level, sums: &mut [f32], kept: &mut [bf16], output: &mut [bf16]) {
    let pieces = sums.chunks_mut(PIECE).zip(kept.chunks_mut(PIECE)).zip(output.chunks_mut(PIECE));
    for ((sums, kept), output) in pieces {
        let mut gelu = [0.0; PIECE];
        let gelu = &mut gelu[..sums.len()];
        // The backward pass sees the rounded sums, and so must the output.
        round_row(level, sums, kept);
        widen_row(level, kept, sums);
        gelu_block(level, sums, gelu);
        round_row(level, gelu, output);
    }
}

/// Writes GELU of the sums to `output`, and their gradient to `of_sums`.
pub(crate) fn gelu_gradient(
    level: Level,
    sums: &[bf16],
    gradient: &mut [f32],
    output: &mut [bf16],
    of_sums: &mut [bf16],
) {
    let pieces = sums.chunks(PIECE).zip(gradient.chunks_mut(PIECE));
    for ((sums, gradient), (output, of_sums)) in pieces.zip(output.chunks_mut(PIECE).zip(of_sums.chunks_mut(PIECE))) {
        let (mut wide, mut gelu) = ([0.0; PIECE], [0.0; PIECE]);
        let (wide, gelu) = (&mut wide[..sums.len()], &mut gelu[..sums.len()]);
        widen_row(level, sums, wide);
        gelu_both_block(level, wide, gelu, gradient);
        round_row(level, gelu, output);
        round_row(level, gradient, of_sums);
    }
}

/// Writes the gate's output of a row of both halves.
pub(crate) fn gate(level: Level, gate: Gate, row: usize, both: &[bf16], output: &mut [bf16]) {
    let wide = output.len();
    let [first_active, first_other] = starts(gate, wide);
    for (piece, output) in output.chunks_mut(PIECE).enumerate() {
        let (column, length) = (piece * PIECE, output.len());
        let mut numbers = [[0.0; PIECE]; 3];
        let [active, other, gated] = numbers.each_mut().map(|numbers| &mut numbers[..length]);
        widen_row(level, &both[first_active + column..][..length], active);
        widen_row(level, &both[first_other + column..][..length], other);
        gate_row(level, gate.activation, active, other, Dropped::of(gate.dropout, row, column), gated);
        round_row(level, gated, output);
    }
}

/// Replaces parts of a row's two halves, from `column` of each on, by their gradients; writes the gate's output. The
/// gradient is that of the output.
pub(crate) fn gate_gradient(
    level: Level,
    gate: Gate,
    [row, column]: [usize; 2],
    [first, second]: [&mut [bf16]; 2],
    gradient: &mut [f32],
    output: &mut [bf16],
) {
    let (active, other) = match gate.active {
        ActiveHalf::First => (first, second),
        ActiveHalf::Second => (second, first),
    };
    let kept = active.chunks_mut(PIECE).zip(other.chunks_mut(PIECE));
    for (piece, ((active, other), (gradient, output))) in
        kept.zip(gradient.chunks_mut(PIECE).zip(output.chunks_mut(PIECE))).enumerate()
    {
        let (column, mut numbers) = (column + piece * PIECE, [[0.0; PIECE]; 2]);
        let [wide_active, wide_other] = numbers.each_mut().map(|numbers| &mut numbers[..output.len()]);
        widen_row(level, active, wide_active);
        widen_row(level, other, wide_other);
        let dropped = Dropped::of(gate.dropout, row, column);
        gradient_row(level, gate.activation, wide_active, wide_other, dropped, gradient);
        round_row(level, wide_active, active);
        round_row(level, wide_other, other);
        round_row(level, gradient, output);
    }
}

/// Returns where the half that goes through the activation begins, and the other one.
fn starts(gate: Gate, wide: usize) -> [usize; 2] {
    match gate.active {
        ActiveHalf::First => [0, wide],
        ActiveHalf::Second => [wide, 0],
    }
}

//! Products whose rows go through GELU or a gate while they are in the cache.

use half::bf16;

use crate::flex::buffer::{Buffer, Shared};
use crate::flex::elementwise::{gelu_block, gelu_both_block};
use crate::flex::gate::{Dropped, gate_row, gradient_row};
use crate::flex::halves;
use crate::flex::layout::{Layout, LeftFactor, RightFactor};
use crate::flex::matmul::{Start, multiply, multiply_aside};
use crate::flex::pack::round_row;
use crate::flex::parallel::for_each_block;
use crate::flex::tile::Size;
use crate::operators::gate::{ActiveHalf, Gate};

/// Rows that a thread takes at a time through a gate, where they are finished after the product.
const ROWS: usize = 16;

/// The factors of a product of all tokens and one map.
#[derive(Clone, Copy)]
pub(crate) struct Factors<'a> {
    pub(crate) layout: Layout,
    pub(crate) size: Size,
    pub(crate) left: &'a LeftFactor<'a>,
    pub(crate) right: &'a RightFactor,
}

impl Factors<'_> {
    /// Numbers of the product.
    fn numbers(&self) -> usize {
        self.size.rows * self.size.columns
    }
}

/// Returns GELU of the product, and the product.
pub(crate) fn gelu(factors: Factors<'_>, start: Start<'_>) -> [Buffer; 2] {
    let Factors { layout, size, left, right } = factors;
    let (mut output, mut sums) = (Buffer::new(factors.numbers()), Buffer::new(factors.numbers()));
    let to = Shared::new(&mut output);
    multiply(layout, size, left, right, start, &mut sums, |offset, sums| {
        // SAFETY: a part of a row of the product, which is as large as the output, finished once.
        gelu_block(layout.level, sums, unsafe { to.slice(offset, sums.len()) });
    });
    [output, sums]
}

/// Returns the same as [`gelu`], rounded; the product is rounded before GELU.
pub(crate) fn gelu_halves(factors: Factors<'_>, start: Start<'_>) -> [Buffer<bf16>; 2] {
    let Factors { layout, size, left, right } = factors;
    let mut found = [(); 2].map(|()| Buffer::new(factors.numbers()));
    let to = found.each_mut().map(|buffer| Shared::new(buffer));
    multiply_aside(layout, size, left, right, start, |offset, sums| {
        // SAFETY: a part of a row of the product, which is as large as both, finished once.
        let [output, kept] = to.map(|to| unsafe { to.slice(offset, sums.len()) });
        halves::gelu(layout.level, sums, kept, output);
    });
    found
}

/// Returns GELU of the sums, and their gradient. The product is the gradient of GELU's output.
pub(crate) fn gelu_gradient(factors: Factors<'_>, sums: &[f32]) -> [Buffer; 2] {
    let Factors { layout, size, left, right } = factors;
    assert_eq!(sums.len(), factors.numbers(), "sums and gradient");
    let (mut output, mut of_sums) = (Buffer::new(sums.len()), Buffer::new(sums.len()));
    let to = Shared::new(&mut output);
    multiply(layout, size, left, right, Start::Zero, &mut of_sums, |offset, gradient| {
        let sums = &sums[offset..][..gradient.len()];
        // SAFETY: as in `gelu`.
        gelu_both_block(layout.level, sums, unsafe { to.slice(offset, sums.len()) }, gradient);
    });
    [output, of_sums]
}

/// Returns the same as [`gelu_gradient`], rounded.
pub(crate) fn gelu_halves_gradient(factors: Factors<'_>, sums: &[bf16]) -> [Buffer<bf16>; 2] {
    let Factors { layout, size, left, right } = factors;
    assert_eq!(sums.len(), factors.numbers(), "sums and gradient");
    let mut found = [(); 2].map(|()| Buffer::new(sums.len()));
    let to = found.each_mut().map(|buffer| Shared::new(buffer));
    multiply_aside(layout, size, left, right, Start::Zero, |offset, gradient| {
        let sums = &sums[offset..][..gradient.len()];
        // SAFETY: as in `gelu_halves`.
        let [output, of_sums] = to.map(|to| unsafe { to.slice(offset, sums.len()) });
        halves::gelu_gradient(layout.level, sums, gradient, output, of_sums);
    });
    found
}

/// Returns the gate's output, and both halves.
pub(crate) fn gate(factors: Factors<'_>, start: Start<'_>, gate: Gate) -> [Buffer; 2] {
    let Factors { layout, size, left, right } = factors;
    let Size { rows, columns, .. } = size;
    let wide = columns / 2;
    let (mut gated, mut both) = (Buffer::new(rows * wide), Buffer::new(rows * columns));
    let to = Shared::new(&mut gated);
    let finish = |row: usize, both: &[f32]| {
        let (active, other) = split(both, gate);
        // SAFETY: this row of the gate's output, which is finished once.
        let to = unsafe { to.slice(row * wide, wide) };
        gate_row(layout.level, gate.activation, active, other, Dropped::of(gate.dropout, row, 0), to);
    };
    // With few rows, a block has a part of each, and rows are finished when all parts are there.
    let whole = multiply(layout, size, left, right, start, &mut both, |offset, row| {
        if row.len() == columns {
            finish(offset / columns.max(1), row);
        }
    });
    if !whole {
        for_each_block(rows, ROWS, |own| own.for_each(|row| finish(row, &both[row * columns..(row + 1) * columns])));
    }
    [gated, both]
}

/// Returns the same as [`gate`], rounded; the halves are rounded before the gate.
pub(crate) fn gate_halves(factors: Factors<'_>, start: Start<'_>, gate: Gate) -> [Buffer<bf16>; 2] {
    let Factors { layout, size, left, right } = factors;
    let Size { rows, columns, .. } = size;
    let wide = columns / 2;
    let (mut gated, mut both) = (Buffer::new(rows * wide), Buffer::new(rows * columns));
    let (to, kept) = (Shared::new(&mut gated), Shared::new(&mut both));
    // SAFETY: this row of the gate's output, which is finished once.
    let finish = |row: usize, both: &[bf16]| unsafe {
        halves::gate(layout.level, gate, row, both, to.slice(row * wide, wide));
    };
    let whole = multiply_aside(layout, size, left, right, start, |offset, part| {
        // SAFETY: a part of a row of the product, which is as large as what is kept, finished once.
        let kept = unsafe { kept.slice(offset, part.len()) };
        round_row(layout.level, part, kept);
        if kept.len() == columns {
            finish(offset / columns.max(1), kept);
        }
    });
    if !whole {
        for_each_block(rows, ROWS, |own| own.for_each(|row| finish(row, &both[row * columns..(row + 1) * columns])));
    }
    [gated, both]
}

/// Replaces both halves by their gradients, and returns the gate's output. The product is the gradient of that output.
pub(crate) fn gate_gradient(factors: Factors<'_>, both: &mut [f32], gate: Gate) -> Buffer {
    let Factors { layout, size, left, right } = factors;
    let wide = size.columns;
    let mut gated = Buffer::new(size.rows * wide);
    let both = Shared::new(both);
    let (active, other) = match gate.active {
        ActiveHalf::First => (0, wide),
        ActiveHalf::Second => (wide, 0),
    };
    multiply(layout, size, left, right, Start::Zero, &mut gated, |offset, gradient| {
        let (row, column) = (offset / wide, offset % wide);
        // SAFETY: parts of this row's halves, which are as long as the part that is finished, and finished once.
        let [active, other] =
            [active, other].map(|half| unsafe { both.slice(row * 2 * wide + half + column, gradient.len()) });
        let dropped = Dropped::of(gate.dropout, row, column);
        gradient_row(layout.level, gate.activation, active, other, dropped, gradient);
    });
    gated
}

/// Does the same as [`gate_gradient`] with numbers that are kept rounded.
pub(crate) fn gate_halves_gradient(factors: Factors<'_>, both: &mut [bf16], gate: Gate) -> Buffer<bf16> {
    let Factors { layout, size, left, right } = factors;
    let wide = size.columns;
    let mut gated = Buffer::new(size.rows * wide);
    let (to, both) = (Shared::new(&mut gated), Shared::new(both));
    multiply_aside(layout, size, left, right, Start::Zero, |offset, gradient| {
        let (row, column, length) = (offset / wide, offset % wide, gradient.len());
        // SAFETY: parts of this row and its halves, which are as long as the part that is finished, and finished once.
        let [first, second, output] = unsafe {
            let both = both.part(row * 2 * wide + column);
            [both.slice(0, length), both.slice(wide, length), to.slice(offset, length)]
        };
        halves::gate_gradient(layout.level, gate, [row, column], [first, second], gradient, output);
    });
    gated
}

/// Splits a row into the half that goes through the activation and the other one.
fn split(row: &[f32], gate: Gate) -> (&[f32], &[f32]) {
    let (first, second) = row.split_at(row.len() / 2);
    match gate.active {
        ActiveHalf::First => (first, second),
        ActiveHalf::Second => (second, first),
    }
}

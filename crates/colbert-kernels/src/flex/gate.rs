//! Gates of rows whose two halves lie one after the other.

use crate::flex::elementwise::normal;
use crate::flex::level::{exp, for_each_level, multiply_add};
use crate::operators::dropout::{Dropout, DropoutRow};
use crate::operators::gate::Activation;

/// Dropout factors of a row from a column on.
#[derive(Clone, Copy)]
pub(crate) struct Dropped {
    row: DropoutRow,
    first: u32,
}

impl Dropped {
    /// Returns the factors of a row from a column on, if any number is dropped.
    pub(crate) fn of(dropout: Dropout, row: usize, first: usize) -> Option<Self> {
        (!dropout.is_none()).then(|| Self { row: dropout.row(row), first: first as u32 })
    }
}

for_each_level! {
    /// Computes `to[i] = activation(active[i]) * other[i] * factor`
    fn gate_row(activation: Activation, active: &[f32], other: &[f32], dropped: Option<Dropped>, to: &mut [f32]) = gate_body
}

for_each_level! {
    /// Replaces both halves by their gradients, and the gradient of the gate's output by that output.
    fn gradient_row(
        activation: Activation,
        active: &mut [f32],
        other: &mut [f32],
        dropped: Option<Dropped>,
        gradient: &mut [f32],
    ) = gradient_body
}

/// Computes the activation and its derivative.
#[inline(always)]
fn activate<const FUSED: bool, const SILU: bool>(x: f32) -> (f32, f32) {
    if SILU {
        // The exponential of minus the absolute value, so that nothing overflows.
        let e = exp::<FUSED>(-x.abs());
        let s = if x > 0.0 { 1.0 } else { e } / (1.0 + e);
        (x * s, s * multiply_add::<FUSED>(x, 1.0 - s, 1.0))
    } else {
        let (below, density) = normal::<FUSED>(x);
        (x * below, multiply_add::<FUSED>(x, density, below))
    }
}

#[inline(always)]
fn gate_body<const FUSED: bool>(
    activation: Activation,
    active: &[f32],
    other: &[f32],
    dropped: Option<Dropped>,
    to: &mut [f32],
) {
    match activation {
        Activation::Gelu => gate_with::<FUSED, false>(active, other, to),
        Activation::Silu => gate_with::<FUSED, true>(active, other, to),
    }
    if let Some(Dropped { row, first }) = dropped {
        // Counted by index: an open range of u32 is not vectorised.
        to.iter_mut().enumerate().for_each(|(i, x)| *x *= row.factor(first.wrapping_add(i as u32)));
    }
}

#[inline(always)]
fn gate_with<const FUSED: bool, const SILU: bool>(active: &[f32], other: &[f32], to: &mut [f32]) {
    for ((to, active), other) in to.iter_mut().zip(active).zip(other) {
        *to = activate::<FUSED, SILU>(*active).0 * other;
    }
}

#[inline(always)]
fn gradient_body<const FUSED: bool>(
    activation: Activation,
    active: &mut [f32],
    other: &mut [f32],
    dropped: Option<Dropped>,
    gradient: &mut [f32],
) {
    match (activation, dropped) {
        (Activation::Gelu, None) => gradient_with::<FUSED, false>(active, other, gradient, |_| 1.0),
        (Activation::Silu, None) => gradient_with::<FUSED, true>(active, other, gradient, |_| 1.0),
        (Activation::Gelu, Some(Dropped { row, first })) => {
            gradient_with::<FUSED, false>(active, other, gradient, |i| row.factor(first.wrapping_add(i)));
        }
        (Activation::Silu, Some(Dropped { row, first })) => {
            gradient_with::<FUSED, true>(active, other, gradient, |i| row.factor(first.wrapping_add(i)));
        }
    }
}

#[inline(always)]
fn gradient_with<const FUSED: bool, const SILU: bool>(
    active: &mut [f32],
    other: &mut [f32],
    gradient: &mut [f32],
    factor: impl Fn(u32) -> f32,
) {
    for (i, ((active, other), gradient)) in active.iter_mut().zip(other).zip(gradient).enumerate() {
        let (value, slope) = activate::<FUSED, SILU>(*active);
        let factor = factor(i as u32);
        let back = *gradient * factor;
        *gradient = value * *other * factor;
        *active = back * *other * slope;
        *other = back * value;
    }
}

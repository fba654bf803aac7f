//! Operations of attention on a row of products, and on a token's numbers.

use crate::flex::level::{exp, for_each_level, largest, multiply_add, sum};
use crate::operators::dropout::DropoutRow;

/// The factors of a row of weights, from the key at position `first` on.
#[derive(Clone, Copy)]
pub(super) struct Dropped {
    pub(super) row: DropoutRow,
    pub(super) first: u32,
}

impl Dropped {
    /// Returns the factor of element `i`. (An open range of u32 would not be vectorised.)
    #[inline(always)]
    fn factor(&self, i: usize) -> f32 {
        self.row.factor(self.first.wrapping_add(i as u32))
    }
}

for_each_level! {
    /// Turns products into exponentials, and drops some; returns the largest scaled product, and the sum before
    /// dropping.
    fn softmax_row(row: &mut [f32], scale: f32, dropout: Option<Dropped>) -> [f32; 2] = softmax_body
}

for_each_level! {
    /// Computes `row[i] *= factor`
    fn scale_row(row: &mut [f32], factor: f32) = scale_body
}

for_each_level! {
    /// Turns products into weights, dropped ones zero, and the gradients of dropped weights into those of products.
    fn gradient_row(
        weights: &mut [f32],
        gradient: &mut [f32],
        log_sum_exp: f32,
        mean: f32,
        scale: f32,
        dropout: Option<Dropped>,
    ) = gradient_body
}

for_each_level! {
    /// Computes the product of two rows.
    fn dot(a: &[f32], b: &[f32]) -> f32 = dot_body
}

for_each_level! {
    /// Rotates the pairs (i, i + half) of a row by their angles; numbers after them stay.
    fn rotate_row(row: &[f32], cos: &[f32], sin: &[f32], to: &mut [f32]) = rotate_body
}

for_each_level! {
    /// Rotates the pairs of a row by the opposite angles, in place.
    fn rotate_back(row: &mut [f32], cos: &[f32], sin: &[f32]) = rotate_back_body
}

#[inline(always)]
fn softmax_body<const FUSED: bool>(row: &mut [f32], scale: f32, dropout: Option<Dropped>) -> [f32; 2] {
    let most = largest(row);
    for x in row.iter_mut() {
        *x = exp::<FUSED>((*x - most) * scale);
    }
    let total = sum(row.len(), |i| row[i]);
    if let Some(dropout) = dropout {
        for (i, x) in row.iter_mut().enumerate() {
            *x *= dropout.factor(i);
        }
    }
    [most * scale, total]
}

#[inline(always)]
fn scale_body<const FUSED: bool>(row: &mut [f32], factor: f32) {
    for x in row {
        *x *= factor;
    }
}

#[inline(always)]
fn gradient_body<const FUSED: bool>(
    weights: &mut [f32],
    gradient: &mut [f32],
    log_sum_exp: f32,
    mean: f32,
    scale: f32,
    dropout: Option<Dropped>,
) {
    let each = weights.iter_mut().zip(gradient);
    match dropout {
        None => {
            for (weight, gradient) in each {
                let p = exp::<FUSED>(multiply_add::<FUSED>(*weight, scale, -log_sum_exp));
                *gradient = p * (*gradient - mean) * scale;
                *weight = p;
            }
        }
        Some(dropout) => {
            for (i, (weight, gradient)) in each.enumerate() {
                let p = exp::<FUSED>(multiply_add::<FUSED>(*weight, scale, -log_sum_exp));
                let factor = dropout.factor(i);
                *gradient = p * (*gradient * factor - mean) * scale;
                *weight = p * factor;
            }
        }
    }
}

#[inline(always)]
fn dot_body<const FUSED: bool>(a: &[f32], b: &[f32]) -> f32 {
    let b = &b[..a.len()];
    sum(a.len(), |i| a[i] * b[i])
}

#[inline(always)]
fn rotate_body<const FUSED: bool>(row: &[f32], cos: &[f32], sin: &[f32], to: &mut [f32]) {
    let half = cos.len();
    // Cut once, so that the loop needs no bounds checks.
    let (sin, to) = (&sin[..half], &mut to[..row.len()]);
    let (first, rest) = row.split_at(half);
    let (second, rest) = rest.split_at(half);
    let (to_first, to_rest) = to.split_at_mut(half);
    let (to_second, to_rest) = to_rest.split_at_mut(half);
    for i in 0..half {
        to_first[i] = multiply_add::<FUSED>(first[i], cos[i], -second[i] * sin[i]);
        to_second[i] = multiply_add::<FUSED>(second[i], cos[i], first[i] * sin[i]);
    }
    to_rest.copy_from_slice(rest);
}

#[inline(always)]
fn rotate_back_body<const FUSED: bool>(row: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    let sin = &sin[..half];
    let (first, rest) = row.split_at_mut(half);
    let second = &mut rest[..half];
    for i in 0..half {
        let (x, y) = (first[i], second[i]);
        first[i] = multiply_add::<FUSED>(x, cos[i], y * sin[i]);
        second[i] = multiply_add::<FUSED>(y, cos[i], -x * sin[i]);
    }
}

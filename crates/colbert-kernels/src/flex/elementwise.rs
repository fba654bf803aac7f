//! GELU and dropout, element by element.

use crate::flex::buffer::{Buffer, Shared};
use crate::flex::level::{Level, exp, for_each_level, multiply_add};
use crate::flex::parallel::for_each_block;
use crate::operators::dropout::{Dropout, DropoutRow};

/// Elements that a thread takes at a time.
const BLOCK: usize = 1 << 14;

for_each_level! {
    /// Computes `output[i] = gelu(input[i])`
    fn gelu_block(input: &[f32], output: &mut [f32]) = gelu_body
}

for_each_level! {
    /// Computes `output[i] = gradient[i] * gelu'(input[i])`
    fn gelu_gradient_block(input: &[f32], gradient: &[f32], output: &mut [f32]) = gelu_gradient_body
}

for_each_level! {
    /// Computes `gelu[i] = gelu(input[i])`, and `gradient[i] *= gelu'(input[i])`
    fn gelu_both_block(input: &[f32], gelu: &mut [f32], gradient: &mut [f32]) = gelu_both_body
}

for_each_level! {
    /// Computes `output[i] = input[i] * row.factor(i)`
    fn dropout_row(row: DropoutRow, input: &[f32], output: &mut [f32]) = dropout_body
}

#[inline(always)]
fn gelu_body<const FUSED: bool>(input: &[f32], output: &mut [f32]) {
    for (output, input) in output.iter_mut().zip(input) {
        let (below, _) = normal::<FUSED>(*input);
        *output = input * below;
    }
}

#[inline(always)]
fn gelu_gradient_body<const FUSED: bool>(input: &[f32], gradient: &[f32], output: &mut [f32]) {
    for ((output, input), gradient) in output.iter_mut().zip(input).zip(gradient) {
        let (below, density) = normal::<FUSED>(*input);
        *output = gradient * multiply_add::<FUSED>(*input, density, below);
    }
}

#[inline(always)]
fn gelu_both_body<const FUSED: bool>(input: &[f32], gelu: &mut [f32], gradient: &mut [f32]) {
    for ((input, gelu), gradient) in input.iter().zip(gelu).zip(gradient) {
        let (below, density) = normal::<FUSED>(*input);
        *gelu = input * below;
        *gradient *= multiply_add::<FUSED>(*input, density, below);
    }
}

#[inline(always)]
fn dropout_body<const FUSED: bool>(row: DropoutRow, input: &[f32], output: &mut [f32]) {
    // Counted by index: an open range of u32 is not vectorised.
    for (i, (output, input)) in output.iter_mut().zip(input).enumerate() {
        *output = input * row.factor(i as u32);
    }
}

/// Returns, for the standard normal distribution, the probability of a number below `x` and the density at `x`.
///
/// Source: Abramowitz and Stegun 1964, 7.1.26, for the complement of erf; its error is below 1.5e-7.
#[inline(always)]
pub(crate) fn normal<const FUSED: bool>(x: f32) -> (f32, f32) {
    const DENSITY: f32 = 0.398_942_3;
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let e = exp::<FUSED>(-z * z);
    let t = 1.0 / multiply_add::<FUSED>(z, 0.327_591_1, 1.0);
    let p = multiply_add::<FUSED>(t, 1.061_405_4, -1.453_152);
    let p = multiply_add::<FUSED>(p, t, 1.421_413_8);
    let p = multiply_add::<FUSED>(p, t, -0.284_496_72);
    let p = multiply_add::<FUSED>(p, t, 0.254_829_6);
    let tail = 0.5 * p * t * e;
    (if x > 0.0 { 1.0 - tail } else { tail }, DENSITY * e)
}

pub(crate) fn gelu(level: Level, input: &[f32]) -> Buffer {
    let mut output = Buffer::new(input.len());
    let shared = Shared::new(&mut output);
    for_each_block(input.len(), BLOCK, |own| {
        // SAFETY: this block's own elements.
        let output = unsafe { std::slice::from_raw_parts_mut(shared.at(own.start), own.len()) };
        gelu_block(level, &input[own], output);
    });
    output
}

pub(crate) fn gelu_gradient(level: Level, input: &[f32], gradient: &[f32]) -> Buffer {
    assert_eq!(input.len(), gradient.len(), "input and gradient");
    let mut output = Buffer::new(input.len());
    let shared = Shared::new(&mut output);
    for_each_block(input.len(), BLOCK, |own| {
        // SAFETY: this block's own elements.
        let output = unsafe { std::slice::from_raw_parts_mut(shared.at(own.start), own.len()) };
        gelu_gradient_block(level, &input[own.clone()], &gradient[own], output);
    });
    output
}

pub(crate) fn dropout(level: Level, input: &[f32], columns: usize, dropout: Dropout) -> Buffer {
    let mut output = Buffer::new(input.len());
    let shared = Shared::new(&mut output);
    let rows = input.len() / columns.max(1);
    for_each_block(rows, BLOCK.div_ceil(columns.max(1)), |own| {
        for row in own {
            let start = row * columns;
            // SAFETY: this block's own rows.
            let output = unsafe { std::slice::from_raw_parts_mut(shared.at(start), columns) };
            dropout_row(level, dropout.row(row), &input[start..start + columns], output);
        }
    });
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flex::testing::{close, random};

    /// Absolute error of GELU and its derivative.
    const ERROR: f64 = 5e-7;

    /// Computes the error function by its series of positive terms (Abramowitz and Stegun 1964, 7.1.6).
    fn erf(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..300 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        sum * (-x * x).exp() * std::f64::consts::FRAC_2_SQRT_PI
    }

    #[test]
    fn gelu_and_its_derivative_are_those_of_f64() {
        let input: Vec<f32> = (0..=8_000).map(|i| (i as f32 - 4_000.0) / 1_000.0).collect();
        let gradient = random(input.len(), 3);
        let below = |x: f64| 0.5 * (1.0 + erf(x / 2f64.sqrt()));
        let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let exact: Vec<f64> = input.iter().map(|x| f64::from(*x) * below(f64::from(*x))).collect();
        let slope = input.iter().map(|x| f64::from(*x)).map(|x| below(x) + x * density(x));
        let back: Vec<f64> = slope.zip(&gradient).map(|(slope, gradient)| slope * f64::from(*gradient)).collect();
        for level in Level::available() {
            close(&gelu(level, &input), &exact, ERROR, &format!("gelu, {level:?}"));
            close(&gelu_gradient(level, &input, &gradient), &back, ERROR, &format!("derivative, {level:?}"));
            let mut of_input = gradient.clone();
            let mut again = vec![0.0; input.len()];
            gelu_both_block(level, &input, &mut again, &mut of_input);
            assert_eq!(
                (&again[..], &of_input[..]),
                (&gelu(level, &input)[..], &gelu_gradient(level, &input, &gradient)[..])
            );
            let far = gelu(level, &[-1e30, -50.0, 50.0, 1e30]);
            assert_eq!(&far[..], [0.0, 0.0, 50.0, 1e30]);
        }
    }

    #[test]
    fn dropout_is_the_mask_s_product_on_every_level() {
        let options = Dropout { probability: 0.3, seed: 7 };
        for (rows, columns) in [(0, 5), (1, 1), (3, 17), (50, 401)] {
            let input = random(rows * columns, rows);
            let expected: Vec<f32> = options.mask(rows, columns).iter().zip(&input).map(|(f, x)| f * x).collect();
            for level in Level::available() {
                assert_eq!(&dropout(level, &input, columns, options)[..], expected, "{level:?}");
            }
        }
    }
}

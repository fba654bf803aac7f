//! Gates of rows whose two halves lie one after the other, with the bias before them and dropout after them: forward
//! and backward in one launch each. Numbers are float32 while they are computed with, and of the type `F` in memory.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::StorageType;
use cubecl::prelude::*;

use crate::cube::gelu::{below, density};
use crate::cube::launch::{UNITS, contiguous, cubes_of_elements, dims, floats, unwritten_as, writable};
use crate::cube::random::{Mask, factor, row_key};
use crate::operators::gate::{Activation, ActiveHalf, Gate};

/// The parameters that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Form {
    /// Whether the activation is SiLU; otherwise it is GELU.
    silu: bool,
    /// Whether the second half goes through the activation; otherwise the first does.
    second: bool,
    has_bias: bool,
    drops: bool,
}

impl Form {
    fn new(gate: Gate, has_bias: bool, mask: Mask) -> Self {
        let (silu, second) = (gate.activation == Activation::Silu, gate.active == ActiveHalf::Second);
        Self { silu, second, has_bias, drops: mask.drops }
    }
}

/// An activation and its derivative.
#[derive(CubeType, Clone, Copy)]
struct Activated {
    value: f32,
    slope: f32,
}

#[cube]
fn activate(x: f32, #[comptime] silu: bool) -> Activated {
    if comptime!(silu) {
        // The exponential of minus the absolute value, so that nothing overflows.
        let e = (-x.abs()).exp();
        let s = select(x > 0.0f32, 1.0f32, e) / (1.0f32 + e);
        Activated { value: x * s, slope: s * (1.0f32 + x * (1.0f32 - s)) }
    } else {
        let share = below(x);
        Activated { value: x * share, slope: share + x * density(x) }
    }
}

/// Adds a bias in place, and applies the gate to the sum as it is kept.
#[cube(launch)]
fn apply<F: Float>(
    both: &mut Array<F>,
    bias: &Array<f32>,
    output: &mut Array<F>,
    wide: usize,
    seed_high: u32,
    seed_low: u32,
    threshold: u32,
    scale: f32,
    #[comptime] form: Form,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at >= output.len() {
        terminate!();
    }
    let row = at / wide;
    let column = at % wide;
    let one = row * 2 * wide + column;
    let two = one + wide;
    if comptime!(form.has_bias) {
        both[one] = F::cast_from(f32::cast_from(both[one]) + bias[column]);
        both[two] = F::cast_from(f32::cast_from(both[two]) + bias[wide + column]);
    }
    let active = f32::cast_from(if comptime!(form.second) { both[two] } else { both[one] });
    let other = f32::cast_from(if comptime!(form.second) { both[one] } else { both[two] });
    let mut value = activate(active, comptime!(form.silu)).value * other;
    if comptime!(form.drops) {
        let key = row_key(seed_high, seed_low, row as u32);
        value *= factor(key.low, key.high, column as u32, threshold, scale);
    }
    output[at] = F::cast_from(value);
}

/// Computes the gradients of both halves, and the gate's output again.
#[cube(launch)]
fn derivative<F: Float>(
    both: &Array<F>,
    gradient: &Array<F>,
    output: &mut Array<F>,
    of_both: &mut Array<F>,
    wide: usize,
    seed_high: u32,
    seed_low: u32,
    threshold: u32,
    scale: f32,
    #[comptime] form: Form,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at >= output.len() {
        terminate!();
    }
    let row = at / wide;
    let column = at % wide;
    let one = row * 2 * wide + column;
    let two = one + wide;
    let active = f32::cast_from(if comptime!(form.second) { both[two] } else { both[one] });
    let other = f32::cast_from(if comptime!(form.second) { both[one] } else { both[two] });
    let activated = activate(active, comptime!(form.silu));
    let mut value = activated.value * other;
    let mut back = f32::cast_from(gradient[at]);
    if comptime!(form.drops) {
        let key = row_key(seed_high, seed_low, row as u32);
        let kept = factor(key.low, key.high, column as u32, threshold, scale);
        value *= kept;
        back *= kept;
    }
    output[at] = F::cast_from(value);
    let of_active = F::cast_from(back * other * activated.slope);
    let of_other = F::cast_from(back * activated.value);
    if comptime!(form.second) {
        of_both[one] = of_other;
        of_both[two] = of_active;
    } else {
        of_both[one] = of_active;
        of_both[two] = of_other;
    }
}

/// Applies the gate to `product + bias`; returns its output, and that sum. Nothing else uses the memory of `product`.
pub(crate) fn forward<R: CubeRuntime>(
    product: CubeTensor<R>,
    bias: Option<CubeTensor<R>>,
    gate: Gate,
) -> (CubeTensor<R>, CubeTensor<R>) {
    let [rows, columns] = dims(&product);
    let wide = columns / 2;
    let both = if bias.is_none() { contiguous(product) } else { writable(product) };
    let output = unwritten_as(&both, [rows, wide], both.dtype);
    let mask = Mask::from(gate.dropout);
    let form = Form::new(gate, bias.is_some(), mask);
    // Without a bias, the sum takes its place as an argument; it is not read as one.
    let bias = bias.map_or_else(|| both.clone(), floats);
    if rows * wide > 0 {
        apply::launch(
            &output.client,
            cubes_of_elements(&output, rows * wide),
            CubeDim::new_1d(UNITS),
            both.clone().into_array_arg(),
            bias.into_array_arg(),
            output.clone().into_array_arg(),
            wide,
            mask.seed_high,
            mask.seed_low,
            mask.threshold,
            mask.scale,
            form,
            output.dtype.into(),
        );
    }
    (output, both)
}

/// Computes the gate's output again, and the gradient of both halves: see
/// [`composed_gradient`](crate::operators::gate::composed_gradient).
pub(crate) fn gradient<R: CubeRuntime>(
    both: CubeTensor<R>,
    gradient: CubeTensor<R>,
    gate: Gate,
) -> (CubeTensor<R>, CubeTensor<R>) {
    let [rows, wide] = dims(&gradient);
    assert_eq!(both.dtype, gradient.dtype, "both halves and the gradient");
    let [both, gradient] = [both, gradient].map(contiguous);
    let [output, of_both] = [wide, 2 * wide].map(|size| unwritten_as(&both, [rows, size], both.dtype));
    let mask = Mask::from(gate.dropout);
    if rows * wide > 0 {
        derivative::launch(
            &output.client,
            cubes_of_elements(&output, rows * wide),
            CubeDim::new_1d(UNITS),
            both.into_array_arg(),
            gradient.into_array_arg(),
            output.clone().into_array_arg(),
            of_both.clone().into_array_arg(),
            wide,
            mask.seed_high,
            mask.seed_low,
            mask.threshold,
            mask.scale,
            Form::new(gate, false, mask),
            output.dtype.into(),
        );
    }
    (output, of_both)
}

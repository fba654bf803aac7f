//! GELU by the error function with the bias before it, forward and backward, each in one launch. Numbers are float32
//! while they are computed with, and of the type `F` in memory.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::StorageType;
use cubecl::prelude::*;

use crate::cube::launch::{UNITS, contiguous, cubes_of_elements, dims, floats, unwritten, unwritten_as, writable};

/// Returns the share of the normal distribution below a number.
#[cube]
pub(crate) fn below(x: f32) -> f32 {
    (Erf::erf(x * 0.707_106_77f32) + 1.0f32) * 0.5f32
}

/// Returns the density of the normal distribution: 1 / sqrt(2 pi) e^(-x^2 / 2).
#[cube]
pub(crate) fn density(x: f32) -> f32 {
    (x * x * -0.5f32).exp() * 0.398_942_3f32
}

/// Adds a bias in place, and computes GELU of the sum as it is kept.
#[cube(launch)]
fn add_bias<F: Float>(
    product: &mut Array<F>,
    bias: &Array<f32>,
    output: &mut Array<F>,
    size: usize,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at >= output.len() {
        terminate!();
    }
    let kept = F::cast_from(f32::cast_from(product[at]) + bias[at % size]);
    product[at] = kept;
    let sum = f32::cast_from(kept);
    output[at] = F::cast_from(sum * below(sum));
}

#[cube(launch)]
fn value(input: &Array<f32>, output: &mut Array<f32>) {
    let at = ABSOLUTE_POS;
    if at >= output.len() {
        terminate!();
    }
    output[at] = input[at] * below(input[at]);
}

/// Computes the gradient of GELU's input, and GELU again if requested.
#[cube(launch)]
fn derivative<F: Float>(
    input: &Array<F>,
    gradient: &Array<F>,
    output: &mut Array<F>,
    of_input: &mut Array<F>,
    #[comptime] has_output: bool,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at >= of_input.len() {
        terminate!();
    }
    let x = f32::cast_from(input[at]);
    let share = below(x);
    if comptime!(has_output) {
        output[at] = F::cast_from(x * share);
    }
    of_input[at] = F::cast_from(f32::cast_from(gradient[at]) * (share + x * density(x)));
}

/// Computes GELU of `product + bias`, and that sum. Nothing else uses the memory of `product`.
pub(crate) fn forward_with_bias<R: CubeRuntime>(
    product: CubeTensor<R>,
    bias: CubeTensor<R>,
) -> (CubeTensor<R>, CubeTensor<R>) {
    let [rows, size] = dims(&product);
    let sum = writable(product);
    let output = unwritten_as(&sum, [rows, size], sum.dtype);
    if rows * size > 0 {
        add_bias::launch(
            &output.client,
            cubes_of_elements(&output, rows * size),
            CubeDim::new_1d(UNITS),
            sum.clone().into_array_arg(),
            floats(bias).into_array_arg(),
            output.clone().into_array_arg(),
            size,
            output.dtype.into(),
        );
    }
    (output, sum)
}

/// Computes GELU of a matrix.
pub(crate) fn forward<R: CubeRuntime>(input: CubeTensor<R>) -> CubeTensor<R> {
    let [rows, size] = dims(&input);
    let output = unwritten(&input, [rows, size]);
    if rows * size > 0 {
        value::launch(
            &output.client,
            cubes_of_elements(&output, rows * size),
            CubeDim::new_1d(UNITS),
            floats(input).into_array_arg(),
            output.clone().into_array_arg(),
        );
    }
    output
}

/// Computes the gradient of GELU's input, and GELU again if requested.
pub(crate) fn gradient<R: CubeRuntime>(
    input: CubeTensor<R>,
    gradient: CubeTensor<R>,
    has_output: bool,
) -> (Option<CubeTensor<R>>, CubeTensor<R>) {
    let [rows, size] = dims(&input);
    assert_eq!(input.dtype, gradient.dtype, "input and gradient");
    let of_input = unwritten_as(&input, [rows, size], input.dtype);
    let output = if has_output { unwritten_as(&input, [rows, size], input.dtype) } else { of_input.clone() };
    if rows * size > 0 {
        derivative::launch(
            &of_input.client,
            cubes_of_elements(&of_input, rows * size),
            CubeDim::new_1d(UNITS),
            contiguous(input).into_array_arg(),
            contiguous(gradient).into_array_arg(),
            output.clone().into_array_arg(),
            of_input.clone().into_array_arg(),
            has_output,
            of_input.dtype.into(),
        );
    }
    (has_output.then_some(output), of_input)
}

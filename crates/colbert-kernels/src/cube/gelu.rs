//! GELU by the error function with the bias before it, forward and backward, each in one launch. Numbers are float32
//! while they are computed with, and of the type `F` in memory.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::StorageType;
use cubecl::prelude::*;

use crate::cube::launch::{UNITS, contiguous, cubes_of_elements, dims, floats, unwritten, unwritten_as, writable};
use crate::cube::sums::sum_rows;

/// Rows of a column that one unit takes where it adds up gradients.
const ROWS: usize = 16;

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

#[cube(launch)]
fn derivative(input: &Array<f32>, gradient: &Array<f32>, of_input: &mut Array<f32>) {
    let at = ABSOLUTE_POS;
    if at >= of_input.len() {
        terminate!();
    }
    let x = input[at];
    of_input[at] = gradient[at] * (below(x) + x * density(x));
}

/// Computes GELU again, the gradient of its input, and sums of that over blocks of rows, `[blocks, columns]`: one unit
/// for a column of a block.
#[cube(launch)]
fn derivative_and_sums<F: Float>(
    input: &Array<F>,
    gradient: &Array<F>,
    output: &mut Array<F>,
    of_input: &mut Array<F>,
    sums: &mut Array<f32>,
    rows: usize,
    columns: usize,
    #[comptime] block: usize,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS >= sums.len() {
        terminate!();
    }
    let first = ABSOLUTE_POS / columns * block;
    let column = ABSOLUTE_POS % columns;
    let end = select(first + block < rows, first + block, rows);
    let mut sum = 0.0f32;
    for row in first..end {
        let at = row * columns + column;
        let x = f32::cast_from(input[at]);
        let share = below(x);
        let change = f32::cast_from(gradient[at]) * (share + x * density(x));
        output[at] = F::cast_from(x * share);
        of_input[at] = F::cast_from(change);
        sum += change;
    }
    sums[ABSOLUTE_POS] = sum;
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

/// Computes the gradient of GELU's input.
pub(crate) fn gradient<R: CubeRuntime>(input: CubeTensor<R>, gradient: CubeTensor<R>) -> CubeTensor<R> {
    let [rows, size] = dims(&input);
    let of_input = unwritten(&input, [rows, size]);
    if rows * size > 0 {
        derivative::launch(
            &of_input.client,
            cubes_of_elements(&of_input, rows * size),
            CubeDim::new_1d(UNITS),
            floats(input).into_array_arg(),
            floats(gradient).into_array_arg(),
            of_input.clone().into_array_arg(),
        );
    }
    of_input
}

/// Computes GELU again, the gradient of its input, and the sum of that over rows, `[1, columns]`.
pub(crate) fn gradients<R: CubeRuntime>(input: CubeTensor<R>, gradient: CubeTensor<R>) -> [CubeTensor<R>; 3] {
    let [rows, columns] = dims(&input);
    assert_eq!(input.dtype, gradient.dtype, "input and gradient");
    let [output, of_input] = [(); 2].map(|()| unwritten_as(&input, [rows, columns], input.dtype));
    let blocks = rows.div_ceil(ROWS).max(1);
    let sums = unwritten(&input, [blocks, columns]);
    derivative_and_sums::launch(
        &of_input.client,
        cubes_of_elements(&sums, blocks * columns),
        CubeDim::new_1d(UNITS),
        contiguous(input).into_array_arg(),
        contiguous(gradient).into_array_arg(),
        output.clone().into_array_arg(),
        of_input.clone().into_array_arg(),
        sums.clone().into_array_arg(),
        rows,
        columns,
        ROWS,
        of_input.dtype.into(),
    );
    [output, of_input, sum_rows(sums)]
}

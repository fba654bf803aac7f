//! Layer normalisation of a residual sum with dropout: forward in one launch, backward in one for the normalised sum
//! and a few for the parameters. Numbers are float32, but for an output of the type `F` that is for linear maps alone.

use burn::tensor::DType;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::StorageType;
use cubecl::prelude::*;

use crate::cube::launch::{UNITS, cubes, cubes_of_elements, dims, floats, unwritten, unwritten_as};
use crate::cube::random::{Mask, factor, row_key};
use crate::cube::sums::{ROWS, sum_of_cube, sum_rows};
use crate::operators::dropout::Dropout;
use crate::operators::layer_norm::{Affine, NormGradients, Normalised};

/// Normalises a row, one cube for each. What is normalised is written unless it is the input itself.
// One function, as all stages work on the same shared memory and on numbers that a unit keeps in registers.
#[cube(launch)]
fn normalise<F: Float>(
    input: &Array<f32>,
    residual: &Array<f32>,
    weight: &Array<f32>,
    bias: &Array<f32>,
    output: &mut Array<F>,
    sum: &mut Array<f32>,
    statistics: &mut Array<f32>,
    rows: usize,
    size: usize,
    eps: f32,
    seed_high: u32,
    seed_low: u32,
    threshold: u32,
    dropout_scale: f32,
    #[comptime] has_residual: bool,
    #[comptime] has_bias: bool,
    #[comptime] drops: bool,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let mut shared = SharedMemory::<f32>::new(comptime!(UNITS as usize));
    let start = row * size;
    let units = comptime!(UNITS as usize);
    let mut total = 0.0f32;
    let key = row_key(seed_high, seed_low, row as u32);
    let mut i = UNIT_POS as usize;
    while i < size {
        let mut value = input[start + i];
        if comptime!(drops) {
            value *= factor(key.low, key.high, i as u32, threshold, dropout_scale);
        }
        if comptime!(has_residual) {
            value += residual[start + i];
        }
        if comptime!(has_residual || drops) {
            sum[start + i] = value;
        }
        total += value;
        i += units;
    }
    let mean = sum_of_cube(total, &mut shared) / f32::cast_from(size);
    let mut squares = 0.0f32;
    i = UNIT_POS as usize;
    while i < size {
        let own = if comptime!(has_residual || drops) { sum[start + i] } else { input[start + i] };
        let centred = own - mean;
        squares += centred * centred;
        i += units;
    }
    let variance = sum_of_cube(squares, &mut shared) / f32::cast_from(size);
    let scale = 1.0f32 / (variance + eps).sqrt();
    i = UNIT_POS as usize;
    while i < size {
        let own = if comptime!(has_residual || drops) { sum[start + i] } else { input[start + i] };
        let centred = own - mean;
        let mut value = centred * scale * weight[i];
        if comptime!(has_bias) {
            value += bias[i];
        }
        output[start + i] = F::cast_from(value);
        i += units;
    }
    if UNIT_POS == 0 {
        statistics[2 * row] = mean;
        statistics[2 * row + 1] = scale;
    }
}

/// Recomputes the output of a normalisation, one unit for each element.
#[cube(launch)]
fn normalise_again<F: Float>(
    sum: &Array<f32>,
    statistics: &Array<f32>,
    weight: &Array<f32>,
    bias: &Array<f32>,
    output: &mut Array<F>,
    size: usize,
    #[comptime] has_bias: bool,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at >= output.len() {
        terminate!();
    }
    let row = at / size;
    let mut value = (sum[at] - statistics[2 * row]) * statistics[2 * row + 1] * weight[at % size];
    if comptime!(has_bias) {
        value += bias[at % size];
    }
    output[at] = F::cast_from(value);
}

/// Computes the gradient of the normalised sum, one cube for each row.
#[cube(launch)]
fn sum_gradient(
    sum: &Array<f32>,
    statistics: &Array<f32>,
    weight: &Array<f32>,
    gradient: &Array<f32>,
    beside: &Array<f32>,
    output: &mut Array<f32>,
    rows: usize,
    size: usize,
    #[comptime] has_beside: bool,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let mut shared = SharedMemory::<f32>::new(comptime!(UNITS as usize));
    let units = comptime!(UNITS as usize);
    let start = row * size;
    let mean = statistics[2 * row];
    let scale = statistics[2 * row + 1];
    let mut of_mean = 0.0f32;
    let mut along = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < size {
        let weighted = gradient[start + i] * weight[i];
        of_mean += weighted;
        along += weighted * (sum[start + i] - mean) * scale;
        i += units;
    }
    let of_mean = sum_of_cube(of_mean, &mut shared) / f32::cast_from(size);
    let along = sum_of_cube(along, &mut shared) / f32::cast_from(size);
    i = UNIT_POS as usize;
    while i < size {
        let normal = (sum[start + i] - mean) * scale;
        let mut value = (gradient[start + i] * weight[i] - of_mean - normal * along) * scale;
        if comptime!(has_beside) {
            value += beside[start + i];
        }
        output[start + i] = value;
        i += units;
    }
}

/// Computes the gradients of weight and bias, summed over blocks of rows: `[blocks, size]` each.
#[cube(launch)]
fn parameter_blocks(
    sum: &Array<f32>,
    statistics: &Array<f32>,
    gradient: &Array<f32>,
    of_weight: &mut Array<f32>,
    of_bias: &mut Array<f32>,
    rows: usize,
    size: usize,
    #[comptime] block: usize,
) {
    let at = ABSOLUTE_POS;
    if at >= of_weight.len() {
        terminate!();
    }
    let first = at / size * block;
    let column = at % size;
    let end = select(first + block < rows, first + block, rows);
    let mut weight = 0.0f32;
    let mut bias = 0.0f32;
    for row in first..end {
        let own = gradient[row * size + column];
        weight += own * (sum[row * size + column] - statistics[2 * row]) * statistics[2 * row + 1];
        bias += own;
    }
    of_weight[at] = weight;
    of_bias[at] = bias;
}

/// See [`composed`](crate::operators::layer_norm::composed); the output is of type `dtype`.
pub(crate) fn forward<R: CubeRuntime>(
    input: CubeTensor<R>,
    residual: Option<CubeTensor<R>>,
    dropout: Dropout,
    affine: Affine<CubeTensor<R>>,
    dtype: DType,
) -> Normalised<CubeTensor<R>> {
    let [rows, size] = dims(&input);
    let input = floats(input);
    let mask = Mask::from(dropout);
    let output = unwritten_as(&input, [rows, size], dtype);
    let sum = if residual.is_some() || mask.drops { unwritten(&input, [rows, size]) } else { input.clone() };
    let statistics = unwritten(&input, [rows, 2]);
    let (has_residual, has_bias) = (residual.is_some(), affine.bias.is_some());
    let weight = floats(affine.weight);
    // Without a residual or a bias, another tensor takes its place as an argument; it is not read.
    let residual = residual.map_or_else(|| weight.clone(), floats);
    let bias = affine.bias.map_or_else(|| weight.clone(), floats);
    if rows > 0 {
        normalise::launch(
            &output.client,
            cubes(&output, rows),
            CubeDim::new_1d(UNITS),
            input.into_array_arg(),
            residual.into_array_arg(),
            weight.into_array_arg(),
            bias.into_array_arg(),
            output.clone().into_array_arg(),
            sum.clone().into_array_arg(),
            statistics.clone().into_array_arg(),
            rows,
            size,
            affine.eps as f32,
            mask.seed_high,
            mask.seed_low,
            mask.threshold,
            mask.scale,
            has_residual,
            has_bias,
            mask.drops,
            dtype.into(),
        );
    }
    Normalised { output, sum, statistics }
}

/// See [`composed_again`](crate::operators::layer_norm::composed_again); the output is of type `dtype`.
pub(crate) fn again<R: CubeRuntime>(
    sum: CubeTensor<R>,
    statistics: CubeTensor<R>,
    affine: Affine<CubeTensor<R>>,
    dtype: DType,
) -> CubeTensor<R> {
    let [rows, size] = dims(&sum);
    let output = unwritten_as(&sum, [rows, size], dtype);
    let has_bias = affine.bias.is_some();
    let weight = floats(affine.weight);
    let bias = affine.bias.map_or_else(|| weight.clone(), floats);
    if rows > 0 {
        normalise_again::launch(
            &output.client,
            cubes_of_elements(&output, rows * size),
            CubeDim::new_1d(UNITS),
            floats(sum).into_array_arg(),
            floats(statistics).into_array_arg(),
            weight.into_array_arg(),
            bias.into_array_arg(),
            output.clone().into_array_arg(),
            size,
            has_bias,
            dtype.into(),
        );
    }
    output
}

/// See [`composed_gradient`](crate::operators::layer_norm::composed_gradient).
pub(crate) fn gradient<R: CubeRuntime>(
    sum: CubeTensor<R>,
    statistics: CubeTensor<R>,
    affine: Affine<CubeTensor<R>>,
    gradient: CubeTensor<R>,
    beside: Option<CubeTensor<R>>,
) -> NormGradients<CubeTensor<R>> {
    let [rows, size] = dims(&sum);
    let [sum, statistics, weight, gradient] = [sum, statistics, affine.weight, gradient].map(floats);
    let of_sum = unwritten(&sum, [rows, size]);
    let blocks = rows.div_ceil(ROWS).max(1);
    let [of_weight, of_bias] = [(); 2].map(|()| unwritten(&sum, [blocks, size]));
    let has_beside = beside.is_some();
    let beside = beside.map_or_else(|| weight.clone(), floats);
    if rows > 0 {
        sum_gradient::launch(
            &of_sum.client,
            cubes(&of_sum, rows),
            CubeDim::new_1d(UNITS),
            sum.clone().into_array_arg(),
            statistics.clone().into_array_arg(),
            weight.into_array_arg(),
            gradient.clone().into_array_arg(),
            beside.into_array_arg(),
            of_sum.clone().into_array_arg(),
            rows,
            size,
            has_beside,
        );
    }
    parameter_blocks::launch(
        &of_sum.client,
        cubes_of_elements(&of_sum, blocks * size),
        CubeDim::new_1d(UNITS),
        sum.into_array_arg(),
        statistics.into_array_arg(),
        gradient.into_array_arg(),
        of_weight.clone().into_array_arg(),
        of_bias.clone().into_array_arg(),
        rows,
        size,
        ROWS,
    );
    NormGradients { sum: of_sum, weight: sum_rows(of_weight), bias: affine.bias.map(|_| sum_rows(of_bias)) }
}

//! Dropout, its gradient and its factors, each in one launch.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::cube::launch::{UNITS, copied, cubes_of_elements, dims, floats, unwritten};
use crate::cube::random::{Mask, factor, row_key};
use crate::operators::dropout::Dropout;

#[cube(launch)]
fn multiply(
    input: &Array<f32>,
    output: &mut Array<f32>,
    columns: usize,
    seed_high: u32,
    seed_low: u32,
    threshold: u32,
    scale: f32,
) {
    let at = ABSOLUTE_POS;
    if at >= output.len() {
        terminate!();
    }
    let key = row_key(seed_high, seed_low, (at / columns) as u32);
    output[at] = input[at] * factor(key.low, key.high, (at % columns) as u32, threshold, scale);
}

#[cube(launch)]
fn factors_of_rows(
    rows: &Array<u32>,
    output: &mut Array<f32>,
    columns: usize,
    seed_high: u32,
    seed_low: u32,
    threshold: u32,
    scale: f32,
) {
    let at = ABSOLUTE_POS;
    if at >= output.len() {
        terminate!();
    }
    let key = row_key(seed_high, seed_low, rows[at / columns]);
    output[at] = factor(key.low, key.high, (at % columns) as u32, threshold, scale);
}

/// Multiplies the elements of `[rows, columns]` by their dropout factors.
pub(crate) fn forward<R: CubeRuntime>(input: CubeTensor<R>, dropout: Dropout) -> CubeTensor<R> {
    let [rows, columns] = dims(&input);
    let mask = Mask::from(dropout);
    if !mask.drops || rows * columns == 0 {
        return input;
    }
    let input = floats(input);
    let output = unwritten(&input, [rows, columns]);
    multiply::launch(
        &output.client,
        cubes_of_elements(&output, rows * columns),
        CubeDim::new_1d(UNITS),
        input.into_array_arg(),
        output.clone().into_array_arg(),
        columns,
        mask.seed_high,
        mask.seed_low,
        mask.threshold,
        mask.scale,
    );
    output
}

/// Writes the dropout factors of the given rows into memory of shape `[rows, columns]`.
pub(crate) fn factors<R: CubeRuntime>(output: CubeTensor<R>, dropout: Dropout, rows: &[usize]) -> CubeTensor<R> {
    let [count, columns] = dims(&output);
    if count * columns == 0 {
        return output;
    }
    let mask = Mask::from(dropout);
    let rows: Vec<u32> = rows.iter().map(|row| u32::try_from(*row).expect("rows of a mask fit 32 bits")).collect();
    factors_of_rows::launch(
        &output.client,
        cubes_of_elements(&output, count * columns),
        CubeDim::new_1d(UNITS),
        copied(&output, &rows),
        output.clone().into_array_arg(),
        columns,
        mask.seed_high,
        mask.seed_low,
        mask.threshold,
        mask.scale,
    );
    output
}

//! Sums within a cube, over the rows of a matrix and of a whole tensor, in an order that only the shape decides.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::StorageType;
use cubecl::prelude::*;

use crate::cube::launch::{UNITS, contiguous, cubes, cubes_of_elements, dims, floats, unwritten};

/// Rows that one unit adds up.
pub(crate) const ROWS: usize = 128;

/// Numbers of a tensor that one unit adds up.
const NUMBERS: usize = 64;

/// Sums one number of each unit; every unit gets the sum. `shared` has a place for each unit.
#[cube]
pub(crate) fn sum_of_cube(value: f32, shared: &mut SharedMemory<f32>) -> f32 {
    // All units must have read an earlier sum.
    sync_cube();
    shared[UNIT_POS as usize] = value;
    sync_cube();
    let mut half = CUBE_DIM / 2;
    while half > 0 {
        if UNIT_POS < half {
            let other = shared[(UNIT_POS + half) as usize];
            shared[UNIT_POS as usize] += other;
        }
        sync_cube();
        half /= 2;
    }
    shared[0]
}

/// Sums of blocks of [`ROWS`] rows, `[rows, columns]` to `[blocks, columns]`.
#[cube(launch)]
fn sum_blocks<F: Float>(
    input: &Array<F>,
    output: &mut Array<f32>,
    rows: usize,
    columns: usize,
    #[comptime] block: usize,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at >= output.len() {
        terminate!();
    }
    let first = at / columns * block;
    let column = at % columns;
    let end = select(first + block < rows, first + block, rows);
    let mut sum = 0.0f32;
    for row in first..end {
        sum += f32::cast_from(input[row * columns + column]);
    }
    output[at] = sum;
}

/// Sums over rows in float32, `[rows, columns]` to `[1, columns]`.
pub(crate) fn sum_rows<R: CubeRuntime>(input: CubeTensor<R>) -> CubeTensor<R> {
    let mut sums = contiguous(input);
    loop {
        let [rows, columns] = dims(&sums);
        let blocks = rows.div_ceil(ROWS).max(1);
        let output = unwritten(&sums, [blocks, columns]);
        let dtype = sums.dtype;
        sum_blocks::launch(
            &output.client,
            cubes_of_elements(&output, blocks * columns),
            CubeDim::new_1d(UNITS),
            sums.into_array_arg(),
            output.clone().into_array_arg(),
            rows,
            columns,
            ROWS,
            dtype.into(),
        );
        if blocks == 1 {
            return output;
        }
        sums = output;
    }
}

/// Sums blocks of a tensor, or their squares, one cube for each.
#[cube(launch)]
fn sum_block(
    input: &Array<f32>,
    output: &mut Array<f32>,
    count: usize,
    #[comptime] squared: bool,
    #[comptime] block: usize,
) {
    if CUBE_POS >= output.len() {
        terminate!();
    }
    let mut shared = SharedMemory::<f32>::new(comptime!(UNITS as usize));
    let first = CUBE_POS * block;
    let end = select(first + block < count, first + block, count);
    let mut sum = 0.0f32;
    let mut i = first + UNIT_POS as usize;
    while i < end {
        let number = input[i];
        if comptime!(squared) {
            sum += number * number;
        } else {
            sum += number;
        }
        i += comptime!(UNITS as usize);
    }
    let total = sum_of_cube(sum, &mut shared);
    if UNIT_POS == 0 {
        output[CUBE_POS] = total;
    }
}

/// Sums all numbers of a tensor, or their squares, to `[1]`.
pub(crate) fn sum<R: CubeRuntime>(input: CubeTensor<R>, squared: bool) -> CubeTensor<R> {
    let block = NUMBERS * UNITS as usize;
    let (mut sums, mut squared) = (floats(input), squared);
    loop {
        let count = sums.meta.num_elements();
        let blocks = count.div_ceil(block).max(1);
        let output = unwritten(&sums, [blocks]);
        sum_block::launch(
            &output.client,
            cubes(&output, blocks),
            CubeDim::new_1d(UNITS),
            sums.into_array_arg(),
            output.clone().into_array_arg(),
            count,
            squared,
            block,
        );
        if blocks == 1 {
            return output;
        }
        (sums, squared) = (output, false);
    }
}

//! Sums within a cube, and over the rows of a matrix, in an order that only the shape decides.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::cube::launch::{UNITS, cubes_of_elements, dims, floats, unwritten};

/// Rows that one unit adds up.
pub(crate) const ROWS: usize = 128;

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
fn sum_blocks(input: &Array<f32>, output: &mut Array<f32>, rows: usize, columns: usize, #[comptime] block: usize) {
    let at = ABSOLUTE_POS;
    if at >= output.len() {
        terminate!();
    }
    let first = at / columns * block;
    let column = at % columns;
    let end = select(first + block < rows, first + block, rows);
    let mut sum = 0.0f32;
    for row in first..end {
        sum += input[row * columns + column];
    }
    output[at] = sum;
}

/// Sums over rows, `[rows, columns]` to `[1, columns]`.
pub(crate) fn sum_rows<R: CubeRuntime>(input: CubeTensor<R>) -> CubeTensor<R> {
    let mut sums = floats(input);
    loop {
        let [rows, columns] = dims(&sums);
        let blocks = rows.div_ceil(ROWS).max(1);
        let output = unwritten(&sums, [blocks, columns]);
        sum_blocks::launch(
            &output.client,
            cubes_of_elements(&output, blocks * columns),
            CubeDim::new_1d(UNITS),
            sums.into_array_arg(),
            output.clone().into_array_arg(),
            rows,
            columns,
            ROWS,
        );
        if blocks == 1 {
            return output;
        }
        sums = output;
    }
}

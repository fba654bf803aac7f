//! Sums within a cube, over the rows of a matrix and of whole tensors, in an order that only the shape decides.

use burn::tensor::Shape;
use burn_cubecl::CubeRuntime;
use burn_cubecl::ops::reshape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::StorageType;
use cubecl::prelude::*;

use crate::cube::launch::{
    UNITS, contiguous, cubes, cubes_of_elements, cubes_of_tensors, dims, floats, tensors_of_launch, unwritten, zeros,
};

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

/// A tensor of a launch, and the cubes that sum it.
#[derive(CubeType, CubeLaunch)]
struct Part {
    numbers: Array<f32>,
    first_cube: usize,
    end_cube: usize,
}

/// Sums blocks of tensors, or their squares, one cube for each; the first sum is written to `start`.
#[cube(launch)]
fn sum_parts(
    parts: &Sequence<Part>,
    output: &mut Array<f32>,
    start: usize,
    #[comptime] squared: bool,
    #[comptime] block: usize,
) {
    let mut shared = SharedMemory::<f32>::new(comptime!(UNITS as usize));
    let mut sum = 0.0f32;
    let mut own = false;
    #[unroll]
    for n in 0..comptime!(parts.len()) {
        let part = parts.index(n);
        if CUBE_POS >= part.first_cube {
            if CUBE_POS < part.end_cube {
                own = true;
                let first = (CUBE_POS - part.first_cube) * block;
                let count = part.numbers.len();
                let end = select(first + block < count, first + block, count);
                let mut i = first + UNIT_POS as usize;
                while i < end {
                    let number = part.numbers[i];
                    if comptime!(squared) {
                        sum += number * number;
                    } else {
                        sum += number;
                    }
                    i += comptime!(UNITS as usize);
                }
            }
        }
    }
    let total = sum_of_cube(sum, &mut shared);
    if own {
        if UNIT_POS == 0 {
            output[start + CUBE_POS] = total;
        }
    }
}

/// Sums blocks of tensors, or their squares, to `[blocks]`, or zero if no tensor has numbers.
fn sums_of_blocks<R: CubeRuntime>(tensors: Vec<CubeTensor<R>>, squared: bool) -> CubeTensor<R> {
    let block = NUMBERS * UNITS as usize;
    let like = tensors[0].clone();
    let full: Vec<_> = tensors.into_iter().filter(|tensor| tensor.meta.num_elements() > 0).collect();
    let blocks: usize = full.iter().map(|tensor| tensor.meta.num_elements().div_ceil(block)).sum();
    if blocks == 0 {
        return reshape(zeros(&like, [1, 1]), Shape::from([1]));
    }
    let output = unwritten(&like, [blocks]);
    let mut start = 0;
    for group in full.chunks(tensors_of_launch(&like, 1, 1)) {
        let ranges = cubes_of_tensors(group.iter(), block);
        let count = ranges[ranges.len() - 1].end;
        let mut parts = SequenceArg::new();
        for (tensor, cubes) in group.iter().zip(ranges) {
            parts.push(PartLaunch::new(floats(tensor.clone()).into_array_arg(), cubes.start, cubes.end));
        }
        sum_parts::launch(
            &output.client,
            cubes(&output, count),
            CubeDim::new_1d(UNITS),
            parts,
            output.clone().into_array_arg(),
            start,
            squared,
            block,
        );
        start += count;
    }
    output
}

/// Sums all numbers of tensors, to `[1]`.
pub(crate) fn sum<R: CubeRuntime>(tensors: Vec<CubeTensor<R>>) -> CubeTensor<R> {
    let mut sums = sums_of_blocks(tensors, false);
    while sums.meta.num_elements() > 1 {
        sums = sums_of_blocks(vec![sums], false);
    }
    sums
}

/// Sums the squares of all numbers of tensors, to `[1]`.
pub(crate) fn sum_of_squares<R: CubeRuntime>(tensors: Vec<CubeTensor<R>>) -> CubeTensor<R> {
    let sums = sums_of_blocks(tensors, true);
    if sums.meta.num_elements() == 1 { sums } else { sum(vec![sums]) }
}

//! Products of large matrices on all threads.
//!
//! Factors are laid out once; blocks of the result are what threads share out. An element of the result is summed in an
//! order that depends on the depth alone.

use std::ops::Range;

use crate::flex::buffer::{Buffer, Shared};
use crate::flex::level::Level;
use crate::flex::pack::{LeftFactor, RightFactor, View};
use crate::flex::parallel::for_each_block;
use crate::flex::tile::{Begin, Format, Product, Size};

/// Steps of a block of depth: a row group of the left factor stays in the first cache, a panel of the right in the second.
const STEPS: usize = 384;

/// Groups of rows in a block, at most.
const GROUPS: usize = 8;

/// Panels of columns in a block, at least.
const PANELS: usize = 4;

/// Blocks for each thread that a product is cut into at least, if it is large enough.
const BLOCKS: usize = 4;

/// `left right + bias`, `[rows, columns]`, `size.depth` being in numbers; `finish` sees every part of a row that is done,
/// and the offset it has in the result.
pub(crate) fn matmul(
    level: Level,
    format: Format,
    size: Size,
    left: View<'_>,
    right: View<'_>,
    bias: Option<&[f32]>,
    finish: impl Fn(usize, &[f32]) + Sync,
) -> Buffer {
    let Size { rows, columns, depth } = size;
    assert!(bias.is_none_or(|bias| bias.len() == columns), "a bias for each column");
    let mut result = Buffer::new(rows * columns);
    if depth == 0 {
        for row in result.chunks_exact_mut(columns.max(1)) {
            match bias {
                Some(bias) => row.copy_from_slice(bias),
                None => row.fill(0.0),
            }
        }
        for (i, row) in result.chunks_exact(columns.max(1)).enumerate() {
            finish(i * columns, row);
        }
        return result;
    }
    let left = LeftFactor::new(level, format, left, rows, depth);
    let right = RightFactor::new(level, format, right, depth, columns, STEPS);
    let steps = format.steps(depth);
    let blocks = Blocks::new(size, level.rows(), level.columns());
    let shared = Shared::new(&mut result);
    for_each_block(blocks.count, 1, |own| {
        let (of_rows, of_columns) = blocks.get(own.start);
        for start in (0..steps).step_by(STEPS) {
            let from = match bias {
                _ if start > 0 => Begin::Result,
                Some(bias) => Begin::Row(bias[of_columns.start..].as_ptr()),
                None => Begin::Zero,
            };
            let size = Size { rows: of_rows.len(), columns: of_columns.len(), depth: STEPS.min(steps - start) };
            let (left, right) = (left.at(of_rows.start, start), right.at(of_columns.start, start));
            // SAFETY: the factors are laid out for this size, panels are whole, and this block is ours alone.
            unsafe {
                let result = Product { start: shared.at(of_rows.start * columns + of_columns.start), row: columns };
                level.multiply(format, size, left, right, result, from);
            }
        }
        for row in of_rows {
            let offset = row * columns + of_columns.start;
            // SAFETY: a row of this block, which is written now.
            finish(offset, unsafe { std::slice::from_raw_parts(shared.at(offset), of_columns.len()) });
        }
    });
    result
}

/// How a result is cut up: into blocks of rows, and of columns where there are too few rows to share out.
struct Blocks {
    size: Size,
    rows: usize,
    columns: usize,
    across: usize,
    count: usize,
}

impl Blocks {
    fn new(size: Size, group: usize, width: usize) -> Self {
        let rows = size.rows.next_multiple_of(group).clamp(group, GROUPS * group);
        let down = size.rows.div_ceil(rows);
        // How a result is cut up changes none of its sums, so that this may depend on the threads.
        let wanted = (BLOCKS * rayon::current_num_threads()).div_ceil(down.max(1));
        let columns = size.columns.div_ceil(wanted).next_multiple_of(width).max(PANELS * width);
        let across = size.columns.div_ceil(columns);
        Self { size, rows, columns, across, count: down * across }
    }

    /// Rows and columns of a block.
    fn get(&self, block: usize) -> (Range<usize>, Range<usize>) {
        let part = |i: usize, each: usize, all: usize| i * each..((i + 1) * each).min(all);
        (
            part(block / self.across, self.rows, self.size.rows),
            part(block % self.across, self.columns, self.size.columns),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::flex::testing::{close, random};
    use crate::precision::Precision;

    /// Rounding of a sum of `depth` products of numbers below 1.
    const ERROR_PER_STEP: f64 = 1e-7;

    fn exact(size: Size, left: View<'_>, right: View<'_>, bias: Option<&[f32]>) -> Vec<f64> {
        let mut all = Vec::new();
        for i in 0..size.rows {
            for j in 0..size.columns {
                let products = (0..size.depth).map(|k| {
                    f64::from(left.data[i * left.row + k * left.column])
                        * f64::from(right.data[k * right.row + j * right.column])
                });
                all.push(bias.map_or(0.0, |bias| f64::from(bias[j])) + products.sum::<f64>());
            }
        }
        all
    }

    /// The formats that a level has.
    fn formats(level: Level) -> Vec<Format> {
        let half = Format::of(Precision::Bf16, level);
        if half == Format::Single { vec![half] } else { vec![Format::Single, half] }
    }

    /// What a factor becomes in a format. A half has 8 significant bits; ties go to even.
    fn rounded(format: Format, x: f32) -> f32 {
        let bits = x.to_bits();
        match format {
            Format::Single => x,
            Format::Pairs => f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000),
        }
    }

    #[test]
    fn products_are_those_of_f64_on_every_level_format_and_shape() {
        let sizes = [
            (1, 1, 1),
            (1, 40, 7),
            (5, 33, 31),
            (13, 32, 384),
            (29, 65, 385),
            (200, 17, 900),
            (97, 64, 0),
            (30, 300, 5),
            (110, 261, 400),
        ];
        for (seed, (rows, columns, depth)) in sizes.into_iter().enumerate() {
            let size = Size { rows, columns, depth };
            let (a, b, bias) = (random(rows * depth, seed), random(depth * columns, seed + 50), random(columns, 99));
            let every =
                Level::available().into_iter().flat_map(|level| formats(level).into_iter().map(move |f| (level, f)));
            for (level, format) in every {
                let (exact_a, exact_b) = (a.iter().map(|x| rounded(format, *x)), b.iter().map(|x| rounded(format, *x)));
                let (exact_a, exact_b): (Vec<f32>, Vec<f32>) = (exact_a.collect(), exact_b.collect());
                for (kind, bias) in (0..4).flat_map(|kind| [(kind, None), (kind, Some(&bias[..]))]) {
                    let left = |a| if kind % 2 == 0 { View::rows(a, depth) } else { View::rows(a, rows).transposed() };
                    let right =
                        |b| if kind / 2 == 0 { View::rows(b, columns) } else { View::rows(b, depth).transposed() };
                    let seen = AtomicUsize::new(0);
                    let found = matmul(level, format, size, left(&a), right(&b), bias, |offset, part| {
                        assert!(offset + part.len() <= rows * columns);
                        seen.fetch_add(part.len(), Ordering::Relaxed);
                    });
                    assert_eq!(seen.into_inner(), rows * columns, "every element is finished once");
                    let exact = exact(size, left(&exact_a), right(&exact_b), bias);
                    close(
                        &found,
                        &exact,
                        ERROR_PER_STEP * (depth + 1) as f64,
                        &format!("{level:?} {format:?} {size:?}"),
                    );
                }
            }
        }
    }

    #[test]
    fn thread_counts_agree_bit_for_bit() {
        let size = Size { rows: 110, columns: 700, depth: 800 };
        let (a, b, bias) = (random(110 * 800, 1), random(800 * 700, 2), random(700, 3));
        let (left, right) = (View::rows(&a, 800), View::rows(&b, 700));
        for level in Level::available() {
            for format in formats(level) {
                let found = [1, 2, 7].map(|threads| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
                    pool.install(|| matmul(level, format, size, left, right, Some(&bias), |_, _| {}).to_vec())
                });
                assert!(found[0] == found[1] && found[1] == found[2], "{level:?} {format:?}");
            }
        }
    }
}

//! Products of large matrices on all threads.
//!
//! Factors are laid out once; threads share the blocks of the result. An element of the result is summed in an order
//! that depends on the depth alone.

use std::ops::Range;

use crate::flex::buffer::{Buffer, Shared};
use crate::flex::layout::{Layout, LeftFactor, RightFactor};
use crate::flex::pack::View;
use crate::flex::parallel::for_each_block;
use crate::flex::tile::{Begin, Product, Size};

/// Groups of rows in a block, at most.
const GROUPS: usize = 8;

/// Panels of columns in a block, at least.
const PANELS: usize = 4;

/// Blocks for each thread that a product is cut into at least, if it is large enough.
const BLOCKS: usize = 4;

/// The start value of a result.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    /// Nothing.
    Zero,
    /// A row, for every row of the result.
    Row(&'a [f32]),
    /// A matrix of its shape, plus a row that is added to each row.
    Rows(&'a [f32], Option<&'a [f32]>),
    /// The numbers that it holds.
    Result,
}

/// Computes `left right + bias`, `[rows, columns]`; `size.depth` is in numbers.
pub(crate) fn matmul(layout: Layout, size: Size, left: View<'_>, right: View<'_>, bias: Option<&[f32]>) -> Buffer {
    let left = LeftFactor::new(layout, left, size.rows, size.depth);
    let right = RightFactor::new(layout, right, size.depth, size.columns);
    let mut result = Buffer::new(size.rows * size.columns);
    multiply(layout, size, &left, &right, bias.map_or(Start::Zero, Start::Row), &mut result, |_, _| {});
    result
}

/// Computes `result = start + left right`. `finish` gets every finished part of a row, and the offset of that part in
/// the result. Returns whether those parts were whole rows.
pub(crate) fn multiply(
    layout: Layout,
    size: Size,
    left: &LeftFactor<'_>,
    right: &RightFactor,
    start: Start<'_>,
    result: &mut [f32],
    finish: impl Fn(usize, &mut [f32]) + Sync,
) -> bool {
    assert_eq!(result.len(), size.rows * size.columns, "a number for each row and column");
    if size.depth == 0 {
        finish_start(start, size.columns, result, finish);
        return true;
    }
    in_blocks(layout, size, left, right, start, Some(Shared::new(result)), finish)
}

/// Computes `start + left right` block by block, as [`multiply`], and keeps only what `finish` makes of it.
pub(crate) fn multiply_aside(
    layout: Layout,
    size: Size,
    left: &LeftFactor<'_>,
    right: &RightFactor,
    start: Start<'_>,
    finish: impl Fn(usize, &mut [f32]) + Sync,
) -> bool {
    assert!(!matches!(start, Start::Result), "there is no result that holds numbers");
    if size.depth == 0 {
        finish_start(start, size.columns, &mut Buffer::new(size.rows * size.columns), finish);
        return true;
    }
    in_blocks(layout, size, left, right, start, None, finish)
}

/// Computes the blocks in the result, or each in a buffer of its own.
fn in_blocks(
    layout: Layout,
    size: Size,
    left: &LeftFactor<'_>,
    right: &RightFactor,
    start: Start<'_>,
    result: Option<Shared>,
    finish: impl Fn(usize, &mut [f32]) + Sync,
) -> bool {
    let Size { rows, columns, depth } = size;
    assert!(!matches!(start, Start::Row(row) if row.len() != columns), "a number for each column");
    if let Start::Rows(from, all) = start {
        assert!(from.len() == rows * columns && all.is_none_or(|all| all.len() == columns), "rows like the result's");
    }
    let (steps, block) = (layout.steps(depth), layout.block());
    let blocks = Blocks::new(size, layout.rows(), layout.columns());
    for_each_block(blocks.count, 1, |own| {
        let (of_rows, of_columns) = blocks.get(own.start);
        let first = of_rows.start * columns + of_columns.start;
        let mut aside = result.is_none().then(|| Buffer::<f32>::new(of_rows.len() * of_columns.len()));
        let (block_start, stride) = match (&mut aside, result) {
            (Some(aside), _) => (Shared::new(aside), of_columns.len()),
            // SAFETY: the first number of this block.
            (None, result) => (unsafe { result.expect("a result").part(first) }, columns),
        };
        // SAFETY: rows of this block, which is ours alone.
        let row_at = |row: usize| unsafe {
            std::slice::from_raw_parts_mut(block_start.at((row - of_rows.start) * stride), of_columns.len())
        };
        if let Start::Rows(from, all) = start {
            for row in of_rows.clone() {
                let from = &from[row * columns + of_columns.start..][..of_columns.len()];
                begin_row(row_at(row), from, all.map(|all| &all[of_columns.clone()]));
            }
        }
        for first in (0..steps).step_by(block) {
            let from = match start {
                Start::Zero if first == 0 => Begin::Zero,
                Start::Row(row) if first == 0 => Begin::Row(row[of_columns.start..].as_ptr()),
                _ => Begin::Result,
            };
            let size = Size { rows: of_rows.len(), columns: of_columns.len(), depth: block.min(steps - first) };
            let (left, right) = (left.at(of_rows.start, first), right.at(of_columns.start, first));
            // SAFETY: the factors are laid out for this size, panels are whole, and this block is ours alone.
            unsafe {
                layout.multiply(size, left, right, Product { start: block_start.at(0), row: stride }, from);
            }
        }
        for row in of_rows.clone() {
            finish(row * columns + of_columns.start, row_at(row));
        }
    });
    blocks.across == 1
}

/// Writes a result without products: what each row starts from, finished.
fn finish_start(start: Start<'_>, columns: usize, result: &mut [f32], finish: impl Fn(usize, &mut [f32])) {
    for (i, row) in result.chunks_exact_mut(columns.max(1)).enumerate() {
        match start {
            Start::Zero => row.fill(0.0),
            Start::Row(from) => row.copy_from_slice(from),
            Start::Rows(from, all) => begin_row(row, &from[i * columns..][..columns], all),
            Start::Result => {}
        }
        finish(i * columns, row);
    }
}

/// Copies a row, and adds another.
fn begin_row(to: &mut [f32], from: &[f32], all: Option<&[f32]>) {
    to.copy_from_slice(from);
    if let Some(all) = all {
        to.iter_mut().zip(all).for_each(|(to, all)| *to += all);
    }
}

/// The division of a result: into blocks of rows, and of columns if there are too few rows to share.
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

    /// Returns the rows and columns of a block.
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
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::flex::amx::Unit;
    use crate::flex::halves::round;
    use crate::flex::layout::Multiplier;
    use crate::flex::level::Level;
    use crate::flex::pack::Numbers;
    use crate::flex::testing::{close, random};
    use crate::flex::tile::Format;

    /// Rounding of a sum of `depth` products of numbers below 1.
    const ERROR_PER_STEP: f64 = 1e-7;

    fn exact(size: Size, left: View<'_>, right: View<'_>, bias: Option<&[f32]>) -> Vec<f64> {
        let mut all = Vec::new();
        for i in 0..size.rows {
            for j in 0..size.columns {
                let products = (0..size.depth).map(|k| {
                    f64::from(left.data.single()[i * left.row + k * left.column])
                        * f64::from(right.data.single()[k * right.row + j * right.column])
                });
                all.push(bias.map_or(0.0, |bias| f64::from(bias[j])) + products.sum::<f64>());
            }
        }
        all
    }

    /// Views a left factor as it is or transposed, for even and odd kinds.
    fn left_view(kind: usize, a: Numbers<'_>, size: Size) -> View<'_> {
        if kind.is_multiple_of(2) { View::rows(a, size.depth) } else { View::rows(a, size.rows).transposed() }
    }

    /// Views a right factor as it is or transposed, for kinds below 2 and from 2 on.
    fn right_view(kind: usize, b: Numbers<'_>, size: Size) -> View<'_> {
        if kind / 2 == 0 { View::rows(b, size.columns) } else { View::rows(b, size.depth).transposed() }
    }

    /// Every layout that the processor can read, and AMX's in any case where there are pairs.
    fn layouts() -> Vec<Layout> {
        let of_level = |level: Level| {
            let mut all = vec![Multiplier::Registers(Format::Single)];
            if level.has_bf16() {
                all.extend([Multiplier::Registers(Format::Pairs), Multiplier::Tiles(Unit::Emulated)]);
                all.extend(Unit::find().map(Multiplier::Tiles));
            }
            all.into_iter().map(move |multiplier| Layout { level, multiplier })
        };
        Level::available().into_iter().flat_map(of_level).collect()
    }

    /// Rounds a factor as a layout does. A half has 8 significant bits; ties go to even.
    fn rounded(layout: Layout, numbers: &[f32]) -> Vec<f32> {
        let half = |x: &f32| f32::from_bits((x.to_bits() + 0x7fff + (x.to_bits() >> 16 & 1)) & 0xffff_0000);
        match layout.multiplier {
            Multiplier::Registers(Format::Single) => numbers.to_vec(),
            _ => numbers.iter().map(half).collect(),
        }
    }

    #[test]
    fn products_are_those_of_f64_on_every_level_layout_and_shape() {
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
            for layout in layouts() {
                let (exact_a, exact_b) = (rounded(layout, &a), rounded(layout, &b));
                for (kind, bias) in (0..4).flat_map(|kind| [(kind, None), (kind, Some(&bias[..]))]) {
                    let (left, right) = (|a| left_view(kind, a, size), |b| right_view(kind, b, size));
                    let exact = exact(size, left(Numbers::Single(&exact_a)), right(Numbers::Single(&exact_b)), bias);
                    let what = format!("{layout:?} {size:?} {kind}");
                    let (a, b) = (Numbers::Single(&a), Numbers::Single(&b));
                    let found = matmul(layout, size, left(a), right(b), bias);
                    close(&found, &exact, ERROR_PER_STEP * (depth + 1) as f64, &what);
                    if layout.has_pairs() {
                        let halves = [a, b].map(|numbers| round(layout.level, numbers.single()));
                        let [a, b] = halves.each_ref().map(|halves| Numbers::Half(halves));
                        let (left, right) = (left_view(kind, a, size), right_view(kind, b, size));
                        let rounded = matmul(layout, size, left, right, bias);
                        assert!(found[..] == rounded[..], "{what}: factors that were rounded before");
                    }
                    let factors = (
                        LeftFactor::new(layout, left(a), rows, depth),
                        RightFactor::new(layout, right(b), depth, columns),
                    );
                    let start = bias.map_or(Start::Zero, Start::Row);
                    let aside = Mutex::new(vec![0.0; rows * columns]);
                    multiply_aside(layout, size, &factors.0, &factors.1, start, |offset, part| {
                        aside.lock().unwrap()[offset..offset + part.len()].copy_from_slice(part);
                    });
                    assert!(found[..] == aside.into_inner().unwrap()[..], "{what}: a product that is not kept");
                    let mut twice = found;
                    let seen = AtomicUsize::new(0);
                    multiply(layout, size, &factors.0, &factors.1, Start::Result, &mut twice, |offset, part| {
                        assert!(offset + part.len() <= rows * columns);
                        seen.fetch_add(part.len(), Ordering::Relaxed);
                    });
                    assert_eq!(seen.into_inner(), rows * columns, "every element is finished once");
                    let added =
                        |(exact, i): (&f64, usize)| 2.0 * exact - bias.map_or(0.0, |bias| f64::from(bias[i % columns]));
                    let exact: Vec<f64> = exact.iter().zip(0..).map(added).collect();
                    close(&twice, &exact, 2.0 * ERROR_PER_STEP * (depth + 1) as f64, &what);
                }
            }
        }
    }

    #[test]
    fn thread_counts_agree_bit_for_bit() {
        let size = Size { rows: 110, columns: 700, depth: 800 };
        let (a, b, bias) = (random(110 * 800, 1), random(800 * 700, 2), random(700, 3));
        let (left, right) = (View::rows(&a[..], 800), View::rows(&b[..], 700));
        for layout in layouts() {
            let found = [1, 2, 7].map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
                pool.install(|| matmul(layout, size, left, right, Some(&bias)).to_vec())
            });
            assert!(found[0] == found[1] && found[1] == found[2], "{layout:?}");
        }
    }
}

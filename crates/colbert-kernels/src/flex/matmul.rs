//! Products of large matrices on all threads.
//!
//! The right factor is packed once into panels, the left one block by block; blocks of the result are what threads
//! share out. An element of the result is summed in an order that depends on the depth alone.

use std::ops::Range;

use crate::flex::buffer::{Buffer, Shared};
use crate::flex::level::Level;
use crate::flex::parallel::for_each_block;
use crate::flex::tile::{Begin, Left, Product, Right, Size};

/// Depth of a packed block: a row group of the left factor stays in the first cache, a panel of the right in the second.
const DEPTH: usize = 384;

/// Groups of rows in a block, at most.
const GROUPS: usize = 8;

/// Panels of columns in a block, at least: each packs its rows anew.
const PANELS: usize = 4;

/// Blocks for each thread that a product is cut into at least, if it is large enough.
const BLOCKS: usize = 4;

/// A matrix that lies in `data` with these strides.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) row: usize,
    pub(crate) column: usize,
}

impl<'a> View<'a> {
    /// Rows of `columns` numbers, one after the other.
    pub(crate) fn rows(data: &'a [f32], columns: usize) -> Self {
        Self { data, row: columns, column: 1 }
    }

    /// Rows become columns.
    pub(crate) fn transposed(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }

    fn check(&self, rows: usize, columns: usize) {
        if rows > 0 && columns > 0 {
            assert!((rows - 1) * self.row + (columns - 1) * self.column < self.data.len(), "a matrix within its data");
        }
    }
}

/// `left right + bias`, `[rows, columns]`; `finish` sees every part of a row that is done, and the offset it has in the result.
pub(crate) fn matmul(
    level: Level,
    size: Size,
    left: View<'_>,
    right: View<'_>,
    bias: Option<&[f32]>,
    finish: impl Fn(usize, &[f32]) + Sync,
) -> Buffer {
    let Size { rows, columns, depth } = size;
    left.check(rows, depth);
    right.check(depth, columns);
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
    let packed = pack_right(level, right, depth, columns);
    let (group, width) = (level.rows(), level.columns());
    let padded = columns.next_multiple_of(width);
    let blocks = Blocks::new(size, group, width);
    let shared = Shared::new(&mut result);
    for_each_block(blocks.count, 1, |own| {
        let (of_rows, of_columns) = blocks.get(own.start);
        let mut left_packed = Buffer::<f32>::new(blocks.rows * DEPTH.min(depth));
        for start in (0..depth).step_by(DEPTH) {
            let depth = DEPTH.min(depth - start);
            pack_left(left, of_rows.clone(), start, depth, group, &mut left_packed);
            let from = match bias {
                _ if start > 0 => Begin::Result,
                Some(bias) => Begin::Row(bias[of_columns.start..].as_ptr()),
                None => Begin::Zero,
            };
            let size = Size { rows: of_rows.len(), columns: of_columns.len(), depth };
            let left = Left { start: left_packed.as_ptr(), group: group * depth, row: 1, step: group };
            let panels = packed[start * padded + of_columns.start * depth..].as_ptr();
            let right = Right { start: panels, panel: width * depth, step: width };
            // SAFETY: the factors are packed for this size, panels are whole, and this block is ours alone.
            unsafe {
                let result = Product { start: shared.at(of_rows.start * columns + of_columns.start), row: columns };
                level.multiply(size, left, right, result, from);
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

/// Blocks of depth, each of panels `[depth, width]`, the last panel filled up with zeros.
fn pack_right(level: Level, right: View<'_>, depth: usize, columns: usize) -> Buffer {
    let width = level.columns();
    let panels = columns.div_ceil(width);
    let mut packed = Buffer::new(depth * panels * width);
    let shared = Shared::new(&mut packed);
    for_each_block(panels, 1, |of_panels| {
        let panel = of_panels.start;
        let first = panel * width;
        let count = width.min(columns - first);
        for start in (0..depth).step_by(DEPTH) {
            let depth = DEPTH.min(depth - start);
            let offset = start * panels * width + panel * width * depth;
            // SAFETY: this panel of this block of depth, within the buffer; no other call writes it.
            let own = unsafe { std::slice::from_raw_parts_mut(shared.at(offset), width * depth) };
            let from = View { data: &right.data[start * right.row + first * right.column..], ..right };
            transpose(from.transposed(), count, depth, own, width);
        }
    });
    packed
}

/// Groups of rows, each `[depth, group]`, the last filled up with zeros.
fn pack_left(left: View<'_>, rows: Range<usize>, start: usize, depth: usize, group: usize, packed: &mut [f32]) {
    let end = rows.end;
    for (row, own) in rows.step_by(group).zip(packed.chunks_exact_mut(group * depth)) {
        let from = View { data: &left.data[row * left.row + start * left.column..], ..left };
        transpose(from, group.min(end - row), depth, own, group);
    }
}

/// Writes `[count, depth]` as `[depth, width]`, `count` being at most `width`; fills up with zeros.
pub(crate) fn transpose(from: View<'_>, count: usize, depth: usize, to: &mut [f32], width: usize) {
    assert!(count <= width && to.len() >= width * depth, "a matrix that fits");
    from.check(count, depth);
    let View { data, row, column } = from;
    if row == 1 {
        match width {
            6 if count == width => return copy_rows::<6>(data, column, depth, to),
            8 if count == width => return copy_rows::<8>(data, column, depth, to),
            12 if count == width => return copy_rows::<12>(data, column, depth, to),
            16 if count == width => return copy_rows::<16>(data, column, depth, to),
            32 if count == width => return copy_rows::<32>(data, column, depth, to),
            _ => {}
        }
        for (k, to) in to.chunks_exact_mut(width).take(depth).enumerate() {
            to[..count].copy_from_slice(&data[k * column..k * column + count]);
            to[count..].fill(0.0);
        }
        return;
    }
    let (rows, steps) = if column == 1 { (count - count % SQUARE, depth - depth % SQUARE) } else { (0, 0) };
    for k in (0..steps).step_by(SQUARE) {
        for i in (0..rows).step_by(SQUARE) {
            // SAFETY: four rows and four steps from here on are within the data, as checked, and as many of the result.
            unsafe { transpose_square(data.as_ptr().add(i * row + k), row, to.as_mut_ptr().add(k * width + i), width) };
        }
    }
    for (k, to) in to.chunks_exact_mut(width).take(depth).enumerate() {
        let first = if k < steps { rows } else { 0 };
        for i in first..count {
            to[i] = data[i * row + k * column];
        }
        to[count..].fill(0.0);
    }
}

/// Writes `depth` rows of `WIDTH` numbers, which are `stride` apart, one after the other. Of a width that the compiler
/// knows, so that a row is a few moves and not a call.
fn copy_rows<const WIDTH: usize>(data: &[f32], stride: usize, depth: usize, to: &mut [f32]) {
    for (k, to) in to.as_chunks_mut::<WIDTH>().0.iter_mut().take(depth).enumerate() {
        *to = *data[k * stride..].first_chunk().expect("a row of numbers");
    }
}

/// Rows and columns of a square that is transposed in registers.
const SQUARE: usize = 4;

/// Transposes a square between rows that are `row` and `width` apart.
///
/// # Safety
/// `SQUARE` rows of `SQUARE` numbers must be readable and writable.
#[inline(always)]
unsafe fn transpose_square(from: *const f32, row: usize, to: *mut f32, width: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_TRANSPOSE4_PS, _mm_loadu_ps, _mm_storeu_ps};
        // SAFETY: the caller's promise; every x86-64 processor has these instructions.
        unsafe {
            let [mut a, mut b, mut c, mut d] = [0, 1, 2, 3].map(|i| _mm_loadu_ps(from.add(i * row)));
            _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
            for (k, column) in [a, b, c, d].into_iter().enumerate() {
                _mm_storeu_ps(to.add(k * width), column);
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    for i in 0..SQUARE {
        for k in 0..SQUARE {
            // SAFETY: the caller's promise.
            unsafe { *to.add(k * width + i) = *from.add(i * row + k) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::flex::testing::{close, random};

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

    #[test]
    fn products_are_those_of_f64_on_every_level_and_shape() {
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
            for level in Level::available() {
                for kind in 0..4 {
                    let left = if kind % 2 == 0 { View::rows(&a, depth) } else { View::rows(&a, rows).transposed() };
                    let right =
                        if kind / 2 == 0 { View::rows(&b, columns) } else { View::rows(&b, depth).transposed() };
                    for bias in [None, Some(&bias[..])] {
                        let seen = AtomicUsize::new(0);
                        let found = matmul(level, size, left, right, bias, |offset, part| {
                            assert!(offset + part.len() <= rows * columns);
                            seen.fetch_add(part.len(), Ordering::Relaxed);
                        });
                        assert_eq!(seen.into_inner(), rows * columns, "every element is finished once");
                        let error = ERROR_PER_STEP * (depth + 1) as f64;
                        close(&found, &exact(size, left, right, bias), error, &format!("{level:?} {size:?}"));
                    }
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
            let found = [1, 2, 7].map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
                pool.install(|| matmul(level, size, left, right, Some(&bias), |_, _| {}).to_vec())
            });
            assert!(found[0] == found[1] && found[1] == found[2], "{level:?}");
        }
    }
}

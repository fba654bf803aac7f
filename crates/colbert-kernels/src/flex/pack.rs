//! Laying out the factors of a product as tiles read them, in either format.

use crate::flex::buffer::{Buffer, Shared};
use crate::flex::level::Level;
use crate::flex::parallel::for_each_block;
use crate::flex::tile::{Format, Left, Right};

/// Steps of depth that a thread packs at a time.
const STEPS: usize = 64;

/// Rows that a thread converts at a time.
const ROWS: usize = 32;

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

    /// Fails if a matrix of this size does not lie within the data, or if neither of its axes is contiguous.
    pub(crate) fn check(&self, rows: usize, columns: usize) {
        assert!(self.row == 1 || self.column == 1, "a matrix with a contiguous axis");
        if rows > 0 && columns > 0 {
            assert!((rows - 1) * self.row + (columns - 1) * self.column < self.data.len(), "a matrix within its data");
        }
    }
}

/// What a packed factor is read from.
enum Numbers<'a> {
    Given(&'a [f32]),
    Packed(Buffer),
}

impl Numbers<'_> {
    fn as_slice(&self) -> &[f32] {
        match self {
            Self::Given(numbers) => numbers,
            Self::Packed(numbers) => numbers,
        }
    }
}

/// A left factor that tiles can read: as it lies, in rows of pairs, or in groups of a tile's rows.
pub(crate) struct LeftFactor<'a> {
    numbers: Numbers<'a>,
    /// Rows of a tile.
    rows: usize,
    /// Distances as those of [`Left`].
    group: usize,
    row: usize,
    step: usize,
}

impl<'a> LeftFactor<'a> {
    /// Packs `[rows, depth]` on all threads, if it has to be.
    pub(crate) fn new(level: Level, format: Format, left: View<'a>, rows: usize, depth: usize) -> Self {
        left.check(rows, depth);
        let (group, steps) = (level.rows(), format.steps(depth));
        let in_rows = |numbers, row| Self { numbers, rows: group, group: group * row, row, step: 1 };
        if left.column == 1 && format == Format::Single {
            return in_rows(Numbers::Given(left.data), left.row);
        }
        if left.column == 1 {
            let mut packed = Buffer::new(rows * steps);
            let shared = Shared::new(&mut packed);
            for_each_block(rows, ROWS, |own| {
                for row in own {
                    // SAFETY: this row's own pairs.
                    let to = unsafe { std::slice::from_raw_parts_mut(shared.at(row * steps), steps) };
                    pairs_of_row(level, &left.data[row * left.row..][..depth], to);
                }
            });
            return in_rows(Numbers::Packed(packed), steps);
        }
        let mut packed = Buffer::new(rows.div_ceil(group) * group * steps);
        let shared = Shared::new(&mut packed);
        let source = Source { level, format, data: left.data, stride: left.column, depth, columns: rows };
        for_each_block(steps, STEPS, |own| {
            for step in own {
                // SAFETY: this step of every group, which no other block writes.
                unsafe { source.spread(step, group, shared.at(step * group), steps * group) };
            }
        });
        Self { numbers: Numbers::Packed(packed), rows: group, group: group * steps, row: 1, step: group }
    }

    /// The part from this row, a multiple of a tile's rows, and this step on.
    pub(crate) fn at(&self, row: usize, step: usize) -> Left {
        let from = row / self.rows * self.group + step * self.step;
        let start = self.numbers.as_slice()[from..].as_ptr();
        Left { start, group: self.group, row: self.row, step: self.step }
    }
}

/// A right factor in blocks of depth, each of panels `[steps, columns of a tile]`, the last panel filled up with zeros.
pub(crate) struct RightFactor {
    packed: Buffer,
    /// Columns of all panels.
    padded: usize,
    /// Columns of a panel.
    width: usize,
    /// Steps of a block of depth.
    block: usize,
    steps: usize,
}

impl RightFactor {
    /// Packs `[depth, columns]` on all threads, in blocks of `block` steps.
    pub(crate) fn new(
        level: Level,
        format: Format,
        right: View<'_>,
        depth: usize,
        columns: usize,
        block: usize,
    ) -> Self {
        right.check(depth, columns);
        let (width, steps) = (level.columns(), format.steps(depth));
        let panels = columns.div_ceil(width);
        let padded = panels * width;
        let mut packed = Buffer::new(steps * padded);
        let shared = Shared::new(&mut packed);
        if right.column == 1 {
            let source = Source { level, format, data: right.data, stride: right.row, depth, columns };
            for_each_block(steps, STEPS, |own| {
                for step in own {
                    let start = step / block * block;
                    let within = block.min(steps - start);
                    // SAFETY: this step of every panel, which no other block writes.
                    unsafe {
                        let first = shared.at(start * padded + (step - start) * width);
                        source.spread(step, width, first, within * width);
                    }
                }
            });
        } else {
            for_each_block(panels, 1, |of_panels| {
                let first = of_panels.start * width;
                let count = width.min(columns - first);
                let own = View { data: &right.data[first * right.column..], row: right.column, column: 1 };
                let pairs = rows_of_pairs(level, format, own, count, depth);
                let from = pairs.as_ref().map_or(own, |pairs| View::rows(pairs, steps));
                for start in (0..steps).step_by(block) {
                    let within = block.min(steps - start);
                    let offset = start * padded + first * within;
                    // SAFETY: this panel of this block of depth, which no other call writes.
                    let to = unsafe { std::slice::from_raw_parts_mut(shared.at(offset), within * width) };
                    transpose(View { data: &from.data[start..], ..from }, count, within, to, width);
                }
            });
        }
        Self { packed, padded, width, block, steps }
    }

    /// The part from this column, a multiple of a tile's columns, and this step on, a multiple of the block's.
    pub(crate) fn at(&self, column: usize, step: usize) -> Right {
        let within = self.block.min(self.steps - step);
        let from = step * self.padded + column * within;
        Right { start: self.packed[from..].as_ptr(), panel: self.width * within, step: self.width }
    }
}

/// A matrix whose rows are steps of depth.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) level: Level,
    pub(crate) format: Format,
    pub(crate) data: &'a [f32],
    /// Numbers from a row to the next.
    pub(crate) stride: usize,
    pub(crate) depth: usize,
    pub(crate) columns: usize,
}

impl Source<'_> {
    fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.stride..][..self.columns]
    }

    /// Writes a step, `width` columns at a time, to places that are `distance` apart; fills up the last with zeros.
    ///
    /// # Safety
    /// All places must be writable.
    pub(crate) unsafe fn spread(&self, step: usize, width: usize, to: *mut f32, distance: usize) {
        match self.format {
            Format::Single => {
                // SAFETY: the caller's promise.
                unsafe { spread_row(self.row(step), width, to, distance) }
            }
            Format::Pairs => {
                let second = 2 * step + 1;
                let second = if second < self.depth { self.row(second) } else { &[] };
                // SAFETY: the caller's promise; the processor has the format's instructions.
                unsafe { spread_pairs(self.level, self.row(2 * step), second, width, to, distance) }
            }
        }
    }
}

/// # Safety
/// All places must be writable.
unsafe fn spread_row(row: &[f32], width: usize, to: *mut f32, distance: usize) {
    /// Of a width that the compiler knows, so that a place is a few moves and not a call.
    unsafe fn whole<const WIDTH: usize>(row: &[f32], to: *mut f32, distance: usize) {
        for (i, columns) in row.as_chunks::<WIDTH>().0.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { *to.add(i * distance).cast() = *columns };
        }
    }
    // SAFETY: the caller's promise, for whole places and for the last.
    unsafe {
        match width {
            6 => whole::<6>(row, to, distance),
            8 => whole::<8>(row, to, distance),
            12 => whole::<12>(row, to, distance),
            16 => whole::<16>(row, to, distance),
            32 => whole::<32>(row, to, distance),
            _ => unreachable!("tiles have 6 or 12 rows, and 8, 16 or 32 columns"),
        }
        let rest = row.len() % width;
        if rest > 0 {
            let last = std::slice::from_raw_parts_mut(to.add(row.len() / width * distance), width);
            last[..rest].copy_from_slice(&row[row.len() - rest..]);
            last[rest..].fill(0.0);
        }
    }
}

/// Pairs of two rows, as [`spread_row`]; without a second row the other halves are zero.
///
/// # Safety
/// All places must be writable, and the processor must have products of pairs.
unsafe fn spread_pairs(level: Level, first: &[f32], second: &[f32], width: usize, to: *mut f32, distance: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        use std::mem::transmute;
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
        unsafe fn bf16(first: &[f32], second: &[f32], width: usize, to: *mut f32, distance: usize) {
            /// Of these lanes, the numbers as bfloat16 in the lower halves.
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
            unsafe fn halves(row: &[f32], from: usize, lanes: usize) -> __m512i {
                let lanes = lanes.min(row.len().saturating_sub(from));
                let mask = ((1u32 << lanes) - 1) as __mmask16;
                // SAFETY: only lanes within the row are read.
                let numbers = unsafe { _mm512_maskz_loadu_ps(mask, row.as_ptr().wrapping_add(from)) };
                // SAFETY: 256 bits of which any are a value.
                _mm512_cvtepu16_epi32(unsafe { transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(numbers)) })
            }
            for (place, column) in (0..first.len()).step_by(width).enumerate() {
                for lane in (0..width).step_by(16) {
                    let lanes = 16.min(width - lane);
                    let mask = ((1u32 << lanes) - 1) as __mmask16;
                    // SAFETY: lanes of this place, which the caller promises to be writable.
                    unsafe {
                        let lower = halves(first, column + lane, lanes);
                        let upper = halves(second, column + lane, lanes);
                        let pairs = _mm512_or_si512(lower, _mm512_slli_epi32(upper, 16));
                        _mm512_mask_storeu_epi32(to.add(place * distance + lane).cast(), mask, pairs);
                    }
                }
            }
        }
        debug_assert!(level.has_bf16());
        // SAFETY: the caller's promise.
        unsafe { bf16(first, second, width, to, distance) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("{level:?} has no products of pairs: {}", first.len() + second.len() + width + distance + to as usize);
}

/// Rows of pairs of a matrix's rows; none where the format has no pairs.
fn rows_of_pairs(level: Level, format: Format, rows: View<'_>, count: usize, depth: usize) -> Option<Buffer> {
    (format == Format::Pairs).then(|| {
        let steps = format.steps(depth);
        let mut packed = Buffer::new(count * steps);
        for (row, to) in packed.chunks_exact_mut(steps.max(1)).enumerate() {
            pairs_of_row(level, &rows.data[row * rows.row..][..depth], to);
        }
        packed
    })
}

/// Neighbours in a row, two by two.
pub(crate) fn pairs_of_row(level: Level, row: &[f32], to: &mut [f32]) {
    assert!(level.has_bf16() && to.len() == Format::Pairs.steps(row.len()), "pairs of a row");
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        use std::mem::transmute;
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
        unsafe fn bf16(row: &[f32], to: &mut [f32]) {
            for (i, to) in to.chunks_mut(16).enumerate() {
                let load = |from: usize| {
                    let lanes = row.len().saturating_sub(from).min(16);
                    let mask = ((1u32 << lanes) - 1) as __mmask16;
                    // SAFETY: only lanes within the row are read.
                    unsafe { _mm512_maskz_loadu_ps(mask, row.as_ptr().wrapping_add(from)) }
                };
                let mask = ((1u32 << to.len()) - 1) as __mmask16;
                // SAFETY: 512 bits of which any are a value; only lanes of the result are written.
                unsafe {
                    let pairs = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(load(32 * i + 16), load(32 * i)));
                    _mm512_mask_storeu_epi32(to.as_mut_ptr().cast(), mask, pairs);
                }
            }
        }
        // SAFETY: the processor has the instructions, as was asserted.
        unsafe { bf16(row, to) }
    }
}

/// Writes `[count, depth]` as `[depth, width]`, `count` being at most `width`; fills up with zeros. Pairs are moved whole.
pub(crate) fn transpose(from: View<'_>, count: usize, depth: usize, to: &mut [f32], width: usize) {
    assert!(count <= width && to.len() >= width * depth, "a matrix that fits");
    from.check(count, depth);
    assert!(from.column == 1, "rows that are contiguous");
    let View { data, row, .. } = from;
    let (rows, steps) = (count - count % SQUARE, depth - depth % SQUARE);
    for k in (0..steps).step_by(SQUARE) {
        for i in (0..rows).step_by(SQUARE) {
            // SAFETY: four rows and four steps from here on are within the data, as checked, and as many of the result.
            unsafe { transpose_square(data.as_ptr().add(i * row + k), row, to.as_mut_ptr().add(k * width + i), width) };
        }
    }
    for (k, to) in to.chunks_exact_mut(width).take(depth).enumerate() {
        let first = if k < steps { rows } else { 0 };
        for i in first..count {
            to[i] = data[i * row + k];
        }
        to[count..].fill(0.0);
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

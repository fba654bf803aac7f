//! Packing: copies of numbers in the order in which matmuls read them, in either format.

use half::bf16;

use crate::flex::level::{Level, for_each_level};
use crate::flex::tile::Format;

/// Numbers of a matrix, one after the other.
#[derive(Clone, Copy)]
pub(crate) enum Numbers<'a> {
    /// As they were computed.
    Single(&'a [f32]),
    /// Rounded; only products of pairs read them.
    Half(&'a [bf16]),
}

impl<'a> Numbers<'a> {
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Single(numbers) => numbers.len(),
            Self::Half(numbers) => numbers.len(),
        }
    }

    /// Returns those from the one at `first` on.
    pub(crate) fn from(self, first: usize) -> Self {
        match self {
            Self::Single(numbers) => Self::Single(&numbers[first..]),
            Self::Half(numbers) => Self::Half(&numbers[first..]),
        }
    }

    /// Returns the first `count`.
    pub(crate) fn first(self, count: usize) -> Self {
        match self {
            Self::Single(numbers) => Self::Single(&numbers[..count]),
            Self::Half(numbers) => Self::Half(&numbers[..count]),
        }
    }

    /// Returns numbers that were not rounded.
    ///
    /// # Panics
    /// If they were.
    pub(crate) fn single(self) -> &'a [f32] {
        match self {
            Self::Single(numbers) => numbers,
            Self::Half(_) => panic!("numbers that were rounded are read by products of pairs alone"),
        }
    }

    /// Returns rounded numbers as pairs of neighbours, if they lie in whole pairs.
    pub(crate) fn pairs(self) -> Option<&'a [f32]> {
        let Self::Half(numbers) = self else { return None };
        // SAFETY: any 32 bits are two bfloat16.
        let (before, pairs, _) = unsafe { numbers.align_to::<f32>() };
        before.is_empty().then_some(pairs)
    }
}

impl<'a> From<&'a [f32]> for Numbers<'a> {
    fn from(numbers: &'a [f32]) -> Self {
        Self::Single(numbers)
    }
}

impl<'a> From<&'a [bf16]> for Numbers<'a> {
    fn from(numbers: &'a [bf16]) -> Self {
        Self::Half(numbers)
    }
}

/// A matrix that lies in `data` with these strides.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) data: Numbers<'a>,
    pub(crate) row: usize,
    pub(crate) column: usize,
}

impl<'a> View<'a> {
    /// Views rows of `columns` numbers, one after the other.
    pub(crate) fn rows(data: impl Into<Numbers<'a>>, columns: usize) -> Self {
        Self { data: data.into(), row: columns, column: 1 }
    }

    /// Returns `count` numbers of a row whose numbers are contiguous.
    pub(crate) fn row_of(&self, row: usize, count: usize) -> Numbers<'a> {
        self.data.from(row * self.row).first(count)
    }

    /// Returns the view with rows and columns exchanged.
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

/// A matrix whose rows are steps of depth.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) level: Level,
    pub(crate) format: Format,
    pub(crate) data: Numbers<'a>,
    /// Numbers from a row to the next.
    pub(crate) stride: usize,
    pub(crate) depth: usize,
    pub(crate) columns: usize,
}

impl<'a> Source<'a> {
    fn row(&self, row: usize) -> Numbers<'a> {
        self.data.from(row * self.stride).first(self.columns)
    }

    /// Writes a step, `width` columns at a time, to places that are `distance` apart; fills up the last with zeros.
    /// Pairs beyond the depth are zero.
    ///
    /// # Safety
    /// All places must be writable.
    pub(crate) unsafe fn spread(&self, step: usize, width: usize, to: *mut f32, distance: usize) {
        match self.format {
            Format::Single => {
                // SAFETY: the caller's promise.
                unsafe { spread_row(self.row(step).single(), width, to, distance) }
            }
            Format::Pairs => {
                let row = |row| if row < self.depth { self.row(row) } else { self.data.first(0) };
                let (first, second) = (row(2 * step), row(2 * step + 1));
                let Self { level, columns, .. } = *self;
                // SAFETY: the caller's promise; the processor has the format's instructions.
                unsafe {
                    match (first, second) {
                        (Numbers::Half(first), Numbers::Half(second)) => {
                            spread_halves(level, [first, second], columns, width, to, distance);
                        }
                        _ => spread_pairs(level, [first.single(), second.single()], columns, width, to, distance),
                    }
                }
            }
        }
    }
}

/// # Safety
/// All places must be writable.
unsafe fn spread_row(row: &[f32], width: usize, to: *mut f32, distance: usize) {
    /// Copies pieces of a width that the compiler knows, so that each is a few moves and not a call.
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

/// Pairs of two rows of `columns` numbers, as [`spread_row`]; of a row that is empty the halves are zero.
///
/// # Safety
/// All places must be writable, and the processor must have products of pairs.
unsafe fn spread_pairs(level: Level, rows: [&[f32]; 2], columns: usize, width: usize, to: *mut f32, distance: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        use std::mem::transmute;
        /// The order in which the words of two rows' halves become pairs.
        const ORDER: [u16; 32] = {
            let mut order = [0; 32];
            let mut i = 0;
            while i < 16 {
                order[2 * i] = i as u16;
                order[2 * i + 1] = 16 + i as u16;
                i += 1;
            }
            order
        };
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
        unsafe fn bf16(rows: [&[f32]; 2], columns: usize, width: usize, to: *mut f32, distance: usize) {
            // SAFETY: 512 bits of which any are a value.
            let order = unsafe { transmute::<[u16; 32], __m512i>(ORDER) };
            for (place, column) in (0..columns).step_by(width).enumerate() {
                for lane in (0..width).step_by(16) {
                    let load = |row: &[f32]| {
                        let lanes = 16.min(width - lane).min(row.len().saturating_sub(column + lane));
                        let mask = ((1u32 << lanes) - 1) as __mmask16;
                        // SAFETY: only lanes within the row are read.
                        unsafe { _mm512_maskz_loadu_ps(mask, row.as_ptr().wrapping_add(column + lane)) }
                    };
                    let mask = ((1u32 << 16.min(width - lane)) - 1) as __mmask16;
                    // SAFETY: as above for the halves; lanes of this place, which the caller promises to be writable.
                    unsafe {
                        let halves = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(load(rows[1]), load(rows[0])));
                        let pairs = _mm512_permutexvar_epi16(order, halves);
                        _mm512_mask_storeu_epi32(to.add(place * distance + lane).cast(), mask, pairs);
                    }
                }
            }
        }
        debug_assert!(level.has_bf16());
        // SAFETY: the caller's promise.
        unsafe { bf16(rows, columns, width, to, distance) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("{level:?} has no products of pairs: {rows:?} {columns} {width} {distance} {to:?}");
}

/// Returns the order that takes words of two rows of 32 in turn, from `first` on.
#[cfg(target_arch = "x86_64")]
const fn in_turn(first: u16) -> [u16; 32] {
    let mut order = [0; 32];
    let mut i = 0;
    while i < 16 {
        order[2 * i] = first + i as u16;
        order[2 * i + 1] = 32 + first + i as u16;
        i += 1;
    }
    order
}

/// Pairs of two rows that were rounded before, as [`spread_pairs`].
///
/// # Safety
/// As [`spread_pairs`].
unsafe fn spread_halves(level: Level, rows: [&[bf16]; 2], columns: usize, width: usize, to: *mut f32, distance: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        use std::mem::transmute;
        /// The words of two rows, one of each in turn: from the rows' first halves, and from their second.
        const LOWER: [u16; 32] = in_turn(0);
        const UPPER: [u16; 32] = in_turn(16);
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        unsafe fn avx512(rows: [&[half::bf16]; 2], columns: usize, width: usize, to: *mut f32, distance: usize) {
            // SAFETY: 512 bits of which any are a value.
            let [lower, upper] = [LOWER, UPPER].map(|order| unsafe { transmute::<[u16; 32], __m512i>(order) });
            // Whole places, read without masks: as many numbers as a load takes must lie in both rows.
            let read = if width == 12 { 16 } else { 32 };
            let shortest = rows[0].len().min(rows[1].len());
            let whole = match width {
                12 | 32 if shortest >= read => (shortest - read) / width + 1,
                _ => 0,
            };
            let [first, second] = rows.map(|row| row.as_ptr());
            for place in 0..whole {
                // SAFETY: the numbers lie in both rows; `width` pairs of this place, which the caller promises to be
                // writable.
                unsafe {
                    let to = to.add(place * distance);
                    let [first, second] = [first, second].map(|row| row.add(place * width));
                    if width == 32 {
                        let [a, b] = [first, second].map(|row| _mm512_loadu_si512(row.cast()));
                        _mm512_storeu_si512(to.cast(), _mm512_permutex2var_epi16(a, lower, b));
                        _mm512_storeu_si512(to.add(16).cast(), _mm512_permutex2var_epi16(a, upper, b));
                    } else {
                        let [a, b] = [first, second].map(|row| _mm512_cvtepu16_epi32(_mm256_loadu_si256(row.cast())));
                        let pairs = _mm512_or_si512(a, _mm512_slli_epi32::<16>(b));
                        _mm256_storeu_si256(to.cast(), _mm512_castsi512_si256(pairs));
                        _mm_storeu_si128(to.add(8).cast(), _mm512_extracti32x4_epi32::<2>(pairs));
                    }
                }
            }
            for (place, column) in (0..columns).step_by(width).enumerate().skip(whole) {
                for lane in (0..width).step_by(16) {
                    let load = |row: &[half::bf16]| {
                        let lanes = 16.min(width - lane).min(row.len().saturating_sub(column + lane));
                        let mask = ((1u32 << lanes) - 1) as __mmask16;
                        // SAFETY: only lanes within the row are read.
                        unsafe {
                            let from = row.as_ptr().wrapping_add(column + lane);
                            _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from.cast()))
                        }
                    };
                    let mask = ((1u32 << 16.min(width - lane)) - 1) as __mmask16;
                    let pairs = _mm512_or_si512(load(rows[0]), _mm512_slli_epi32::<16>(load(rows[1])));
                    // SAFETY: lanes of this place, which the caller promises to be writable.
                    unsafe { _mm512_mask_storeu_epi32(to.add(place * distance + lane).cast(), mask, pairs) };
                }
            }
        }
        debug_assert!(level.has_bf16());
        // SAFETY: the caller's promise.
        unsafe { avx512(rows, columns, width, to, distance) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("{level:?} has no products of pairs: {rows:?} {columns} {width} {distance} {to:?}");
}

/// Pairs neighbours in a row; fills up with zeros.
pub(crate) fn pairs_of_row(level: Level, row: Numbers<'_>, to: &mut [f32]) {
    assert!(to.len() >= Format::Pairs.steps(row.len()), "room for a row's pairs");
    // SAFETY: all places lie one after the other in `to`.
    unsafe { spread_pairs_of_row(level, row, to.len(), to.as_mut_ptr(), PAIRS) }
}

/// Pairs that are written at once.
pub(crate) const PAIRS: usize = 16;

/// Writes neighbours in a row as `steps` pairs, [`PAIRS`] at a time to places that are `distance` apart; fills up with
/// zeros.
///
/// # Safety
/// All places must be writable.
pub(crate) unsafe fn spread_pairs_of_row(level: Level, row: Numbers<'_>, steps: usize, to: *mut f32, distance: usize) {
    assert!(level.has_bf16(), "a processor that has products of pairs");
    let row = match row {
        Numbers::Single(row) => row,
        // SAFETY: the caller's promise.
        Numbers::Half(row) => return unsafe { copy_pairs(row, steps, to, distance) },
    };
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        use std::mem::transmute;
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
        unsafe fn bf16(row: &[f32], steps: usize, to: *mut f32, distance: usize) {
            for (place, step) in (0..steps).step_by(PAIRS).enumerate() {
                let load = |from: usize| {
                    let lanes = row.len().saturating_sub(from).min(16);
                    let mask = ((1u32 << lanes) - 1) as __mmask16;
                    // SAFETY: only lanes within the row are read.
                    unsafe { _mm512_maskz_loadu_ps(mask, row.as_ptr().wrapping_add(from)) }
                };
                let mask = ((1u32 << PAIRS.min(steps - step)) - 1) as __mmask16;
                let (lower, upper) = (load(2 * step), load(2 * step + 16));
                // SAFETY: 512 bits of which any are a value; only lanes of this place are written.
                unsafe {
                    let pairs = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(upper, lower));
                    _mm512_mask_storeu_epi32(to.add(place * distance).cast(), mask, pairs);
                }
            }
        }
        // SAFETY: the processor has the instructions, as was asserted; the caller's promise.
        unsafe { bf16(row, steps, to, distance) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("{row:?} {steps} {to:?} {distance}");
}

/// Writes a row that was rounded before, as [`spread_pairs_of_row`].
///
/// # Safety
/// All places must be writable.
unsafe fn copy_pairs(row: &[bf16], steps: usize, to: *mut f32, distance: usize) {
    for (place, step) in (0..steps).step_by(PAIRS).enumerate() {
        let pairs = PAIRS.min(steps - step);
        let own = &row[(2 * step).min(row.len())..(2 * (step + pairs)).min(row.len())];
        // SAFETY: this place's pairs, which the caller promises to be writable, as halves.
        let to = unsafe { std::slice::from_raw_parts_mut(to.add(place * distance).cast::<bf16>(), 2 * pairs) };
        to[..own.len()].copy_from_slice(own);
        to[own.len()..].fill(bf16::ZERO);
    }
}

/// Rounds a row as products of pairs round their factors.
pub(crate) fn round_row(level: Level, row: &[f32], to: &mut [bf16]) {
    assert!(level.has_bf16() && to.len() == row.len(), "a processor that rounds, and as many numbers");
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        use std::mem::transmute;
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
        fn bf16(row: &[f32], to: &mut [half::bf16]) {
            for start in (0..row.len()).step_by(16) {
                let mask = ((1u32 << 16.min(row.len() - start)) - 1) as __mmask16;
                // SAFETY: only lanes within both rows are read and written.
                unsafe {
                    let halves = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, row.as_ptr().add(start)));
                    let halves = transmute::<__m256bh, __m256i>(halves);
                    _mm256_mask_storeu_epi16(to.as_mut_ptr().add(start).cast(), mask, halves);
                }
            }
        }
        // SAFETY: the processor has the instructions, as was asserted.
        unsafe { bf16(row, to) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("{row:?} {to:?}");
}

for_each_level! {
    /// Makes rounded numbers float32 again.
    fn widen_row(row: &[bf16], to: &mut [f32]) = widen_body
}

#[inline(always)]
fn widen_body<const FUSED: bool>(row: &[bf16], to: &mut [f32]) {
    for (from, to) in row.iter().zip(to) {
        *to = f32::from_bits(u32::from(from.to_bits()) << 16);
    }
}

/// Writes `[count, depth]` as `[depth, width]`, `count` being at most `width`; fills up with zeros. The rows are `row`
/// numbers apart. Pairs are moved whole.
pub(crate) fn transpose(data: &[f32], row: usize, count: usize, depth: usize, to: &mut [f32], width: usize) {
    assert!(count <= width && to.len() >= width * depth, "a matrix that fits");
    assert!(count == 0 || depth == 0 || (count - 1) * row + depth <= data.len(), "a matrix within its data");
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

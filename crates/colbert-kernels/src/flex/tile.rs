//! The innermost product: a few rows times two vectors of columns, held in registers.

use crate::flex::level::Level;
use crate::precision::Precision;

/// Width of a tile in vectors of columns.
const VECTORS: usize = 2;

/// A vector register.
trait Vector: Copy {
    /// Numbers in a register.
    const LANES: usize;

    /// # Safety
    /// `from` must be readable.
    unsafe fn splat(from: *const f32) -> Self;

    /// # Safety
    /// `LANES` numbers from `from` on must be readable.
    unsafe fn load(from: *const f32) -> Self;

    /// # Safety
    /// `LANES` numbers from `to` on must be writable.
    unsafe fn store(self, to: *mut f32);

    /// Returns all zeros.
    fn zero() -> Self;

    /// Computes `self * by + to`.
    fn multiply_add(self, by: Self, to: Self) -> Self;

    fn add(self, other: Self) -> Self;
}

#[cfg(target_arch = "x86_64")]
macro_rules! x86_vector {
    ($vector:ident, $lanes:literal, $splat:ident, $load:ident, $store:ident, $zero:ident, $fma:ident, $add:ident) => {
        impl Vector for std::arch::x86_64::$vector {
            const LANES: usize = $lanes;
            #[inline(always)]
            unsafe fn splat(from: *const f32) -> Self {
                // SAFETY: the caller's promise; only code compiled for the processor at hand uses this type.
                unsafe { std::arch::x86_64::$splat(*from) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: as above.
                unsafe { std::arch::x86_64::$load(from) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: as above.
                unsafe { std::arch::x86_64::$store(to, self) }
            }
            #[inline(always)]
            fn zero() -> Self {
                // SAFETY: as above.
                unsafe { std::arch::x86_64::$zero() }
            }
            #[inline(always)]
            fn multiply_add(self, by: Self, to: Self) -> Self {
                // SAFETY: as above.
                unsafe { std::arch::x86_64::$fma(self, by, to) }
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                // SAFETY: as above.
                unsafe { std::arch::x86_64::$add(self, other) }
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
x86_vector!(
    __m512,
    16,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_setzero_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps
);
#[cfg(target_arch = "x86_64")]
x86_vector!(
    __m256,
    8,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_setzero_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps
);

/// Sixteen pairs of bfloat16 as a factor, sixteen float32 as a sum.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Pairs(std::arch::x86_64::__m512);

#[cfg(target_arch = "x86_64")]
impl Vector for Pairs {
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        use std::arch::x86_64::{_mm512_castsi512_ps, _mm512_set1_epi32};
        // SAFETY: the caller's promise; only code compiled for the processor at hand uses this type. A pair is moved
        // as an integer, as it need not be a number when taken for a float32.
        Self(unsafe { _mm512_castsi512_ps(_mm512_set1_epi32(*from.cast())) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above.
        Self(unsafe { std::arch::x86_64::_mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { std::arch::x86_64::_mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: as above.
        Self(unsafe { std::arch::x86_64::_mm512_setzero_ps() })
    }

    #[inline(always)]
    fn multiply_add(self, by: Self, to: Self) -> Self {
        use std::arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps};
        use std::mem::transmute;
        // SAFETY: as above; the two types are 512 bits of which any are a value.
        Self(unsafe {
            let [a, b] = [self.0, by.0].map(|pairs| transmute::<__m512, __m512bh>(pairs));
            _mm512_dpbf16_ps(to.0, a, b)
        })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { std::arch::x86_64::_mm512_add_ps(self.0, other.0) })
    }
}

impl Vector for [f32; 4] {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        [unsafe { *from }; 4]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise; an array needs no alignment but that of its numbers.
        unsafe { *from.cast() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as in `load`.
        unsafe { *to.cast() = self }
    }

    #[inline(always)]
    fn zero() -> Self {
        [0.0; 4]
    }

    #[inline(always)]
    fn multiply_add(self, by: Self, to: Self) -> Self {
        std::array::from_fn(|i| self[i] * by[i] + to[i])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }
}

/// The start value of a tile.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Begin {
    /// Nothing.
    Zero,
    /// The numbers that the result holds.
    Result,
    /// A row of numbers, one for each column, for every row.
    Row(*const f32),
}

/// The left factor: element (i, k) is at `(i / R) * group + (i % R) * row + k * step`, R being [`Level::rows`].
#[derive(Clone, Copy)]
pub(crate) struct Left {
    pub(crate) start: *const f32,
    pub(crate) group: usize,
    pub(crate) row: usize,
    pub(crate) step: usize,
}

/// The right factor, in panels of [`Level::columns`] columns: element (k, j) of panel p is at `p * panel + k * step +
/// j`.
#[derive(Clone, Copy)]
pub(crate) struct Right {
    pub(crate) start: *const f32,
    pub(crate) panel: usize,
    pub(crate) step: usize,
}

/// The result: element (i, j) is at `i * row + j`.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    pub(crate) start: *mut f32,
    pub(crate) row: usize,
}

/// The content of 32 bits of a factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A float32: a step of depth.
    Single,
    /// Two bfloat16, the first in the lower half: two steps of depth. Only [`Format::of`] returns it.
    Pairs,
}

impl Format {
    /// Returns the format for a precision, as far as the processor supports it.
    pub(crate) fn of(precision: Precision, level: Level) -> Self {
        if precision == Precision::Bf16 && level.has_bf16() { Self::Pairs } else { Self::Single }
    }

    /// Steps of 32 bits that a depth takes; the last pair may be half empty, that is zero.
    pub(crate) fn steps(self, depth: usize) -> usize {
        match self {
            Self::Single => depth,
            Self::Pairs => depth.div_ceil(2),
        }
    }
}

/// Rows, columns and depth of a product, depth in steps of the factors' format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) depth: usize,
}

impl Level {
    /// Returns the number of rows of a tile.
    pub(crate) fn rows(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => 12,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => 6,
            Self::Portable => 6,
        }
    }

    /// Returns the number of columns of a tile.
    pub(crate) fn columns(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => 32,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => 16,
            Self::Portable => 8,
        }
    }

    /// Computes `result = from + left right`, on one thread.
    ///
    /// # Safety
    /// The factors must be of this format. All of their elements must be readable, those of the right one up to a whole
    /// number of panels of columns; all elements of the result must be writable, and no one else may touch them.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "there is one format"))]
    pub(crate) unsafe fn multiply(
        self,
        format: Format,
        size: Size,
        left: Left,
        right: Right,
        result: Product,
        from: Begin,
    ) {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
        unsafe fn avx512_bf16(size: Size, left: Left, right: Right, result: Product, from: Begin) {
            // SAFETY: the caller's promise.
            unsafe { panels::<Pairs, 12>(size, left, right, result, from) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        unsafe fn avx512(size: Size, left: Left, right: Right, result: Product, from: Begin) {
            // SAFETY: the caller's promise.
            unsafe { panels::<std::arch::x86_64::__m512, 12>(size, left, right, result, from) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2(size: Size, left: Left, right: Right, result: Product, from: Begin) {
            // SAFETY: the caller's promise.
            unsafe { panels::<std::arch::x86_64::__m256, 6>(size, left, right, result, from) }
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => match format {
                // SAFETY: the caller's promise; the processor has the level's instructions.
                Format::Single => unsafe { avx512(size, left, right, result, from) },
                // SAFETY: as above; only a processor that has them is asked for products of pairs.
                Format::Pairs => unsafe { avx512_bf16(size, left, right, result, from) },
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2(size, left, right, result, from) },
            // SAFETY: as above.
            Self::Portable => unsafe { panels::<[f32; 4], 6>(size, left, right, result, from) },
        }
    }
}

/// # Safety
/// As [`Level::multiply`]; the processor must have the vector's instructions.
#[inline(always)]
unsafe fn panels<V: Vector, const R: usize>(size: Size, left: Left, right: Right, result: Product, from: Begin) {
    let width = VECTORS * V::LANES;
    // A last panel with fewer columns uses this buffer.
    let mut aside = [0.0f32; 12 * 32];
    let mut column = 0;
    let mut panel = right.start;
    while column < size.columns {
        let columns = width.min(size.columns - column);
        let whole = columns == width;
        let mut row = 0;
        while row < size.rows {
            let remaining = size.rows - row;
            let rows = if remaining >= R {
                R
            } else if remaining >= 4 {
                4
            } else {
                1
            };
            // SAFETY: within the factors and the result, of which row < size.rows and column < size.columns; the tile
            // reads `rows` rows and a whole panel, and writes `rows` rows of `width` columns, to `aside` where the
            // result has fewer.
            unsafe {
                let a = left.start.add(row / R * left.group + row % R * left.row);
                let target = result.start.add(row * result.row + column);
                let (c, c_row, begin) = match from {
                    _ if !whole => (aside.as_mut_ptr(), width, Begin::Zero),
                    Begin::Row(start) => (target, result.row, Begin::Row(start.add(column))),
                    other => (target, result.row, other),
                };
                match rows {
                    4 if R != 4 => tile::<V, 4>(size.depth, a, left, panel, right.step, c, c_row, begin),
                    1 => tile::<V, 1>(size.depth, a, left, panel, right.step, c, c_row, begin),
                    _ => tile::<V, R>(size.depth, a, left, panel, right.step, c, c_row, begin),
                }
                if !whole {
                    for i in 0..rows {
                        for j in 0..columns {
                            let to = target.add(i * result.row + j);
                            let base = match from {
                                Begin::Zero => 0.0,
                                Begin::Result => *to,
                                Begin::Row(start) => *start.add(column + j),
                            };
                            *to = base + aside[i * width + j];
                        }
                    }
                }
            }
            row += rows;
        }
        column += width;
        panel = panel.wrapping_add(right.panel);
    }
}

/// # Safety
/// `R` rows of `a` and `depth` steps of `b`, two vectors each, must be readable, `R` rows of `c` writable.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the parts of two factors and a result, all needed in registers")]
unsafe fn tile<V: Vector, const R: usize>(
    depth: usize,
    a: *const f32,
    left: Left,
    b: *const f32,
    b_step: usize,
    c: *mut f32,
    c_row: usize,
    from: Begin,
) {
    let mut sums = [[V::zero(); VECTORS]; R];
    // SAFETY: the caller's promise.
    unsafe {
        if let Begin::Row(start) = from {
            let begin = [V::load(start), V::load(start.add(V::LANES))];
            sums = [begin; R];
        }
        let (mut a, mut b) = (a, b);
        for _ in 0..depth {
            let columns = [V::load(b), V::load(b.add(V::LANES))];
            for (i, sums) in sums.iter_mut().enumerate() {
                let factor = V::splat(a.add(i * left.row));
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = factor.multiply_add(column, *sum);
                }
            }
            a = a.wrapping_add(left.step);
            b = b.wrapping_add(b_step);
        }
        for (i, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let to = c.add(i * c_row + v * V::LANES);
                let sum = if from == Begin::Result { sum.add(V::load(to)) } else { *sum };
                sum.store(to);
            }
        }
    }
}

//! Products of bfloat16 on Intel's AMX: registers of 16 rows of 64 bytes, and an instruction that multiplies two of
//! them.
//!
//! Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18, and volume 2, TDPBF16PS.

use crate::flex::tile::{Begin, Left, Product, Right, Size};

/// Rows of the left factor that are multiplied at a time: two registers.
pub(crate) const ROWS: usize = 2 * SIDE;

/// Columns of the right factor: two registers.
pub(crate) const COLUMNS: usize = 2 * SIDE;

/// Steps of depth, a pair of numbers each, that a register holds.
pub(crate) const STEPS: usize = SIDE;

/// Rows of a register, and numbers of 32 bits in a row.
const SIDE: usize = 16;

/// The unit that multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// The processor.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx,
    /// The instructions as the manual describes them, for tests of everything else on a processor without them.
    #[cfg(test)]
    Emulated,
}

/// The source and the target of the sums of `ROWS` times `COLUMNS` products, with the distances between rows.
#[derive(Clone, Copy)]
struct Sums {
    from: *const f32,
    from_row: usize,
    to: *mut f32,
    to_row: usize,
}

impl Unit {
    /// Returns the processor's unit, if it has one and the system allows its use.
    pub(crate) fn find() -> Option<Self> {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if hardware::available() {
            return Some(Self::Amx);
        }
        None
    }

    /// Adds the products of `blocks` blocks of depth, one after the other, to sums.
    ///
    /// # Safety
    /// That many blocks of `ROWS` times `STEPS` and of `STEPS` times `COLUMNS` pairs must be readable, and the sums
    /// writable; the processor must be [configured](hardware::Configured).
    unsafe fn add_products(self, blocks: usize, left: *const f32, right: *const f32, sums: Sums) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
                Self::Amx => hardware::add_products(blocks, left, right, sums),
                #[cfg(test)]
                Self::Emulated => emulated::add_products(blocks, left, right, sums),
            }
        }
    }
}

/// Computes `result = from + left right`, on one thread.
///
/// The left factor's element (i, k), a pair, is at `i / ROWS * group + k / STEPS * (ROWS * STEPS) + i % ROWS * STEPS +
/// k % STEPS`; the right one's lie in panels of [`COLUMNS`].
///
/// # Safety
/// All elements of the factors must be readable, up to whole groups and panels; all elements of the result must be
/// writable, and no one else may touch them. `size.depth`, in steps, must be a multiple of [`STEPS`].
pub(crate) unsafe fn multiply(unit: Unit, size: Size, left: Left, right: Right, result: Product, from: Begin) {
    debug_assert!(size.depth.is_multiple_of(STEPS) && right.step == COLUMNS, "whole registers");
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    let _configured = hardware::Configured::new(unit);
    let nothing = [0.0f32; COLUMNS];
    // Sums at the edges of the result use this buffer.
    let mut aside = [0.0f32; ROWS * COLUMNS];
    for (panel, column) in (0..size.columns).step_by(COLUMNS).enumerate() {
        for (group, row) in (0..size.rows).step_by(ROWS).enumerate() {
            let (rows, columns) = (ROWS.min(size.rows - row), COLUMNS.min(size.columns - column));
            // SAFETY: within the factors and the result, as the caller promises; only elements that the result has are
            // read and written there.
            unsafe {
                let (a, b) = (left.start.add(group * left.group), right.start.add(panel * right.panel));
                let target = result.start.add(row * result.row + column);
                if rows == ROWS && columns == COLUMNS {
                    let (begin, begin_row) = match from {
                        Begin::Zero => (nothing.as_ptr(), 0),
                        Begin::Result => (target.cast_const(), result.row),
                        Begin::Row(start) => (start.add(column), 0),
                    };
                    let sums = Sums { from: begin, from_row: begin_row, to: target, to_row: result.row };
                    unit.add_products(size.depth / STEPS, a, b, sums);
                    continue;
                }
                for (i, sums) in aside.chunks_exact_mut(COLUMNS).take(rows).enumerate() {
                    for (j, sum) in sums.iter_mut().take(columns).enumerate() {
                        *sum = match from {
                            Begin::Zero => 0.0,
                            Begin::Result => *target.add(i * result.row + j),
                            Begin::Row(start) => *start.add(column + j),
                        };
                    }
                }
                let to = aside.as_mut_ptr();
                let sums = Sums { from: to.cast_const(), from_row: COLUMNS, to, to_row: COLUMNS };
                unit.add_products(size.depth / STEPS, a, b, sums);
                for (i, sums) in aside.chunks_exact(COLUMNS).take(rows).enumerate() {
                    for (j, sum) in sums.iter().take(columns).enumerate() {
                        *target.add(i * result.row + j) = *sum;
                    }
                }
            }
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod hardware {
    //! The instructions themselves.

    use std::arch::asm;
    use std::arch::x86_64::__cpuid_count;
    use std::marker::PhantomData;
    use std::sync::OnceLock;

    use super::{COLUMNS, ROWS, SIDE, STEPS, Sums, Unit};

    /// Bytes of a number of 32 bits.
    const BYTES: usize = 4;

    /// Asks once: the processor for AMX and its products of bfloat16, the system for the registers' state.
    pub(super) fn available() -> bool {
        static KNOWN: OnceLock<bool> = OnceLock::new();
        *KNOWN.get_or_init(|| is_x86_feature_detected!("avx512bf16") && processor_has_it() && system_allows_it())
    }

    fn processor_has_it() -> bool {
        /// Of leaf 7: AMX-BF16 and AMX-TILE.
        const FEATURES: u32 = 1 << 22 | 1 << 24;
        /// Of the state that the system saves: XTILECFG and XTILEDATA.
        const SAVED: u32 = 1 << 17 | 1 << 18;
        // SAFETY: every x86-64 processor has the instruction; newer Rust calls it safe.
        #[allow(unused_unsafe, reason = "unsafe up to Rust 1.92, the oldest promised")]
        let found = unsafe { __cpuid_count(7, 0) }.edx;
        let saved: u32;
        // SAFETY: a system that saves the state of AVX-512, as one does where that was detected, has enabled the
        // instruction.
        unsafe {
            asm!("xgetbv", in("ecx") 0, out("eax") saved, out("edx") _, options(nomem, nostack, preserves_flags))
        };
        found & FEATURES == FEATURES && saved & SAVED == SAVED
    }

    fn system_allows_it() -> bool {
        /// `ARCH_REQ_XCOMP_PERM` of Linux's x86 documentation, xstate.
        const REQUEST: libc::c_int = 0x1023;
        /// `XFEATURE_XTILEDATA`
        const REGISTERS: libc::c_ulong = 18;
        // SAFETY: asks that this process may use the registers; nothing else changes.
        unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, REGISTERS) == 0 }
    }

    /// The configuration that LDTILECFG reads.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    /// All eight registers at their largest.
    static WHOLE: Configuration = Configuration {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: eight((SIDE * BYTES) as u16),
        rows: {
            let mut rows = [0; 16];
            let mut i = 0;
            while i < 8 {
                rows[i] = SIDE as u8;
                i += 1;
            }
            rows
        },
    };

    const fn eight(value: u16) -> [u16; 16] {
        let mut all = [0; 16];
        let mut i = 0;
        while i < 8 {
            all[i] = value;
            i += 1;
        }
        all
    }

    /// This thread's registers are configured as long as it lives.
    pub(super) struct Configured {
        unit: Unit,
        of_this_thread: PhantomData<*const ()>,
    }

    impl Configured {
        pub(super) fn new(unit: Unit) -> Self {
            if unit == Unit::Amx {
                // SAFETY: there is such a unit only where `available` says so; the layout is the instruction's.
                unsafe {
                    asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE, options(nostack, preserves_flags, readonly))
                };
            }
            Self { unit, of_this_thread: PhantomData }
        }
    }

    impl Drop for Configured {
        fn drop(&mut self) {
            if self.unit == Unit::Amx {
                // SAFETY: as above; nothing is in the registers that is still needed.
                unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
            }
        }
    }

    /// # Safety
    /// As [`Unit::add_products`].
    pub(super) unsafe fn add_products(blocks: usize, left: *const f32, right: *const f32, sums: Sums) {
        assert!(blocks > 0, "the loop runs once at least");
        // Registers 0 to 3 hold the sums: upper left, upper right, lower left, lower right; 4 and 5 the left factor's
        // rows, 6 and 7 the right one's columns. SAFETY: the caller's promise.
        unsafe {
            asm!(
                "tileloadd tmm0, [{from} + {from_row}]",
                "tileloadd tmm1, [{from} + {from_row} + {half}]",
                "tileloadd tmm2, [{from_lower} + {from_row}]",
                "tileloadd tmm3, [{from_lower} + {from_row} + {half}]",
                "2:",
                "tileloadd tmm4, [{left} + {left_row}]",
                "tileloadd tmm6, [{right} + {right_row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{right} + {right_row} + {half}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{left} + {left_row} + {left_half}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {left}, {left_block}",
                "add {right}, {right_block}",
                "dec {blocks}",
                "jnz 2b",
                "tilestored [{to} + {to_row}], tmm0",
                "tilestored [{to} + {to_row} + {half}], tmm1",
                "tilestored [{to_lower} + {to_row}], tmm2",
                "tilestored [{to_lower} + {to_row} + {half}], tmm3",
                half = const SIDE * BYTES,
                left_half = const SIDE * STEPS * BYTES,
                left_block = const ROWS * STEPS * BYTES,
                right_block = const STEPS * COLUMNS * BYTES,
                from = in(reg) sums.from,
                from_lower = in(reg) sums.from.add(SIDE * sums.from_row),
                from_row = in(reg) sums.from_row * BYTES,
                to = in(reg) sums.to,
                to_lower = in(reg) sums.to.add(SIDE * sums.to_row),
                to_row = in(reg) sums.to_row * BYTES,
                left = inout(reg) left => _,
                left_row = in(reg) STEPS * BYTES,
                right = inout(reg) right => _,
                right_row = in(reg) COLUMNS * BYTES,
                blocks = inout(reg) blocks => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

#[cfg(test)]
mod emulated {
    //! The same, by the manual's pseudocode. Numbers too small to be normal are not flushed to zero.

    use super::{COLUMNS, ROWS, SIDE, STEPS, Sums};

    type Register = [[u32; SIDE]; SIDE];

    /// TILELOADD
    unsafe fn load(from: *const f32, row: usize) -> Register {
        // SAFETY: the caller's promise.
        std::array::from_fn(|i| std::array::from_fn(|j| unsafe { (*from.add(i * row + j)).to_bits() }))
    }

    /// TILESTORED
    unsafe fn store(register: &Register, to: *mut f32, row: usize) {
        for (i, numbers) in register.iter().enumerate() {
            for (j, bits) in numbers.iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { *to.add(i * row + j) = f32::from_bits(*bits) };
            }
        }
    }

    /// TDPBF16PS: the products of lower and of upper halves are summed apart, and both sums added at the end.
    fn dot(sums: &mut Register, left: &Register, right: &Register) {
        let [lower, upper] = [|pair: u32| f32::from_bits(pair << 16), |pair: u32| f32::from_bits(pair & 0xffff_0000)];
        for (sums, left) in sums.iter_mut().zip(left) {
            for (j, sum) in sums.iter_mut().enumerate() {
                let mut halves = [0.0f32; 2];
                for (pair, right) in left.iter().zip(right) {
                    halves[0] = lower(*pair).mul_add(lower(right[j]), halves[0]);
                    halves[1] = upper(*pair).mul_add(upper(right[j]), halves[1]);
                }
                *sum = (f32::from_bits(*sum) + (halves[0] + halves[1])).to_bits();
            }
        }
    }

    /// # Safety
    /// As [`super::Unit::add_products`].
    pub(super) unsafe fn add_products(blocks: usize, left: *const f32, right: *const f32, sums: Sums) {
        for (i, j) in [(0, 0), (0, SIDE), (SIDE, 0), (SIDE, SIDE)] {
            // SAFETY: the caller's promise, for this quarter of the sums.
            unsafe {
                let mut register = load(sums.from.add(i * sums.from_row + j), sums.from_row);
                for block in 0..blocks {
                    let a = load(left.add(block * ROWS * STEPS + i * STEPS), STEPS);
                    let b = load(right.add(block * STEPS * COLUMNS + j), COLUMNS);
                    dot(&mut register, &a, &b);
                }
                store(&register, sums.to.add(i * sums.to_row + j), sums.to_row);
            }
        }
    }
}

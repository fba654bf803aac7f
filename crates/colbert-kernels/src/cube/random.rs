//! Dropout factors on a GPU: the hash of [`Dropout`] in 32-bit operations, the only ones that every device has.

use cubecl::prelude::*;

use crate::operators::dropout::Dropout;

/// The golden ratio in 64 bits, in halves, as in `operators/dropout.rs`.
const GOLDEN_HIGH: u32 = 0x9e37_79b9;
const GOLDEN_LOW: u32 = 0x7f4a_7c15;

/// The multipliers of SplitMix64's output function, in halves.
const FIRST_HIGH: u32 = 0xbf58_476d;
const FIRST_LOW: u32 = 0x1ce4_e5b9;
const SECOND_HIGH: u32 = 0x94d0_49bb;
const SECOND_LOW: u32 = 0x1331_11eb;

/// Numbers of a [`Dropout`] that a kernel takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mask {
    pub(crate) seed_high: u32,
    pub(crate) seed_low: u32,
    pub(crate) threshold: u32,
    pub(crate) scale: f32,
    pub(crate) drops: bool,
}

impl From<Dropout> for Mask {
    fn from(dropout: Dropout) -> Self {
        assert!(
            (0.0..1.0).contains(&dropout.probability),
            "dropout probability {} is not in [0, 1)",
            dropout.probability
        );
        Self {
            seed_high: (dropout.seed >> 32) as u32,
            seed_low: dropout.seed as u32,
            threshold: dropout.threshold(),
            scale: 1.0 / (1.0 - dropout.probability),
            drops: !dropout.is_none(),
        }
    }
}

/// A 64-bit number in halves.
#[derive(CubeType, Clone, Copy)]
pub(crate) struct Wide {
    pub(crate) high: u32,
    pub(crate) low: u32,
}

/// Computes the upper half of a product from halves of the factors.
#[cube]
fn upper_product(a: u32, b: u32) -> u32 {
    let a_low = a & 0xffff;
    let a_high = a >> 16;
    let b_low = b & 0xffff;
    let b_high = b >> 16;
    let middle = a_high * b_low + ((a_low * b_low) >> 16);
    let lower = (middle & 0xffff) + a_low * b_high;
    a_high * b_high + (middle >> 16) + (lower >> 16)
}

/// Returns the lower 64 bits of a product.
#[cube]
pub(crate) fn product(high: u32, low: u32, by_high: u32, by_low: u32) -> Wide {
    Wide { high: upper_product(low, by_low) + low * by_high + high * by_low, low: low * by_low }
}

/// Computes `x ^ (x >> by)`, `by` below 32.
#[cube]
fn folded(x: Wide, #[comptime] by: u32) -> Wide {
    let rest = comptime!(32 - by);
    Wide { high: x.high ^ (x.high >> by), low: x.low ^ ((x.low >> by) | (x.high << rest)) }
}

/// Applies the output function of SplitMix64.
#[cube]
fn mix(high: u32, low: u32) -> Wide {
    let x = folded(Wide { high, low }, 30u32);
    let x = product(x.high, x.low, FIRST_HIGH, FIRST_LOW);
    let x = folded(x, 27u32);
    let x = product(x.high, x.low, SECOND_HIGH, SECOND_LOW);
    folded(x, 31u32)
}

/// Returns key (low) and flip (high) of a row of the mask with this seed.
#[cube]
pub(crate) fn row_key(seed_high: u32, seed_low: u32, row: u32) -> Wide {
    let spread = product(0u32, row, GOLDEN_HIGH, GOLDEN_LOW);
    let spread = mix(spread.high, spread.low);
    mix(seed_high ^ spread.high, seed_low ^ spread.low)
}

/// Returns the seed of the dropout mask of a sequence that begins at this row, for attention in windows.
#[cube]
pub(crate) fn seed_of_sequence(seed_high: u32, seed_low: u32, start: u32) -> Wide {
    let spread = product(0u32, start, GOLDEN_HIGH, GOLDEN_LOW);
    Wide { high: seed_high ^ spread.high, low: seed_low ^ spread.low }
}

/// Returns the dropout factor of a column: 0 or the scale.
#[cube]
pub(crate) fn factor(key: u32, flip: u32, column: u32, threshold: u32, scale: f32) -> f32 {
    let x = column * GOLDEN_LOW + key;
    let x = (x ^ (x >> 16)) * 0x21f0_aaadu32;
    let x = (x ^ (x >> 15)) * 0xd35a_2d97u32;
    let x = (x ^ (x >> 15)) ^ flip;
    select(x >= threshold, scale, 0.0f32)
}

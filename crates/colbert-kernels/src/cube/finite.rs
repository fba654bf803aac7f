//! Checks that numbers are finite, by their bits: a GPU may assume that all are, and then `max(NaN, 2)` is 2.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::cube::launch::{UNITS, cubes, floats, unwritten};

/// Bits of the exponent of a float32: all are set if a number is infinite or NaN.
const EXPONENT: u32 = 0x7f80_0000;

/// Most cubes that share the numbers; the host reads one flag for each.
const CUBES: usize = 256;

/// Returns whether a number is NaN.
#[cube]
pub(crate) fn is_nan(x: f32) -> bool {
    (u32::reinterpret(x) & 0x7fff_ffffu32) > EXPONENT
}

/// Writes 1 for each unit that found a number that is not finite, else 0.
#[cube(launch)]
fn flag(input: &Array<f32>, flags: &mut Array<f32>, units: usize) {
    let at = ABSOLUTE_POS;
    if at >= units {
        terminate!();
    }
    let mut found = 0.0f32;
    let mut i = at;
    while i < input.len() {
        if (u32::reinterpret(input[i]) & EXPONENT) == EXPONENT {
            found = 1.0f32;
        }
        i += units;
    }
    flags[at] = found;
}

/// Returns a number for each of several units: 0 if all that it checked was finite.
pub(crate) fn flags<R: CubeRuntime>(input: CubeTensor<R>) -> CubeTensor<R> {
    let input = floats(input);
    let count = CUBES.min(input.meta.num_elements().div_ceil(UNITS as usize)).max(1);
    let units = count * UNITS as usize;
    let flags = unwritten(&input, [units]);
    flag::launch(
        &flags.client,
        cubes(&flags, count),
        CubeDim::new_1d(UNITS),
        input.into_array_arg(),
        flags.clone().into_array_arg(),
        units,
    );
    flags
}

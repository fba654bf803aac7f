//! Rotary positions of queries and keys that lie side by side with values, in place and in one launch. Numbers are
//! float32 while they are computed with, and of the type `F` in memory.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::StorageType;
use cubecl::prelude::*;

use crate::cube::launch::{UNITS, copied, cubes_of_elements, dims, writable};
use crate::operators::rotation::Rotation;
use crate::segments::Segments;

/// The parameters that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Form {
    /// Numbers of a token in one head.
    head_size: usize,
    /// Pairs of them that are rotated: i and i + pairs.
    pairs: usize,
    /// Whether they are rotated by the opposite angles.
    backwards: bool,
}

/// Rotates the heads of queries and keys, the first two thirds of each token, one unit for a pair.
#[cube(launch)]
fn rotate_pairs<F: Float>(
    qkv: &mut Array<F>,
    positions: &Array<u32>,
    cos: &Array<f32>,
    sin: &Array<f32>,
    size: usize,
    #[comptime] form: Form,
    #[define(F)] _dtype: StorageType,
) {
    let pairs = comptime!(form.pairs);
    let each = 2 * size / comptime!(form.head_size) * pairs;
    let token = ABSOLUTE_POS / each;
    if token >= positions.len() {
        terminate!();
    }
    let own = ABSOLUTE_POS % each;
    let pair = own % pairs;
    let at = token * 3 * size + own / pairs * comptime!(form.head_size) + pair;
    let angle = positions[token] as usize * pairs + pair;
    let first = f32::cast_from(qkv[at]);
    let second = f32::cast_from(qkv[at + pairs]);
    let across = select(comptime!(form.backwards), -sin[angle], sin[angle]);
    qkv[at] = F::cast_from(first * cos[angle] - second * across);
    qkv[at + pairs] = F::cast_from(second * cos[angle] + first * across);
}

/// Rotates queries and keys of `[tokens, 3 * size]` by their positions; backwards, by the opposite angles. In place if
/// nothing else uses the numbers.
pub(crate) fn rotate<R: CubeRuntime>(
    qkv: CubeTensor<R>,
    rotation: Option<&Rotation>,
    segments: &Segments,
    heads: usize,
    backwards: bool,
) -> CubeTensor<R> {
    let Some(rotation) = rotation else { return qkv };
    let [tokens, columns] = dims(&qkv);
    let form = Form { head_size: columns / 3 / heads, pairs: rotation.pairs(), backwards };
    let units = tokens * 2 * heads * form.pairs;
    if units == 0 {
        return qkv;
    }
    let qkv = writable(qkv);
    let (cos, sin) = rotation.until(segments.max_length());
    rotate_pairs::launch(
        &qkv.client,
        cubes_of_elements(&qkv, units),
        CubeDim::new_1d(UNITS),
        qkv.clone().into_array_arg(),
        copied(&qkv, &segments.positions()),
        copied(&qkv, cos),
        copied(&qkv, sin),
        columns / 3,
        form,
        qkv.dtype.into(),
    );
    qkv
}

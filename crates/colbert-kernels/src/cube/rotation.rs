//! Query, key and value of each token taken apart, with rotary positions, and their gradients put together again: one
//! launch each. Numbers are float32 while they are computed with, and of the type `F` in memory.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::StorageType;
use cubecl::prelude::*;

use crate::cube::launch::{UNITS, contiguous, copied, cubes_of_elements, dims, unwritten_as};
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

/// A number as it is after the rotation of its pair. `own` is its index in the tensor, `column` in its token.
#[cube]
fn rotated<F: Float>(
    from: &Array<F>,
    cos: &Array<f32>,
    sin: &Array<f32>,
    own: usize,
    column: usize,
    position: usize,
    #[comptime] form: Form,
) -> f32 {
    let pairs = comptime!(form.pairs);
    let number = column % comptime!(form.head_size);
    let mut value = f32::cast_from(from[own]);
    if number < comptime!(2 * form.pairs) {
        let first = number < pairs;
        let angle = position * pairs + select(first, number, number - pairs);
        let other = f32::cast_from(from[select(first, own + pairs, own - pairs)]) * sin[angle];
        if comptime!(form.backwards) {
            value = value * cos[angle] + select(first, other, -other);
        } else {
            value = value * cos[angle] + select(first, -other, other);
        }
    }
    value
}

/// Takes query, key and value apart and rotates queries and keys, one unit for one number of each.
#[cube(launch)]
fn take_apart<F: Float>(
    packed: &Array<F>,
    positions: &Array<u32>,
    cos: &Array<f32>,
    sin: &Array<f32>,
    query: &mut Array<F>,
    key: &mut Array<F>,
    value: &mut Array<F>,
    size: usize,
    #[comptime] form: Form,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at >= query.len() {
        terminate!();
    }
    let token = at / size;
    let column = at % size;
    let position = positions[token] as usize;
    let own = token * 3 * size + column;
    query[at] = F::cast_from(rotated::<F>(packed, cos, sin, own, column, position, form));
    key[at] = F::cast_from(rotated::<F>(packed, cos, sin, own + size, column, position, form));
    value[at] = packed[own + 2 * size];
}

/// Puts the gradients of query, key and value side by side, those of queries and keys rotated back.
#[cube(launch)]
fn put_together<F: Float>(
    query: &Array<F>,
    key: &Array<F>,
    value: &Array<F>,
    positions: &Array<u32>,
    cos: &Array<f32>,
    sin: &Array<f32>,
    packed: &mut Array<F>,
    size: usize,
    #[comptime] form: Form,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at >= query.len() {
        terminate!();
    }
    let token = at / size;
    let column = at % size;
    let position = positions[token] as usize;
    let own = token * 3 * size + column;
    packed[own] = F::cast_from(rotated::<F>(query, cos, sin, at, column, position, form));
    packed[own + size] = F::cast_from(rotated::<F>(key, cos, sin, at, column, position, form));
    packed[own + 2 * size] = value[at];
}

/// Returns cosines and sines of the positions that occur; without a rotation a number that is not read.
fn angles<R: CubeRuntime>(
    like: &CubeTensor<R>,
    rotation: Option<&Rotation>,
    segments: &Segments,
) -> (ArrayArg<R>, ArrayArg<R>) {
    match rotation {
        Some(rotation) if rotation.pairs() > 0 => {
            let (cos, sin) = rotation.until(segments.max_length());
            (copied(like, cos), copied(like, sin))
        }
        _ => (copied(like, &[1.0f32]), copied(like, &[0.0f32])),
    }
}

/// Splits `[tokens, 3 * size]` into query, key and value, `[tokens, size]` each; queries and keys are rotated.
pub(crate) fn split<R: CubeRuntime>(
    packed: CubeTensor<R>,
    rotation: Option<&Rotation>,
    segments: &Segments,
    heads: usize,
) -> [CubeTensor<R>; 3] {
    let [tokens, columns] = dims(&packed);
    let size = columns / 3;
    let packed = contiguous(packed);
    let parts = [(); 3].map(|()| unwritten_as(&packed, [tokens, size], packed.dtype));
    let form = Form { head_size: size / heads, pairs: rotation.map_or(0, Rotation::pairs), backwards: false };
    if tokens * size > 0 {
        let (cos, sin) = angles(&packed, rotation, segments);
        let [query, key, value] = parts.clone();
        take_apart::launch(
            &packed.client.clone(),
            cubes_of_elements(&packed, tokens * size),
            CubeDim::new_1d(UNITS),
            packed.clone().into_array_arg(),
            copied(&packed, &segments.positions()),
            cos,
            sin,
            query.into_array_arg(),
            key.into_array_arg(),
            value.into_array_arg(),
            size,
            form,
            packed.dtype.into(),
        );
    }
    parts
}

/// Joins gradients of query, key and value to `[tokens, 3 * size]`, the gradient of what [`split`] took.
pub(crate) fn join<R: CubeRuntime>(
    parts: [CubeTensor<R>; 3],
    rotation: Option<&Rotation>,
    segments: &Segments,
    heads: usize,
) -> CubeTensor<R> {
    let [tokens, size] = dims(&parts[0]);
    let [query, key, value] = parts.map(contiguous);
    let packed = unwritten_as(&query, [tokens, 3 * size], query.dtype);
    let form = Form { head_size: size / heads, pairs: rotation.map_or(0, Rotation::pairs), backwards: true };
    if tokens * size > 0 {
        let (cos, sin) = angles(&packed, rotation, segments);
        put_together::launch(
            &packed.client,
            cubes_of_elements(&packed, tokens * size),
            CubeDim::new_1d(UNITS),
            query.into_array_arg(),
            key.into_array_arg(),
            value.into_array_arg(),
            copied(&packed, &segments.positions()),
            cos,
            sin,
            packed.clone().into_array_arg(),
            size,
            form,
            packed.dtype.into(),
        );
    }
    packed
}

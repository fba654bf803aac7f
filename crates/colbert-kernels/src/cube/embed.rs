//! Sums of embeddings, and gradients of their tables.

use std::sync::Arc;

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::cube::launch::{UNITS, copied, cubes, cubes_of_elements, dims, floats, unwritten, zeros};
use crate::operators::embed::{Tables, TokenRows};

#[cube(launch)]
fn look_up(
    word: &Array<f32>,
    position: &Array<f32>,
    token_type: &Array<f32>,
    ids: &Array<u32>,
    positions: &Array<u32>,
    output: &mut Array<f32>,
    size: usize,
    #[comptime] has_position: bool,
    #[comptime] has_type: bool,
) {
    let at = ABSOLUTE_POS;
    if at >= output.len() {
        terminate!();
    }
    let token = at / size;
    let column = at % size;
    let mut beside = 0.0f32;
    if comptime!(has_position) {
        beside += position[positions[token] as usize * size + column];
    }
    if comptime!(has_type) {
        beside += token_type[column];
    }
    output[at] = word[ids[token] as usize * size + column] + beside;
}

/// Sums the gradients of a row that was looked up, one cube for each: `starts` says which of `tokens` are its own.
#[cube(launch)]
fn sum_tokens(
    gradient: &Array<f32>,
    rows: &Array<u32>,
    starts: &Array<u32>,
    tokens: &Array<u32>,
    output: &mut Array<f32>,
    count: usize,
    size: usize,
) {
    let own = CUBE_POS;
    if own >= count {
        terminate!();
    }
    let first = starts[own] as usize;
    let end = starts[own + 1] as usize;
    let row = rows[own] as usize;
    let mut column = UNIT_POS as usize;
    while column < size {
        let mut sum = 0.0f32;
        for i in first..end {
            sum += gradient[tokens[i] as usize * size + column];
        }
        output[row * size + column] = sum;
        column += comptime!(UNITS as usize);
    }
}

/// See [`composed`](crate::operators::embed::composed).
pub(crate) fn forward<R: CubeRuntime>(tables: Tables<CubeTensor<R>>, rows: &TokenRows) -> CubeTensor<R> {
    let size = dims(&tables.word)[1];
    let word = floats(tables.word);
    let output = unwritten(&word, [rows.ids.len(), size]);
    if rows.ids.is_empty() {
        return output;
    }
    let (has_position, has_type) = (tables.position.is_some(), tables.token_type.is_some());
    // The word table takes the place of missing tables as an argument; it is not read there.
    let position = tables.position.map_or_else(|| word.clone(), floats);
    let token_type = tables.token_type.map_or_else(|| word.clone(), floats);
    look_up::launch(
        &output.client,
        cubes_of_elements(&output, rows.ids.len() * size),
        CubeDim::new_1d(UNITS),
        word.into_array_arg(),
        position.into_array_arg(),
        token_type.into_array_arg(),
        copied(&output, &rows.ids),
        copied(&output, &rows.positions),
        output.clone().into_array_arg(),
        size,
        has_position,
        has_type,
    );
    output
}

/// See [`composed_gradient`](crate::operators::embed::composed_gradient). Tokens of a row are added in their order.
pub(crate) fn gradient<R: CubeRuntime>(gradient: CubeTensor<R>, of: &Arc<[u32]>, count: usize) -> CubeTensor<R> {
    let size = dims(&gradient)[1];
    let gradient = floats(gradient);
    let output = zeros(&gradient, [count, size]);
    let mut tokens: Vec<u32> = (0..of.len() as u32).collect();
    // Stable, so that tokens of one row keep their order.
    tokens.sort_by_key(|token| of[*token as usize]);
    let (mut rows, mut starts) = (Vec::new(), Vec::new());
    for (i, token) in tokens.iter().enumerate() {
        let row = of[*token as usize];
        if rows.last() != Some(&row) {
            rows.push(row);
            starts.push(i as u32);
        }
    }
    starts.push(tokens.len() as u32);
    if !rows.is_empty() {
        sum_tokens::launch(
            &output.client,
            cubes(&output, rows.len()),
            CubeDim::new_1d(UNITS),
            gradient.into_array_arg(),
            copied(&output, &rows),
            copied(&output, &starts),
            copied(&output, &tokens),
            output.clone().into_array_arg(),
            rows.len(),
            size,
        );
    }
    output
}

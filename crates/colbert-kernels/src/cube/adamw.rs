//! AdamW on many tensors in one launch, in place if nothing else uses the numbers.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::cube::launch::{UNITS, cubes, cubes_of_tensors, floats, tensors_of_launch, writable};
use crate::operators::adamw::{Moments, Update};

/// Numbers that a cube updates, 16 for each unit: few cubes look for their tensor.
const BLOCK: usize = 16 * UNITS as usize;

/// A tensor of a launch, the cubes that update it, and the factors of its step.
#[derive(CubeType, CubeLaunch)]
struct Part {
    parameter: Array<f32>,
    mean: Array<f32>,
    square: Array<f32>,
    gradient: Array<f32>,
    first_cube: usize,
    end_cube: usize,
    gradient_scale: f32,
    keep: f32,
    beta_1: f32,
    beta_2: f32,
    rate: f32,
    correction: f32,
    eps: f32,
}

#[cube]
fn update_number(part: &mut Part, at: usize) {
    let own = part.gradient[at] * part.gradient_scale;
    let mean = part.mean[at] * part.beta_1 + own * (1.0f32 - part.beta_1);
    let square = part.square[at] * part.beta_2 + own * own * (1.0f32 - part.beta_2);
    part.mean[at] = mean;
    part.square[at] = square;
    let change = mean / (square.sqrt() * part.correction + part.eps) * part.rate;
    part.parameter[at] = part.parameter[at] * part.keep - change;
}

#[cube(launch)]
fn update(parts: &mut Sequence<Part>) {
    #[unroll]
    for n in 0..comptime!(parts.len()) {
        let part = parts.index_mut(n);
        if CUBE_POS >= part.first_cube {
            if CUBE_POS < part.end_cube {
                let first = (CUBE_POS - part.first_cube) * comptime!(BLOCK);
                let count = part.gradient.len();
                let end = select(first + comptime!(BLOCK) < count, first + comptime!(BLOCK), count);
                let mut i = first + UNIT_POS as usize;
                while i < end {
                    update_number(part, i);
                    i += comptime!(UNITS as usize);
                }
            }
        }
    }
}

/// Takes the steps of tensors that have numbers, no more of them than a launch can have.
fn launch<R: CubeRuntime>(updates: &[&Update<CubeTensor<R>>]) {
    let some = &updates[0].gradient;
    let ranges = cubes_of_tensors(updates.iter().map(|update| &update.gradient), BLOCK);
    let last = ranges[ranges.len() - 1].end;
    let mut parts = SequenceArg::new();
    for (Update { moments, gradient, options }, cubes) in updates.iter().zip(ranges) {
        let f = options.factors();
        parts.push(PartLaunch::new(
            moments.parameter.clone().into_array_arg(),
            moments.mean.clone().into_array_arg(),
            moments.square.clone().into_array_arg(),
            gradient.clone().into_array_arg(),
            cubes.start,
            cubes.end,
            f.gradient,
            f.keep,
            f.beta_1,
            f.beta_2,
            f.rate,
            f.correction,
            f.eps,
        ));
    }
    update::launch(&some.client, cubes(some, last), CubeDim::new_1d(UNITS), parts);
}

/// See [`composed`](crate::operators::adamw::composed).
pub(crate) fn step<R: CubeRuntime>(updates: Vec<Update<CubeTensor<R>>>) -> Vec<Moments<CubeTensor<R>>> {
    // CUDA refuses launches without cubes, those of copies too.
    let has_numbers = |update: &Update<CubeTensor<R>>| update.gradient.meta.num_elements() > 0;
    let prepared = updates.into_iter().map(|update| {
        if !has_numbers(&update) {
            return update;
        }
        let Update { moments: Moments { parameter, mean, square }, gradient, options } = update;
        let moments = Moments { parameter: writable(parameter), mean: writable(mean), square: writable(square) };
        Update { moments, gradient: floats(gradient), options }
    });
    let updates: Vec<_> = prepared.collect();
    let full: Vec<_> = updates.iter().filter(|update| has_numbers(update)).collect();
    if let Some(first) = full.first() {
        full.chunks(tensors_of_launch(&first.gradient, 4, 0)).for_each(launch);
    }
    updates.into_iter().map(|update| update.moments).collect()
}

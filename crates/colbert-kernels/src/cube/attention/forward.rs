//! Attention, forward.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::StorageType;
use cubecl::prelude::*;

use crate::cube::attention::{Form, HARDLY, LANES, NEVER, Numbers, dot, load, near, weights_key};
use crate::cube::launch::{contiguous, copied, cubes, dims, unwritten};
use crate::cube::random::factor;
use crate::operators::attention::{Attended, AttentionPlan};

/// Attends from some queries of a head, one cube for each block.
// One function, as all stages work on the same shared memory and on numbers that a unit keeps in registers.
#[cube(launch)]
fn attend<F: Float>(
    query: &Array<F>,
    key: &Array<F>,
    value: &Array<F>,
    blocks: &Array<u32>,
    output: &mut Array<f32>,
    log_sum_exp: &mut Array<f32>,
    cubes: usize,
    heads: usize,
    size: usize,
    scale: f32,
    reach: u32,
    seed_high: u32,
    seed_low: u32,
    threshold: u32,
    dropout_scale: f32,
    #[comptime] form: Form,
    #[define(F)] _dtype: StorageType,
) {
    if CUBE_POS >= cubes {
        terminate!();
    }
    let head = CUBE_POS % heads;
    let block = CUBE_POS / heads * 4;
    let start = blocks[block] as usize;
    let length = blocks[block + 1] as usize;
    let attended = blocks[block + 2] as usize;
    let first = blocks[block + 3] as usize;
    let rows = comptime!(form.rows);
    let others = comptime!(form.others);
    let head_size = comptime!(form.head_size);
    let units = comptime!(form.rows * LANES);
    let row = UNIT_POS as usize / comptime!(LANES);
    let lane = UNIT_POS as usize % comptime!(LANES);
    let position = first + row;

    let mut from = 0usize.runtime();
    let mut to = attended;
    if comptime!(form.windowed) {
        from = select(first > reach as usize, first - reach as usize, 0);
        let end = first + rows + reach as usize;
        to = select(end < attended, end, attended);
    }
    let mut queries = SharedMemory::<f32>::new(comptime!(form.rows * form.head_size));
    let mut keys = SharedMemory::<f32>::new(comptime!(form.others * form.head_size));
    let mut values = SharedMemory::<f32>::new(comptime!(form.others * form.head_size));
    let mut weights = SharedMemory::<f32>::new(comptime!(form.rows * form.others));
    load::<F>(query, &mut queries, start, first, length, head, size, scale, rows, head_size, units);
    let mut sums = Array::<f32>::new(comptime!(form.each));
    #[unroll]
    for m in 0..form.each {
        sums[m] = 0.0f32;
    }
    let drop = weights_key(
        seed_high,
        seed_low,
        start as u32,
        length as u32,
        position as u32,
        head as u32,
        heads as u32,
        comptime!(form.windowed),
    );
    let mut most = comptime!(NEVER).runtime();
    let mut total = 0.0f32;
    while from < to {
        // All units have finished the last block.
        sync_cube();
        load::<F>(key, &mut keys, start, from, to, head, size, 1.0f32, others, head_size, units);
        load::<F>(value, &mut values, start, from, to, head, size, 1.0f32, others, head_size, units);
        sync_cube();
        let mut j = lane;
        while j < others {
            let at = from + j;
            let mut product = comptime!(NEVER).runtime();
            if at < to {
                if comptime!(form.windowed) {
                    if near(at, position, reach) {
                        product = dot(&queries, &keys, row, j, head_size);
                    }
                } else {
                    product = dot(&queries, &keys, row, j, head_size);
                }
            }
            weights[row * others + j] = product;
            j += comptime!(LANES);
        }
        sync_cube();
        let mut highest = most;
        for j in 0..others {
            let product = weights[row * others + j];
            if product > highest {
                highest = product;
            }
        }
        let correction = (most - highest).exp();
        most = highest;
        total *= correction;
        // All lanes of a row must have read its products before one is replaced.
        sync_cube();
        j = lane;
        while j < others {
            let product = weights[row * others + j];
            let mut weight = 0.0f32;
            // Not the inverse comparison: NaN must remain NaN.
            if !(product <= comptime!(HARDLY).runtime()) {
                weight = (product - most).exp();
            }
            total += weight;
            if comptime!(form.drops) {
                weight *= factor(drop.low, drop.high, (from + j) as u32, threshold, dropout_scale);
            }
            weights[row * others + j] = weight;
            j += comptime!(LANES);
        }
        sync_cube();
        #[unroll]
        for m in 0..form.each {
            sums[m] *= correction;
        }
        for j in 0..others {
            let weight = weights[row * others + j];
            #[unroll]
            for m in 0..form.each {
                let n = lane + comptime!(m * LANES);
                if n < head_size {
                    sums[m] += weight * values[j * head_size + n];
                }
            }
        }
        from += others;
    }
    // Each lane has the sum of its own weights.
    sync_cube();
    weights[row * others + lane] = total;
    sync_cube();
    total = 0.0f32;
    for other in 0..LANES {
        total += weights[row * others + other];
    }
    if position < length {
        let alone = total == 0.0f32;
        let divisor = select(alone, 1.0f32, total);
        #[unroll]
        for m in 0..form.each {
            let n = lane + comptime!(m * LANES);
            if n < head_size {
                output[(start + position) * size + head * head_size + n] = sums[m] / divisor;
            }
        }
        if lane == 0 {
            log_sum_exp[(start + position) * heads + head] = select(alone, 0.0f32, most + divisor.ln());
        }
    }
}

/// See [`composed`](crate::operators::attention::composed).
pub(crate) fn forward<R: CubeRuntime>(qkv: [CubeTensor<R>; 3], plan: &AttentionPlan) -> Attended<CubeTensor<R>> {
    let [tokens, size] = dims(&qkv[0]);
    let form = Form::of(plan, size / plan.heads).expect("asked before");
    let [query, key, value] = qkv.map(contiguous);
    let dtype = query.dtype;
    let (output, log_sum_exp) = (unwritten(&query, [tokens, size]), unwritten(&query, [tokens, plan.heads]));
    let numbers = Numbers::new(plan, form);
    if tokens > 0 {
        attend::launch(
            &output.client,
            cubes(&output, numbers.cubes()),
            CubeDim::new_1d(form.units()),
            query.into_array_arg(),
            key.into_array_arg(),
            value.into_array_arg(),
            copied(&output, &numbers.blocks),
            output.clone().into_array_arg(),
            log_sum_exp.clone().into_array_arg(),
            numbers.cubes(),
            numbers.heads,
            numbers.size,
            numbers.scale,
            numbers.reach,
            numbers.mask.seed_high,
            numbers.mask.seed_low,
            numbers.mask.threshold,
            numbers.mask.scale,
            form,
            dtype.into(),
        );
    }
    Attended { output, log_sum_exp }
}

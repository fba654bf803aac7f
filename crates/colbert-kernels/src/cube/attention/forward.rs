//! Attention, forward.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::StorageType;
use cubecl::prelude::*;

use crate::cube::attention::{
    Block, Form, HARDLY, KernelPlan, LANES, NEVER, Numbers, Part, Qkv, block_of, dot, load, near, seen, tensor_cores,
    weights_key,
};
use crate::cube::launch::{copied, cubes, unwritten, unwritten_as};
use crate::cube::random::factor;
use crate::operators::attention::{Attended, AttentionPlan};

/// Attends from some queries of a head, one cube for each block.
#[cube(launch)]
fn attend<F: Float>(
    query: &Array<F>,
    key: &Array<F>,
    value: &Array<F>,
    blocks: &Array<u32>,
    output: &mut Array<F>,
    log_sum_exp: &mut Array<f32>,
    plan: &KernelPlan,
    #[comptime] form: Form,
    #[define(F)] _dtype: StorageType,
) {
    if CUBE_POS >= plan.cubes {
        terminate!();
    }
    let block = block_of(blocks, plan);
    if comptime!(form.on_tensor_cores) {
        tensor_cores::attend::<F>(query, key, value, output, log_sum_exp, &block, plan, form);
    } else {
        attend_by_units::<F>(query, key, value, output, log_sum_exp, &block, plan, form);
    }
}

// One function, as all stages work on the same shared memory and on numbers that a unit keeps in registers.
#[cube]
fn attend_by_units<F: Float>(
    query: &Array<F>,
    key: &Array<F>,
    value: &Array<F>,
    output: &mut Array<F>,
    log_sum_exp: &mut Array<f32>,
    block: &Block,
    plan: &KernelPlan,
    #[comptime] form: Form,
) {
    let (rows, others) = comptime!((form.rows, form.others));
    let (head_size, each) = comptime!((form.head_size, form.each()));
    let row = UNIT_POS as usize / comptime!(LANES);
    let lane = UNIT_POS as usize % comptime!(LANES);
    let position = block.first + row;

    let range = seen(block, block.attended, plan, form);
    let mut from = range.from;
    let to = range.to;
    let mut queries = SharedMemory::<f32>::new(comptime!(form.rows * form.head_size));
    let mut keys = SharedMemory::<f32>::new(comptime!(form.others * form.head_size));
    let mut values = SharedMemory::<f32>::new(comptime!(form.others * form.head_size));
    let mut weights = SharedMemory::<f32>::new(comptime!(form.rows * form.others));
    let scale = plan.scale;
    load::<F>(query, &mut queries, block, plan, block.first, block.length, scale, rows, Part::Query, form);
    let mut sums = Array::<f32>::new(each);
    #[unroll]
    for m in 0..each {
        sums[m] = 0.0f32;
    }
    let drop = weights_key(block, plan, position, form);
    let mut most = comptime!(NEVER).runtime();
    let mut total = 0.0f32;
    while from < to {
        // All units have finished the last block.
        sync_cube();
        load::<F>(key, &mut keys, block, plan, from, to, 1.0f32, others, Part::Key, form);
        load::<F>(value, &mut values, block, plan, from, to, 1.0f32, others, Part::Value, form);
        sync_cube();
        let mut j = lane;
        while j < others {
            let at = from + j;
            let mut product = comptime!(NEVER).runtime();
            if at < to {
                if near(at, position, plan, form) {
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
                let at = (from + j) as u32;
                weight *= factor(drop.low, drop.high, at, plan.threshold, plan.dropout_scale);
            }
            weights[row * others + j] = weight;
            j += comptime!(LANES);
        }
        sync_cube();
        #[unroll]
        for m in 0..each {
            sums[m] *= correction;
        }
        for j in 0..others {
            let weight = weights[row * others + j];
            #[unroll]
            for m in 0..each {
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
    if position < block.length {
        let alone = total == 0.0f32;
        let divisor = select(alone, 1.0f32, total);
        let token = block.start + position;
        #[unroll]
        for m in 0..each {
            let n = lane + comptime!(m * LANES);
            if n < head_size {
                output[token * plan.size + block.head * head_size + n] = F::cast_from(sums[m] / divisor);
            }
        }
        if lane == 0 {
            log_sum_exp[token * plan.heads + block.head] = select(alone, 0.0f32, most + divisor.ln());
        }
    }
}

/// See [`composed`](crate::operators::attention::composed).
pub(crate) fn forward<R: CubeRuntime>(qkv: Qkv<R>, plan: &AttentionPlan) -> Attended<CubeTensor<R>> {
    let ([tokens, size], form) = (qkv.dims(), qkv.form(plan));
    let qkv = qkv.contiguous();
    let dtype = qkv.query().dtype;
    let output = unwritten_as(qkv.query(), [tokens, size], dtype);
    let log_sum_exp = unwritten(&output, [tokens, plan.heads]);
    let numbers = Numbers::new(plan, form);
    if tokens > 0 {
        let [query, key, value] = qkv.args();
        attend::launch(
            &output.client,
            cubes(&output, numbers.cubes()),
            form.cube_dim(),
            query,
            key,
            value,
            copied(&output, &numbers.blocks),
            output.clone().into_array_arg(),
            log_sum_exp.clone().into_array_arg(),
            numbers.for_kernels(),
            form,
            dtype.into(),
        );
    }
    Attended { output, log_sum_exp }
}

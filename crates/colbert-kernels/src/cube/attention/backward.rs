//! Attention, backward: one kernel for queries, one for keys and values, so that no two cubes write the same number.

use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::cast;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::StorageType;
use cubecl::prelude::*;

use crate::cube::attention::{
    Block, Form, KernelPlan, LANES, Numbers, Part, Qkv, block_of, dot, known_of_others, load, load_known, near,
    place_of, seen, tensor_cores, weights_key,
};
use crate::cube::launch::{UNITS, contiguous, copied, cubes, cubes_of_elements, floats, unwritten};
use crate::cube::random::factor;
use crate::operators::attention::{Attended, AttentionPlan};

/// Computes for each token and head the product of output and gradient, which is the weighted mean of the weights'
/// gradients.
#[cube(launch)]
fn weigh<F: Float>(
    output: &Array<F>,
    gradient: &Array<F>,
    means: &mut Array<f32>,
    head_size: usize,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at >= means.len() {
        terminate!();
    }
    let mut sum = 0.0f32;
    for i in at * head_size..(at + 1) * head_size {
        sum += f32::cast_from(output[i]) * f32::cast_from(gradient[i]);
    }
    means[at] = sum;
}

/// Computes the gradient of some queries of a head, one cube for each block.
#[cube(launch)]
fn query_gradient<F: Float>(
    query: &Array<F>,
    key: &Array<F>,
    value: &Array<F>,
    gradient: &Array<F>,
    log_sum_exp: &Array<f32>,
    means: &Array<f32>,
    blocks: &Array<u32>,
    of_query: &mut Array<F>,
    plan: &KernelPlan,
    #[comptime] form: Form,
    #[define(F)] _dtype: StorageType,
) {
    if CUBE_POS >= plan.cubes {
        terminate!();
    }
    let block = block_of(blocks, plan);
    if comptime!(form.on_tensor_cores) {
        tensor_cores::query_gradient::<F>(
            query,
            key,
            value,
            gradient,
            log_sum_exp,
            means,
            of_query,
            &block,
            plan,
            form,
        );
    } else {
        query_gradient_by_units::<F>(query, key, value, gradient, log_sum_exp, means, of_query, &block, plan, form);
    }
}

// One function, as all stages work on the same shared memory and on numbers that a unit keeps in registers.
#[cube]
fn query_gradient_by_units<F: Float>(
    query: &Array<F>,
    key: &Array<F>,
    value: &Array<F>,
    gradient: &Array<F>,
    log_sum_exp: &Array<f32>,
    means: &Array<f32>,
    of_query: &mut Array<F>,
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
    let mut gradients = SharedMemory::<f32>::new(comptime!(form.rows * form.head_size));
    let mut keys = SharedMemory::<f32>::new(comptime!(form.others * form.head_size));
    let mut values = SharedMemory::<f32>::new(comptime!(form.others * form.head_size));
    let mut changes = SharedMemory::<f32>::new(comptime!(form.rows * form.others));
    let (first, length, scale) = (block.first, block.length, plan.scale);
    load::<F>(query, &mut queries, block, plan, first, length, scale, rows, Part::Query, form);
    load::<F>(gradient, &mut gradients, block, plan, first, length, 1.0f32, rows, Part::Output, form);
    let mut sums = Array::<f32>::new(each);
    #[unroll]
    for m in 0..each {
        sums[m] = 0.0f32;
    }
    let drop = weights_key(block, plan, position, form);
    let mut sum_exp = 0.0f32;
    let mut mean = 0.0f32;
    if position < length {
        sum_exp = log_sum_exp[(block.start + position) * plan.heads + block.head];
        mean = means[(block.start + position) * plan.heads + block.head];
    }
    while from < to {
        sync_cube();
        load::<F>(key, &mut keys, block, plan, from, to, 1.0f32, others, Part::Key, form);
        load::<F>(value, &mut values, block, plan, from, to, 1.0f32, others, Part::Value, form);
        sync_cube();
        let mut j = lane;
        while j < others {
            let at = from + j;
            let mut change = 0.0f32;
            if at < to && position < length && near(at, position, plan, form) {
                let weight = (dot(&queries, &keys, row, j, head_size) - sum_exp).exp();
                let mut of_weight = dot(&gradients, &values, row, j, head_size);
                if comptime!(form.drops) {
                    of_weight *= factor(drop.low, drop.high, at as u32, plan.threshold, plan.dropout_scale);
                }
                change = weight * (of_weight - mean) * scale;
            }
            changes[row * others + j] = change;
            j += comptime!(LANES);
        }
        sync_cube();
        for j in 0..others {
            let change = changes[row * others + j];
            #[unroll]
            for m in 0..each {
                let n = lane + comptime!(m * LANES);
                if n < head_size {
                    sums[m] += change * keys[j * head_size + n];
                }
            }
        }
        from += others;
    }
    if position < length {
        #[unroll]
        for m in 0..each {
            let n = lane + comptime!(m * LANES);
            if n < head_size {
                of_query[place_of(block, plan, position, Part::Query, form) + n] = F::cast_from(sums[m]);
            }
        }
    }
}

/// Computes the gradients of some keys and values of a head, one cube for each block. Keys that no query attends to get
/// zeros.
#[cube(launch)]
fn key_value_gradient<F: Float>(
    query: &Array<F>,
    key: &Array<F>,
    value: &Array<F>,
    gradient: &Array<F>,
    log_sum_exp: &Array<f32>,
    means: &Array<f32>,
    blocks: &Array<u32>,
    of_key: &mut Array<F>,
    of_value: &mut Array<F>,
    plan: &KernelPlan,
    #[comptime] form: Form,
    #[define(F)] _dtype: StorageType,
) {
    if CUBE_POS >= plan.cubes {
        terminate!();
    }
    let block = block_of(blocks, plan);
    if comptime!(form.on_tensor_cores) {
        tensor_cores::key_value_gradient::<F>(
            query,
            key,
            value,
            gradient,
            log_sum_exp,
            means,
            of_key,
            of_value,
            &block,
            plan,
            form,
        );
    } else {
        key_value_gradient_by_units::<F>(
            query,
            key,
            value,
            gradient,
            log_sum_exp,
            means,
            of_key,
            of_value,
            &block,
            plan,
            form,
        );
    }
}

// One function, as all stages work on the same shared memory and on numbers that a unit keeps in registers.
#[cube]
fn key_value_gradient_by_units<F: Float>(
    query: &Array<F>,
    key: &Array<F>,
    value: &Array<F>,
    gradient: &Array<F>,
    log_sum_exp: &Array<f32>,
    means: &Array<f32>,
    of_key: &mut Array<F>,
    of_value: &mut Array<F>,
    block: &Block,
    plan: &KernelPlan,
    #[comptime] form: Form,
) {
    let (rows, others) = comptime!((form.rows, form.others));
    let (head_size, each) = comptime!((form.head_size, form.each()));
    let row = UNIT_POS as usize / comptime!(LANES);
    let lane = UNIT_POS as usize % comptime!(LANES);
    let position = block.first + row;

    let range = seen(block, block.length, plan, form);
    let mut from = range.from;
    let to = select(block.first < block.attended, range.to, range.from);
    let mut keys = SharedMemory::<f32>::new(comptime!(form.rows * form.head_size));
    let mut values = SharedMemory::<f32>::new(comptime!(form.rows * form.head_size));
    let mut queries = SharedMemory::<f32>::new(comptime!(form.others * form.head_size));
    let mut gradients = SharedMemory::<f32>::new(comptime!(form.others * form.head_size));
    let mut changes = SharedMemory::<f32>::new(comptime!(form.rows * form.others));
    let mut weights = SharedMemory::<f32>::new(comptime!(form.rows * form.others));
    let mut known = known_of_others(form);
    let (first, attended, scale) = (block.first, block.attended, plan.scale);
    load::<F>(key, &mut keys, block, plan, first, attended, 1.0f32, rows, Part::Key, form);
    load::<F>(value, &mut values, block, plan, first, attended, 1.0f32, rows, Part::Value, form);
    let mut key_sums = Array::<f32>::new(each);
    let mut value_sums = Array::<f32>::new(each);
    #[unroll]
    for m in 0..each {
        key_sums[m] = 0.0f32;
        value_sums[m] = 0.0f32;
    }
    while from < to {
        sync_cube();
        load::<F>(query, &mut queries, block, plan, from, to, scale, others, Part::Query, form);
        load::<F>(gradient, &mut gradients, block, plan, from, to, 1.0f32, others, Part::Output, form);
        load_known(&mut known, log_sum_exp, means, block, plan, from, to, form);
        sync_cube();
        let mut j = lane;
        while j < others {
            let at = from + j;
            let mut weight = 0.0f32;
            let mut change = 0.0f32;
            if at < to && position < attended && near(at, position, plan, form) {
                weight = (dot(&keys, &queries, row, j, head_size) - known.sum_exps[j]).exp();
                let mut of_weight = dot(&values, &gradients, row, j, head_size);
                let mut kept = weight;
                if comptime!(form.drops) {
                    let (low, high) = (known.drop_keys[j], known.drop_flips[j]);
                    let own = factor(low, high, position as u32, plan.threshold, plan.dropout_scale);
                    of_weight *= own;
                    kept *= own;
                }
                change = weight * (of_weight - known.means[j]);
                weight = kept;
            }
            weights[row * others + j] = weight;
            changes[row * others + j] = change;
            j += comptime!(LANES);
        }
        sync_cube();
        for j in 0..others {
            let weight = weights[row * others + j];
            let change = changes[row * others + j];
            #[unroll]
            for m in 0..each {
                let n = lane + comptime!(m * LANES);
                if n < head_size {
                    // The queries are scaled already, so the change is not.
                    key_sums[m] += change * queries[j * head_size + n];
                    value_sums[m] += weight * gradients[j * head_size + n];
                }
            }
        }
        from += others;
    }
    if position < block.length {
        #[unroll]
        for m in 0..each {
            let n = lane + comptime!(m * LANES);
            if n < head_size {
                of_key[place_of(block, plan, position, Part::Key, form) + n] = F::cast_from(key_sums[m]);
                of_value[place_of(block, plan, position, Part::Value, form) + n] = F::cast_from(value_sums[m]);
            }
        }
    }
}

/// The tensors and numbers that both kernels of the backward pass read.
struct Inputs<R: CubeRuntime> {
    qkv: Qkv<R>,
    gradient: CubeTensor<R>,
    log_sum_exp: CubeTensor<R>,
    means: CubeTensor<R>,
    numbers: Numbers,
    form: Form,
}

impl<R: CubeRuntime> Inputs<R> {
    /// Launches the kernel of the queries' gradient and the one of the keys' and values'.
    fn write_gradients(&self, to: &Qkv<R>) {
        let Self { qkv, gradient, log_sum_exp, means, numbers, form } = self;
        let (client, dtype) = (&gradient.client, gradient.dtype);
        let [of_query, of_key, of_value] = to.args();
        let [query, key, value] = qkv.args();
        query_gradient::launch(
            client,
            cubes(gradient, numbers.cubes()),
            form.cube_dim(),
            query,
            key,
            value,
            gradient.clone().into_array_arg(),
            log_sum_exp.clone().into_array_arg(),
            means.clone().into_array_arg(),
            copied(gradient, &numbers.blocks),
            of_query,
            numbers.for_kernels(),
            *form,
            dtype.into(),
        );
        let [query, key, value] = qkv.args();
        key_value_gradient::launch(
            client,
            cubes(gradient, numbers.cubes()),
            form.cube_dim(),
            query,
            key,
            value,
            gradient.clone().into_array_arg(),
            log_sum_exp.clone().into_array_arg(),
            means.clone().into_array_arg(),
            copied(gradient, &numbers.blocks),
            of_key,
            of_value,
            numbers.for_kernels(),
            *form,
            dtype.into(),
        );
    }
}

/// Returns for each token and head the product of output and gradient, `[tokens, heads]`.
fn weighted_means<R: CubeRuntime>(
    output: CubeTensor<R>,
    gradient: CubeTensor<R>,
    [tokens, heads]: [usize; 2],
    form: Form,
) -> CubeTensor<R> {
    let (means, dtype) = (unwritten(&gradient, [tokens, heads]), gradient.dtype);
    weigh::launch(
        &means.client,
        cubes_of_elements(&means, tokens * heads),
        CubeDim::new_1d(UNITS),
        output.into_array_arg(),
        gradient.into_array_arg(),
        means.clone().into_array_arg(),
        form.head_size,
        dtype.into(),
    );
    means
}

/// See [`composed_gradient`](crate::operators::attention::composed_gradient).
pub(crate) fn gradient<R: CubeRuntime>(
    qkv: Qkv<R>,
    forward: Attended<CubeTensor<R>>,
    gradient: CubeTensor<R>,
    plan: &AttentionPlan,
) -> Qkv<R> {
    let ([tokens, _], form) = (qkv.dims(), qkv.form(plan));
    let qkv = qkv.contiguous();
    let log_sum_exp = floats(forward.log_sum_exp);
    // Both may come from an operator that keeps float32.
    let [output, gradient] = [forward.output, gradient].map(|x| contiguous(cast(x, qkv.query().dtype)));
    let of_qkv = qkv.unwritten();
    if tokens > 0 {
        let means = weighted_means(output, gradient.clone(), [tokens, plan.heads], form);
        let numbers = Numbers::new(plan, form);
        Inputs { qkv, gradient, log_sum_exp, means, numbers, form }.write_gradients(&of_qkv);
    }
    of_qkv
}

//! Attention, backward: one kernel for queries, one for keys and values, so that no two cubes write the same number.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::StorageType;
use cubecl::prelude::*;

use crate::cube::attention::{Form, LANES, Numbers, dot, load, near, weights_key};
use crate::cube::launch::{UNITS, contiguous, copied, cubes, cubes_of_elements, dims, floats, unwritten, unwritten_as};
use crate::cube::random::factor;
use crate::operators::attention::{Attended, AttentionPlan};

/// Computes for each token and head the product of output and gradient, which is the weighted mean of the weights'
/// gradients.
#[cube(launch)]
fn weigh(output: &Array<f32>, gradient: &Array<f32>, means: &mut Array<f32>, head_size: usize) {
    let at = ABSOLUTE_POS;
    if at >= means.len() {
        terminate!();
    }
    let mut sum = 0.0f32;
    for i in at * head_size..(at + 1) * head_size {
        sum += output[i] * gradient[i];
    }
    means[at] = sum;
}

/// Computes the gradient of some queries of a head, one cube for each block.
// One function, as all stages work on the same shared memory and on numbers that a unit keeps in registers.
#[cube(launch)]
fn query_gradient<F: Float>(
    query: &Array<F>,
    key: &Array<F>,
    value: &Array<F>,
    gradient: &Array<f32>,
    log_sum_exp: &Array<f32>,
    means: &Array<f32>,
    blocks: &Array<u32>,
    of_query: &mut Array<F>,
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
    let mut gradients = SharedMemory::<f32>::new(comptime!(form.rows * form.head_size));
    let mut keys = SharedMemory::<f32>::new(comptime!(form.others * form.head_size));
    let mut values = SharedMemory::<f32>::new(comptime!(form.others * form.head_size));
    let mut changes = SharedMemory::<f32>::new(comptime!(form.rows * form.others));
    load::<F>(query, &mut queries, start, first, length, head, size, scale, rows, head_size, units);
    load::<f32>(gradient, &mut gradients, start, first, length, head, size, 1.0f32, rows, head_size, units);
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
    let mut sum_exp = 0.0f32;
    let mut mean = 0.0f32;
    if position < length {
        sum_exp = log_sum_exp[(start + position) * heads + head];
        mean = means[(start + position) * heads + head];
    }
    while from < to {
        sync_cube();
        load::<F>(key, &mut keys, start, from, to, head, size, 1.0f32, others, head_size, units);
        load::<F>(value, &mut values, start, from, to, head, size, 1.0f32, others, head_size, units);
        sync_cube();
        let mut j = lane;
        while j < others {
            let at = from + j;
            let mut counts = at < to && position < length;
            if comptime!(form.windowed) {
                counts = counts && near(at, position, reach);
            }
            let mut change = 0.0f32;
            if counts {
                let weight = (dot(&queries, &keys, row, j, head_size) - sum_exp).exp();
                let mut of_weight = dot(&gradients, &values, row, j, head_size);
                if comptime!(form.drops) {
                    of_weight *= factor(drop.low, drop.high, at as u32, threshold, dropout_scale);
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
            for m in 0..form.each {
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
        for m in 0..form.each {
            let n = lane + comptime!(m * LANES);
            if n < head_size {
                of_query[(start + position) * size + head * head_size + n] = F::cast_from(sums[m]);
            }
        }
    }
}

/// Computes the gradients of some keys and values of a head, one cube for each block. Keys that no query attends to get
/// zeros.
// One function, as all stages work on the same shared memory and on numbers that a unit keeps in registers.
#[cube(launch)]
fn key_value_gradient<F: Float>(
    query: &Array<F>,
    key: &Array<F>,
    value: &Array<F>,
    gradient: &Array<f32>,
    log_sum_exp: &Array<f32>,
    means: &Array<f32>,
    blocks: &Array<u32>,
    of_key: &mut Array<F>,
    of_value: &mut Array<F>,
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
    let mut to = length;
    if comptime!(form.windowed) {
        from = select(first > reach as usize, first - reach as usize, 0);
        let end = first + rows + reach as usize;
        to = select(end < length, end, length);
    }
    if first >= attended {
        to = from;
    }
    let mut keys = SharedMemory::<f32>::new(comptime!(form.rows * form.head_size));
    let mut values = SharedMemory::<f32>::new(comptime!(form.rows * form.head_size));
    let mut queries = SharedMemory::<f32>::new(comptime!(form.others * form.head_size));
    let mut gradients = SharedMemory::<f32>::new(comptime!(form.others * form.head_size));
    let mut changes = SharedMemory::<f32>::new(comptime!(form.rows * form.others));
    let mut weights = SharedMemory::<f32>::new(comptime!(form.rows * form.others));
    let mut sum_exps = SharedMemory::<f32>::new(others);
    let mut mean = SharedMemory::<f32>::new(others);
    let mut drop_keys = SharedMemory::<u32>::new(others);
    let mut drop_flips = SharedMemory::<u32>::new(others);
    load::<F>(key, &mut keys, start, first, attended, head, size, 1.0f32, rows, head_size, units);
    load::<F>(value, &mut values, start, first, attended, head, size, 1.0f32, rows, head_size, units);
    let mut key_sums = Array::<f32>::new(comptime!(form.each));
    let mut value_sums = Array::<f32>::new(comptime!(form.each));
    #[unroll]
    for m in 0..form.each {
        key_sums[m] = 0.0f32;
        value_sums[m] = 0.0f32;
    }
    while from < to {
        sync_cube();
        load::<F>(query, &mut queries, start, from, to, head, size, scale, others, head_size, units);
        load::<f32>(gradient, &mut gradients, start, from, to, head, size, 1.0f32, others, head_size, units);
        let unit = UNIT_POS as usize;
        if unit < others {
            let at = from + unit;
            if at < to {
                sum_exps[unit] = log_sum_exp[(start + at) * heads + head];
                mean[unit] = means[(start + at) * heads + head];
                if comptime!(form.drops) {
                    let drop = weights_key(
                        seed_high,
                        seed_low,
                        start as u32,
                        length as u32,
                        at as u32,
                        head as u32,
                        heads as u32,
                        comptime!(form.windowed),
                    );
                    drop_keys[unit] = drop.low;
                    drop_flips[unit] = drop.high;
                }
            }
        }
        sync_cube();
        let mut j = lane;
        while j < others {
            let at = from + j;
            let mut counts = at < to && position < attended;
            if comptime!(form.windowed) {
                counts = counts && near(at, position, reach);
            }
            let mut weight = 0.0f32;
            let mut change = 0.0f32;
            if counts {
                weight = (dot(&keys, &queries, row, j, head_size) - sum_exps[j]).exp();
                let mut of_weight = dot(&values, &gradients, row, j, head_size);
                let mut kept = weight;
                if comptime!(form.drops) {
                    let own = factor(drop_keys[j], drop_flips[j], position as u32, threshold, dropout_scale);
                    of_weight *= own;
                    kept *= own;
                }
                change = weight * (of_weight - mean[j]);
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
            for m in 0..form.each {
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
    if position < length {
        #[unroll]
        for m in 0..form.each {
            let n = lane + comptime!(m * LANES);
            if n < head_size {
                let at = (start + position) * size + head * head_size + n;
                of_key[at] = F::cast_from(key_sums[m]);
                of_value[at] = F::cast_from(value_sums[m]);
            }
        }
    }
}

/// The tensors and numbers that both kernels of the backward pass read.
struct Inputs<R: CubeRuntime> {
    query: CubeTensor<R>,
    key: CubeTensor<R>,
    value: CubeTensor<R>,
    gradient: CubeTensor<R>,
    log_sum_exp: CubeTensor<R>,
    means: CubeTensor<R>,
    numbers: Numbers,
    form: Form,
}

impl<R: CubeRuntime> Inputs<R> {
    /// Launches the kernel of the queries' gradient.
    fn write_query_gradient(&self, of_query: &CubeTensor<R>) {
        let Numbers { heads, size, scale, reach, mask, .. } = self.numbers;
        query_gradient::launch(
            &of_query.client,
            cubes(of_query, self.numbers.cubes()),
            CubeDim::new_1d(self.form.units()),
            self.query.clone().into_array_arg(),
            self.key.clone().into_array_arg(),
            self.value.clone().into_array_arg(),
            self.gradient.clone().into_array_arg(),
            self.log_sum_exp.clone().into_array_arg(),
            self.means.clone().into_array_arg(),
            copied(of_query, &self.numbers.blocks),
            of_query.clone().into_array_arg(),
            self.numbers.cubes(),
            heads,
            size,
            scale,
            reach,
            mask.seed_high,
            mask.seed_low,
            mask.threshold,
            mask.scale,
            self.form,
            self.query.dtype.into(),
        );
    }

    /// Launches the kernel of the keys' and values' gradients.
    fn write_key_value_gradient(&self, of_key: &CubeTensor<R>, of_value: &CubeTensor<R>) {
        let Numbers { heads, size, scale, reach, mask, .. } = self.numbers;
        key_value_gradient::launch(
            &of_key.client,
            cubes(of_key, self.numbers.cubes()),
            CubeDim::new_1d(self.form.units()),
            self.query.clone().into_array_arg(),
            self.key.clone().into_array_arg(),
            self.value.clone().into_array_arg(),
            self.gradient.clone().into_array_arg(),
            self.log_sum_exp.clone().into_array_arg(),
            self.means.clone().into_array_arg(),
            copied(of_key, &self.numbers.blocks),
            of_key.clone().into_array_arg(),
            of_value.clone().into_array_arg(),
            self.numbers.cubes(),
            heads,
            size,
            scale,
            reach,
            mask.seed_high,
            mask.seed_low,
            mask.threshold,
            mask.scale,
            self.form,
            self.query.dtype.into(),
        );
    }
}

/// Returns for each token and head the product of output and gradient, `[tokens, heads]`.
fn weighted_means<R: CubeRuntime>(
    output: CubeTensor<R>,
    gradient: CubeTensor<R>,
    [tokens, heads]: [usize; 2],
    head_size: usize,
) -> CubeTensor<R> {
    let means = unwritten(&gradient, [tokens, heads]);
    weigh::launch(
        &means.client,
        cubes_of_elements(&means, tokens * heads),
        CubeDim::new_1d(UNITS),
        output.into_array_arg(),
        gradient.into_array_arg(),
        means.clone().into_array_arg(),
        head_size,
    );
    means
}

/// See [`composed_gradient`](crate::operators::attention::composed_gradient).
pub(crate) fn gradient<R: CubeRuntime>(
    qkv: [CubeTensor<R>; 3],
    forward: Attended<CubeTensor<R>>,
    gradient: CubeTensor<R>,
    plan: &AttentionPlan,
) -> [CubeTensor<R>; 3] {
    let [tokens, size] = dims(&qkv[0]);
    let form = Form::of(plan, size / plan.heads).expect("asked before");
    let [query, key, value] = qkv.map(contiguous);
    let [output, log_sum_exp, gradient] = [forward.output, forward.log_sum_exp, gradient].map(floats);
    let [of_query, of_key, of_value] = [(); 3].map(|()| unwritten_as(&query, [tokens, size], query.dtype));
    if tokens > 0 {
        let means = weighted_means(output, gradient.clone(), [tokens, plan.heads], form.head_size);
        let numbers = Numbers::new(plan, form);
        let inputs = Inputs { query, key, value, gradient, log_sum_exp, means, numbers, form };
        inputs.write_query_gradient(&of_query);
        inputs.write_key_value_gradient(&of_key, &of_value);
    }
    [of_query, of_key, of_value]
}

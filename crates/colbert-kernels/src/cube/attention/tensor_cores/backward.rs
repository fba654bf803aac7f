//! Attention on tensor cores, backward.

use cubecl::prelude::*;

use super::{EACH, FACTOR_STRIDE, PRODUCT_STRIDE, TILE};
use super::{
    accumulate, exponential, factor_tiles, load_factors, multiply, no_sums, own_rows, place, product_tiles, tokens,
    write,
};
use crate::cube::attention::{Block, Form, KernelPlan, Part, known_of_others, load_known, near, seen, weights_key};
use crate::cube::random::factor;

/// Computes the gradient of the queries of a block.
// One function, as all stages work on the same shared memory and on matrices that a plane keeps in registers.
#[cube]
pub(in crate::cube::attention) fn query_gradient<F: Float>(
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
    let rows = comptime!(form.rows);
    let place = place();
    let position = block.first + place.first + place.row;
    let own = place.first + place.row;
    let range = seen(block, block.attended, plan, form);
    let mut keys = tokens::<F>(form);
    let mut values = tokens::<F>(form);
    let mut products = product_tiles(form);
    let mut of_weights = product_tiles(form);
    let mut changes = factor_tiles::<F>(form);

    let (first, length) = (block.first, block.length);
    load_factors::<F>(query, &mut keys, block, plan, first, length, Part::Query, form);
    load_factors::<F>(gradient, &mut values, block, plan, first, length, Part::Output, form);
    sync_cube();
    let queries = own_rows::<F>(&keys, &place, form);
    let gradients = own_rows::<F>(&values, &place, form);
    let has_rows = block.first + place.first < block.length;
    let sums = no_sums(form);
    let drop = weights_key(block, plan, position, form);
    let mut sum_exp = 0.0f32;
    let mut mean = 0.0f32;
    if position < block.length {
        let row = (block.start + position) * plan.heads + block.head;
        sum_exp = log_sum_exp[row];
        mean = means[row];
    }

    let mut from = range.from;
    while from < range.to {
        // All units have finished the last block.
        sync_cube();
        load_factors::<F>(key, &mut keys, block, plan, from, range.to, Part::Key, form);
        load_factors::<F>(value, &mut values, block, plan, from, range.to, Part::Value, form);
        sync_cube();
        let mut tile = 0usize.runtime();
        while has_rows && tile < rows && from + tile < range.to {
            multiply::<F>(&queries, &keys, tile, &mut products, &place, form);
            multiply::<F>(&gradients, &values, tile, &mut of_weights, &place, form);
            sync_plane();
            #[unroll]
            for i in 0..EACH {
                let column = place.column + comptime!(2 * i);
                let at = from + tile + column;
                let mut change = 0.0f32;
                if at < range.to && near(at, position, plan, form) {
                    let product = own * comptime!(PRODUCT_STRIDE) + column;
                    let weight = exponential(products[product] * plan.scale - sum_exp);
                    let mut of_weight = of_weights[product];
                    if comptime!(form.drops) {
                        of_weight *= factor(drop.low, drop.high, at as u32, plan.threshold, plan.dropout_scale);
                    }
                    change = weight * (of_weight - mean) * plan.scale;
                }
                changes[own * comptime!(FACTOR_STRIDE) + column] = F::cast_from(change);
            }
            sync_plane();
            accumulate::<F>(&changes, &keys, tile, &sums, &place, form);
            tile += comptime!(TILE);
        }
        from += rows;
    }
    write::<F>(&sums, &mut products, of_query, block, plan, &place, Part::Query, form);
}

/// Computes the gradients of the keys and values of a block. Keys that no query attends to get zeros.
// One function, as all stages work on the same shared memory and on matrices that a plane keeps in registers.
#[cube]
pub(in crate::cube::attention) fn key_value_gradient<F: Float>(
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
    let rows = comptime!(form.rows);
    let place = place();
    let position = block.first + place.first + place.row;
    let own = place.first + place.row;
    let range = seen(block, block.length, plan, form);
    let to = select(block.first < block.attended, range.to, range.from);
    let mut queries = tokens::<F>(form);
    let mut gradients = tokens::<F>(form);
    let mut products = product_tiles(form);
    let mut of_weights = product_tiles(form);
    let mut weights = factor_tiles::<F>(form);
    let mut changes = factor_tiles::<F>(form);
    let mut known = known_of_others(form);

    let (first, attended) = (block.first, block.attended);
    load_factors::<F>(key, &mut queries, block, plan, first, attended, Part::Key, form);
    load_factors::<F>(value, &mut gradients, block, plan, first, attended, Part::Value, form);
    sync_cube();
    let keys = own_rows::<F>(&queries, &place, form);
    let values = own_rows::<F>(&gradients, &place, form);
    let has_rows = block.first + place.first < block.attended;
    let key_sums = no_sums(form);
    let value_sums = no_sums(form);

    let mut from = range.from;
    while from < to {
        // All units have finished the last block.
        sync_cube();
        load_factors::<F>(query, &mut queries, block, plan, from, to, Part::Query, form);
        load_factors::<F>(gradient, &mut gradients, block, plan, from, to, Part::Output, form);
        load_known(&mut known, log_sum_exp, means, block, plan, from, to, form);
        sync_cube();
        let mut tile = 0usize.runtime();
        while has_rows && tile < rows && from + tile < to {
            multiply::<F>(&keys, &queries, tile, &mut products, &place, form);
            multiply::<F>(&values, &gradients, tile, &mut of_weights, &place, form);
            sync_plane();
            #[unroll]
            for i in 0..EACH {
                let column = place.column + comptime!(2 * i);
                let j = tile + column;
                let at = from + j;
                let mut weight = 0.0f32;
                let mut change = 0.0f32;
                if at < to && position < block.attended && near(at, position, plan, form) {
                    let product = own * comptime!(PRODUCT_STRIDE) + column;
                    weight = exponential(products[product] * plan.scale - known.sum_exps[j]);
                    let mut of_weight = of_weights[product];
                    let mut kept = weight;
                    if comptime!(form.drops) {
                        let (low, high) = (known.drop_keys[j], known.drop_flips[j]);
                        let own = factor(low, high, position as u32, plan.threshold, plan.dropout_scale);
                        of_weight *= own;
                        kept *= own;
                    }
                    change = weight * (of_weight - known.means[j]) * plan.scale;
                    weight = kept;
                }
                weights[own * comptime!(FACTOR_STRIDE) + column] = F::cast_from(weight);
                changes[own * comptime!(FACTOR_STRIDE) + column] = F::cast_from(change);
            }
            sync_plane();
            accumulate::<F>(&weights, &gradients, tile, &value_sums, &place, form);
            accumulate::<F>(&changes, &queries, tile, &key_sums, &place, form);
            tile += comptime!(TILE);
        }
        from += rows;
    }
    write::<F>(&key_sums, &mut products, of_key, block, plan, &place, Part::Key, form);
    write::<F>(&value_sums, &mut of_weights, of_value, block, plan, &place, Part::Value, form);
}

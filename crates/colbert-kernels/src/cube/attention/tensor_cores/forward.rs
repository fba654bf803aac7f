//! Attention on tensor cores, forward.

use cubecl::prelude::*;

use super::{EACH, FACTOR_STRIDE, PRODUCT_STRIDE, TILE};
use super::{
    accumulate, exponential, factor_tiles, load_factors, multiply, no_sums, own_rows, place, product_tiles, tokens,
    write,
};
use crate::cube::attention::{Block, Form, HARDLY, KernelPlan, NEVER, Part, near, seen, weights_key};
use crate::cube::random::factor;

/// Attends from the queries of a block.
// One function, as all stages work on the same shared memory and on matrices that a plane keeps in registers.
#[cube]
pub(in crate::cube::attention) fn attend<F: Float>(
    query: &Array<F>,
    key: &Array<F>,
    value: &Array<F>,
    output: &mut Array<F>,
    log_sum_exp: &mut Array<f32>,
    block: &Block,
    plan: &KernelPlan,
    #[comptime] form: Form,
) {
    let rows = comptime!(form.rows);
    let place = place();
    let position = block.first + place.first + place.row;
    let own = (place.first + place.row) * comptime!(PRODUCT_STRIDE);
    let range = seen(block, block.attended, plan, form);
    let mut keys = tokens::<F>(form);
    let mut values = tokens::<F>(form);
    let mut products = product_tiles(form);
    let mut weights = factor_tiles::<F>(form);

    load_factors::<F>(query, &mut keys, block, plan, block.first, block.length, Part::Query, form);
    sync_cube();
    let queries = own_rows::<F>(&keys, &place, form);
    let has_rows = block.first + place.first < block.length;

    // Of the unit's own columns.
    let mut most = comptime!(NEVER).runtime();
    let mut total = 0.0f32;
    let mut from = range.from;
    while from < range.to {
        // All units have finished the last block.
        sync_cube();
        load_factors::<F>(key, &mut keys, block, plan, from, range.to, Part::Key, form);
        sync_cube();
        let mut tile = 0usize.runtime();
        while has_rows && tile < rows && from + tile < range.to {
            multiply::<F>(&queries, &keys, tile, &mut products, &place, form);
            sync_plane();
            let mut highest = most;
            let mut own_products = Array::<f32>::new(EACH);
            #[unroll]
            for i in 0..EACH {
                let column = place.column + comptime!(2 * i);
                let at = from + tile + column;
                let mut product = comptime!(NEVER).runtime();
                if at < range.to && near(at, position, plan, form) {
                    product = products[own + column] * plan.scale;
                }
                if product > highest {
                    highest = product;
                }
                own_products[i] = product;
            }
            total *= exponential(most - highest);
            most = highest;
            #[unroll]
            for i in 0..EACH {
                // Not the inverse comparison: NaN must remain NaN.
                if !(own_products[i] <= comptime!(HARDLY).runtime()) {
                    total += exponential(own_products[i] - most);
                }
            }
            // All units have read the tile.
            sync_plane();
            tile += comptime!(TILE);
        }
        from += rows;
    }
    // The two units of a row exchange what they have found.
    products[own + 2 * place.column] = most;
    products[own + 2 * place.column + 1] = total;
    sync_plane();
    let other = own + 2 * (1 - place.column);
    let highest = select(products[other] > most, products[other], most);
    // In one order for both.
    let left = products[own + 1] * exponential(products[own] - highest);
    let right = products[own + 3] * exponential(products[own + 2] - highest);
    let sum = left + right;
    let alone = sum == 0.0f32;
    let sum_exp = select(alone, 0.0f32, highest + select(alone, 1.0f32, sum).ln());
    if position < block.length && place.column == 0 {
        log_sum_exp[(block.start + position) * plan.heads + block.head] = sum_exp;
    }

    let sums = no_sums(form);
    let drop = weights_key(block, plan, position, form);
    from = range.from;
    while from < range.to {
        sync_cube();
        load_factors::<F>(key, &mut keys, block, plan, from, range.to, Part::Key, form);
        load_factors::<F>(value, &mut values, block, plan, from, range.to, Part::Value, form);
        sync_cube();
        let mut tile = 0usize.runtime();
        while has_rows && tile < rows && from + tile < range.to {
            multiply::<F>(&queries, &keys, tile, &mut products, &place, form);
            sync_plane();
            #[unroll]
            for i in 0..EACH {
                let column = place.column + comptime!(2 * i);
                let at = from + tile + column;
                let mut weight = 0.0f32;
                if at < range.to && near(at, position, plan, form) {
                    weight = exponential(products[own + column] * plan.scale - sum_exp);
                    if comptime!(form.drops) {
                        weight *= factor(drop.low, drop.high, at as u32, plan.threshold, plan.dropout_scale);
                    }
                }
                weights[(place.first + place.row) * comptime!(FACTOR_STRIDE) + column] = F::cast_from(weight);
            }
            sync_plane();
            accumulate::<F>(&weights, &values, tile, &sums, &place, form);
            tile += comptime!(TILE);
        }
        from += rows;
    }
    write::<F>(&sums, &mut products, output, block, plan, &place, Part::Output, form);
}

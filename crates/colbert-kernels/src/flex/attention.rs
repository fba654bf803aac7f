//! Attention of packed sequences, one sequence and head at a time.
//!
//! Query rows are taken in blocks, so that a block's weights stay in the cache; nothing larger is ever stored. Where a
//! query sees a window, a block is multiplied with the keys that one of its queries sees, and no others.

mod gradients;
mod head;
mod rows;
#[cfg(test)]
mod tests;

pub(crate) use head::Tokens;

use crate::flex::attention::gradients::{Gradient, Target};
use crate::flex::attention::head::{Head, ROWS};
use crate::flex::attention::rows::{dot, gradient_row, rotate_back, scale_row, softmax_row};
use crate::flex::buffer::{Buffer, Shared};
use crate::flex::level::Level;
use crate::flex::pack::Numbers;
use crate::flex::parallel::for_each_block;
use crate::flex::tile::{Begin, Format, Product, Size};
use crate::operators::attention::{AttentionPlan, scale};
use crate::operators::rotation::Rotation;
use crate::segments::Segment;

/// Query, key and value, and how queries and keys are rotated.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) query: Tokens<'a>,
    pub(crate) key: Tokens<'a>,
    pub(crate) value: Tokens<'a>,
    pub(crate) rotation: Option<&'a Rotation>,
    /// Numbers of a token, of all heads.
    pub(crate) size: usize,
}

impl<'a> Inputs<'a> {
    /// Takes query, key and value from three tensors, with `size` numbers a token.
    pub(crate) fn apart([query, key, value]: [Numbers<'a>; 3], size: usize) -> Self {
        assert!(key.len() == query.len() && value.len() == query.len(), "query, key and value have one shape");
        let [query, key, value] = [query, key, value].map(|data| Tokens { data, stride: size });
        Self { query, key, value, rotation: None, size }
    }

    /// Takes query, key and value from one tensor, where those of a token lie one after the other.
    pub(crate) fn packed(qkv: Numbers<'a>, size: usize, rotation: Option<&'a Rotation>) -> Self {
        // An empty tensor has no second and third numbers either.
        let part = |i: usize| Tokens { data: qkv.from((i * size).min(qkv.len())), stride: 3 * size };
        Self { query: part(0), key: part(1), value: part(2), rotation, size }
    }

    /// Returns whether query, key and value were rounded.
    pub(crate) fn is_rounded(&self) -> bool {
        matches!(self.query.data, Numbers::Half(_))
    }

    /// Fails if the tokens are not those of the plan.
    fn check(&self, plan: &AttentionPlan) {
        let tokens = plan.segments.tokens();
        assert!(self.size.is_multiple_of(plan.heads), "{} numbers among {} heads", self.size, plan.heads);
        for part in [self.query, self.key, self.value] {
            let needed = tokens.saturating_sub(1) * part.stride + if tokens == 0 { 0 } else { self.size };
            assert!(part.data.len() >= needed, "{tokens} tokens of {} numbers", self.size);
        }
        if let Some(rotation) = self.rotation {
            rotation.check(plan.segments.max_length(), self.size / plan.heads);
        }
    }

    /// Returns how many numbers the rotated queries or keys of `tokens` tokens take.
    fn rotated_size(&self, tokens: usize, head_size: usize) -> usize {
        // One more for a token that was rounded.
        if self.rotation.is_some() { (tokens + 1) * head_size } else { 0 }
    }
}

/// Calls `work` on every head of every sequence.
fn for_each_head(level: Level, plan: &AttentionPlan, size: usize, work: impl Fn(Head<'_>) + Sync + Send) {
    let (segments, heads) = (plan.segments.as_slice(), plan.heads);
    let format = Format::of(plan.precision, level);
    for_each_block(segments.len() * heads, 1, |own| {
        let (segment, head) = (segments[own.start / heads], own.start % heads);
        work(Head { level, format, plan, segment, head, size: size / heads });
    });
}

/// Cuts `all` into parts of these sizes.
fn parts<const N: usize>(all: &mut [f32], sizes: [usize; N]) -> [&mut [f32]; N] {
    let mut rest = all;
    sizes.map(|size| {
        let (own, others) = std::mem::take(&mut rest).split_at_mut(size);
        rest = others;
        own
    })
}

/// Computes output and log-sum-exp; zeros for a query that sees no key.
pub(crate) fn attention(level: Level, inputs: Inputs<'_>, plan: &AttentionPlan) -> [Buffer; 2] {
    inputs.check(plan);
    let (tokens, stride) = (plan.segments.tokens(), inputs.size);
    let mut output = Buffer::new(tokens * stride);
    let mut log_sum_exp = Buffer::new(tokens * plan.heads);
    let (to, logs) = (Shared::new(&mut output), Shared::new(&mut log_sum_exp));
    for_each_head(level, plan, stride, |head| {
        let Segment { start, length, attended } = head.segment;
        let widest = head.most_seen();
        let sizes = [
            head.columns_size(attended),
            head.rows_size(attended),
            ROWS * widest,
            head.left_size(),
            head.weights_size(widest),
            inputs.rotated_size(length, head.size),
            inputs.rotated_size(attended, head.size),
        ];
        let mut scratch = Buffer::<f32>::new(sizes.iter().sum());
        let [keys, values, weights, aside, weights_aside, queries_aside, keys_aside] = parts(&mut scratch, sizes);
        let query = head.rotated(head.own(inputs.query), length, inputs.rotation, queries_aside);
        let key = head.rotated(head.own(inputs.key), attended, inputs.rotation, keys_aside);
        let keys = head.as_columns(key, attended, keys);
        let values = head.as_rows(head.own(inputs.value), attended, values);
        for first in (0..length).step_by(ROWS) {
            let rows = ROWS.min(length - first);
            let offset = head.offset(stride) + first * stride;
            // SAFETY: the numbers of this token and head, which no other head writes.
            let output_row =
                |i: usize| unsafe { std::slice::from_raw_parts_mut(to.at(offset + i * stride), head.size) };
            // SAFETY: this token and head's own place.
            let log = |i: usize| unsafe { &mut *logs.at((start + first + i) * plan.heads + head.head) };
            let seen = head.seen(first..first + rows);
            if seen.is_empty() {
                for i in 0..rows {
                    output_row(i).fill(0.0);
                    *log(i) = 0.0;
                }
                continue;
            }
            let wide = seen.len().next_multiple_of(level.columns());
            let size = Size { rows, columns: wide, depth: head.format.steps(head.size) };
            // SAFETY: `rows` tokens, packed keys from the first of a panel on, up to `wide` columns, and as many
            // results.
            unsafe {
                let left = head.left(query, first, rows, aside);
                let result = Product { start: weights.as_mut_ptr(), row: wide };
                head.multiply(size, left, head.columns_from(keys, seen.start), result, Begin::Zero);
            }
            let mut sums = [0.0; ROWS];
            for (i, row) in weights.chunks_exact_mut(wide).take(rows).enumerate() {
                let window = head.window(first + i);
                let factors = head.dropped(first + i, window.start);
                let own = clear_outside(row, &seen, &window);
                if own.is_empty() {
                    (sums[i], *log(i)) = (1.0, 0.0);
                    continue;
                }
                let [most, total] = softmax_row(level, own, scale(head.size), factors);
                (sums[i], *log(i)) = (total, most + total.ln());
            }
            let size = Size { rows, columns: head.size, depth: head.format.steps(seen.len()) };
            let left = head.weights_left(weights, wide, rows, seen.len(), weights_aside);
            // SAFETY: `rows` rows of weights, packed values from an even one on, and the numbers of these tokens and
            // this head, which no other head writes.
            unsafe {
                let result = Product { start: to.at(offset), row: stride };
                head.multiply(size, left, head.rows_from(values, seen.start), result, Begin::Zero);
            }
            for (i, total) in sums.iter().take(rows).enumerate() {
                scale_row(level, output_row(i), 1.0 / total);
            }
        }
    });
    [output, log_sum_exp]
}

/// Zeroes the columns outside the window, of a row whose columns are the keys in `seen`. Returns those inside.
fn clear_outside<'a>(
    row: &'a mut [f32],
    seen: &std::ops::Range<usize>,
    window: &std::ops::Range<usize>,
) -> &'a mut [f32] {
    let end = window.end.max(seen.start) - seen.start;
    let first = (window.start.max(seen.start) - seen.start).min(end);
    row[..first].fill(0.0);
    row[end..seen.len()].fill(0.0);
    &mut row[first..end]
}

/// The results of the forward pass, and the gradient that comes back.
#[derive(Clone, Copy)]
pub(crate) struct Back<'a> {
    pub(crate) output: &'a [f32],
    pub(crate) log_sum_exp: &'a [f32],
    pub(crate) gradient: &'a [f32],
}

/// Computes the gradients of query, key and value.
pub(crate) fn gradient<T: Gradient>(
    level: Level,
    inputs: Inputs<'_>,
    back: Back<'_>,
    plan: &AttentionPlan,
) -> [Buffer<T>; 3] {
    let size = inputs.size;
    let mut found = [(); 3].map(|()| Buffer::new(plan.segments.tokens() * size));
    let to = found.each_mut().map(|buffer| Shared::new(buffer));
    write_gradient(level, inputs, back, plan, Target { parts: to.map(|to| (to, 0)), stride: size });
    found
}

/// Computes the same gradients, those of a token one after the other.
pub(crate) fn packed_gradient<T: Gradient>(
    level: Level,
    inputs: Inputs<'_>,
    back: Back<'_>,
    plan: &AttentionPlan,
) -> Buffer<T> {
    let size = inputs.size;
    let mut found = Buffer::new(plan.segments.tokens() * 3 * size);
    let shared = Shared::new(&mut found);
    let parts = [0, 1, 2].map(|i| (shared, i * size));
    write_gradient(level, inputs, back, plan, Target { parts, stride: 3 * size });
    found
}

fn write_gradient<T: Gradient>(level: Level, inputs: Inputs<'_>, back: Back<'_>, plan: &AttentionPlan, to: Target<T>) {
    inputs.check(plan);
    let tokens = plan.segments.tokens();
    assert!(
        back.output.len() == tokens * inputs.size && back.gradient.len() == back.output.len(),
        "numbers of output and gradient"
    );
    assert_eq!(back.log_sum_exp.len(), tokens * plan.heads, "a log-sum-exp for each token and head");
    for_each_head(level, plan, inputs.size, |head| {
        let Segment { start, length, attended } = head.segment;
        let widest = head.most_seen();
        let sizes = [
            head.columns_size(attended),
            head.columns_size(attended),
            head.rows_size(attended),
            head.rows_size(length),
            head.rows_size(length),
            ROWS * widest,
            ROWS * widest,
            head.left_size(),
            head.weights_size(widest),
            inputs.rotated_size(length, head.size),
            inputs.rotated_size(attended, head.size),
            T::aside(length, head.size),
        ];
        let mut scratch = Buffer::<f32>::new(sizes.iter().sum());
        let [
            key_columns,
            value_columns,
            key_rows,
            query_rows,
            gradient_rows,
            weights,
            products,
            aside,
            weights_aside,
            queries_aside,
            keys_aside,
            gradients_aside,
        ] = parts(&mut scratch, sizes);
        let query = head.rotated(head.own(inputs.query), length, inputs.rotation, queries_aside);
        let key = head.rotated(head.own(inputs.key), attended, inputs.rotation, keys_aside);
        let tokens_of = |data| head.own(Tokens { data: Numbers::Single(data), stride: inputs.size });
        let (output, gradient) = (tokens_of(back.output), tokens_of(back.gradient));
        let key_columns = head.as_columns(key, attended, key_columns);
        let value_columns = head.as_columns(head.own(inputs.value), attended, value_columns);
        let key_rows = head.as_rows(key, attended, key_rows);
        let query_rows = head.as_rows(query, length, query_rows);
        let gradient_rows = head.as_rows(gradient, length, gradient_rows);
        // SAFETY: no other head writes this head's places.
        let (places, stride) = unsafe { T::places(to, &head, gradients_aside) };
        // SAFETY: every row is written within the gradient's numbers of this head.
        let [of_query, of_key, of_value] =
            places.map(|first| move |position: usize| unsafe { first.at(position * stride) });
        // SAFETY: this token and head's own numbers.
        let row_at = |at: *mut f32| unsafe { std::slice::from_raw_parts_mut(at, head.size) };
        // Keys whose gradients were written already.
        let mut written = 0;
        for first in (0..length).step_by(ROWS) {
            let rows = ROWS.min(length - first);
            let seen = head.seen(first..first + rows);
            if seen.is_empty() {
                (first..first + rows).for_each(|position| row_at(of_query(position)).fill(0.0));
                continue;
            }
            let wide = seen.len().next_multiple_of(level.columns());
            let size = Size { rows, columns: wide, depth: head.format.steps(head.size) };
            // SAFETY: `rows` tokens of query and gradient, packed factors from the first of a panel on, up to `wide`
            // columns, and as many results.
            unsafe {
                let (keys, values) =
                    (head.columns_from(key_columns, seen.start), head.columns_from(value_columns, seen.start));
                let result = Product { start: weights.as_mut_ptr(), row: wide };
                head.multiply(size, head.left(query, first, rows, aside), keys, result, Begin::Zero);
                let result = Product { start: products.as_mut_ptr(), row: wide };
                head.multiply(size, head.left(gradient, first, rows, aside), values, result, Begin::Zero);
            }
            let both = weights.chunks_exact_mut(wide).zip(products.chunks_exact_mut(wide));
            for (i, (weights, products)) in both.take(rows).enumerate() {
                let position = first + i;
                // Of all weights, the mean of their gradients is the product of output and gradient.
                let mean = dot(level, head.row(output, position).single(), head.row(gradient, position).single());
                let log_sum_exp = back.log_sum_exp[(start + position) * plan.heads + head.head];
                let window = head.window(position);
                let factors = head.dropped(position, window.start);
                let weights = clear_outside(weights, &seen, &window);
                let products = clear_outside(products, &seen, &window);
                gradient_row(level, weights, products, log_sum_exp, mean, scale(head.size), factors);
            }
            let from = if written == 0 && seen.start == 0 { Begin::Zero } else { Begin::Result };
            if from == Begin::Result {
                for position in written..seen.end {
                    row_at(of_key(position)).fill(0.0);
                    row_at(of_value(position)).fill(0.0);
                }
            }
            written = written.max(seen.end);
            let across = Size { rows: seen.len(), columns: head.size, depth: head.format.steps(rows) };
            let along = Size { rows, columns: head.size, depth: head.format.steps(seen.len()) };
            // SAFETY: `rows` rows of weights and products of the keys that are seen, packed factors from an even token
            // on, and the numbers of this sequence and head, which no other head writes.
            unsafe {
                let left = head.weights_turned(weights, wide, rows, weights_aside);
                let result = Product { start: of_value(seen.start), row: stride };
                head.multiply(across, left, head.rows_from(gradient_rows, first), result, from);
                let left = head.weights_turned(products, wide, rows, weights_aside);
                let result = Product { start: of_key(seen.start), row: stride };
                head.multiply(across, left, head.rows_from(query_rows, first), result, from);
                let left = head.weights_left(products, wide, rows, seen.len(), weights_aside);
                let result = Product { start: of_query(first), row: stride };
                head.multiply(along, left, head.rows_from(key_rows, seen.start), result, Begin::Zero);
            }
        }
        // Tokens that no query attends to.
        for position in written..length {
            row_at(of_key(position)).fill(0.0);
            row_at(of_value(position)).fill(0.0);
        }
        if let Some(rotation) = inputs.rotation {
            for position in 0..length {
                let (cos, sin) = rotation.at(position);
                rotate_back(level, row_at(of_query(position)), cos, sin);
                rotate_back(level, row_at(of_key(position)), cos, sin);
            }
        }
        // SAFETY: as above.
        unsafe { T::finish(to, &head, gradients_aside) };
    });
}

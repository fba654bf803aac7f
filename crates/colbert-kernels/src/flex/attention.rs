//! Attention of packed sequences, one sequence and head at a time.
//!
//! Query rows are taken in blocks, so that a block's weights stay in the cache; nothing larger is ever stored.

use crate::flex::buffer::{Buffer, Shared};
use crate::flex::level::{Level, exp, for_each_level, largest, multiply_add, sum};
use crate::flex::pack::{Source, View, pairs_of_row, transpose};
use crate::flex::parallel::for_each_block;
use crate::flex::tile::{Begin, Format, Left, Product, Right, Size};
use crate::operators::attention::{AttentionPlan, scale};
use crate::operators::dropout::DropoutRow;
use crate::segments::Segment;

/// Query rows in a block: a multiple of every level's rows of a tile.
const ROWS: usize = 48;

for_each_level! {
    /// Turns products into exponentials, and drops some; gives the largest scaled product, and the sum before dropping.
    fn softmax_row(row: &mut [f32], scale: f32, dropout: Option<DropoutRow>) -> [f32; 2] = softmax_body
}

for_each_level! {
    /// `row[i] *= factor`
    fn scale_row(row: &mut [f32], factor: f32) = scale_body
}

for_each_level! {
    /// Turns products into weights, dropped ones zero, and the gradients of dropped weights into those of products.
    fn gradient_row(
        weights: &mut [f32],
        gradient: &mut [f32],
        log_sum_exp: f32,
        mean: f32,
        scale: f32,
        dropout: Option<DropoutRow>,
    ) = gradient_body
}

for_each_level! {
    /// Product of two rows.
    fn dot(a: &[f32], b: &[f32]) -> f32 = dot_body
}

#[inline(always)]
fn softmax_body<const FUSED: bool>(row: &mut [f32], scale: f32, dropout: Option<DropoutRow>) -> [f32; 2] {
    let most = largest(row);
    for x in row.iter_mut() {
        *x = exp::<FUSED>((*x - most) * scale);
    }
    let total = sum(row.len(), |i| row[i]);
    if let Some(dropout) = dropout {
        for (i, x) in (0u32..).zip(row.iter_mut()) {
            *x *= dropout.factor(i);
        }
    }
    [most * scale, total]
}

#[inline(always)]
fn scale_body<const FUSED: bool>(row: &mut [f32], factor: f32) {
    for x in row {
        *x *= factor;
    }
}

#[inline(always)]
fn gradient_body<const FUSED: bool>(
    weights: &mut [f32],
    gradient: &mut [f32],
    log_sum_exp: f32,
    mean: f32,
    scale: f32,
    dropout: Option<DropoutRow>,
) {
    let each = (0u32..).zip(weights.iter_mut().zip(gradient));
    match dropout {
        None => {
            for (_, (weight, gradient)) in each {
                let p = exp::<FUSED>(multiply_add::<FUSED>(*weight, scale, -log_sum_exp));
                *gradient = p * (*gradient - mean) * scale;
                *weight = p;
            }
        }
        Some(dropout) => {
            for (i, (weight, gradient)) in each {
                let p = exp::<FUSED>(multiply_add::<FUSED>(*weight, scale, -log_sum_exp));
                let factor = dropout.factor(i);
                *gradient = p * (*gradient * factor - mean) * scale;
                *weight = p * factor;
            }
        }
    }
}

#[inline(always)]
fn dot_body<const FUSED: bool>(a: &[f32], b: &[f32]) -> f32 {
    let b = &b[..a.len()];
    sum(a.len(), |i| a[i] * b[i])
}

/// One head of one sequence in a packed tensor, and how its factors are laid out.
#[derive(Clone, Copy)]
struct Head {
    level: Level,
    format: Format,
    segment: Segment,
    head: usize,
    /// Numbers of a token, of all heads.
    stride: usize,
    size: usize,
}

impl Head {
    /// Where its first number lies.
    fn offset(&self) -> usize {
        self.segment.start * self.stride + self.head * self.size
    }

    /// Numbers of the token at `position`.
    fn row<'a>(&self, of: &'a [f32], position: usize) -> &'a [f32] {
        &of[self.offset() + position * self.stride..][..self.size]
    }

    /// Numbers that [`left`](Self::left) needs to write to.
    fn left_size(&self) -> usize {
        match self.format {
            Format::Single => 0,
            Format::Pairs => ROWS * self.format.steps(self.size),
        }
    }

    /// `count` tokens from `position` on as the rows of a left factor, which lies in `of` or in `aside`.
    fn left(&self, of: &[f32], position: usize, count: usize, aside: &mut [f32]) -> Left {
        let rows = self.level.rows();
        match self.format {
            Format::Single => {
                let start = of[self.offset() + position * self.stride..].as_ptr();
                Left { start, group: rows * self.stride, row: self.stride, step: 1 }
            }
            Format::Pairs => {
                let steps = self.format.steps(self.size);
                for (i, to) in aside.chunks_exact_mut(steps).take(count).enumerate() {
                    pairs_of_row(self.level, self.row(of, position + i), to);
                }
                Left { start: aside.as_ptr(), group: rows * steps, row: steps, step: 1 }
            }
        }
    }

    /// Numbers that [`as_rows`](Self::as_rows) of `tokens` tokens takes.
    fn rows_size(&self, tokens: usize) -> usize {
        self.format.steps(tokens) * self.size.next_multiple_of(self.level.columns())
    }

    /// Packs the first `tokens` tokens as the rows of a right factor.
    fn as_rows(&self, of: &[f32], tokens: usize, to: &mut [f32]) -> Right {
        let (width, steps) = (self.level.columns(), self.format.steps(tokens));
        assert!(to.len() >= self.rows_size(tokens), "room for the rows");
        let source = Source {
            level: self.level,
            format: self.format,
            data: &of[self.offset()..],
            stride: self.stride,
            depth: tokens,
            columns: self.size,
        };
        for step in 0..steps {
            // SAFETY: a step of each panel, for which there is room.
            unsafe { source.spread(step, width, to.as_mut_ptr().add(step * width), steps * width) };
        }
        Right { start: to.as_ptr(), panel: steps * width, step: width }
    }

    /// Numbers that [`as_columns`](Self::as_columns) of `tokens` tokens takes.
    fn columns_size(&self, tokens: usize) -> usize {
        tokens.next_multiple_of(self.level.columns()) * self.format.steps(self.size)
    }

    /// Packs the first `tokens` tokens as the columns of a right factor.
    fn as_columns(&self, of: &[f32], tokens: usize, to: &mut [f32]) -> Right {
        let (width, steps) = (self.level.columns(), self.format.steps(self.size));
        let mut pairs = match self.format {
            Format::Single => None,
            Format::Pairs => Some(Buffer::<f32>::new(width * steps)),
        };
        for (first, to) in (0..tokens).step_by(width).zip(to.chunks_exact_mut(width * steps)) {
            let count = width.min(tokens - first);
            let from = match &mut pairs {
                None => View { data: &of[self.offset() + first * self.stride..], row: self.stride, column: 1 },
                Some(pairs) => {
                    for (i, to) in pairs.chunks_exact_mut(steps).take(count).enumerate() {
                        pairs_of_row(self.level, self.row(of, first + i), to);
                    }
                    View::rows(pairs, steps)
                }
            };
            transpose(from, count, steps, to, width);
        }
        Right { start: to.as_ptr(), panel: width * steps, step: width }
    }

    /// Numbers that the weights of a block of rows take as a left factor, `wide` of them in a row.
    fn weights_size(&self, wide: usize) -> usize {
        match self.format {
            Format::Single => 0,
            Format::Pairs => ROWS.div_ceil(2) * wide,
        }
    }

    /// `rows` rows of weights, of which `attended` count, as the rows of a left factor.
    fn weights_left(&self, weights: &[f32], wide: usize, rows: usize, attended: usize, aside: &mut [f32]) -> Left {
        let group = self.level.rows();
        match self.format {
            Format::Single => Left { start: weights.as_ptr(), group: group * wide, row: wide, step: 1 },
            Format::Pairs => {
                let steps = self.format.steps(attended);
                for (row, to) in weights.chunks_exact(wide).take(rows).zip(aside.chunks_exact_mut(steps)) {
                    pairs_of_row(self.level, &row[..attended], to);
                }
                Left { start: aside.as_ptr(), group: group * steps, row: steps, step: 1 }
            }
        }
    }

    /// The same, rows and columns exchanged.
    fn weights_turned(&self, weights: &[f32], wide: usize, rows: usize, aside: &mut [f32]) -> Left {
        let group = self.level.rows();
        let start = match self.format {
            Format::Single => weights.as_ptr(),
            Format::Pairs => {
                let Self { level, format, .. } = *self;
                let source = Source { level, format, data: weights, stride: wide, depth: rows, columns: wide };
                for (step, to) in aside.chunks_exact_mut(wide).take(format.steps(rows)).enumerate() {
                    // SAFETY: one place as wide as a row.
                    unsafe { source.spread(step, wide, to.as_mut_ptr(), wide) };
                }
                aside.as_ptr()
            }
        };
        Left { start, group, row: 1, step: wide }
    }

    /// `left right`, this head's format.
    ///
    /// # Safety
    /// As [`Level::multiply`].
    unsafe fn multiply(&self, size: Size, left: Left, right: Right, result: Product, from: Begin) {
        // SAFETY: the caller's promise.
        unsafe { self.level.multiply(self.format, size, left, right, result, from) }
    }
}

/// Calls `work` on every head of every sequence.
fn for_each_head(level: Level, plan: &AttentionPlan, stride: usize, work: impl Fn(Head) + Sync + Send) {
    let (segments, heads) = (plan.segments.as_slice(), plan.heads);
    let format = Format::of(plan.precision, level);
    for_each_block(segments.len() * heads, 1, |own| {
        let (segment, head) = (segments[own.start / heads], own.start % heads);
        work(Head { level, format, segment, head, stride, size: stride / heads });
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

/// The factors of a query's weights.
fn row_factors(plan: &AttentionPlan, head: Head, position: usize) -> Option<DropoutRow> {
    (!plan.dropout.is_none()).then(|| plan.dropout.row((head.segment.start + position) * plan.heads + head.head))
}

/// Output and log-sum-exp.
pub(crate) fn attention(level: Level, [query, key, value]: [&[f32]; 3], plan: &AttentionPlan) -> [Buffer; 2] {
    let tokens = plan.segments.tokens();
    let stride = query.len() / tokens.max(1);
    assert!(
        query.len() == tokens * stride && stride.is_multiple_of(plan.heads),
        "tokens of the tensors and of the segments"
    );
    assert!(key.len() == query.len() && value.len() == query.len(), "query, key and value have one shape");
    let mut output = Buffer::new(query.len());
    let mut log_sum_exp = Buffer::new(tokens * plan.heads);
    let (to, logs) = (Shared::new(&mut output), Shared::new(&mut log_sum_exp));
    for_each_head(level, plan, stride, |head| {
        let Segment { start, length, attended } = head.segment;
        let wide = attended.next_multiple_of(level.columns());
        let sizes = [
            head.columns_size(attended),
            head.rows_size(attended),
            ROWS * wide,
            head.left_size(),
            head.weights_size(wide),
        ];
        let mut scratch = Buffer::<f32>::new(sizes.iter().sum());
        let [keys, values, weights, aside, weights_aside] = parts(&mut scratch, sizes);
        let keys = head.as_columns(key, attended, keys);
        let values = head.as_rows(value, attended, values);
        for first in (0..length).step_by(ROWS) {
            let rows = ROWS.min(length - first);
            let size = Size { rows, columns: wide, depth: head.format.steps(head.size) };
            let result = Product { start: weights.as_mut_ptr(), row: wide };
            // SAFETY: `rows` tokens of the query, packed keys up to `wide` columns, and as many weights.
            unsafe { head.multiply(size, head.left(query, first, rows, aside), keys, result, Begin::Zero) };
            let mut sums = [0.0; ROWS];
            for (i, row) in weights.chunks_exact_mut(wide).take(rows).enumerate() {
                let factors = row_factors(plan, head, first + i);
                let [most, total] = softmax_row(level, &mut row[..attended], scale(head.size), factors);
                sums[i] = total;
                // SAFETY: this token and head's own place.
                unsafe { *logs.at((start + first + i) * plan.heads + head.head) = most + total.ln() };
            }
            let size = Size { rows, columns: head.size, depth: head.format.steps(attended) };
            let left = head.weights_left(weights, wide, rows, attended, weights_aside);
            let offset = head.offset() + first * stride;
            // SAFETY: `rows` rows of weights, packed values, and the numbers of these tokens and this head, which no
            // other head writes.
            unsafe { head.multiply(size, left, values, Product { start: to.at(offset), row: stride }, Begin::Zero) };
            for (i, total) in sums.iter().take(rows).enumerate() {
                // SAFETY: as above.
                let row = unsafe { std::slice::from_raw_parts_mut(to.at(offset + i * stride), head.size) };
                scale_row(level, row, 1.0 / total);
            }
        }
    });
    [output, log_sum_exp]
}

/// The results of the forward pass, and the gradient that comes back.
#[derive(Clone, Copy)]
pub(crate) struct Back<'a> {
    pub(crate) output: &'a [f32],
    pub(crate) log_sum_exp: &'a [f32],
    pub(crate) gradient: &'a [f32],
}

/// Gradients of query, key and value.
pub(crate) fn gradient(
    level: Level,
    [query, key, value]: [&[f32]; 3],
    back: Back<'_>,
    plan: &AttentionPlan,
) -> [Buffer; 3] {
    let tokens = plan.segments.tokens();
    let stride = query.len() / tokens.max(1);
    assert!(
        query.len() == tokens * stride && stride.is_multiple_of(plan.heads),
        "tokens of the tensors and of the segments"
    );
    for other in [key, value, back.output, back.gradient] {
        assert_eq!(other.len(), query.len(), "query, key, value, output and gradient have one shape");
    }
    assert_eq!(back.log_sum_exp.len(), tokens * plan.heads, "a log-sum-exp for each token and head");
    let mut found = [(); 3].map(|()| Buffer::new(query.len()));
    let [of_query, of_key, of_value] = found.each_mut().map(|buffer| Shared::new(buffer));
    for_each_head(level, plan, stride, |head| {
        let Segment { start, length, attended } = head.segment;
        let wide = attended.next_multiple_of(level.columns());
        let sizes = [
            head.columns_size(attended),
            head.columns_size(attended),
            head.rows_size(attended),
            head.rows_size(length),
            head.rows_size(length),
            ROWS * wide,
            ROWS * wide,
            head.left_size(),
            head.weights_size(wide),
        ];
        let mut scratch = Buffer::<f32>::new(sizes.iter().sum());
        let [key_columns, value_columns, key_rows, query_rows, gradient_rows, weights, products, aside, weights_aside] =
            parts(&mut scratch, sizes);
        let key_columns = head.as_columns(key, attended, key_columns);
        let value_columns = head.as_columns(value, attended, value_columns);
        let key_rows = head.as_rows(key, attended, key_rows);
        let query_rows = head.as_rows(query, length, query_rows);
        let gradient_rows = head.as_rows(back.gradient, length, gradient_rows);
        for first in (0..length).step_by(ROWS) {
            let rows = ROWS.min(length - first);
            let size = Size { rows, columns: wide, depth: head.format.steps(head.size) };
            // SAFETY: `rows` tokens of query and gradient, packed factors up to `wide` columns, and as many results.
            unsafe {
                let result = Product { start: weights.as_mut_ptr(), row: wide };
                head.multiply(size, head.left(query, first, rows, aside), key_columns, result, Begin::Zero);
                let result = Product { start: products.as_mut_ptr(), row: wide };
                head.multiply(size, head.left(back.gradient, first, rows, aside), value_columns, result, Begin::Zero);
            }
            let both = weights.chunks_exact_mut(wide).zip(products.chunks_exact_mut(wide));
            for (i, (weights, products)) in both.take(rows).enumerate() {
                let position = first + i;
                // Of all weights, the mean of their gradients is the product of output and gradient.
                let mean = dot(level, head.row(back.output, position), head.row(back.gradient, position));
                let log_sum_exp = back.log_sum_exp[(start + position) * plan.heads + head.head];
                let factors = row_factors(plan, head, position);
                let (weights, products) = (&mut weights[..attended], &mut products[..attended]);
                gradient_row(level, weights, products, log_sum_exp, mean, scale(head.size), factors);
            }
            let from = if first == 0 { Begin::Zero } else { Begin::Result };
            let across = Size { rows: attended, columns: head.size, depth: head.format.steps(rows) };
            let along = Size { rows, columns: head.size, depth: head.format.steps(attended) };
            // SAFETY: `rows` rows of `attended` weights and products, packed factors from row `first` on, which is even,
            // and the numbers of this sequence and head, which no other head writes.
            unsafe {
                let begin =
                    |right: Right| Right { start: right.start.add(head.format.steps(first) * right.step), ..right };
                let left = head.weights_turned(weights, wide, rows, weights_aside);
                let result = Product { start: of_value.at(head.offset()), row: stride };
                head.multiply(across, left, begin(gradient_rows), result, from);
                let left = head.weights_turned(products, wide, rows, weights_aside);
                let result = Product { start: of_key.at(head.offset()), row: stride };
                head.multiply(across, left, begin(query_rows), result, from);
                let left = head.weights_left(products, wide, rows, attended, weights_aside);
                let result = Product { start: of_query.at(head.offset() + first * stride), row: stride };
                head.multiply(along, left, key_rows, result, Begin::Zero);
            }
        }
        // Tokens that nothing attends to.
        for position in attended..length {
            for of in [of_key, of_value] {
                // SAFETY: this token and head's own numbers.
                let row =
                    unsafe { std::slice::from_raw_parts_mut(of.at(head.offset() + position * stride), head.size) };
                row.fill(0.0);
            }
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use burn_flex::Flex;

    use super::*;
    use crate::flex::testing::{close, flat, matrix, random, slope, wide};
    use crate::operators::attention::{Attended, composed, composed_gradient};
    use crate::operators::dropout::Dropout;
    use crate::precision::Precision;
    use crate::segments::Segments;

    /// Outputs are means of numbers below 1, gradients sums of a few dozen.
    const ERROR: f64 = 5e-6;

    /// Attention of query, key and value, one after the other in `qkv`.
    fn exact(qkv: &[f64], plan: &AttentionPlan) -> Vec<f64> {
        let tokens = plan.segments.tokens();
        let (query, rest) = qkv.split_at(qkv.len() / 3);
        let (key, value) = rest.split_at(rest.len() / 2);
        let stride = query.len() / tokens;
        let size = stride / plan.heads;
        let mut output = vec![0.0; query.len()];
        for segment in plan.segments.as_slice() {
            for (i, head) in (0..segment.length).flat_map(|i| (0..plan.heads).map(move |head| (i, head))) {
                let at = |position: usize, n: usize| (segment.start + position) * stride + head * size + n;
                let products: Vec<f64> = (0..segment.attended)
                    .map(|j| (0..size).map(|n| query[at(i, n)] * key[at(j, n)]).sum::<f64>() / (size as f64).sqrt())
                    .collect();
                let total: f64 = products.iter().map(|product| product.exp()).sum();
                let row = plan.dropout.row((segment.start + i) * plan.heads + head);
                for (j, product) in products.iter().enumerate() {
                    let factor = if plan.dropout.is_none() { 1.0 } else { f64::from(row.factor(j as u32)) };
                    for n in 0..size {
                        output[at(i, n)] += product.exp() / total * factor * value[at(j, n)];
                    }
                }
            }
        }
        output
    }

    #[test]
    fn outputs_and_gradients_are_those_of_f64_on_every_level_and_composed() {
        let lengths: Vec<(usize, usize)> = (1..=20).map(|i| (2 * i, (2 * i).min(i + 7))).collect();
        let cases = [
            (vec![(1, 1)], 1, 8),
            (vec![(40, 40)], 2, 32),
            (vec![(32, 5), (1, 1), (17, 17), (3, 1)], 3, 8),
            (vec![(7, 7), (60, 49)], 1, 64),
            (vec![(100, 97), (2, 2)], 1, 5),
            (lengths, 2, 16),
        ];
        for (case, (sequences, heads, size)) in cases.into_iter().enumerate() {
            for probability in [0.0, 0.25] {
                let dropout = Dropout { probability, seed: case as u64 };
                let plan = AttentionPlan {
                    segments: Segments::new(sequences.clone()),
                    heads,
                    dropout,
                    precision: Precision::F32,
                };
                let (tokens, columns) = (plan.segments.tokens(), heads * size);
                let count = tokens * columns;
                let qkv = random(3 * count, case);
                let parts = [0, 1, 2].map(|i| &qkv[i * count..(i + 1) * count]);
                let back = random(count, case + 70);
                let expected = exact(&wide(&qkv), &plan);
                let loss = |qkv: &[f64]| exact(qkv, &plan).iter().zip(&back).map(|(x, g)| x * f64::from(*g)).sum();
                // A prime distance, so that all heads, tokens and all three tensors are met.
                let places: Vec<usize> = (0..3 * count).step_by((3 * count / 40).max(1) | 1).collect();
                let slopes: Vec<f64> = places.iter().map(|&i| slope(loss, &wide(&qkv), i)).collect();
                let pick = |all: &[Vec<f32>; 3]| places.iter().map(|&i| all[i / count][i % count]).collect::<Vec<_>>();

                let tensors = parts.map(|part| matrix(part, columns));
                let forward: Attended<_> = composed::<Flex>(tensors.clone(), &plan);
                close(&flat(&forward.output), &expected, ERROR, &format!("composed, case {case}"));
                let logs = flat(&forward.log_sum_exp);
                let gradients = composed_gradient::<Flex>(tensors, forward, matrix(&back, columns), &plan);
                let gradients = gradients.map(|gradient| flat(&gradient));
                close(&pick(&gradients), &slopes, ERROR, &format!("composed gradient, case {case}"));
                for level in Level::available() {
                    let what = format!("{level:?}, case {case}, dropout {probability}");
                    let [output, log_sum_exp] = attention(level, parts, &plan);
                    close(&output, &expected, ERROR, &what);
                    close(&log_sum_exp, &wide(&logs), ERROR, &what);
                    let back = Back { output: &output, log_sum_exp: &log_sum_exp, gradient: &back };
                    let found = gradient(level, parts, back, &plan).map(|gradient| gradient.to_vec());
                    close(&pick(&found), &slopes, ERROR, &what);
                    for (found, composed) in found.iter().zip(&gradients) {
                        close(found, &wide(composed), ERROR, &what);
                    }
                }
            }
        }
    }

    /// bfloat16 has 8 significant bits, so that a factor is off by up to 1/512; values and gradients are below 2, and the
    /// errors of a sum mostly cancel.
    const BF16_ERROR: f64 = 2e-2;

    #[test]
    fn bfloat16_is_float32_up_to_rounding() {
        for level in Level::available() {
            for (sequences, heads, size) in [
                (vec![(1, 1), (3, 2), (40, 40)], 2, 32),
                (vec![(33, 5), (17, 17)], 3, 7),
                (vec![(131, 131), (2, 1)], 1, 64),
            ] {
                for probability in [0.0, 0.25] {
                    let segments = Segments::new(sequences.clone());
                    let count = segments.tokens() * heads * size;
                    let dropout = Dropout { probability, seed: 3 };
                    let single = AttentionPlan { segments, heads, dropout, precision: Precision::F32 };
                    let half = AttentionPlan { precision: Precision::Bf16, ..single.clone() };
                    let parts: [Vec<f32>; 4] = std::array::from_fn(|i| random(count, 5 + i));
                    let all = |plan: &AttentionPlan| {
                        let [output, log_sum_exp] = attention(level, [&parts[0], &parts[1], &parts[2]], plan);
                        let back = Back { output: &output, log_sum_exp: &log_sum_exp, gradient: &parts[3] };
                        let gradients = gradient(level, [&parts[0], &parts[1], &parts[2]], back, plan);
                        let mut all = vec![output.to_vec(), log_sum_exp.to_vec()];
                        all.extend(gradients.map(|gradient| gradient.to_vec()));
                        all
                    };
                    let (found, exact) = (all(&half), all(&single));
                    for (found, exact) in found.iter().zip(&exact) {
                        close(found, &wide(exact), BF16_ERROR, &format!("{level:?}, {size} numbers, {probability}"));
                    }
                    assert_eq!(found != exact, level.has_bf16(), "rounded where the processor has bfloat16");
                }
            }
        }
    }

    #[test]
    fn large_products_do_not_overflow() {
        let plan = AttentionPlan {
            segments: Segments::new([(50, 50)]),
            heads: 1,
            dropout: Dropout::NONE,
            precision: Precision::F32,
        };
        let qkv: Vec<f32> = random(50 * 8, 1).iter().map(|x| x * 1e3).collect();
        for level in Level::available() {
            let [output, log_sum_exp] = attention(level, [&qkv, &qkv, &qkv], &plan);
            assert!(output.iter().chain(log_sum_exp.iter()).all(|x| x.is_finite()));
            let back = Back { output: &output, log_sum_exp: &log_sum_exp, gradient: &qkv };
            let found = gradient(level, [&qkv, &qkv, &qkv], back, &plan);
            assert!(found.iter().all(|found| found.iter().all(|x| x.is_finite())));
        }
    }
}

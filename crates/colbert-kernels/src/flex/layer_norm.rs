//! Layer normalisation of rows, and sums over rows.

use half::bf16;

use crate::flex::buffer::{Buffer, Shared};
use crate::flex::elementwise::dropout_row;
use crate::flex::level::{Level, for_each_level, multiply_add, sum};
use crate::flex::pack::Numbers;
use crate::flex::parallel::for_each_block;
use crate::operators::dropout::Dropout;

/// Rows that a thread takes at a time, and that are summed before blocks are.
const ROWS: usize = 64;

for_each_level! {
    /// Adds a residual to a row.
    fn add_row(row: &mut [f32], residual: &[f32]) = add_body
}

for_each_level! {
    /// Adds a row that was rounded to a row.
    fn add_halves(row: &mut [f32], halves: &[bf16]) = add_halves_body
}

for_each_level! {
    /// Normalises a row; returns its mean and the reciprocal of its standard deviation.
    fn normalise_row(row: &[f32], parameters: Parameters<'_>, output: &mut [f32]) -> [f32; 2] = normalise_body
}

for_each_level! {
    /// Normalises a row by a mean and a reciprocal standard deviation that are known.
    fn normalise_again(row: &[f32], statistics: [f32; 2], parameters: Parameters<'_>, output: &mut [f32]) = again_body
}

for_each_level! {
    /// Computes the gradient of a normalised row, plus `beside`; adds the row's share to the gradients of weight and
    /// bias.
    fn gradient_row(
        row: &[f32],
        statistics: [f32; 2],
        weight: &[f32],
        gradient: &[f32],
        beside: Option<&[f32]>,
        output: &mut [f32],
        of_weight: &mut [f32],
        of_bias: &mut [f32],
    ) = gradient_body
}

#[inline(always)]
fn add_halves_body<const FUSED: bool>(row: &mut [f32], halves: &[bf16]) {
    for (x, half) in row.iter_mut().zip(halves) {
        *x += f32::from_bits(u32::from(half.to_bits()) << 16);
    }
}

#[inline(always)]
fn add_body<const FUSED: bool>(row: &mut [f32], residual: &[f32]) {
    for (x, residual) in row.iter_mut().zip(residual) {
        *x += residual;
    }
}

#[inline(always)]
fn normalise_body<const FUSED: bool>(row: &[f32], parameters: Parameters<'_>, output: &mut [f32]) -> [f32; 2] {
    let size = row.len() as f32;
    let mean = sum(row.len(), |i| row[i]) / size;
    let variance = sum(row.len(), |i| (row[i] - mean) * (row[i] - mean)) / size;
    let scale = 1.0 / (variance + parameters.eps).sqrt();
    again_body::<FUSED>(row, [mean, scale], parameters, output);
    [mean, scale]
}

#[inline(always)]
fn again_body<const FUSED: bool>(row: &[f32], [mean, scale]: [f32; 2], parameters: Parameters<'_>, output: &mut [f32]) {
    let each = output.iter_mut().zip(row).zip(parameters.weight);
    match parameters.bias {
        Some(bias) => {
            for (((output, x), weight), bias) in each.zip(bias) {
                *output = multiply_add::<FUSED>((x - mean) * scale, *weight, *bias);
            }
        }
        None => {
            for ((output, x), weight) in each {
                *output = (x - mean) * scale * weight;
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the rows of one token, which a struct would only name again")]
#[inline(always)]
fn gradient_body<const FUSED: bool>(
    row: &[f32],
    [mean, scale]: [f32; 2],
    weight: &[f32],
    gradient: &[f32],
    beside: Option<&[f32]>,
    output: &mut [f32],
    of_weight: &mut [f32],
    of_bias: &mut [f32],
) {
    let size = row.len();
    // Cut once, so that the loops below need no bounds checks.
    let (weight, gradient, output) = (&weight[..size], &gradient[..size], &mut output[..size]);
    let (of_weight, of_bias) = (&mut of_weight[..size], &mut of_bias[..size]);
    let across = sum(size, |i| gradient[i] * weight[i]) / size as f32;
    let along = sum(size, |i| gradient[i] * weight[i] * ((row[i] - mean) * scale)) / size as f32;
    for i in 0..size {
        let normal = (row[i] - mean) * scale;
        output[i] = scale * (multiply_add::<FUSED>(gradient[i], weight[i], -across) - normal * along);
        of_weight[i] = multiply_add::<FUSED>(gradient[i], normal, of_weight[i]);
        of_bias[i] += gradient[i];
    }
    if let Some(beside) = beside {
        add_body::<FUSED>(output, beside);
    }
}

/// Normalised rows, their sums with the residual if there is anything to add or drop, and their statistics.
pub(crate) struct Forward {
    pub(crate) output: Buffer,
    pub(crate) sum: Option<Buffer>,
    pub(crate) statistics: Buffer,
}

/// The parameters of a normalisation.
#[derive(Clone, Copy)]
pub(crate) struct Parameters<'a> {
    pub(crate) weight: &'a [f32],
    /// None is zeros.
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) eps: f32,
}

pub(crate) fn layer_norm(
    level: Level,
    input: &[f32],
    residual: Option<&[f32]>,
    dropout: Dropout,
    parameters: Parameters<'_>,
) -> Forward {
    let size = parameters.weight.len();
    let rows = input.len() / size.max(1);
    assert!(residual.is_none_or(|residual| residual.len() == input.len()), "input and residual");
    let mut output = Buffer::new(input.len());
    let mut statistics = Buffer::new(rows * 2);
    let mut sums = (residual.is_some() || !dropout.is_none()).then(|| Buffer::new(input.len()));
    let (to, of) = (Shared::new(&mut output), Shared::new(&mut statistics));
    let through = sums.as_mut().map(|sums| Shared::new(sums));
    for_each_block(rows, ROWS, |own| {
        for row in own {
            let all = row * size..(row + 1) * size;
            let mut own = &input[all.clone()];
            if let Some(through) = through {
                // SAFETY: this row of the sums, which this block alone writes.
                let sum = unsafe { std::slice::from_raw_parts_mut(through.at(all.start), size) };
                if dropout.is_none() {
                    sum.copy_from_slice(own);
                } else {
                    dropout_row(level, dropout.row(row), own, sum);
                }
                if let Some(residual) = residual {
                    add_row(level, sum, &residual[all.clone()]);
                }
                own = sum;
            }
            // SAFETY: this row of output and statistics, which this block alone writes.
            let (output, statistics) = unsafe {
                (
                    std::slice::from_raw_parts_mut(to.at(all.start), size),
                    std::slice::from_raw_parts_mut(of.at(row * 2), 2),
                )
            };
            statistics.copy_from_slice(&normalise_row(level, own, parameters, output));
        }
    });
    Forward { output, sum: sums, statistics }
}

/// Recomputes normalised rows from the state of the forward pass.
pub(crate) fn again(level: Level, sums: &[f32], statistics: &[f32], parameters: Parameters<'_>) -> Buffer {
    let size = parameters.weight.len();
    let rows = sums.len() / size.max(1);
    assert_eq!(statistics.len(), rows * 2, "statistics of each row");
    let mut output = Buffer::new(sums.len());
    let to = Shared::new(&mut output);
    for_each_block(rows, ROWS, |own| {
        for row in own {
            let all = row * size..(row + 1) * size;
            // SAFETY: this row of the output, which this block alone writes.
            let output = unsafe { std::slice::from_raw_parts_mut(to.at(all.start), size) };
            let own = [statistics[row * 2], statistics[row * 2 + 1]];
            normalise_again(level, &sums[all], own, parameters, output);
        }
    });
    output
}

/// Computes the gradients of the rows, plus `beside`, of the weight and of the bias.
pub(crate) fn gradient(
    level: Level,
    sums: &[f32],
    statistics: &[f32],
    weight: &[f32],
    gradient: &[f32],
    beside: Option<&[f32]>,
) -> [Buffer; 3] {
    let size = weight.len();
    let rows = sums.len() / size.max(1);
    assert!(gradient.len() == sums.len() && statistics.len() == rows * 2, "rows of the gradient and statistics");
    assert!(beside.is_none_or(|beside| beside.len() == sums.len()), "rows of what comes beside");
    let mut output = Buffer::new(sums.len());
    // The share of every block of rows in the gradients of weight and bias.
    let mut partial = Buffer::new(rows.div_ceil(ROWS) * 2 * size);
    let (to, parts) = (Shared::new(&mut output), Shared::new(&mut partial));
    for_each_block(rows, ROWS, |own| {
        // SAFETY: this block's own part.
        let part = unsafe { std::slice::from_raw_parts_mut(parts.at(own.start / ROWS * 2 * size), 2 * size) };
        part.fill(0.0);
        let (of_weight, of_bias) = part.split_at_mut(size);
        for row in own {
            let all = row * size..(row + 1) * size;
            let own = [statistics[row * 2], statistics[row * 2 + 1]];
            // SAFETY: this row of the output, which this block alone writes.
            let output = unsafe { std::slice::from_raw_parts_mut(to.at(all.start), size) };
            let (gradient, beside) = (&gradient[all.clone()], beside.map(|beside| &beside[all.clone()]));
            gradient_row(level, &sums[all], own, weight, gradient, beside, output, of_weight, of_bias);
        }
    });
    let of_both = add_in_order(level, &partial, 2 * size);
    let (mut of_weight, mut of_bias) = (Buffer::new(size), Buffer::new(size));
    of_weight.copy_from_slice(&of_both[..size]);
    of_bias.copy_from_slice(&of_both[size..]);
    [output, of_weight, of_bias]
}

/// Sums rows of `size` numbers, first to last.
fn add_in_order(level: Level, rows: &[f32], size: usize) -> Buffer {
    let mut total = Buffer::new(size);
    total.fill(0.0);
    for row in rows.chunks_exact(size.max(1)) {
        add_row(level, &mut total, row);
    }
    total
}

/// Sums all rows of `size` numbers.
pub(crate) fn sum_rows(level: Level, input: Numbers<'_>, size: usize) -> Buffer {
    let rows = input.len() / size.max(1);
    let mut partial = Buffer::new(rows.div_ceil(ROWS) * size);
    let parts = Shared::new(&mut partial);
    for_each_block(rows, ROWS, |own| {
        // SAFETY: this block's own part.
        let part = unsafe { std::slice::from_raw_parts_mut(parts.at(own.start / ROWS * size), size) };
        part.fill(0.0);
        for row in own {
            match input.from(row * size).first(size) {
                Numbers::Single(row) => add_row(level, part, row),
                Numbers::Half(row) => add_halves(level, part, row),
            }
        }
    });
    add_in_order(level, &partial, size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flex::testing::{close, random};

    /// Normalised numbers and their gradients, for rows of deviation about 0.6.
    const ERROR: f64 = 5e-6;

    /// Sums over up to 200 rows.
    const SUM_ERROR: f64 = 5e-5;

    const EPS: f32 = 1e-5;

    #[test]
    fn rows_and_gradients_are_those_of_f64_on_every_level() {
        for (rows, size) in [(0, 8), (1, 1), (1, 7), (3, 16), (70, 33), (200, 100)] {
            let (input, residual) = (random(rows * size, 1), random(rows * size, 2));
            let (weight, bias, back) = (random(size, 3), random(size, 4), random(rows * size, 5));
            for probability in [0.0, 0.4] {
                let dropout = Dropout { probability, seed: 11 };
                let mask = dropout.mask(rows, size);
                let mut expected = (Vec::new(), Vec::new());
                let (mut of_weight, mut of_bias) = (vec![0.0; size], vec![0.0; size]);
                for row in 0..rows {
                    let at = |i: usize| row * size + i;
                    let sum: Vec<f64> = (0..size)
                        .map(|i| f64::from(input[at(i)]) * f64::from(mask[at(i)]) + f64::from(residual[at(i)]))
                        .collect();
                    let mean = sum.iter().sum::<f64>() / size as f64;
                    let variance = sum.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / size as f64;
                    let scale = 1.0 / (variance + f64::from(EPS)).sqrt();
                    let normal: Vec<f64> = sum.iter().map(|x| (x - mean) * scale).collect();
                    let weighted: Vec<f64> = (0..size).map(|i| f64::from(back[at(i)]) * f64::from(weight[i])).collect();
                    let across = weighted.iter().sum::<f64>() / size as f64;
                    let along = weighted.iter().zip(&normal).map(|(w, n)| w * n).sum::<f64>() / size as f64;
                    for i in 0..size {
                        expected.0.push(normal[i] * f64::from(weight[i]) + f64::from(bias[i]));
                        // A row of one number has no deviation but epsilon's, so its gradient is a difference of
                        // large equal numbers.
                        expected.1.push((weighted[i] - across - normal[i] * along) * scale);
                        of_weight[i] += f64::from(back[at(i)]) * normal[i];
                        of_bias[i] += f64::from(back[at(i)]);
                    }
                }
                for level in Level::available() {
                    let what = format!("{level:?} {rows}x{size} dropout {probability}");
                    let parameters = Parameters { weight: &weight, bias: Some(&bias), eps: EPS };
                    let forward = layer_norm(level, &input, Some(&residual), dropout, parameters);
                    close(&forward.output, &expected.0, ERROR, &what);
                    let sum = forward.sum.expect("a sum with the residual");
                    let [of_sum, w, b] = gradient(level, &sum, &forward.statistics, &weight, &back, None);
                    close(&of_sum, &expected.1, ERROR, &what);
                    let [beside, ..] = gradient(level, &sum, &forward.statistics, &weight, &back, Some(&residual));
                    let with: Vec<f64> = expected.1.iter().zip(&residual).map(|(x, r)| x + f64::from(*r)).collect();
                    close(&beside, &with, ERROR, &what);
                    let again = again(level, &sum, &forward.statistics, parameters);
                    assert_eq!(again[..], forward.output[..], "{what}");
                    let zeros = vec![0.0; size];
                    let bare = layer_norm(level, &sum, None, Dropout::NONE, Parameters { bias: None, ..parameters });
                    let zero = Parameters { bias: Some(&zeros), ..parameters };
                    assert_eq!(
                        bare.output[..],
                        layer_norm(level, &sum, None, Dropout::NONE, zero).output[..],
                        "{what}"
                    );
                    close(&w, &of_weight, SUM_ERROR, &what);
                    close(&b, &of_bias, SUM_ERROR, &what);
                    close(&sum_rows(level, Numbers::Single(&back), size), &of_bias, SUM_ERROR, &what);
                    let plain = layer_norm(level, &sum, None, Dropout::NONE, parameters);
                    assert!(plain.sum.is_none() && plain.output[..] == forward.output[..], "{what}");
                }
            }
        }
    }
}

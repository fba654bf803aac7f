//! The fused operators on burn's CPU backend.
//!
//! This file is between tensors and slices; the kernels are in the files below it. They take float32 alone.

mod adamw;
#[cfg_attr(
    not(all(target_arch = "x86_64", target_os = "linux")),
    allow(unused, reason = "only Linux on x86-64 lets AMX be used")
)]
mod amx;
mod arena;
mod attention;
mod buffer;
mod elementwise;
mod embed;
mod gate;
mod layer_norm;
mod layout;
mod level;
mod matmul;
mod maxsim;
mod pack;
mod parallel;
#[cfg(test)]
mod testing;
mod tile;

pub use buffer::release_idle_memory;

use std::sync::Arc;

use burn_flex::{Flex, FlexTensor};

use crate::backend::Kernels;
use crate::operators::adamw::{AdamW, Moments};
use crate::operators::attention::{Attended, AttentionPlan};
use crate::operators::dropout::Dropout;
use crate::operators::embed::{Tables, TokenRows};
use crate::operators::gate::{ActiveHalf, Gate};
use crate::operators::layer_norm::{Affine, NormGradients, Normalised};
use crate::operators::linear::{FloatMap, Map};
use crate::operators::maxsim::ScoredTexts;
use crate::operators::rotation::Rotation;
use crate::precision::Precision;
use buffer::{Buffer, Shared};
use gate::Dropped;
use layout::{Layout, LeftFactor, RightFactor};
use level::Level;
use matmul::{Start, matmul, multiply};
use pack::View;
use tile::Size;

/// Rows that a thread takes at a time through a gate.
const GATED_ROWS: usize = 16;

/// The tensor's numbers, one after the other.
fn numbers(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("a contiguous tensor of float32, which is what the fused operators take")
}

/// The tensor with memory of its own, contiguous, that can be written. (burn's own copy of a shared tensor cannot be
/// aligned as ours are.)
fn owned(tensor: FlexTensor) -> FlexTensor {
    let contiguous = tensor.to_contiguous();
    drop(tensor);
    if contiguous.is_unique() {
        return contiguous;
    }
    let mut copy = Buffer::new(numbers(&contiguous).len());
    copy.copy_from_slice(numbers(&contiguous));
    copy.into_tensor(contiguous.layout().shape().clone())
}

/// Rows and columns of a tensor of two axes.
fn shape(tensor: &FlexTensor) -> [usize; 2] {
    let shape = tensor.layout().shape();
    [shape[0], shape[1]]
}

fn contiguous(affine: Affine<FlexTensor>) -> Affine<FlexTensor> {
    let Affine { weight, bias, eps } = affine;
    Affine { weight: weight.to_contiguous(), bias: bias.map(|bias| bias.to_contiguous()), eps }
}

fn parameters(affine: &Affine<FlexTensor>) -> layer_norm::Parameters<'_> {
    let Affine { weight, bias, eps } = affine;
    layer_norm::Parameters { weight: numbers(weight), bias: bias.as_ref().map(numbers), eps: *eps as f32 }
}

fn attend(inputs: attention::Inputs<'_>, plan: &AttentionPlan) -> Attended<FlexTensor> {
    let [output, log_sum_exp] = attention::attention(Level::detect(), inputs, plan);
    let tokens = plan.segments.tokens();
    Attended {
        output: output.into_tensor([tokens, inputs.size]),
        log_sum_exp: log_sum_exp.into_tensor([tokens, plan.heads]),
    }
}

fn back<'a>(forward: &'a Attended<FlexTensor>, gradient: &'a FlexTensor) -> attention::Back<'a> {
    attention::Back {
        output: numbers(&forward.output),
        log_sum_exp: numbers(&forward.log_sum_exp),
        gradient: numbers(gradient),
    }
}

impl Kernels for Flex {
    fn has_bf16(_: &Self::Device) -> bool {
        Level::detect().has_bf16()
    }

    fn linear_forward(
        input: FlexTensor,
        weight: FlexTensor,
        bias: Option<FlexTensor>,
        precision: Precision,
    ) -> FlexTensor {
        let (input, weight) = (input.to_contiguous(), weight.to_contiguous());
        let bias = bias.map(|bias| bias.to_contiguous());
        let ([rows, depth], [columns, _]) = (shape(&input), shape(&weight));
        let (left, right) = (View::rows(numbers(&input), depth), View::rows(numbers(&weight), depth).transposed());
        let (layout, size) = (Layout::of(precision), Size { rows, columns, depth });
        matmul(layout, size, left, right, bias.as_ref().map(numbers)).into_tensor([rows, columns])
    }

    fn residual_linear_forward(
        input: FlexTensor,
        weight: FlexTensor,
        bias: Option<FlexTensor>,
        residual: FlexTensor,
        precision: Precision,
    ) -> FlexTensor {
        let (input, weight, residual) = (input.to_contiguous(), weight.to_contiguous(), residual.to_contiguous());
        let bias = bias.map(|bias| bias.to_contiguous());
        let ([rows, depth], [columns, _]) = (shape(&input), shape(&weight));
        let layout = Layout::of(precision);
        let left = LeftFactor::new(layout, View::rows(numbers(&input), depth), rows, depth);
        let right = RightFactor::new(layout, View::rows(numbers(&weight), depth).transposed(), depth, columns);
        let mut output = Buffer::new(rows * columns);
        let start = Start::Rows(numbers(&residual), bias.as_ref().map(numbers));
        multiply(layout, Size { rows, columns, depth }, &left, &right, start, &mut output, |_, _| {});
        output.into_tensor([rows, columns])
    }

    fn linears_forward<const N: usize>(
        input: FlexTensor,
        maps: [FloatMap<Self>; N],
        precision: Precision,
    ) -> [FlexTensor; N] {
        let input = input.to_contiguous();
        let [rows, depth] = shape(&input);
        let layout = Layout::of(precision);
        let left = LeftFactor::new(layout, View::rows(numbers(&input), depth), rows, depth);
        maps.map(|Map { weight, bias }| {
            let (weight, bias) = (weight.to_contiguous(), bias.to_contiguous());
            let size = Size { rows, columns: shape(&weight)[0], depth };
            let right = View::rows(numbers(&weight), depth).transposed();
            let right = RightFactor::new(layout, right, depth, size.columns);
            let mut output = Buffer::new(rows * size.columns);
            multiply(layout, size, &left, &right, Start::Row(numbers(&bias)), &mut output, |_, _| {});
            output.into_tensor([rows, size.columns])
        })
    }

    fn linears_input_gradient<const N: usize>(
        gradients: [FlexTensor; N],
        weights: [FlexTensor; N],
        precision: Precision,
    ) -> FlexTensor {
        let ([rows, _], [_, columns]) = (shape(&gradients[0]), shape(&weights[0]));
        let layout = Layout::of(precision);
        let mut sum = Buffer::new(rows * columns);
        let mut start = Start::Zero;
        for (gradient, weight) in gradients.into_iter().zip(weights) {
            let (gradient, weight) = (gradient.to_contiguous(), weight.to_contiguous());
            let depth = shape(&gradient)[1];
            let left = LeftFactor::new(layout, View::rows(numbers(&gradient), depth), rows, depth);
            let right = RightFactor::new(layout, View::rows(numbers(&weight), columns), depth, columns);
            multiply(layout, Size { rows, columns, depth }, &left, &right, start, &mut sum, |_, _| {});
            start = Start::Result;
        }
        sum.into_tensor([rows, columns])
    }

    fn linears_weight_gradients<const N: usize>(
        gradients: [FlexTensor; N],
        input: FlexTensor,
        precision: Precision,
    ) -> [FlexTensor; N] {
        let input = input.to_contiguous();
        let [depth, columns] = shape(&input);
        let layout = Layout::of(precision);
        let right = RightFactor::new(layout, View::rows(numbers(&input), columns), depth, columns);
        gradients.map(|gradient| {
            let gradient = gradient.to_contiguous();
            let rows = shape(&gradient)[1];
            let left = LeftFactor::new(layout, View::rows(numbers(&gradient), rows).transposed(), rows, depth);
            let mut product = Buffer::new(rows * columns);
            multiply(layout, Size { rows, columns, depth }, &left, &right, Start::Zero, &mut product, |_, _| {});
            product.into_tensor([rows, columns])
        })
    }

    fn sum_rows(gradient: FlexTensor) -> FlexTensor {
        let gradient = gradient.to_contiguous();
        let [_, size] = shape(&gradient);
        layer_norm::sum_rows(Level::detect(), numbers(&gradient), size).into_tensor([size])
    }

    fn linear_gelu_forward(
        input: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        precision: Precision,
    ) -> (FlexTensor, FlexTensor) {
        let (input, weight, bias) = (input.to_contiguous(), weight.to_contiguous(), bias.to_contiguous());
        let ([rows, depth], [columns, _]) = (shape(&input), shape(&weight));
        let (left, right) = (View::rows(numbers(&input), depth), View::rows(numbers(&weight), depth).transposed());
        let layout = Layout::of(precision);
        let left = LeftFactor::new(layout, left, rows, depth);
        let right = RightFactor::new(layout, right, depth, columns);
        let (mut output, mut sum) = (Buffer::<f32>::new(rows * columns), Buffer::new(rows * columns));
        let shared = Shared::new(&mut output);
        let size = Size { rows, columns, depth };
        multiply(layout, size, &left, &right, Start::Row(numbers(&bias)), &mut sum, |offset, sum| {
            // SAFETY: a part of a row of the product, which is as large as the output.
            let output = unsafe { std::slice::from_raw_parts_mut(shared.at(offset), sum.len()) };
            elementwise::gelu_block(layout.level, sum, output);
        });
        (output.into_tensor([rows, columns]), sum.into_tensor([rows, columns]))
    }

    fn gelu_forward(input: FlexTensor) -> FlexTensor {
        let input = input.to_contiguous();
        elementwise::gelu(Level::detect(), numbers(&input)).into_tensor(shape(&input))
    }

    fn gelu_gradient(input: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let (input, gradient) = (input.to_contiguous(), gradient.to_contiguous());
        elementwise::gelu_gradient(Level::detect(), numbers(&input), numbers(&gradient)).into_tensor(shape(&input))
    }

    fn gelu_with_gradient(input: FlexTensor, gradient: FlexTensor) -> (FlexTensor, FlexTensor) {
        let (input, mut gradient) = (input.to_contiguous(), owned(gradient));
        let gelu = elementwise::gelu_with_gradient(Level::detect(), numbers(&input), gradient.storage_mut::<f32>());
        (gelu.into_tensor(shape(&input)), gradient)
    }

    fn gated_forward(
        input: FlexTensor,
        weight: FlexTensor,
        bias: Option<FlexTensor>,
        gate: Gate,
        precision: Precision,
    ) -> (FlexTensor, FlexTensor) {
        let (input, weight) = (input.to_contiguous(), weight.to_contiguous());
        let bias = bias.map(|bias| bias.to_contiguous());
        let ([rows, depth], [columns, _]) = (shape(&input), shape(&weight));
        let (layout, wide) = (Layout::of(precision), columns / 2);
        let left = LeftFactor::new(layout, View::rows(numbers(&input), depth), rows, depth);
        let right = RightFactor::new(layout, View::rows(numbers(&weight), depth).transposed(), depth, columns);
        let (mut gated, mut both) = (Buffer::<f32>::new(rows * wide), Buffer::new(rows * columns));
        let shared = Shared::new(&mut gated);
        let finish = |row: usize, both: &[f32]| {
            // SAFETY: this row of what the gate gives, which is finished once.
            let to = unsafe { std::slice::from_raw_parts_mut(shared.at(row * wide), wide) };
            let (active, other) = gate::halves(both, gate);
            gate::gate_row(layout.level, gate.activation, active, other, Dropped::of(gate.dropout, row, 0), to);
        };
        let start = bias.as_ref().map_or(Start::Zero, |bias| Start::Row(numbers(bias)));
        // Where there are few rows, a block has a part of each, and the rows are finished when all are there.
        let whole = multiply(layout, Size { rows, columns, depth }, &left, &right, start, &mut both, |offset, row| {
            if row.len() == columns {
                finish(offset / columns.max(1), row);
            }
        });
        if !whole {
            let both = &both[..];
            parallel::for_each_block(rows, GATED_ROWS, |own| {
                own.for_each(|row| finish(row, &both[row * columns..(row + 1) * columns]));
            });
        }
        (gated.into_tensor([rows, wide]), both.into_tensor([rows, columns]))
    }

    fn gated_gradient(
        both: FlexTensor,
        gradient: FlexTensor,
        weight: FlexTensor,
        gate: Gate,
        precision: Precision,
    ) -> (FlexTensor, FlexTensor) {
        let (mut both, gradient, weight) = (owned(both), gradient.to_contiguous(), weight.to_contiguous());
        let ([rows, depth], [_, wide]) = (shape(&gradient), shape(&weight));
        let layout = Layout::of(precision);
        let left = LeftFactor::new(layout, View::rows(numbers(&gradient), depth), rows, depth);
        let right = RightFactor::new(layout, View::rows(numbers(&weight), wide), depth, wide);
        let mut gated = Buffer::new(rows * wide);
        let halves = Shared::new(both.storage_mut::<f32>());
        let (active, other) = match gate.active {
            ActiveHalf::First => (0, wide),
            ActiveHalf::Second => (wide, 0),
        };
        let size = Size { rows, columns: wide, depth };
        multiply(layout, size, &left, &right, Start::Zero, &mut gated, |offset, gradient| {
            let (row, column) = (offset / wide, offset % wide);
            // SAFETY: parts of this row's halves, which are as long as the part that is finished, and finished once.
            let [active, other] = [active, other].map(|half| unsafe {
                std::slice::from_raw_parts_mut(halves.at(row * 2 * wide + half + column), gradient.len())
            });
            let dropped = Dropped::of(gate.dropout, row, column);
            gate::gradient_row(layout.level, gate.activation, active, other, dropped, gradient);
        });
        (gated.into_tensor([rows, wide]), both)
    }

    fn dropout_forward(input: FlexTensor, dropout: Dropout) -> FlexTensor {
        let input = input.to_contiguous();
        let [rows, columns] = shape(&input);
        elementwise::dropout(Level::detect(), numbers(&input), columns, dropout).into_tensor([rows, columns])
    }

    fn layer_norm_forward(
        input: FlexTensor,
        residual: Option<FlexTensor>,
        dropout: Dropout,
        affine: Affine<FlexTensor>,
    ) -> Normalised<FlexTensor> {
        let (input, residual) = (input.to_contiguous(), residual.map(|residual| residual.to_contiguous()));
        let affine = contiguous(affine);
        let [rows, columns] = shape(&input);
        let parameters = parameters(&affine);
        let residual = residual.as_ref().map(numbers);
        let found = layer_norm::layer_norm(Level::detect(), numbers(&input), residual, dropout, parameters);
        Normalised {
            output: found.output.into_tensor([rows, columns]),
            sum: found.sum.map_or(input, |sum| sum.into_tensor([rows, columns])),
            statistics: found.statistics.into_tensor([rows, 2]),
        }
    }

    fn layer_norm_again(sum: FlexTensor, statistics: FlexTensor, affine: Affine<FlexTensor>) -> FlexTensor {
        let (sum, affine) = (sum.to_contiguous(), contiguous(affine));
        layer_norm::again(Level::detect(), numbers(&sum), numbers(&statistics), parameters(&affine))
            .into_tensor(shape(&sum))
    }

    fn layer_norm_gradient(
        sum: FlexTensor,
        statistics: FlexTensor,
        affine: Affine<FlexTensor>,
        gradient: FlexTensor,
        beside: Option<FlexTensor>,
    ) -> NormGradients<FlexTensor> {
        let (affine, gradient) = (contiguous(affine), gradient.to_contiguous());
        let (sum, beside) = (sum.to_contiguous(), beside.map(|beside| beside.to_contiguous()));
        let [rows, columns] = shape(&sum);
        let [of_sum, of_weight, of_bias] = layer_norm::gradient(
            Level::detect(),
            numbers(&sum),
            numbers(&statistics),
            numbers(&affine.weight),
            numbers(&gradient),
            beside.as_ref().map(numbers),
        );
        NormGradients {
            sum: of_sum.into_tensor([rows, columns]),
            weight: of_weight.into_tensor([columns]),
            bias: affine.bias.map(|_| of_bias.into_tensor([columns])),
        }
    }

    fn attention_forward(qkv: [FlexTensor; 3], plan: &AttentionPlan) -> Attended<FlexTensor> {
        let qkv = qkv.map(|tensor| tensor.to_contiguous());
        let inputs = attention::Inputs::apart(qkv.each_ref().map(numbers), shape(&qkv[0])[1]);
        attend(inputs, plan)
    }

    fn attention_gradient(
        qkv: [FlexTensor; 3],
        forward: Attended<FlexTensor>,
        gradient: FlexTensor,
        plan: &AttentionPlan,
    ) -> [FlexTensor; 3] {
        let qkv = qkv.map(|tensor| tensor.to_contiguous());
        let gradient = gradient.to_contiguous();
        let inputs = attention::Inputs::apart(qkv.each_ref().map(numbers), shape(&qkv[0])[1]);
        let found = attention::gradient(Level::detect(), inputs, back(&forward, &gradient), plan);
        let shape = shape(&qkv[0]);
        found.map(|found| found.into_tensor(shape))
    }

    fn packed_attention_forward(
        qkv: FlexTensor,
        rotation: Option<&Rotation>,
        plan: &AttentionPlan,
    ) -> Attended<FlexTensor> {
        let qkv = qkv.to_contiguous();
        attend(attention::Inputs::packed(numbers(&qkv), shape(&qkv)[1] / 3, rotation), plan)
    }

    fn packed_attention_gradient(
        qkv: FlexTensor,
        forward: Attended<FlexTensor>,
        gradient: FlexTensor,
        rotation: Option<&Rotation>,
        plan: &AttentionPlan,
    ) -> FlexTensor {
        let (qkv, gradient) = (qkv.to_contiguous(), gradient.to_contiguous());
        let inputs = attention::Inputs::packed(numbers(&qkv), shape(&qkv)[1] / 3, rotation);
        attention::packed_gradient(Level::detect(), inputs, back(&forward, &gradient), plan).into_tensor(shape(&qkv))
    }

    fn embed_forward(tables: Tables<FlexTensor>, rows: &TokenRows) -> FlexTensor {
        let word = tables.word.to_contiguous();
        let [position, token_type] =
            [tables.position, tables.token_type].map(|table| table.map(|table| table.to_contiguous()));
        let [_, size] = shape(&word);
        let position = position.as_ref().map(|table| (numbers(table), &rows.positions[..]));
        let first = token_type.as_ref().map(|table| &numbers(table)[..size]);
        embed::embed(numbers(&word), size, &rows.ids, position, first).into_tensor([rows.ids.len(), size])
    }

    fn embed_gradient(gradient: FlexTensor, rows: &Arc<[u32]>, count: usize) -> FlexTensor {
        let gradient = gradient.to_contiguous();
        let [_, size] = shape(&gradient);
        embed::gradient(numbers(&gradient), rows, count, size).into_tensor([count, size])
    }

    fn maxsim_forward(
        queries: FlexTensor,
        documents: FlexTensor,
        texts: &[ScoredTexts; 2],
    ) -> (FlexTensor, FlexTensor) {
        let (queries, documents) = (queries.to_contiguous(), documents.to_contiguous());
        let (scores, winners) = maxsim::maxsim(Level::detect(), numbers(&queries), numbers(&documents), texts);
        let [query_texts, document_texts] = texts;
        (
            scores.into_tensor([query_texts.count(), document_texts.count()]),
            winners.into_tensor([document_texts.count(), query_texts.tokens()]),
        )
    }

    fn maxsim_gradient(
        queries: FlexTensor,
        documents: FlexTensor,
        winners: FlexTensor,
        gradient: FlexTensor,
        texts: &[ScoredTexts; 2],
    ) -> [FlexTensor; 2] {
        let (queries, documents) = (queries.to_contiguous(), documents.to_contiguous());
        let gradient = gradient.to_contiguous();
        let winners = winners.as_slice::<i32>().expect("the winners that the forward pass left");
        let [of_queries, of_documents] = maxsim::gradient(
            Level::detect(),
            numbers(&queries),
            numbers(&documents),
            winners,
            numbers(&gradient),
            texts,
        );
        [of_queries.into_tensor(shape(&queries)), of_documents.into_tensor(shape(&documents))]
    }

    fn adamw(moments: Moments<FlexTensor>, gradient: FlexTensor, options: &AdamW) -> Moments<FlexTensor> {
        let gradient = gradient.to_contiguous();
        let Moments { parameter, mean, square } = moments;
        let [mut parameter, mut mean, mut square] = [parameter, mean, square].map(owned);
        let all = [&mut parameter, &mut mean, &mut square].map(|tensor| tensor.storage_mut::<f32>());
        adamw::step(Level::detect(), all, numbers(&gradient), options.factors());
        Moments { parameter, mean, square }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::ops::FloatTensorOps;

    use super::testing::{close, flat, matrix, random, wide};
    use super::*;
    use crate::operators::gate::{self, Activation};
    use crate::operators::{dropout, embed, gelu, layer_norm, linear};
    use crate::precision::Precision::F32;

    /// Sums of up to 70 products of numbers below 1, or what is divided by a deviation of about 0.6.
    const ERROR: f64 = 2e-5;

    fn same(fused: &FlexTensor, composed: &FlexTensor, what: &str) {
        assert_eq!(fused.layout().shape(), composed.layout().shape(), "{what}");
        close(&flat(fused), &wide(&flat(composed)), ERROR, what);
    }

    fn line(size: usize, seed: usize) -> FlexTensor {
        let line = matrix(&random(size, seed), size);
        line.reshape([size].into())
    }

    #[test]
    fn linear_maps_and_gelu_are_what_composed_ones_are() {
        for (tokens, size, out) in [(1, 1, 1), (70, 33, 50), (5, 64, 3)] {
            let (input, weight) = (matrix(&random(tokens * size, 1), size), matrix(&random(out * size, 2), size));
            let (bias, back) = (line(out, 3), matrix(&random(tokens * out, 4), out));
            let (x, w, b, g) = (|| input.clone(), || weight.clone(), || bias.clone(), || back.clone());
            for bias in [None, Some(b())] {
                let composed = linear::composed::<Flex>(x(), w(), bias.clone(), F32);
                same(&Flex::linear_forward(x(), w(), bias, F32), &composed, "linear");
            }
            let composed = linear::composed_input_gradient::<Flex>(g(), w(), F32);
            same(&Flex::linears_input_gradient([g()], [w()], F32), &composed, "input gradient");
            let twice = Flex::float_add(composed.clone(), composed);
            same(&Flex::linears_input_gradient([g(), g()], [w(), w()], F32), &twice, "gradient of two maps' input");
            let composed = linear::composed_weight_gradient::<Flex>(g(), x(), F32);
            for found in Flex::linears_weight_gradients([g(), g()], x(), F32) {
                same(&found, &composed, "weight gradient");
            }
            let composed = linear::composed::<Flex>(x(), w(), Some(b()), F32);
            for found in Flex::linears_forward(x(), [(), ()].map(|()| Map { weight: w(), bias: b() }), F32) {
                same(&found, &composed, "one of two maps");
            }
            same(&Flex::sum_rows(g()), &linear::composed_sum_rows::<Flex>(g()), "bias gradient");
            let (output, sum) = Flex::linear_gelu_forward(x(), w(), b(), F32);
            same(&sum, &linear::composed::<Flex>(x(), w(), Some(b()), F32), "sum before GELU");
            same(&output, &Flex::gelu_forward(sum.clone()), "GELU of the sum");
            let composed = gelu::composed_gradient::<Flex>(sum.clone(), g());
            same(&Flex::gelu_gradient(sum, g()), &composed, "GELU gradient");
        }
    }

    #[test]
    fn gates_and_sums_with_a_residual_are_what_composed_ones_are() {
        for (tokens, size, wide, out) in [(1, 1, 1, 1), (70, 33, 20, 50), (3, 10, 200, 4), (900, 5, 3, 2)] {
            let (input, up) = (matrix(&random(tokens * size, 1), size), matrix(&random(2 * wide * size, 2), size));
            let (down, back) = (matrix(&random(out * wide, 3), wide), matrix(&random(tokens * out, 4), out));
            let forms = [(0.0, None), (0.3, Some(line(2 * wide, 5)))];
            for (activation, active) in [
                (Activation::Gelu, ActiveHalf::First),
                (Activation::Gelu, ActiveHalf::Second),
                (Activation::Silu, ActiveHalf::First),
                (Activation::Silu, ActiveHalf::Second),
            ] {
                for (probability, bias) in forms.clone() {
                    let gate = Gate { activation, active, dropout: Dropout { probability, seed: 6 } };
                    let (x, w) = (input.clone(), up.clone());
                    let (gated, both) = Flex::gated_forward(x.clone(), w.clone(), bias.clone(), gate, F32);
                    same(&both, &linear::composed::<Flex>(x, w, bias, F32), "both halves");
                    same(&gated, &gate::composed::<Flex>(both.clone(), gate), "gated");
                    let kept = flat(&both);
                    let (again, of_both) = Flex::gated_gradient(both.clone(), back.clone(), down.clone(), gate, F32);
                    assert_eq!(flat(&both), kept, "a shared tensor stays as it is");
                    same(&again, &gated, "gated again");
                    let of_gated = linear::composed_input_gradient::<Flex>(back.clone(), down.clone(), F32);
                    same(&of_both, &gate::composed_gradient::<Flex>(both, of_gated, gate), "gradient of both halves");
                }
            }
            for bias in [None, Some(line(size, 9))] {
                let (x, w) = (matrix(&random(tokens * out, 7), out), matrix(&random(size * out, 8), out));
                let composed = linear::composed::<Flex>(x.clone(), w.clone(), bias.clone(), F32);
                let fused = Flex::residual_linear_forward(x, w, bias, input.clone(), F32);
                same(&fused, &Flex::float_add(composed, input.clone()), "with a residual");
            }
        }
    }

    /// A factor in bfloat16 is off by up to 1/512, and what the composed product gives is rounded to bfloat16 too; sums of 40
    /// products of numbers below 1.
    const BF16_ERROR: f64 = 0.1;

    #[test]
    fn composed_products_in_bfloat16_are_float32_up_to_rounding() {
        let (input, weight) = (matrix(&random(70 * 40, 1), 40), matrix(&random(50 * 40, 2), 40));
        let bias = line(50, 3);
        let product = |precision| {
            let composed = linear::composed::<Flex>(input.clone(), weight.clone(), Some(bias.clone()), precision);
            flat(&composed)
        };
        let (half, single) = (product(Precision::Bf16), product(F32));
        close(&half, &wide(&single), BF16_ERROR, "composed in bfloat16");
        assert_eq!(half != single, Level::detect().has_bf16(), "rounded where the processor has bfloat16");
    }

    #[test]
    fn normalisations_dropout_and_embeddings_are_what_composed_ones_are() {
        for (tokens, size) in [(1, 2), (67, 50)] {
            let of = |seed| matrix(&random(tokens * size, seed), size);
            let (input, residual, back) = (of(1), of(2), of(3));
            for options in [Dropout::NONE, Dropout { probability: 0.4, seed: 8 }] {
                let fused = Flex::dropout_forward(input.clone(), options);
                assert_eq!(flat(&fused), flat(&dropout::composed::<Flex>(input.clone(), options)), "one mask");
                for (residual, bias) in [(None, true), (Some(residual.clone()), true), (None, false)] {
                    let bias = || bias.then(|| line(size, 5));
                    let affine = || Affine { weight: line(size, 4), bias: bias(), eps: 1e-2 };
                    let fused = Flex::layer_norm_forward(input.clone(), residual.clone(), options, affine());
                    let composed = layer_norm::composed::<Flex>(input.clone(), residual, options, affine());
                    same(&fused.output, &composed.output, "normalised");
                    same(&fused.statistics, &composed.statistics, "statistics");
                    same(&fused.sum, &composed.sum, "sum");
                    let Normalised { sum, statistics, .. } = fused;
                    let composed = layer_norm::composed_again::<Flex>(sum.clone(), statistics.clone(), affine());
                    let again = Flex::layer_norm_again(sum.clone(), statistics.clone(), affine());
                    same(&again, &composed, "normalised again");
                    let beside = Some(input.clone());
                    let (sums, all) = (|| (sum.clone(), statistics.clone()), || (back.clone(), beside.clone()));
                    let (((sum, statistics), (back, beside)), composed) = ((sums(), all()), (sums(), all()));
                    let fused = Flex::layer_norm_gradient(sum, statistics, affine(), back, beside);
                    let ((sum, statistics), (back, beside)) = composed;
                    let composed = layer_norm::composed_gradient::<Flex>(sum, statistics, affine(), back, beside);
                    same(&fused.sum, &composed.sum, "gradient of the sum");
                    same(&fused.weight, &composed.weight, "gradient of the weight");
                    for (fused, composed) in fused.bias.iter().zip(&composed.bias) {
                        same(fused, composed, "gradient of the bias");
                    }
                    assert_eq!((fused.bias.is_some(), composed.bias.is_some()), (bias().is_some(), bias().is_some()));
                }
            }
            let rows = TokenRows {
                ids: (0..tokens as u32).map(|i| i * 7 % 10).collect(),
                positions: (0..tokens as u32).map(|i| i % 4).collect(),
            };
            let table = |count: usize, seed| matrix(&random(count * size, seed), size);
            let tables = || Tables { word: table(10, 6), position: Some(table(4, 7)), token_type: Some(table(2, 8)) };
            let composed = embed::composed::<Flex>(tables(), &rows);
            same(&Flex::embed_forward(tables(), &rows), &composed, "embeddings");
            let words = || Tables { position: None, token_type: None, ..tables() };
            same(&Flex::embed_forward(words(), &rows), &embed::composed::<Flex>(words(), &rows), "words alone");
            let composed = embed::composed_gradient::<Flex>(back.clone(), &rows.ids, 10);
            same(&Flex::embed_gradient(back, &rows.ids, 10), &composed, "gradient of a table");
        }
    }
}

//! The fused operators on burn's CPU backend.
//!
//! This file converts between tensors and slices; the kernels are in the files below it. They take float32 alone.

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
mod feed_forward;
mod gate;
mod halves;
mod layer_norm;
mod layout;
pub(crate) mod level;
mod matmul;
pub(crate) mod maxsim;
mod pack;
mod parallel;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub(crate) mod tile;

pub use buffer::release_idle_memory;

use std::sync::Arc;

use burn::tensor::DType;
use burn_flex::{Flex, FlexTensor};
use half::bf16;

use crate::backend::Kernels;
use crate::operators::adamw::{Moments, Update};
use crate::operators::attention::{Attended, AttentionPlan};
use crate::operators::dropout::Dropout;
use crate::operators::embed::{Tables, TokenRows};
use crate::operators::gate::Gate;
use crate::operators::gelu::GeluGradients;
use crate::operators::layer_norm::{Affine, NormGradients, Normalised};
use crate::operators::linear::Map;
use crate::operators::maxsim::ScoredTexts;
use crate::operators::rotation::Rotation;
use crate::precision::Precision;
use buffer::{Buffer, Plain, Shared};
use feed_forward::Factors;
use layout::{Layout, LeftFactor, RightFactor};
use level::Level;
use matmul::{Start, matmul, multiply, multiply_aside};
use pack::{Numbers, View, round_row};
use tile::Size;

/// Returns the tensor's numbers, one after the other.
fn numbers(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("a contiguous tensor of float32, which is what the fused operators take")
}

/// Returns the numbers of a tensor that may be rounded.
fn factor(tensor: &FlexTensor) -> Numbers<'_> {
    match tensor.dtype() {
        DType::BF16 => Numbers::Half(halves_of(tensor)),
        _ => Numbers::Single(numbers(tensor)),
    }
}

/// Returns the numbers of a tensor that was rounded.
fn halves_of(tensor: &FlexTensor) -> &[bf16] {
    tensor.as_slice().expect("a contiguous tensor of bfloat16, which a fused operator made")
}

/// Returns the tensor with memory of its own, contiguous and writable. (burn's own copy of a shared tensor cannot be
/// aligned as ours are.)
fn owned(tensor: FlexTensor) -> FlexTensor {
    fn copy<T: Plain>(numbers: &[T], like: &FlexTensor) -> FlexTensor {
        let mut copy = Buffer::new(numbers.len());
        copy.copy_from_slice(numbers);
        copy.into_tensor(like.layout().shape().clone())
    }
    let contiguous = tensor.to_contiguous();
    drop(tensor);
    if contiguous.is_unique() {
        return contiguous;
    }
    match factor(&contiguous) {
        Numbers::Single(numbers) => copy(numbers, &contiguous),
        Numbers::Half(numbers) => copy(numbers, &contiguous),
    }
}

/// Returns the numbers of rows and columns of a tensor with two axes.
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

    fn rounded(input: FlexTensor, precision: Precision) -> FlexTensor {
        let layout = Layout::of(precision);
        if !layout.has_pairs() || input.dtype() == DType::BF16 {
            return input;
        }
        let input = input.to_contiguous();
        halves::round(layout.level, numbers(&input)).into_tensor(input.layout().shape().clone())
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
        let (left, right) = (View::rows(factor(&input), depth), View::rows(factor(&weight), depth).transposed());
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
        let left = LeftFactor::new(layout, View::rows(factor(&input), depth), rows, depth);
        let right = RightFactor::new(layout, View::rows(factor(&weight), depth).transposed(), depth, columns);
        let mut output = Buffer::new(rows * columns);
        let start = Start::Rows(numbers(&residual), bias.as_ref().map(numbers));
        multiply(layout, Size { rows, columns, depth }, &left, &right, start, &mut output, |_, _| {});
        output.into_tensor([rows, columns])
    }

    fn inner_linears_forward<const N: usize>(
        input: FlexTensor,
        maps: [Map<FlexTensor, Option<FlexTensor>>; N],
        precision: Precision,
    ) -> [FlexTensor; N] {
        let input = input.to_contiguous();
        let [rows, depth] = shape(&input);
        let layout = Layout::of(precision);
        let left = LeftFactor::new(layout, View::rows(factor(&input), depth), rows, depth);
        maps.map(|Map { weight, bias }| {
            let (weight, bias) = (weight.to_contiguous(), bias.map(|bias| bias.to_contiguous()));
            let size = Size { rows, columns: shape(&weight)[0], depth };
            let right = View::rows(factor(&weight), depth).transposed();
            let right = RightFactor::new(layout, right, depth, size.columns);
            let start = bias.as_ref().map_or(Start::Zero, |bias| Start::Row(numbers(bias)));
            let (length, shape) = (rows * size.columns, [rows, size.columns]);
            if !layout.has_pairs() {
                let mut output = Buffer::new(length);
                multiply(layout, size, &left, &right, start, &mut output, |_, _| {});
                return output.into_tensor(shape);
            }
            let mut output = Buffer::<bf16>::new(length);
            let shared = Shared::new(&mut output);
            multiply_aside(layout, size, &left, &right, start, |offset, part| {
                // SAFETY: a part of a row of the product, which is as large as the output, finished once.
                round_row(layout.level, part, unsafe { shared.slice(offset, part.len()) });
            });
            output.into_tensor(shape)
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
            let left = LeftFactor::new(layout, View::rows(factor(&gradient), depth), rows, depth);
            let right = RightFactor::new(layout, View::rows(factor(&weight), columns), depth, columns);
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
        let right = RightFactor::new(layout, View::rows(factor(&input), columns), depth, columns);
        gradients.map(|gradient| {
            let gradient = gradient.to_contiguous();
            let rows = shape(&gradient)[1];
            let left = LeftFactor::new(layout, View::rows(factor(&gradient), rows).transposed(), rows, depth);
            let mut product = Buffer::new(rows * columns);
            multiply(layout, Size { rows, columns, depth }, &left, &right, Start::Zero, &mut product, |_, _| {});
            product.into_tensor([rows, columns])
        })
    }

    fn sum_rows(gradient: FlexTensor) -> FlexTensor {
        let gradient = gradient.to_contiguous();
        let [_, size] = shape(&gradient);
        layer_norm::sum_rows(Level::detect(), factor(&gradient), size).into_tensor([size])
    }

    fn linear_gelu_forward(
        input: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        precision: Precision,
    ) -> (FlexTensor, FlexTensor) {
        let (input, weight, bias) = (input.to_contiguous(), weight.to_contiguous(), bias.to_contiguous());
        let ([rows, depth], [columns, _]) = (shape(&input), shape(&weight));
        let layout = Layout::of(precision);
        let left = LeftFactor::new(layout, View::rows(factor(&input), depth), rows, depth);
        let right = RightFactor::new(layout, View::rows(factor(&weight), depth).transposed(), depth, columns);
        let (start, shape) = (Start::Row(numbers(&bias)), [rows, columns]);
        let factors = Factors { layout, size: Size { rows, columns, depth }, left: &left, right: &right };
        if layout.has_pairs() {
            return feed_forward::gelu_halves(factors, start).map(|buffer| buffer.into_tensor(shape)).into();
        }
        feed_forward::gelu(factors, start).map(|buffer| buffer.into_tensor(shape)).into()
    }

    fn linear_gelu_gradient(
        sum: FlexTensor,
        gradient: FlexTensor,
        weight: FlexTensor,
        precision: Precision,
    ) -> GeluGradients<FlexTensor> {
        let (sum, gradient, weight) = (sum.to_contiguous(), gradient.to_contiguous(), weight.to_contiguous());
        let ([rows, depth], [_, columns]) = (shape(&gradient), shape(&weight));
        let layout = Layout::of(precision);
        let left = LeftFactor::new(layout, View::rows(factor(&gradient), depth), rows, depth);
        let right = RightFactor::new(layout, View::rows(factor(&weight), columns), depth, columns);
        let factors = Factors { layout, size: Size { rows, columns, depth }, left: &left, right: &right };
        let shape = [rows, columns];
        let [output, sum] = match factor(&sum) {
            Numbers::Half(sum) => {
                feed_forward::gelu_halves_gradient(factors, sum).map(|buffer| buffer.into_tensor(shape))
            }
            Numbers::Single(sum) => feed_forward::gelu_gradient(factors, sum).map(|buffer| buffer.into_tensor(shape)),
        };
        GeluGradients { output, bias: Self::sum_rows(sum.clone()), sum }
    }

    fn gelu_forward(input: FlexTensor) -> FlexTensor {
        let input = input.to_contiguous();
        elementwise::gelu(Level::detect(), numbers(&input)).into_tensor(shape(&input))
    }

    fn gelu_gradient(input: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let (input, gradient) = (input.to_contiguous(), gradient.to_contiguous());
        elementwise::gelu_gradient(Level::detect(), numbers(&input), numbers(&gradient)).into_tensor(shape(&input))
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
        let left = LeftFactor::new(layout, View::rows(factor(&input), depth), rows, depth);
        let right = RightFactor::new(layout, View::rows(factor(&weight), depth).transposed(), depth, columns);
        let start = bias.as_ref().map_or(Start::Zero, |bias| Start::Row(numbers(bias)));
        let factors = Factors { layout, size: Size { rows, columns, depth }, left: &left, right: &right };
        if layout.has_pairs() {
            let [gated, both] = feed_forward::gate_halves(factors, start, gate);
            return (gated.into_tensor([rows, wide]), both.into_tensor([rows, columns]));
        }
        let [gated, both] = feed_forward::gate(factors, start, gate);
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
        let left = LeftFactor::new(layout, View::rows(factor(&gradient), depth), rows, depth);
        let right = RightFactor::new(layout, View::rows(factor(&weight), wide), depth, wide);
        let factors = Factors { layout, size: Size { rows, columns: wide, depth }, left: &left, right: &right };
        let gated = if both.dtype() == DType::BF16 {
            feed_forward::gate_halves_gradient(factors, both.storage_mut(), gate).into_tensor([rows, wide])
        } else {
            feed_forward::gate_gradient(factors, both.storage_mut(), gate).into_tensor([rows, wide])
        };
        (gated, both)
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

    fn layer_norm_again(
        sum: FlexTensor,
        statistics: FlexTensor,
        affine: Affine<FlexTensor>,
        _: Precision,
    ) -> FlexTensor {
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
        let inputs = attention::Inputs::apart(qkv.each_ref().map(factor), shape(&qkv[0])[1]);
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
        let inputs = attention::Inputs::apart(qkv.each_ref().map(factor), shape(&qkv[0])[1]);
        let (back, shape) = (back(&forward, &gradient), shape(&qkv[0]));
        if inputs.is_rounded() {
            let found = attention::gradient::<bf16>(Level::detect(), inputs, back, plan);
            return found.map(|found| found.into_tensor(shape));
        }
        let found = attention::gradient::<f32>(Level::detect(), inputs, back, plan);
        found.map(|found| found.into_tensor(shape))
    }

    fn packed_attention_forward(
        qkv: FlexTensor,
        rotation: Option<&Rotation>,
        plan: &AttentionPlan,
    ) -> (Attended<FlexTensor>, FlexTensor) {
        let qkv = qkv.to_contiguous();
        (attend(attention::Inputs::packed(factor(&qkv), shape(&qkv)[1] / 3, rotation), plan), qkv)
    }

    fn packed_attention_gradient(
        qkv: FlexTensor,
        forward: Attended<FlexTensor>,
        gradient: FlexTensor,
        rotation: Option<&Rotation>,
        plan: &AttentionPlan,
    ) -> FlexTensor {
        let (qkv, gradient) = (qkv.to_contiguous(), gradient.to_contiguous());
        let inputs = attention::Inputs::packed(factor(&qkv), shape(&qkv)[1] / 3, rotation);
        let back = back(&forward, &gradient);
        if inputs.is_rounded() {
            return attention::packed_gradient::<bf16>(Level::detect(), inputs, back, plan).into_tensor(shape(&qkv));
        }
        attention::packed_gradient::<f32>(Level::detect(), inputs, back, plan).into_tensor(shape(&qkv))
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

    fn adamw(updates: Vec<Update<FlexTensor>>) -> Vec<Moments<FlexTensor>> {
        let level = Level::detect();
        let moved = updates.into_iter().map(|Update { moments, gradient, options }| {
            let gradient = gradient.to_contiguous();
            let Moments { parameter, mean, square } = moments;
            let [mut parameter, mut mean, mut square] = [parameter, mean, square].map(owned);
            let all = [&mut parameter, &mut mean, &mut square].map(|tensor| tensor.storage_mut::<f32>());
            adamw::step(level, all, numbers(&gradient), options.factors());
            Moments { parameter, mean, square }
        });
        moved.collect()
    }
}

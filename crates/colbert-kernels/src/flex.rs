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
use crate::operators::layer_norm::{Affine, NormGradients, Normalised};
use crate::operators::linear::{FloatMap, Map};
use crate::operators::maxsim::ScoredTexts;
use crate::precision::Precision;
use buffer::{Buffer, Shared};
use layout::{Layout, LeftFactor, RightFactor};
use level::Level;
use matmul::{Start, matmul, multiply};
use pack::View;
use tile::Size;

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
        let (weight, bias) = (affine.weight.to_contiguous(), affine.bias.to_contiguous());
        let [rows, columns] = shape(&input);
        let parameters =
            layer_norm::Parameters { weight: numbers(&weight), bias: numbers(&bias), eps: affine.eps as f32 };
        let residual = residual.as_ref().map(numbers);
        let found = layer_norm::layer_norm(Level::detect(), numbers(&input), residual, dropout, parameters);
        Normalised {
            output: found.output.into_tensor([rows, columns]),
            sum: found.sum.map_or(input, |sum| sum.into_tensor([rows, columns])),
            statistics: found.statistics.into_tensor([rows, 2]),
        }
    }

    fn layer_norm_gradient(
        sum: FlexTensor,
        statistics: FlexTensor,
        weight: FlexTensor,
        gradient: FlexTensor,
    ) -> NormGradients<FlexTensor> {
        let (weight, gradient) = (weight.to_contiguous(), gradient.to_contiguous());
        let [rows, columns] = shape(&sum);
        let [of_sum, of_weight, of_bias] = layer_norm::gradient(
            Level::detect(),
            numbers(&sum),
            numbers(&statistics),
            numbers(&weight),
            numbers(&gradient),
        );
        NormGradients {
            sum: of_sum.into_tensor([rows, columns]),
            weight: of_weight.into_tensor([columns]),
            bias: of_bias.into_tensor([columns]),
        }
    }

    fn attention_forward(qkv: [FlexTensor; 3], plan: &AttentionPlan) -> Attended<FlexTensor> {
        let qkv = qkv.map(|tensor| tensor.to_contiguous());
        let [rows, columns] = shape(&qkv[0]);
        let [output, log_sum_exp] = attention::attention(Level::detect(), qkv.each_ref().map(numbers), plan);
        Attended {
            output: output.into_tensor([rows, columns]),
            log_sum_exp: log_sum_exp.into_tensor([rows, plan.heads]),
        }
    }

    fn attention_gradient(
        qkv: [FlexTensor; 3],
        forward: Attended<FlexTensor>,
        gradient: FlexTensor,
        plan: &AttentionPlan,
    ) -> [FlexTensor; 3] {
        let qkv = qkv.map(|tensor| tensor.to_contiguous());
        let gradient = gradient.to_contiguous();
        let back = attention::Back {
            output: numbers(&forward.output),
            log_sum_exp: numbers(&forward.log_sum_exp),
            gradient: numbers(&gradient),
        };
        let found = attention::gradient(Level::detect(), qkv.each_ref().map(numbers), back, plan);
        let shape = shape(&qkv[0]);
        found.map(|found| found.into_tensor(shape))
    }

    fn embed_forward(tables: Tables<FlexTensor>, rows: &TokenRows) -> FlexTensor {
        let word = tables.word.to_contiguous();
        let position = tables.position.to_contiguous();
        let token_type = tables.token_type.to_contiguous();
        let [_, size] = shape(&word);
        let first = &numbers(&token_type)[..size];
        embed::embed(numbers(&word), numbers(&position), first, &rows.ids, &rows.positions)
            .into_tensor([rows.ids.len(), size])
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
                for residual in [None, Some(residual.clone())] {
                    let affine = || Affine { weight: line(size, 4), bias: line(size, 5), eps: 1e-2 };
                    let fused = Flex::layer_norm_forward(input.clone(), residual.clone(), options, affine());
                    let composed = layer_norm::composed::<Flex>(input.clone(), residual, options, affine());
                    same(&fused.output, &composed.output, "normalised");
                    same(&fused.statistics, &composed.statistics, "statistics");
                    same(&fused.sum, &composed.sum, "sum");
                    let Normalised { sum, statistics, .. } = fused;
                    let weight = line(size, 4);
                    let fused =
                        Flex::layer_norm_gradient(sum.clone(), statistics.clone(), weight.clone(), back.clone());
                    let composed = layer_norm::composed_gradient::<Flex>(sum, statistics, weight, back.clone());
                    same(&fused.sum, &composed.sum, "gradient of the sum");
                    same(&fused.weight, &composed.weight, "gradient of the weight");
                    same(&fused.bias, &composed.bias, "gradient of the bias");
                }
            }
            let rows = TokenRows {
                ids: (0..tokens as u32).map(|i| i * 7 % 10).collect(),
                positions: (0..tokens as u32).map(|i| i % 4).collect(),
            };
            let table = |count: usize, seed| matrix(&random(count * size, seed), size);
            let tables = || Tables { word: table(10, 6), position: table(4, 7), token_type: table(2, 8) };
            let composed = embed::composed::<Flex>(tables(), &rows);
            same(&Flex::embed_forward(tables(), &rows), &composed, "embeddings");
            let composed = embed::composed_gradient::<Flex>(back.clone(), &rows.ids, 10);
            same(&Flex::embed_gradient(back, &rows.ids, 10), &composed, "gradient of a table");
        }
    }
}

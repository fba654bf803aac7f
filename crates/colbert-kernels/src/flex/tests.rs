use burn::tensor::ops::FloatTensorOps;

use super::testing::{close, flat, matrix, random, wide};
use super::*;
use crate::operators::gate::{self, Activation, ActiveHalf};
use crate::operators::gelu::GeluGradients;
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
        for found in Flex::inner_linears_forward(x(), [(), ()].map(|()| Map { weight: w(), bias: Some(b()) }), F32) {
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

/// Rounds to bfloat16 and back.
fn rounded(tensor: &FlexTensor) -> FlexTensor {
    let level = Level::detect();
    let numbers = flat(tensor);
    let mut wide = vec![0.0; numbers.len()];
    pack::widen_row(level, &halves::round(level, &numbers), &mut wide);
    matrix(&wide, shape(tensor)[1])
}

/// Returns the numbers of a tensor that may be rounded.
fn flat_of(tensor: &FlexTensor) -> Vec<f32> {
    match factor(tensor) {
        Numbers::Single(numbers) => numbers.to_vec(),
        Numbers::Half(numbers) => numbers.iter().map(|x| x.to_f32()).collect(),
    }
}

#[test]
fn operators_that_keep_bfloat16_round_where_factors_are_rounded() {
    if !Level::detect().has_bf16() {
        assert_eq!(flat(&Flex::rounded(matrix(&[0.1], 1), Precision::Bf16)), [0.1], "nothing is rounded");
        return;
    }
    const BF16: Precision = Precision::Bf16;
    for (tokens, size, wide, out) in
        [(1, 1, 1, 1), (70, 33, 21, 50), (3, 10, 300, 4), (900, 6, 8, 2), (40, 64, 600, 32)]
    {
        let (input, up) = (matrix(&random(tokens * size, 1), size), matrix(&random(2 * wide * size, 2), size));
        let (down, back) = (matrix(&random(out * wide, 3), wide), matrix(&random(tokens * out, 4), out));
        let bias = line(2 * wide, 5);
        let (x, w, d, g) = (|| input.clone(), || up.clone(), || down.clone(), || back.clone());
        let what = format!("{tokens} {size} {wide} {out}");
        assert_eq!(flat_of(&Flex::rounded(x(), BF16)), flat(&rounded(&x())), "{what}");
        let half = || Flex::rounded(x(), BF16);
        let sum = Flex::linear_forward(x(), w(), Some(bias.clone()), BF16);
        assert_eq!(flat(&Flex::linear_forward(half(), w(), Some(bias.clone()), BF16)), flat(&sum), "{what}");
        let map = Map { weight: w(), bias: Some(bias.clone()) };
        let [inner] = Flex::inner_linears_forward(x(), [map], BF16);
        assert_eq!(flat_of(&inner), flat(&rounded(&sum)), "{what}");
        let of_sum = rounded(&matrix(&random(tokens * 2 * wide, 8), 2 * wide));
        let half_of_sum = || Flex::rounded(of_sum.clone(), BF16);
        let [single] = Flex::linears_weight_gradients([of_sum.clone()], x(), BF16);
        let [found] = Flex::linears_weight_gradients([half_of_sum()], half(), BF16);
        assert_eq!(flat(&found), flat(&single), "{what}");
        let single = Flex::linears_input_gradient([of_sum.clone()], [w()], BF16);
        assert_eq!(flat(&Flex::linears_input_gradient([half_of_sum()], [w()], BF16)), flat(&single), "{what}");
        assert_eq!(flat(&Flex::sum_rows(half_of_sum())), flat(&Flex::sum_rows(of_sum.clone())), "{what}");

        let sum = rounded(&sum);
        let (output, kept) = Flex::linear_gelu_forward(x(), w(), bias.clone(), BF16);
        assert_eq!(flat_of(&kept), flat(&sum), "{what}");
        assert_eq!(flat_of(&output), flat(&rounded(&Flex::gelu_forward(sum.clone()))), "{what}");
        let (wider, of_wider) = (matrix(&random(out * 2 * wide, 6), 2 * wide), g());
        let GeluGradients { output: again, sum: of_sum, .. } =
            Flex::linear_gelu_gradient(kept, of_wider.clone(), wider.clone(), BF16);
        let of_output = Flex::linears_input_gradient([of_wider], [wider], BF16);
        assert_eq!(flat_of(&again), flat_of(&output), "{what}");
        assert_eq!(flat_of(&of_sum), flat(&rounded(&Flex::gelu_gradient(sum.clone(), of_output))), "{what}");

        for (activation, active, probability) in [
            (Activation::Gelu, ActiveHalf::First, 0.0),
            (Activation::Gelu, ActiveHalf::Second, 0.3),
            (Activation::Silu, ActiveHalf::Second, 0.0),
            (Activation::Silu, ActiveHalf::First, 0.3),
        ] {
            let gate = Gate { activation, active, dropout: Dropout { probability, seed: 6 } };
            let (gated, both) = Flex::gated_forward(x(), w(), Some(bias.clone()), gate, BF16);
            assert_eq!(flat_of(&both), flat(&sum), "{what}");
            nearest(&gated, &gate::composed::<Flex>(sum.clone(), gate), &what);
            let (again, of_both) = Flex::gated_gradient(both.clone(), g(), d(), gate, BF16);
            assert_eq!(flat_of(&both), flat(&sum), "a shared tensor stays as it is");
            assert_eq!(flat_of(&again), flat_of(&gated), "{what}");
            let of_gated = Flex::linears_input_gradient([g()], [d()], BF16);
            nearest(&of_both, &gate::composed_gradient::<Flex>(sum.clone(), of_gated, gate), &what);
        }
    }
}

/// Fails where a number in bfloat16 is off by more than half of its last place and a bit, as other operators have
/// other last bits before rounding.
fn nearest(rounded: &FlexTensor, exact: &FlexTensor, what: &str) {
    for (found, exact) in flat_of(rounded).into_iter().zip(flat(exact)) {
        assert!((found - exact).abs() <= exact.abs() / 255.0 + 1e-6, "{what}: {found}, not {exact}");
    }
}

/// A factor in bfloat16 has an error of up to 1/256, and the result of the composed product is rounded to bfloat16 too;
/// sums of 40 products of numbers below 1.
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
                let again = Flex::layer_norm_again(sum.clone(), statistics.clone(), affine(), Precision::F32);
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

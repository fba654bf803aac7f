//! Numbers between operators in bfloat16, where the device has it: their types, and their values against the composed
//! operators in float32. Elsewhere they are float32, and the same tests hold.

mod tensor_cores;

use burn::backend::Autodiff;
use burn::tensor::{DType, FloatDType, TensorMetadata};
use half::bf16;

use super::*;
use crate::operators::attention_sublayer::{AttentionSublayer, attention_sublayer};
use crate::operators::gated_feed_forward::{GatedFeedForward, gated_feed_forward};
use crate::operators::linear::Map;
use crate::operators::packed_attention::packed_self_attention;
use crate::operators::post_norm::{PostNorm, post_norm_linear};
use crate::operators::post_norm_attention::post_norm_attention;
use crate::operators::post_norm_feed_forward::post_norm_feed_forward;

/// Up to four roundings to bfloat16, each by at most 1/256 of a number, of numbers of the result's size.
const ROUNDED: f32 = 0.016;

/// The type of numbers between operators.
fn kept() -> DType {
    if B::has_bf16(&device()) { DType::BF16 } else { DType::F32 }
}

/// Random numbers that bfloat16 represents, so that only what operators compute is rounded.
fn halves<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<B, D> {
    let values = numbers(p(&random(shape, seed))).into_iter().map(|x| bf16::from_f32(x).to_f32()).collect();
    Tensor::from_data(TensorData::new::<f32, _>(values, shape), &device())
}

/// The type of a tensor; on some backends a method of the trait, on others one of the tensor's own.
fn dtype(tensor: &Float) -> DType {
    TensorMetadata::dtype(tensor)
}

fn off(found: Float, expected: Float, error: f32, what: &str) {
    assert_eq!(shape(&found), shape(&expected), "{what}");
    let [found, expected] = [found, expected].map(|x| numbers(B::float_cast(x, FloatDType::F32)));
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let near = (found - expected).abs() <= error * expected.abs().max(1.0);
        assert!(near, "{what}: number {i} is {found}, not {expected}");
    }
}

/// Numbers that are kept for other operators.
fn near(found: Float, expected: Float, what: &str) {
    assert_eq!(dtype(&found), kept(), "{what}");
    off(found, expected, ROUNDED, what);
}

/// Numbers that are float32 although the precision is bfloat16.
fn single(found: Float, expected: Float, error: f32, what: &str) {
    assert_eq!(dtype(&found), DType::F32, "{what}");
    off(found, expected, error, what);
}

#[test]
fn a_rounded_factor_is_multiplied_as_it_is_and_the_product_is_float32() {
    let (input, weight, bias) = (halves([70, 50], 1), halves([30, 50], 2), random([30], 3));
    let back = halves([70, 30], 4);
    let [x, g] = [&input, &back].map(|factor| B::rounded(p(factor), Precision::Bf16));
    assert_eq!([&x, &g].map(dtype), [kept(); 2]);
    let expected = linear::composed::<B>(p(&input), p(&weight), Some(p(&bias)), Precision::F32);
    spoil();
    let found = B::linear_forward(x.clone(), p(&weight), Some(p(&bias)), Precision::Bf16);
    single(found, expected, ERROR, "output");
    let expected = linear::composed_input_gradient::<B>(p(&back), p(&weight), Precision::F32);
    spoil();
    let found = B::linears_input_gradient([g.clone()], [p(&weight)], Precision::Bf16);
    single(found, expected.clone(), ERROR, "gradient of the input");
    let (other_back, other) = (halves([70, 20], 5), halves([20, 50], 6));
    spoil();
    let found = B::inner_input_gradient(g.clone(), p(&weight), Precision::Bf16);
    near(found.clone(), expected.clone(), "gradient of the input that is kept");
    single(B::unrounded(found), expected, ROUNDED, "unrounded");
    let expected = [(&back, &weight), (&other_back, &other)]
        .map(|(back, weight)| linear::composed_input_gradient::<B>(p(back), p(weight), Precision::F32))
        .into_iter()
        .reduce(B::float_add)
        .expect("two");
    spoil();
    let found = B::linears_input_gradient([g.clone(), p(&other_back)], [p(&weight), p(&other)], Precision::Bf16);
    single(found, expected.clone(), ERROR, "gradient of the input of two maps");
    let beside = random([70, 50], 7);
    spoil();
    let (gradients, weights) = ([g.clone(), p(&other_back)], [p(&weight), p(&other)]);
    let found = B::residual_input_gradient(gradients, weights, p(&beside), Precision::Bf16);
    single(found, B::float_add(expected, p(&beside)), ROUNDED, "gradient of the input of two maps and beside them");
    let expected = linear::composed_weight_gradient::<B>(p(&back), p(&input), Precision::F32);
    spoil();
    let [found] = B::linears_weight_gradients([g.clone()], x, Precision::Bf16);
    single(found, expected, ERROR, "gradient of the weight");
    spoil();
    single(B::sum_rows(g), linear::composed_sum_rows::<B>(p(&back)), ERROR, "gradient of the bias");
}

#[test]
fn normalisations_for_linear_maps() {
    let (input, weight, bias) = (random([30, 70], 1), random([70], 2), random([70], 3));
    let affine = || Affine { weight: p(&weight), bias: Some(p(&bias)), eps: 1e-3 };
    let expected = layer_norm::composed::<B>(p(&input), None, Dropout::NONE, affine());
    spoil();
    let found = B::layer_norm_for_maps(p(&input), affine(), Precision::Bf16);
    near(found.output, expected.output.clone(), "output");
    single(found.sum.clone(), expected.sum, ERROR, "sum");
    single(found.statistics.clone(), expected.statistics, ERROR, "statistics");
    spoil();
    let again = B::layer_norm_again(found.sum.clone(), found.statistics.clone(), affine(), Precision::Bf16);
    near(again, expected.output, "again");
    let back = halves([30, 70], 4);
    let gradients = layer_norm::composed_gradient::<B>(p(&input), found.statistics.clone(), affine(), p(&back), None);
    spoil();
    let back = B::rounded(p(&back), Precision::Bf16);
    let found = B::layer_norm_gradient(found.sum, found.statistics, affine(), back, None);
    single(found.sum, gradients.sum, ERROR, "gradient");
    single(found.weight, gradients.weight, ERROR, "gradient of the weight");
}

#[test]
fn ends_of_sublayers() {
    for (rows, size) in [(1, 3), (30, 70), (37, 300)] {
        let (input, weight, bias) = (halves([rows, 40], 1), halves([size, 40], 2) * 0.25, random([size], 3));
        let [residual, back] = [4, 5].map(|seed| random([rows, size], seed));
        let [scale, shift] = [6, 7].map(|seed| random([size], seed));
        for (has_bias, probability) in [(true, 0.3), (false, 0.0)] {
            let what = |name: &str| format!("{name}, {rows} of {size}, bias {has_bias}, dropout {probability}");
            let affine = || Affine { weight: p(&scale), bias: has_bias.then(|| p(&shift)), eps: 1e-3 };
            let dropout = Dropout { probability, seed: 0x1234_5678_9abc_def0 };
            let bias = || has_bias.then(|| p(&bias));
            let mapped = linear::composed::<B>(p(&input), p(&weight), bias(), Precision::F32);
            let expected = layer_norm::composed::<B>(mapped, Some(p(&residual)), dropout, affine());
            let (sum, statistics) = (expected.sum.clone(), expected.statistics.clone());
            // Rounded are only the products, before anything is added.
            for (precision, error) in [(Precision::F32, ERROR), (Precision::Bf16, ROUNDED)] {
                spoil();
                let map = Map { weight: p(&weight), bias: bias() };
                let found = B::post_norm_forward(p(&input), map, p(&residual), dropout, affine(), precision);
                single(found.sum, sum.clone(), error, &what("sum"));
                // Over a deviation that may be small where a row has few numbers.
                single(found.output, expected.output.clone(), 3.0 * error, &what("output"));
                single(found.statistics, statistics.clone(), 3.0 * error, &what("statistics"));
            }
            let norm = layer_norm::composed_gradient::<B>(sum.clone(), statistics.clone(), affine(), p(&back), None);
            let of_mapped = dropout::composed::<B>(norm.sum.clone(), dropout);
            let of_bias = linear::composed_sum_rows::<B>(of_mapped.clone());
            for precision in [Precision::F32, Precision::Bf16] {
                spoil();
                let (sum, statistics) = (sum.clone(), statistics.clone());
                let found = B::post_norm_gradient(sum, statistics, affine(), p(&back), dropout, has_bias, precision);
                single(found.norm.sum, norm.sum.clone(), ERROR, &what("gradient of the sum"));
                single(found.norm.weight, norm.weight.clone(), ERROR, &what("weight"));
                assert_eq!(found.norm.bias.is_some(), has_bias);
                if let (Some(found), Some(expected)) = (found.norm.bias, norm.bias.clone()) {
                    single(found, expected, ERROR, &what("bias"));
                }
                assert_eq!(found.bias.is_some(), has_bias);
                if let Some(found) = found.bias {
                    single(found, of_bias.clone(), ERROR, &what("the map's bias"));
                }
                match precision {
                    Precision::Bf16 => near(found.mapped, of_mapped.clone(), &what("gradient of the map's output")),
                    _ => single(found.mapped, of_mapped.clone(), ERROR, &what("gradient of the map's output")),
                }
            }
        }
    }
}

#[test]
fn sums_with_a_residual() {
    let (input, weight, bias) = (halves([70, 20], 1), halves([50, 20], 2), random([50], 3));
    let residual = random([70, 50], 4);
    for bias in [Some(&bias), None] {
        let bias = || bias.map(p);
        let expected = linear::composed::<B>(p(&input), p(&weight), bias(), Precision::F32);
        let expected = B::float_add(expected, p(&residual));
        for (precision, error) in [(Precision::F32, ERROR), (Precision::Bf16, ROUNDED)] {
            spoil();
            let found = B::residual_linear_forward(p(&input), p(&weight), bias(), p(&residual), precision);
            single(found, expected.clone(), error, "sum");
        }
    }
}

#[test]
fn gelu_and_the_sum_before_it() {
    let (input, weight, bias) = (halves([70, 20], 1), halves([50, 20], 2), random([50], 3));
    let (back, down) = (halves([70, 20], 4), halves([20, 50], 5));
    spoil();
    let (output, sum) = B::linear_gelu_forward(p(&input), p(&weight), p(&bias), Precision::Bf16);
    let expected = linear::composed::<B>(p(&input), p(&weight), Some(p(&bias)), Precision::F32);
    near(sum.clone(), expected.clone(), "sum");
    near(output, B::gelu(expected.clone()), "GELU of the sum");
    let of_gelu = linear::composed_input_gradient::<B>(p(&back), p(&down), Precision::F32);
    spoil();
    let found = B::linear_gelu_gradient(sum, p(&back), p(&down), Precision::Bf16);
    near(found.output, B::gelu(expected.clone()), "GELU again");
    let gradient = gelu::composed_gradient::<B>(expected, of_gelu);
    near(found.sum, gradient.clone(), "gradient");
    single(found.bias, linear::composed_sum_rows::<B>(gradient), 2.0 * ROUNDED, "gradient of the bias");
}

#[test]
fn gates_and_both_halves() {
    let (input, weight, bias) = (halves([70, 20], 1), halves([66, 20], 2), random([66], 3));
    let (down, back) = (halves([20, 33], 4) * 0.25, halves([70, 20], 5));
    let dropped = Dropout { probability: 0.3, seed: 77 << 35 };
    for (activation, active, has_bias, dropout) in [
        (Activation::Gelu, ActiveHalf::First, false, dropped),
        (Activation::Silu, ActiveHalf::Second, true, Dropout::NONE),
    ] {
        let gate = Gate { activation, active, dropout };
        // Halves below 1, as their product is rounded with both.
        let (input, bias) = (input.clone() * 0.25, || has_bias.then(|| p(&(bias.clone() * 0.25))));
        let expected = linear::composed::<B>(p(&input), p(&weight), bias(), Precision::F32);
        spoil();
        let (output, both) = B::gated_forward(p(&input), p(&weight), bias(), gate, Precision::Bf16);
        near(both.clone(), expected.clone(), &format!("both halves, {gate:?}"));
        near(output, gate::composed::<B>(expected.clone(), gate), &format!("{gate:?}"));
        let of_gated = linear::composed_input_gradient::<B>(p(&back), p(&down), Precision::F32);
        spoil();
        let (again, of_both) = B::gated_gradient(both, p(&back), p(&down), gate, Precision::Bf16);
        near(again, gate::composed::<B>(expected.clone(), gate), &format!("again, {gate:?}"));
        near(of_both, gate::composed_gradient::<B>(expected, of_gated, gate), &format!("gradient, {gate:?}"));
    }
}

fn plan(segments: &Segments, heads: usize, precision: Precision) -> AttentionPlan {
    let (segments, dropout) = (segments.clone(), Dropout { probability: 0.1, seed: 99 << 40 });
    AttentionPlan { segments, heads, reach: None, dropout, precision }
}

#[test]
fn queries_keys_and_values_and_their_gradients() {
    let segments = Segments::new([(1, 1), (45, 45), (30, 5)]);
    let (heads, size) = (3, 30);
    let input = halves([segments.tokens(), 20], 1) * 0.5;
    let weights = [2, 3, 4].map(|seed| halves([size, 20], seed) * 0.5);
    let (bias, back) = (random([size], 5), random([segments.tokens(), size], 6));
    let map = |weight: &Tensor<B, 2>| Map { weight: p(weight), bias: Some(p(&bias)) };
    spoil();
    let qkv = B::inner_linears_forward(p(&input), weights.each_ref().map(map), Precision::Bf16);
    let expected = weights.each_ref().map(|w| linear::composed::<B>(p(&input), p(w), Some(p(&bias)), Precision::F32));
    for ((found, expected), name) in qkv.iter().zip(&expected).zip(["query", "key", "value"]) {
        near(found.clone(), expected.clone(), name);
    }
    let plans = [Precision::Bf16, Precision::F32].map(|precision| plan(&segments, heads, precision));
    spoil();
    let found = B::attention_forward(qkv.clone(), &plans[0]);
    let exact = attention::composed::<B>(expected.clone(), &plans[1]);
    near(found.output, exact.output.clone(), "output");
    single(found.log_sum_exp, exact.log_sum_exp.clone(), ROUNDED, "log-sum-exp");
    spoil();
    let found = B::attention_gradient(qkv.clone(), exact.clone(), p(&back), &plans[0]);
    let gradients = attention::composed_gradient::<B>(expected.clone(), exact, p(&back), &plans[1]);
    for ((found, expected), name) in found.into_iter().zip(gradients).zip(["query", "key", "value"]) {
        near(found, expected, &format!("gradient of the {name}"));
    }
    // The three as one matrix, with positions.
    let rotation = Rotation::new(&[1.0, 0.7, 0.5], 50);
    let [packed, expected] = [qkv, expected].map(|parts| B::float_cat(parts.to_vec(), 1));
    spoil();
    let (found, packed) = B::packed_attention_forward(packed, Some(&rotation), &plans[0]);
    let (exact, expected) = packed_attention::composed::<B>(expected, Some(&rotation), &plans[1]);
    near(found.output, exact.output.clone(), "output with positions");
    spoil();
    let found = B::packed_attention_gradient(packed, exact.clone(), p(&back), Some(&rotation), &plans[0]);
    let gradient = packed_attention::composed_gradient::<B>(expected, exact, p(&back), Some(&rotation), &plans[1]);
    near(found, gradient, "gradient with positions");
}

/// What operators return to others, and gradients of what they take, are float32 whatever is between.
#[test]
fn outputs_and_gradients_through_autodiff_are_float32() {
    type Back = Autodiff<B>;
    type Operator<'a> = &'a dyn Fn(&[Tensor<Back, 2>], Precision) -> Tensor<Back, 2>;
    let segments = Segments::new([(9, 9), (20, 6), (1, 1)]);
    let (tokens, size, wide) = (segments.tokens(), 24, 40);
    let matrices = [[tokens, size], [size, size], [wide, size], [size, wide / 2], [3 * size, size], [size, wide]];
    let inputs: Vec<Tensor<B, 2>> = (1..).zip(matrices).map(|(seed, shape)| halves(shape, seed) * 0.5).collect();
    let back = random([tokens, size], 9);
    let end = |weight: &Tensor<Back, 2>, seed| {
        let column = || weight.clone().narrow(1, 0, 1).squeeze_dim(1);
        let norm = Affine { weight: column(), bias: Some(column()), eps: 1e-3 };
        let map = Map { weight: weight.clone(), bias: Some(column()) };
        PostNorm { map, dropout: Dropout { probability: 0.1, seed }, norm }
    };
    let operators: [(&str, Operator<'_>); 6] = [
        ("end of a sublayer", &|x, precision| post_norm_linear(x[0].clone(), x[0].clone(), end(&x[1], 7), precision)),
        ("packed attention", &|x, precision| {
            packed_self_attention(x[0].clone(), x[4].clone(), None, None, &plan(&segments, 3, precision))
        }),
        ("feed-forward", &|x, precision| {
            let up = Map { weight: x[2].clone(), bias: x[2].clone().narrow(1, 0, 1).squeeze_dim(1) };
            post_norm_feed_forward(x[0].clone(), up, end(&x[5], 8), precision)
        }),
        ("gated feed-forward", &|x, precision| {
            let norm = Affine { weight: x[1].clone().narrow(0, 0, 1).squeeze_dim(0), bias: None, eps: 1e-5 };
            let gate = Gate { activation: Activation::Gelu, active: ActiveHalf::First, dropout: Dropout::NONE };
            let network = GatedFeedForward {
                norm: Some(norm),
                up: x[2].clone(),
                up_bias: Some(x[2].clone().narrow(1, 0, 1).squeeze_dim(1)),
                gate,
                down: x[3].clone(),
                down_bias: None,
                residual: true,
                precision,
            };
            gated_feed_forward(x[0].clone(), network)
        }),
        ("attention normalised after it", &|x, precision| {
            let bias = x[1].clone().narrow(1, 0, 1).squeeze_dim(1);
            let maps = [(); 3].map(|()| Map { weight: x[1].clone(), bias: Tensor::clone(&bias) });
            post_norm_attention(x[0].clone(), maps, &plan(&segments, 3, precision), end(&x[1], 9))
        }),
        ("attention sublayer", &|x, precision| {
            let norm = Affine { weight: x[1].clone().narrow(0, 0, 1).squeeze_dim(0), bias: None, eps: 1e-5 };
            let sublayer = AttentionSublayer {
                norm: Some(norm),
                qkv: x[4].clone(),
                rotation: Some(Rotation::new(&[1.0, 0.3], 20)),
                plan: plan(&segments, 3, precision),
                out: x[1].clone(),
                dropout: Dropout { probability: 0.1, seed: 3 },
            };
            attention_sublayer(x[0].clone(), sublayer)
        }),
    ];
    for (name, operator) in operators {
        let run = |precision| {
            let inputs: Vec<_> =
                inputs.iter().map(|x| Tensor::<Back, 2>::from_inner(x.clone()).require_grad()).collect();
            let output = operator(&inputs, precision);
            let gradients = (output.clone() * Tensor::from_inner(back.clone())).sum().backward();
            let of_inputs = inputs.iter().filter_map(|x| x.grad(&gradients)).map(primitive).collect::<Vec<Float>>();
            (primitive(output.inner()), of_inputs)
        };
        let ((output, gradients), (expected, all)) = (run(Precision::Bf16), run(Precision::F32));
        single(output, expected, ROUNDED, name);
        assert_eq!(gradients.len(), all.len());
        for (found, expected) in gradients.into_iter().zip(all) {
            // Of sums of up to 30 products, in numbers of their own size.
            let largest = numbers(expected.clone()).into_iter().fold(1.0f32, |most, x| most.max(x.abs()));
            single(found, expected, ROUNDED * largest, &format!("gradient, {name}"));
        }
    }
}

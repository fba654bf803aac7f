//! The fused kernels against the composed operators, on the backend that the tests run on. Memory that kernels write
//! holds NaN before, so that places they miss are found.

mod rounded;

use burn::tensor::backend::Backend;
use burn::tensor::ops::{ActivationOps, FloatTensor, FloatTensorOps, IntTensor};
use burn::tensor::{Int, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use test_backend::{TestBackend as B, device};

use crate::backend::Kernels;
use crate::operators::adamw::{self, AdamW, Moments, Update};
use crate::operators::attention::{self, AttentionPlan};
use crate::operators::dropout::{self, Dropout};
use crate::operators::embed::{self, Tables, TokenRows};
use crate::operators::gate::{self, Activation, ActiveHalf, Gate};
use crate::operators::layer_norm::{self, Affine};
use crate::operators::linear::Map;
use crate::operators::maxsim::{self, ScoredTexts};
use crate::operators::primitive::{primitive, tensor};
use crate::operators::rotation::Rotation;
use crate::operators::{gelu, linear, mapped_attention, packed_attention};
use crate::precision::Precision;
use crate::segments::Segments;

/// Float32 sums of up to 300 numbers below 1 in another order, and the approximation of erf that both use.
const ERROR: f32 = 2e-5;

/// Tensors that take more than two launches of 32.
const LAUNCHED: usize = 71;

type Float = FloatTensor<B>;

fn random<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<B, D> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| random.random_range(-1.0..1.0)).collect();
    Tensor::from_data(TensorData::new(numbers, shape), &device())
}

/// Frees memory full of NaN, which kernels receive next.
fn spoil() {
    let kept: Vec<Tensor<B, 1>> =
        [64, 1 << 10, 1 << 14, 1 << 17].repeat(6).into_iter().map(|n| Tensor::full([n], f32::NAN, &device())).collect();
    B::sync(&device()).expect("the device works");
    drop(kept);
}

fn numbers(found: Float) -> Vec<f32> {
    tensor::<B, 1>(B::float_reshape(found.clone(), [shape(&found).iter().product::<usize>()].into()))
        .into_data()
        .into_vec()
        .expect("float32")
}

fn shape(of: &Float) -> Vec<usize> {
    burn::tensor::TensorMetadata::shape(of).to_vec()
}

fn same(found: Float, expected: Float, what: &str) {
    assert_eq!(shape(&found), shape(&expected), "{what}");
    let (found, expected) = (numbers(found), numbers(expected));
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let near = (found - expected).abs() <= ERROR * expected.abs().max(1.0);
        assert!(near, "{what}: number {i} is {found}, not {expected}");
    }
}

fn p<const D: usize>(x: &Tensor<B, D>) -> Float {
    primitive(x.clone())
}

#[test]
fn normalisations() {
    for (rows, size) in [(1, 1), (3, 70), (300, 33), (2, 512)] {
        let [input, residual, back, beside] = [1, 2, 3, 4].map(|seed| random([rows, size], seed));
        let (weight, bias) = (random([size], 5), random([size], 6));
        for (has_bias, has_residual, probability) in [(true, true, 0.3), (false, false, 0.0), (true, false, 0.1)] {
            let affine = || Affine { weight: p(&weight), bias: has_bias.then(|| p(&bias)), eps: 1e-3 };
            let residual = || has_residual.then(|| p(&residual));
            let dropout = Dropout { probability, seed: 0x1234_5678_9abc_def0 };
            spoil();
            let found = B::layer_norm_forward(p(&input), residual(), dropout, affine());
            let expected = layer_norm::composed::<B>(p(&input), residual(), dropout, affine());
            let (sum, statistics) = (expected.sum.clone(), expected.statistics.clone());
            same(found.output, expected.output, "output");
            same(found.sum, expected.sum, "sum");
            same(found.statistics, expected.statistics, "statistics");
            let again = layer_norm::composed_again::<B>(sum.clone(), statistics.clone(), affine());
            spoil();
            same(B::layer_norm_again(sum.clone(), statistics.clone(), affine(), Precision::F32), again, "again");
            let beside = || has_residual.then(|| p(&beside));
            spoil();
            let found = B::layer_norm_gradient(sum.clone(), statistics.clone(), affine(), p(&back), beside());
            let expected = layer_norm::composed_gradient::<B>(sum, statistics, affine(), p(&back), beside());
            same(found.sum, expected.sum, "gradient");
            same(found.weight, expected.weight, "weight");
            match (found.bias, expected.bias) {
                (Some(found), Some(expected)) => same(found, expected, "bias"),
                (None, None) => {}
                _ => panic!("a bias has a gradient, and only a bias"),
            }
        }
    }
}

#[test]
fn dropout_and_its_factors() {
    let input = random([130, 37], 1);
    for probability in [0.1, 0.5] {
        let dropout = Dropout { probability, seed: u64::MAX - 5 };
        spoil();
        let expected: Vec<f32> = numbers(p(&input)).iter().zip(dropout.mask(130, 37)).map(|(x, m)| x * m).collect();
        assert_eq!(numbers(B::dropout_forward(p(&input), dropout)), expected);
        let rows = [0, 5, 4_000_000_000, 77];
        spoil();
        let found = B::dropout_factors(dropout, &rows, 90, &device());
        assert_eq!(numbers(found), numbers(dropout::factors_from_host::<B>(dropout, &rows, 90, &device())));
    }
}

#[test]
fn gelu_with_and_without_bias() {
    let (input, weight, bias) = (random([70, 20], 1), random([50, 20], 2), random([50], 3));
    let (down, back) = (random([20, 50], 4) * 0.5, random([70, 20], 5));
    spoil();
    let (output, sum) = B::linear_gelu_forward(p(&input), p(&weight), p(&bias), Precision::F32);
    let expected = linear::composed::<B>(p(&input), p(&weight), Some(p(&bias)), Precision::F32);
    same(sum.clone(), expected.clone(), "sum");
    same(output, B::gelu(expected), "GELU of the sum");
    let of_gelu = linear::composed_input_gradient::<B>(p(&back), p(&down), Precision::F32);
    let expected = gelu::composed_gradient::<B>(sum.clone(), of_gelu.clone());
    spoil();
    let found = B::linear_gelu_gradient(sum.clone(), p(&back), p(&down), Precision::F32);
    same(found.output, B::gelu(sum.clone()), "GELU again");
    same(found.sum, expected.clone(), "gradient");
    same(found.bias, linear::composed_sum_rows::<B>(expected.clone()), "gradient of the bias");
    same(B::gelu_gradient(sum.clone(), of_gelu), expected, "gradient alone");
    spoil();
    same(B::gelu_forward(sum.clone()), B::gelu(sum), "GELU");
}

#[test]
fn gates_with_and_without_bias() {
    let (input, weight, bias) = (random([70, 20], 1), random([66, 20], 2), random([66], 3));
    let (down, back) = (random([20, 33], 4), random([70, 20], 5));
    let dropped = Dropout { probability: 0.3, seed: 77 << 35 };
    for (activation, active, has_bias, dropout) in [
        (Activation::Gelu, ActiveHalf::First, false, Dropout::NONE),
        (Activation::Gelu, ActiveHalf::Second, true, dropped),
        (Activation::Silu, ActiveHalf::First, true, Dropout::NONE),
        (Activation::Silu, ActiveHalf::Second, false, dropped),
    ] {
        let gate = Gate { activation, active, dropout };
        let bias = || has_bias.then(|| p(&bias));
        let what = format!("{gate:?}, bias {has_bias}");
        // Numbers far from 0 too, where an exponential could overflow.
        let input = input.clone() * if has_bias { 1.0 } else { 60.0 };
        let expected = linear::composed::<B>(p(&input), p(&weight), bias(), Precision::F32);
        spoil();
        let (output, both) = B::gated_forward(p(&input), p(&weight), bias(), gate, Precision::F32);
        same(both, expected.clone(), &format!("both halves, {what}"));
        same(output, gate::composed::<B>(expected.clone(), gate), &what);
        let of_gated = linear::composed_input_gradient::<B>(p(&back), p(&down), Precision::F32);
        spoil();
        let (again, of_both) = B::gated_gradient(expected.clone(), p(&back), p(&down), gate, Precision::F32);
        same(again, gate::composed::<B>(expected.clone(), gate), &format!("again, {what}"));
        same(of_both, gate::composed_gradient::<B>(expected, of_gated, gate), &format!("gradient, {what}"));
    }
}

#[test]
fn rotary_positions_of_packed_queries_and_keys() {
    let segments = Segments::new([(1, 1), (45, 45), (30, 20)]);
    let tokens = segments.tokens();
    // All numbers of a head in pairs, some of them, and no rotation.
    for (heads, head_size, pairs) in [(3, 6, Some(3)), (2, 10, Some(3)), (3, 5, None)] {
        let size = heads * head_size;
        let (qkv, back) = (random([tokens, 3 * size], 1), random([tokens, size], 2));
        let frequencies: Vec<f32> = (0..pairs.unwrap_or(0)).map(|i| 0.7f32.powi(i)).collect();
        let rotation = pairs.map(|_| Rotation::new(&frequencies, 50));
        let rotation = rotation.as_ref();
        let plan = AttentionPlan {
            segments: segments.clone(),
            heads,
            reach: None,
            dropout: Dropout::NONE,
            precision: Precision::F32,
        };
        let what = format!("{heads} heads of {head_size}, pairs {pairs:?}");
        spoil();
        let (found, kept) = B::packed_attention_forward(p(&qkv), rotation, &plan);
        let (expected, qkv) = packed_attention::composed::<B>(p(&qkv), rotation, &plan);
        same(found.output, expected.output.clone(), &what);
        same(found.log_sum_exp, expected.log_sum_exp.clone(), &format!("log-sum-exp, {what}"));
        spoil();
        let found = B::packed_attention_gradient(kept, expected.clone(), p(&back), rotation, &plan);
        let expected = packed_attention::composed_gradient::<B>(qkv, expected, p(&back), rotation, &plan);
        same(found, expected, &format!("gradient, {what}"));
    }
}

#[test]
fn attention_of_mapped_inputs() {
    let segments = Segments::new([(1, 1), (45, 45), (30, 20)]);
    let tokens = segments.tokens();
    for (heads, head_size) in [(3, 6), (2, 32)] {
        let size = heads * head_size;
        let (input, beside, back) = (random([tokens, 20], 1), random([tokens, 20], 2), random([tokens, size], 3));
        let weights = [4, 5, 6].map(|seed| random([size, 20], seed));
        let biases = [7, 8, 9].map(|seed| random([size], seed));
        let maps = || [0, 1, 2].map(|i| Map { weight: p(&weights[i]), bias: p(&biases[i]) });
        let dropout = Dropout { probability: 0.2, seed: 99 << 40 };
        let plan = AttentionPlan { segments: segments.clone(), heads, reach: None, dropout, precision: Precision::F32 };
        spoil();
        let found = B::mapped_attention_forward(p(&input), maps(), &plan);
        let expected = mapped_attention::composed::<B>(p(&input), maps(), &plan);
        let what = format!("{heads} heads of {head_size}");
        same(found.attended.output.clone(), expected.attended.output.clone(), &what);
        spoil();
        let gradients = |forward| mapped_attention::gradients::<B>(p(&input), forward, p(&back), p(&beside), &plan);
        let (found, expected) = (gradients(found), gradients(expected));
        same(found.input, expected.input, &format!("gradient of the input, {what}"));
        for ((found, expected), name) in found.maps.into_iter().zip(expected.maps).zip(["query", "key", "value"]) {
            same(found.weight, expected.weight, &format!("gradient of the {name}'s weight, {what}"));
            same(found.bias, expected.bias, &format!("gradient of the {name}'s bias, {what}"));
        }
    }
}

#[test]
fn sums_of_rows() {
    for (rows, columns) in [(1, 3), (128, 65), (129, 7), (20_000, 3)] {
        let input = random([rows, columns], 1) * (1.0 / (rows as f32).sqrt());
        spoil();
        same(B::sum_rows(p(&input)), linear::composed_sum_rows::<B>(p(&input)), "sums of rows");
    }
}

/// Sums of whole tensors and of their squares: each exactly, as whole numbers are, and of fractions the same bits again.
#[test]
fn sums_of_all_numbers() {
    // Tensors of one number, of a part of a block, of several blocks, and of blocks of blocks; rows that CUDA pads.
    for shape in [[1, 1], [3, 20], [70, 130], [4200, 4097]] {
        let count = shape[0] * shape[1];
        let whole: Vec<f32> = (0..count).map(|i| (i % 7) as f32 - 3.0).collect();
        let input = Tensor::<B, 2>::from_data(TensorData::new(whole.clone(), shape), &device());
        let exact = |of: fn(f32) -> f32| whole.iter().map(|x| f64::from(of(*x))).sum::<f64>();
        spoil();
        for (found, exact) in [
            (numbers(B::sum(vec![p(&input)])), exact(|x| x)),
            (numbers(B::sum_of_squares(vec![p(&input)])), exact(|x| x * x)),
        ] {
            let near = (f64::from(found[0]) - exact).abs() <= f64::from(ERROR) * exact.abs();
            assert!(found.len() == 1 && near, "{shape:?}: {found:?}, not {exact}");
        }
    }
    let input = random([300, 300], 1);
    let found: Vec<f32> = (0..3).flat_map(|_| numbers(B::sum(vec![p(&input)]))).collect();
    assert!(found.iter().all(|sum| sum.to_bits() == found[0].to_bits()), "{found:?}");
}

#[test]
fn sums_of_many_tensors() {
    // Whole numbers, of which sums are exact. Tensors of several launches, of several blocks, and without numbers.
    let empty = random([0, 3], 0);
    let whole = |i: usize, count: usize| (0..count).map(move |at| ((at + i) % 5) as f32 - 1.0);
    let shapes: Vec<_> = (0..LAUNCHED).map(|i| [1 + i * 53 % 90, 1 + i * 29 % 97]).collect();
    let exact = |of: fn(f32) -> f32| {
        let sums = shapes.iter().enumerate().map(|(i, shape)| whole(i, shape[0] * shape[1]).map(of).sum::<f32>());
        sums.sum::<f32>()
    };
    let inputs = || {
        let tensors = shapes.iter().enumerate().map(|(i, shape)| {
            let values = whole(i, shape[0] * shape[1]).collect();
            p(&Tensor::<B, 2>::from_data(TensorData::new::<f32, _>(values, *shape), &device()))
        });
        let mut inputs: Vec<_> = tensors.collect();
        inputs.insert(3, p(&empty));
        spoil();
        inputs
    };
    assert_eq!(numbers(B::sum(inputs())), [exact(|x| x)]);
    assert_eq!(numbers(B::sum_of_squares(inputs())), [exact(|x| x * x)]);
    assert_eq!(numbers(B::sum_of_squares(vec![p(&empty), p(&empty)])), [0.0]);
}

#[test]
fn embeddings() {
    let rows =
        TokenRows { ids: (0..200u32).map(|i| i * i % 23).collect(), positions: (0..200u32).map(|i| i % 40).collect() };
    let (word, position, token_type) = (random([30, 70], 1), random([40, 70], 2), random([2, 70], 3));
    for (has_position, has_type) in [(true, true), (true, false), (false, true), (false, false)] {
        let tables = || Tables {
            word: p(&word),
            position: has_position.then(|| p(&position)),
            token_type: has_type.then(|| p(&token_type)),
        };
        spoil();
        same(B::embed_forward(tables(), &rows), embed::composed::<B>(tables(), &rows), "embeddings");
    }
    let back = random([200, 70], 4);
    spoil();
    let found = B::embed_gradient(p(&back), &rows.ids, 30);
    same(found, embed::composed_gradient::<B>(p(&back), &rows.ids, 30), "gradient of a table");
}

/// The row of the winner of each query token and document; where none wins it does not matter.
fn rows_of_winners(winners: IntTensor<B>, turned: bool) -> Vec<i32> {
    let winners = Tensor::<B, 2, Int>::new(winners);
    let winners = if turned { winners.transpose() } else { winners };
    winners.into_data().convert::<i32>().into_vec().expect("integers")
}

#[test]
fn maxsim_of_blocks() {
    // Documents of less than a block, of exactly one, and of several; one without a scored token; more tokens of queries
    // than a block or a cube's units; dimensions that fill a block and that do not.
    let lengths = [1, 32, 75, 7, 64];
    let starts: Vec<usize> =
        lengths.iter().scan(0, |end, length| Some(std::mem::replace(end, *end + length))).collect();
    let scored: Vec<bool> = (0..179).map(|i| i % 5 != 2 && !(starts[3]..starts[4]).contains(&i)).collect();
    let query_scored: Vec<bool> = (0..90).map(|i| i != 7).collect();
    let texts = [ScoredTexts::new(&[3, 32, 15, 40], query_scored), ScoredTexts::new(&lengths, scored)];
    for dim in [16, 32, 50] {
        let (queries, mut documents) = (random([90, dim], 1), random([179, dim], 2));
        // Equal products: the first row wins. Row 40 is row 35 again, and row 120 is.
        for copy in [40, 120] {
            let own = documents.clone().narrow(0, 35, 1) * 3.0;
            documents = documents.slice_assign([copy..copy + 1, 0..dim], own.clone());
            documents = documents.slice_assign([35..36, 0..dim], own * (1.0 / 3.0));
        }
        let doubled = documents.clone().narrow(0, 40, 1);
        documents = documents.slice_assign([36..37, 0..dim], doubled);
        spoil();
        let (scores, winners) = B::maxsim_forward(p(&queries), p(&documents), &texts);
        let (expected, winners_expected) = maxsim::composed::<B>(p(&queries), p(&documents), &texts);
        same(scores, expected, "scores");
        let found = rows_of_winners(winners.clone(), true);
        let rows = rows_of_winners(winners_expected.clone(), false);
        for (i, (found, row)) in found.iter().zip(rows).enumerate() {
            let dead = i % 5 == 3;
            assert_eq!(*found, if dead { -1 } else { row }, "winner of query token {} in document {}", i / 5, i % 5);
        }
        assert!(found.contains(&36), "equal products are tried");
        let back = random([4, 5], 9);
        spoil();
        let found = B::maxsim_gradient(p(&queries), p(&documents), winners, p(&back), &texts);
        let expected = maxsim::composed_gradient::<B>(p(&queries), p(&documents), winners_expected, p(&back), &texts);
        for (found, expected) in found.into_iter().zip(expected) {
            same(found, expected, "gradient");
        }
    }
}

#[test]
fn a_nan_is_not_lost_in_maxsim() {
    let texts = [ScoredTexts::new(&[2], vec![true; 2]), ScoredTexts::new(&[40, 3], vec![true; 43])];
    for row in [0, 17, 39] {
        let documents =
            random([43, 8], 2).slice_assign([row..row + 1, 0..1], Tensor::full([1, 1], f32::NAN, &device()));
        let scores = numbers(B::maxsim_forward(p(&random([2, 8], 1)), p(&documents), &texts).0);
        assert!(scores[0].is_nan() && scores[1].is_finite(), "row {row}: {scores:?}");
    }
}

#[test]
fn finiteness_is_told_by_bits() {
    let good = random([100, 70], 1);
    assert!(B::all_finite(p(&good)));
    for (value, place) in [(f32::NAN, 0), (f32::INFINITY, 99), (f32::NEG_INFINITY, 50)] {
        let bad = good.clone().slice_assign([place..place + 1, 69..70], Tensor::full([1, 1], value, &device()));
        assert!(!B::all_finite(p(&bad)), "{value} in row {place}");
    }
}

#[test]
fn attention_of_packed_sequences() {
    // Sequences of one token, of a part of a block, of several blocks, with tokens that nothing attends to.
    let segments = Segments::new([(1, 1), (45, 45), (70, 33), (32, 5), (64, 64)]);
    let tokens = segments.tokens();
    // The kernels that there are: with and without windows, with and without dropout; blocks of each size.
    let every = [(None, 0.0), (None, 0.2), (Some(7), 0.2), (Some(0), 0.0), (Some(40), 0.0)];
    for (heads, head_size, plans) in [(3, 5, &every[..]), (1, 64, &every[1..2]), (1, 80, &every[2..3])] {
        let size = heads * head_size;
        let [query, key, value, back] = [1, 2, 3, 4].map(|seed| random([tokens, size], seed));
        for (reach, probability) in plans.iter().copied() {
            let dropout = Dropout { probability, seed: 99 << 40 };
            let plan = AttentionPlan { segments: segments.clone(), heads, reach, dropout, precision: Precision::F32 };
            let qkv = || [p(&query), p(&key), p(&value)];
            let what = format!("{heads} heads of {head_size}, reach {reach:?}, {probability} dropped");
            spoil();
            let found = B::attention_forward(qkv(), &plan);
            let expected = attention::composed::<B>(qkv(), &plan);
            same(found.output, expected.output.clone(), &what);
            same(found.log_sum_exp, expected.log_sum_exp.clone(), &format!("log-sum-exp, {what}"));
            spoil();
            let found = B::attention_gradient(qkv(), expected.clone(), p(&back), &plan);
            let expected = attention::composed_gradient::<B>(qkv(), expected, p(&back), &plan);
            for ((found, expected), name) in found.into_iter().zip(expected).zip(["query", "key", "value"]) {
                same(found, expected, &format!("gradient of the {name}, {what}"));
            }
        }
    }
}

#[test]
fn optimizer_steps_of_many_tensors() {
    // Tensors of several launches, and of several cubes. Rows fill no 512 bytes, to which CUDA pads them.
    let shapes = (0..LAUNCHED).map(|i| [1 + i * 37 % 80, 1 + i * 11 % 41]);
    let each = shapes.zip(0u64..).map(|(shape, i)| [1, 2, 3, 4].map(|n| random(shape, 4 * i + n)));
    let each: Vec<_> =
        each.map(|[parameter, mean, square, gradient]| [parameter, mean, square.abs(), gradient]).collect();
    let updates = |may_write: bool| -> Vec<_> {
        let updates = each.iter().enumerate().map(|(i, [parameter, mean, square, gradient])| {
            // What stays in use here must not be written.
            let own = |x: &Tensor<B, 2>| if may_write && i % 2 == 0 { p(&(x.clone() * 1.0)) } else { p(x) };
            let options = AdamW {
                learning_rate: 1e-2 * (1 + i % 7) as f64,
                beta_1: 0.9 - 0.05 * (i % 3) as f64,
                beta_2: 0.99 - 0.01 * (i % 4) as f64,
                eps: 1e-8 + 1e-2 * (i % 5) as f64,
                weight_decay: 0.1 * (i % 2) as f64,
                step: 1 + i as u64,
                gradient_scale: 0.5 + (i % 6) as f64,
            };
            let moments = Moments { parameter: own(parameter), mean: own(mean), square: own(square) };
            Update { moments, gradient: p(gradient), options }
        });
        updates.collect()
    };
    let expected: Vec<_> = updates(false).into_iter().map(adamw::composed::<B>).collect();
    for may_write in [false, true, false] {
        let mut updates = updates(may_write);
        let none = || p(&random([0, 3], 0));
        let moments = Moments { parameter: none(), mean: none(), square: none() };
        updates.insert(5, Update { moments, gradient: none(), options: updates[0].options });
        let mut found = B::adamw(updates);
        assert_eq!(shape(&found.remove(5).parameter), [0, 3]);
        assert_eq!(found.len(), LAUNCHED);
        for (i, (found, expected)) in found.into_iter().zip(&expected).enumerate() {
            same(found.parameter, expected.parameter.clone(), &format!("parameter {i}, written {may_write}"));
            same(found.mean, expected.mean.clone(), &format!("mean {i}, written {may_write}"));
            same(found.square, expected.square.clone(), &format!("mean of squares {i}, written {may_write}"));
        }
    }
}

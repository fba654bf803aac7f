//! Sublayers of transformer layers as one operator each, values and gradients against double precision.

use burn::tensor::Tensor;
use colbert_kernels::{
    Activation, ActiveHalf, Affine, AttentionSublayer, Dropout, Gate, GatedFeedForward, Map, PostNorm, Precision,
    Segments, attention_sublayer, gated_feed_forward, post_norm_attention, post_norm_feed_forward, post_norm_linear,
};

use crate::exact::{check, exact_attention, exact_gelu, exact_linear, exact_norm, vector};
use crate::support::{Back, plain_attention, random};

/// Computes `layer_norm(dropout(mapped) + residual)`.
fn exact_end(mapped: &[f64], residual: &[f64], mask: &[f32], [weight, bias]: [&[f64]; 2]) -> Vec<f64> {
    let each = mapped.iter().zip(mask).zip(residual);
    let sum: Vec<f64> = each.map(|((x, factor), residual)| x * f64::from(*factor) + residual).collect();
    exact_norm(&sum, weight, bias, 1e-3)
}

/// The end of a sublayer of which `x` has the parts from `first` on: weight and bias of the map and of the norm.
fn end(x: &[Tensor<Back, 2>], first: usize, dropout: Dropout) -> PostNorm<Tensor<Back, 2>, Tensor<Back, 1>> {
    let vector = |i: usize| vector(&x[first + i]);
    PostNorm {
        map: Map { weight: x[first].clone(), bias: Some(vector(1)) },
        dropout,
        norm: Affine { weight: vector(2), bias: Some(vector(3)), eps: 1e-3 },
    }
}

#[test]
fn ends_of_sublayers_with_and_without_biases() {
    for (tokens, wide, size) in [(1, 1, 3), (7, 13, 5), (70, 20, 41)] {
        let inputs = [
            random([tokens, wide], 1),
            random([tokens, size], 2),
            random([size, wide], 3).mul_scalar(0.3),
            random([1, size], 4),
            random([1, size], 5),
            random([1, size], 6),
        ];
        for dropout in [Dropout::NONE, Dropout { probability: 0.3, seed: 5 }] {
            let mask = dropout.mask(tokens, size);
            let operator = |x: &[Tensor<Back, 2>]| {
                post_norm_linear(x[0].clone(), x[1].clone(), end(x, 2, dropout), Precision::F32)
            };
            let exact =
                |x: &Vec<Vec<f64>>| exact_end(&exact_linear(&x[0], &x[2], &x[3], wide), &x[1], &mask, [&x[4], &x[5]]);
            check("end", &inputs, &operator, &exact);
            let bare = [0, 1, 2, 4].map(|i| inputs[i].clone());
            let operator = |x: &[Tensor<Back, 2>]| {
                let norm = Affine { weight: vector(&x[3]), bias: None, eps: 1e-3 };
                let end = PostNorm { map: Map { weight: x[2].clone(), bias: None }, dropout, norm };
                post_norm_linear(x[0].clone(), x[1].clone(), end, Precision::F32)
            };
            let zeros = vec![0.0; size];
            let exact =
                |x: &Vec<Vec<f64>>| exact_end(&exact_linear(&x[0], &x[2], &[], wide), &x[1], &mask, [&x[3], &zeros]);
            check("end without biases", &bare, &operator, &exact);
        }
    }
}

#[test]
fn feed_forward_networks() {
    for (tokens, size, wide) in [(1, 3, 1), (7, 13, 5), (33, 20, 41)] {
        // Small, so that sums of many products are of the size that the tolerance assumes.
        let inputs = [
            random([tokens, size], 1),
            random([wide, size], 2).mul_scalar(0.3),
            random([1, wide], 3),
            random([size, wide], 4).mul_scalar(0.3),
            random([1, size], 5),
            random([1, size], 6),
            random([1, size], 7),
        ];
        let dropout = Dropout { probability: 0.2, seed: 8 };
        let mask = dropout.mask(tokens, size);
        let network = |x: &[Tensor<Back, 2>]| {
            let up = Map { weight: x[1].clone(), bias: vector(&x[2]) };
            post_norm_feed_forward(x[0].clone(), up, end(x, 3, dropout), Precision::F32)
        };
        let exact = |x: &Vec<Vec<f64>>| {
            let inner: Vec<f64> = exact_linear(&x[0], &x[1], &x[2], size).into_iter().map(exact_gelu).collect();
            exact_end(&exact_linear(&inner, &x[3], &x[4], wide), &x[0], &mask, [&x[5], &x[6]])
        };
        check("feed-forward", &inputs, &network, &exact);
    }
}

/// `x / (1 + e^-x)`
fn exact_silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

#[test]
fn gated_feed_forward_networks_with_and_without_what_stands_around_them() {
    let (tokens, size, wide) = (9, 12, 5);
    let inputs = [
        random([tokens, size], 1),
        random([1, size], 2),
        random([1, size], 3),
        random([2 * wide, size], 4).mul_scalar(0.5),
        random([1, 2 * wide], 5),
        random([size, wide], 6).mul_scalar(0.5),
        random([1, size], 7),
    ];
    for (activation, active) in [(Activation::Gelu, ActiveHalf::First), (Activation::Silu, ActiveHalf::Second)] {
        for (probability, all) in [(0.0, true), (0.3, true), (0.3, false)] {
            let gate = Gate { activation, active, dropout: Dropout { probability, seed: 2 } };
            let mask = gate.dropout.mask(tokens, wide);
            // With all optional parts, or with nothing but the two maps.
            let network = |x: &[Tensor<Back, 2>]| {
                let [up, down] = if all { [3, 5] } else { [1, 2] };
                let optional = |i: usize| all.then(|| vector(&x[i]));
                let network = GatedFeedForward {
                    norm: all.then(|| Affine { weight: vector(&x[1]), bias: optional(2), eps: 1e-3 }),
                    up: x[up].clone(),
                    up_bias: optional(4),
                    gate,
                    down: x[down].clone(),
                    down_bias: optional(6),
                    residual: all,
                    precision: Precision::F32,
                };
                gated_feed_forward(x[0].clone(), network)
            };
            let exact = |x: &Vec<Vec<f64>>| {
                let normed = if all { exact_norm(&x[0], &x[1], &x[2], 1e-3) } else { x[0].clone() };
                let [up, down] = if all { [3, 5] } else { [1, 2] };
                let bias = |i: usize| if all { &x[i][..] } else { &[] };
                let both = exact_linear(&normed, &x[up], bias(4), size);
                let gated = both.chunks(2 * wide).zip(mask.chunks(wide)).flat_map(|(both, mask)| {
                    (0..wide).map(move |i| {
                        let product = match activation {
                            Activation::Gelu => exact_gelu(both[i]) * both[wide + i],
                            Activation::Silu => both[i] * exact_silu(both[wide + i]),
                        };
                        product * f64::from(mask[i])
                    })
                });
                let mut output = exact_linear(&gated.collect::<Vec<f64>>(), &x[down], bias(6), wide);
                if all {
                    output.iter_mut().zip(&x[0]).for_each(|(output, x)| *output += x);
                }
                output
            };
            let bare = [inputs[0].clone(), inputs[3].clone(), inputs[5].clone()];
            check("gated", if all { &inputs } else { &bare }, &network, &exact);
        }
    }
}

#[test]
fn attention_that_is_normalised_after_it() {
    let segments = Segments::new([(6, 4), (9, 9)]);
    let (heads, size) = (2, 10);
    let plan = plain_attention(&segments, heads);
    let weight = |seed| random([size, 7], seed).mul_scalar(0.3);
    let bias = |seed| random([1, size], seed);
    let [of_norm, norm_bias, out_bias] = [10, 11, 12].map(|seed| random([1, 7], seed));
    let out = random([7, size], 13).mul_scalar(0.3);
    let maps = [weight(4), bias(5), weight(6), bias(7), weight(8), bias(9)];
    let inputs: Vec<_> =
        [random([15, 7], 3)].into_iter().chain(maps).chain([out, out_bias, of_norm, norm_bias]).collect();
    let dropout = Dropout { probability: 0.2, seed: 8 };
    let mask = dropout.mask(15, 7);
    let operator = |x: &[Tensor<Back, 2>]| {
        let maps = [1, 3, 5].map(|i| Map { weight: x[i].clone(), bias: vector(&x[i + 1]) });
        post_norm_attention(x[0].clone(), maps, &plan, end(x, 7, dropout))
    };
    let exact = |x: &Vec<Vec<f64>>| {
        let [query, key, value] = [1, 3, 5].map(|i| exact_linear(&x[0], &x[i], &x[i + 1], 7));
        let attended = exact_attention([&query, &key, &value], &segments, heads);
        exact_end(&exact_linear(&attended, &x[7], &x[8], size), &x[0], &mask, [&x[9], &x[10]])
    };
    check("attention that is normalised after it", &inputs, &operator, &exact);
}

#[test]
fn attention_with_what_stands_around_it() {
    let segments = Segments::new([(6, 4), (9, 9)]);
    let (heads, size) = (2, 8);
    let inputs = [
        random([15, 6], 3),
        random([1, 6], 4),
        random([3 * size, 6], 5).mul_scalar(0.5),
        random([6, size], 6).mul_scalar(0.5),
    ];
    for (probability, is_normed) in [(0.0, true), (0.3, true), (0.0, false)] {
        let dropout = Dropout { probability, seed: 4 };
        let mask = dropout.mask(15, 6);
        let plan = plain_attention(&segments, heads);
        let [norm, qkv, out] = if is_normed { [1, 2, 3] } else { [0, 1, 2] };
        let operator = |x: &[Tensor<Back, 2>]| {
            let sublayer = AttentionSublayer {
                norm: is_normed.then(|| Affine { weight: vector(&x[norm]), bias: None, eps: 1e-3 }),
                qkv: x[qkv].clone(),
                rotation: None,
                plan: plan.clone(),
                out: x[out].clone(),
                dropout,
            };
            attention_sublayer(x[0].clone(), sublayer)
        };
        let exact = |x: &Vec<Vec<f64>>| {
            let normed = if is_normed { exact_norm(&x[0], &x[norm], &[0.0; 6], 1e-3) } else { x[0].clone() };
            let all = exact_linear(&normed, &x[qkv], &[], 6);
            let part = |i: usize| -> Vec<f64> {
                all.chunks(3 * size).flat_map(|row| row[i * size..(i + 1) * size].iter().copied()).collect()
            };
            let mixed = exact_attention([&part(0), &part(1), &part(2)], &segments, heads);
            let projected = exact_linear(&mixed, &x[out], &[], size);
            projected.iter().zip(&mask).zip(&x[0]).map(|((y, mask), x)| y * f64::from(*mask) + x).collect()
        };
        let bare = [inputs[0].clone(), inputs[2].clone(), inputs[3].clone()];
        check("attention sublayer", if is_normed { &inputs } else { &bare }, &operator, &exact);
    }
}

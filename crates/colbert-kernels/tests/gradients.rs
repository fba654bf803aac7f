//! Values and gradients through autodiff, against double precision and its central differences.

use burn::tensor::Tensor;
use colbert_kernels::{
    Activation, ActiveHalf, Affine, AttentionPlan, AttentionSublayer, Dropout, Gate, GatedFeedForward, Map, PostNorm,
    Precision, Rotation, ScoredTexts, Segments, Tables, TokenRows, attention, attention_sublayer, dropout, embed,
    gated_feed_forward, gelu, layer_norm, linear, maxsim, packed_self_attention, post_norm_attention,
    post_norm_feed_forward, post_norm_linear, residual_layer_norm,
};

use crate::support::{Back, numbers, random, run};

/// Float32 sums of up to 100 numbers below 1, against f64.
const ERROR: f64 = 2e-5;

/// Distance of a central difference.
const STEP: f64 = 1e-5;

/// Elements of an input whose gradient is compared.
const SAMPLES: usize = 60;

/// Matrices in double precision.
type Wide = Vec<Vec<f64>>;

fn check(
    what: &str,
    inputs: &[Tensor<Back, 2>],
    operator: &dyn Fn(&[Tensor<Back, 2>]) -> Tensor<Back, 2>,
    exact: &dyn Fn(&Wide) -> Vec<f64>,
) {
    let (output, gradients) = run(inputs, operator);
    let wide: Wide = inputs.iter().map(|x| numbers(x.clone()).iter().copied().map(f64::from).collect()).collect();
    let expected = exact(&wide);
    assert_eq!(output.len(), expected.len(), "{what}");
    let columns = operator(inputs).dims()[1];
    let weights = numbers(random([output.len() / columns, columns], 1234));
    for (found, expected) in output.iter().zip(&expected) {
        assert!((f64::from(*found) - expected).abs() < ERROR, "{what}: {found}, not {expected}");
    }
    let loss = |wide: &Wide| exact(wide).iter().zip(&weights).map(|(x, w)| x * f64::from(*w)).sum::<f64>();
    for (input, gradient) in gradients.iter().enumerate() {
        for i in (0..gradient.len()).step_by((gradient.len() / SAMPLES).max(1) | 1) {
            let at = |change: f64| {
                let mut wide = wide.clone();
                wide[input][i] += change;
                loss(&wide)
            };
            let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            let found = f64::from(gradient[i]);
            assert!((found - slope).abs() < ERROR, "{what}: gradient {i} of input {input} is {found}, not {slope}");
        }
    }
}

fn vector(row: &Tensor<Back, 2>) -> Tensor<Back, 1> {
    row.clone().reshape([-1])
}

/// `x W^T + b`, `b` perhaps empty.
fn exact_linear(x: &[f64], weight: &[f64], bias: &[f64], size: usize) -> Vec<f64> {
    let row = |x: &[f64]| -> Vec<f64> {
        let sums = weight.chunks(size).map(|w| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>());
        sums.enumerate().map(|(i, sum)| sum + bias.get(i).copied().unwrap_or(0.0)).collect()
    };
    x.chunks(size).flat_map(row).collect()
}

/// GELU, erf by its series of positive terms (Abramowitz and Stegun 1964, 7.1.6).
fn exact_gelu(x: f64) -> f64 {
    let z = x / 2f64.sqrt();
    let (mut term, mut sum) = (z, z);
    for n in 1..300 {
        term *= 2.0 * z * z / f64::from(2 * n + 1);
        sum += term;
    }
    0.5 * x * (1.0 + sum * (-z * z).exp() * std::f64::consts::FRAC_2_SQRT_PI)
}

fn exact_norm(x: &[f64], weight: &[f64], bias: &[f64], eps: f64) -> Vec<f64> {
    let size = weight.len();
    let row = |x: &[f64]| -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / size as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / size as f64;
        (0..size).map(|i| (x[i] - mean) / (variance + eps).sqrt() * weight[i] + bias[i]).collect()
    };
    x.chunks(size).flat_map(row).collect()
}

#[test]
fn linear_with_and_without_bias_and_gelu() {
    for (tokens, size, out) in [(1, 1, 1), (7, 13, 5), (33, 50, 41)] {
        let inputs = [random([tokens, size], 1), random([out, size], 2), random([1, out], 3)];
        let biased = |x: &[Tensor<Back, 2>]| linear(x[0].clone(), x[1].clone(), Some(vector(&x[2])), Precision::F32);
        check("linear", &inputs, &biased, &|x| exact_linear(&x[0], &x[1], &x[2], size));
        let plain = |x: &[Tensor<Back, 2>]| linear(x[0].clone(), x[1].clone(), None, Precision::F32);
        check("no bias", &inputs[..2], &plain, &|x| exact_linear(&x[0], &x[1], &[], size));
        let alone = |x: &[Tensor<Back, 2>]| gelu(x[0].clone());
        check("GELU", &inputs[..1], &alone, &|x| x[0].iter().copied().map(exact_gelu).collect());
    }
}

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
fn an_input_that_is_a_view_is_read_as_what_it_is() {
    let inputs = [random([5, 9], 1), random([5, 4], 2)];
    let operator =
        |x: &[Tensor<Back, 2>]| linear(x[0].clone().transpose(), x[1].clone().transpose(), None, Precision::F32);
    let turn = |x: &[f64], columns: usize| -> Vec<f64> {
        (0..columns).flat_map(|j| x.iter().skip(j).step_by(columns).copied().collect::<Vec<f64>>()).collect()
    };
    check("views", &inputs, &operator, &|x| exact_linear(&turn(&x[0], 9), &turn(&x[1], 4), &[], 5));
}

#[test]
fn normalisation_with_residual_and_dropout() {
    for (tokens, size) in [(1, 3), (5, 17), (70, 48)] {
        let inputs = [random([tokens, size], 1), random([1, size], 2), random([1, size], 3), random([tokens, size], 4)];
        let plain = |x: &[Tensor<Back, 2>]| layer_norm(x[0].clone(), vector(&x[1]), Some(vector(&x[2])), 1e-3);
        check("norm", &inputs[..3], &plain, &|x| exact_norm(&x[0], &x[1], &x[2], 1e-3));
        for options in [Dropout::NONE, Dropout { probability: 0.3, seed: 5 }] {
            let operator = |x: &[Tensor<Back, 2>]| {
                residual_layer_norm(x[0].clone(), x[3].clone(), vector(&x[1]), vector(&x[2]), 1e-3, options)
            };
            let mask = options.mask(tokens, size);
            let exact = |x: &Vec<Vec<f64>>| {
                let sum: Vec<f64> = (0..x[0].len()).map(|i| x[0][i] * f64::from(mask[i]) + x[3][i]).collect();
                exact_norm(&sum, &x[1], &x[2], 1e-3)
            };
            check("residual norm", &inputs, &operator, &exact);
        }
    }
}

#[test]
fn dropout_alone() {
    let options = Dropout { probability: 0.5, seed: 3 };
    let mask = options.mask(11, 6);
    let operator = |x: &[Tensor<Back, 2>]| dropout(x[0].clone(), options);
    let exact = |x: &Vec<Vec<f64>>| x[0].iter().zip(&mask).map(|(x, m)| x * f64::from(*m)).collect();
    check("dropout", &[random([11, 6], 1)], &operator, &exact);
}

#[test]
fn attention_of_one_sequence_each_is_that_of_all_together() {
    let sequences = [(1, 1), (32, 9), (40, 40), (13, 1), (5, 5)];
    let (heads, size) = (3, 24);
    let all = Segments::new(sequences);
    let inputs = [0, 1, 2].map(|seed| random([all.tokens(), size], seed));
    let plan = |segments: Segments| AttentionPlan {
        segments,
        heads,
        reach: None,
        dropout: Dropout::NONE,
        precision: Precision::F32,
    };
    let together = |x: &[Tensor<Back, 2>]| attention(x[0].clone(), x[1].clone(), x[2].clone(), &plan(all.clone()));
    let apart = |x: &[Tensor<Back, 2>]| {
        let each = all.as_slice().iter().map(|segment| {
            let own = |x: &Tensor<Back, 2>| x.clone().narrow(0, segment.start, segment.length);
            let segments = Segments::new([(segment.length, segment.attended)]);
            attention(own(&x[0]), own(&x[1]), own(&x[2]), &plan(segments))
        });
        Tensor::cat(each.collect(), 0)
    };
    assert_eq!(run(&inputs, &together), run(&inputs, &apart));
    // Values of tokens that no query attends to do not matter, and get no gradient.
    let (_, gradients) = run(&inputs, &together);
    for segment in all.as_slice() {
        let idle = (segment.start + segment.attended) * size..(segment.start + segment.length) * size;
        assert!(gradients[1][idle.clone()].iter().chain(&gradients[2][idle]).all(|x| *x == 0.0));
    }
}

/// Attention of query, key and value, without dropout.
fn exact_attention([query, key, value]: [&[f64]; 3], segments: &Segments, heads: usize) -> Vec<f64> {
    let size = query.len() / segments.tokens();
    let own = size / heads;
    let mut output = vec![0.0; query.len()];
    for s in segments.as_slice() {
        for (i, head) in (0..s.length).flat_map(|i| (0..heads).map(move |head| (i, head))) {
            let at = |position: usize, n: usize| (s.start + position) * size + head * own + n;
            let weight = |j: usize| {
                let product: f64 = (0..own).map(|n| query[at(i, n)] * key[at(j, n)]).sum();
                (product / (own as f64).sqrt()).exp()
            };
            let total: f64 = (0..s.attended).map(weight).sum();
            for (j, n) in (0..s.attended).flat_map(|j| (0..own).map(move |n| (j, n))) {
                output[at(i, n)] += weight(j) / total * value[at(j, n)];
            }
        }
    }
    output
}

#[test]
fn attention_through_autodiff() {
    let segments = Segments::new([(6, 4), (9, 9)]);
    let (heads, size) = (2, 10);
    let plan = AttentionPlan {
        segments: segments.clone(),
        heads,
        reach: None,
        dropout: Dropout::NONE,
        precision: Precision::F32,
    };
    let inputs = [0, 1, 2].map(|seed| random([15, size], seed));
    let operator = |x: &[Tensor<Back, 2>]| attention(x[0].clone(), x[1].clone(), x[2].clone(), &plan);
    let exact = |x: &Vec<Vec<f64>>| exact_attention([&x[0], &x[1], &x[2]], &segments, heads);
    check("attention", &inputs, &operator, &exact);

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
fn packed_attention_through_autodiff() {
    let segments = Segments::new([(6, 4), (9, 9)]);
    let (heads, size) = (2, 8);
    let rotation = Rotation::new(&[0.7, 0.2], 9);
    let rotated = |numbers: &[f64]| -> Vec<f64> {
        let positions = segments.positions();
        let each = numbers.chunks(4).enumerate().flat_map(|(i, x)| {
            let position = f64::from(positions[i / heads]);
            let [(s, c), (t, d)] = [0.7, 0.2].map(|frequency| (position * frequency).sin_cos());
            [x[0] * c - x[2] * s, x[1] * d - x[3] * t, x[2] * c + x[0] * s, x[3] * d + x[1] * t]
        });
        each.collect()
    };
    let inputs = [random([15, 7], 3), random([3 * size, 7], 4).mul_scalar(0.5), random([1, 3 * size], 5)];
    let exact = |x: &Vec<Vec<f64>>, bias: &[f64]| {
        let qkv = exact_linear(&x[0], &x[1], bias, 7);
        let part = |i: usize| -> Vec<f64> {
            qkv.chunks(3 * size).flat_map(|row| row[i * size..(i + 1) * size].iter().copied()).collect()
        };
        exact_attention([&rotated(&part(0)), &rotated(&part(1)), &part(2)], &segments, heads)
    };
    let plan = AttentionPlan {
        segments: segments.clone(),
        heads,
        reach: None,
        dropout: Dropout::NONE,
        precision: Precision::F32,
    };
    let operator = |x: &[Tensor<Back, 2>]| {
        packed_self_attention(x[0].clone(), x[1].clone(), Some(vector(&x[2])), Some(&rotation), &plan)
    };
    check("packed attention", &inputs, &operator, &|x| exact(x, &x[2]));
    let operator =
        |x: &[Tensor<Back, 2>]| packed_self_attention(x[0].clone(), x[1].clone(), None, Some(&rotation), &plan);
    check("packed attention without bias", &inputs[..2], &operator, &|x| exact(x, &[]));
    // A window that covers every token of every sequence.
    let wide = AttentionPlan { reach: Some(8), ..plan.clone() };
    let operator =
        |x: &[Tensor<Back, 2>]| packed_self_attention(x[0].clone(), x[1].clone(), None, Some(&rotation), &wide);
    check("a wide window", &inputs[..2], &operator, &|x| exact(x, &[]));
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
        let plan = AttentionPlan {
            segments: segments.clone(),
            heads,
            reach: None,
            dropout: Dropout::NONE,
            precision: Precision::F32,
        };
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

#[test]
fn embeddings_of_three_tables() {
    let rows = TokenRows { ids: [3, 0, 3, 10].into(), positions: [0, 1, 2, 0].into() };
    let inputs = [random([11, 7], 1), random([3, 7], 2), random([2, 7], 3)];
    let operator = |x: &[Tensor<Back, 2>]| {
        embed(Tables { word: x[0].clone(), position: Some(x[1].clone()), token_type: Some(x[2].clone()) }, &rows)
    };
    let exact = |x: &Vec<Vec<f64>>| {
        let token = |t: usize| {
            let (id, position) = (rows.ids[t] as usize, rows.positions[t] as usize);
            (0..7).map(move |i| x[0][id * 7 + i] + x[1][position * 7 + i] + x[2][i])
        };
        (0..4).flat_map(token).collect()
    };
    check("embeddings", &inputs, &operator, &exact);
    let one_type = [inputs[0].clone(), inputs[1].clone(), random([1, 7], 3)];
    check("one token type", &one_type, &operator, &exact);
    let words = |x: &[Tensor<Back, 2>]| embed(Tables { word: x[0].clone(), position: None, token_type: None }, &rows);
    let exact =
        |x: &Vec<Vec<f64>>| rows.ids.iter().flat_map(|id| x[0][*id as usize * 7..][..7].iter().copied()).collect();
    check("words alone", &inputs[..1], &words, &exact);
}

#[test]
fn scores_through_autodiff() {
    let texts = [ScoredTexts::new(&[2, 3], vec![true; 5]), {
        let scored: Vec<bool> = (0..9).map(|i| i % 4 != 3).collect();
        ScoredTexts::new(&[4, 5], scored)
    }];
    let inputs = [random([5, 6], 1), random([9, 6], 2)];
    let operator = |x: &[Tensor<Back, 2>]| maxsim(x[0].clone(), &texts[0], x[1].clone(), &texts[1]);
    let exact = |x: &Vec<Vec<f64>>| {
        let score = |q: usize, d: usize| -> f64 {
            let product = |i: usize, j: usize| (0..6).map(|n| x[0][i * 6 + n] * x[1][j * 6 + n]).sum::<f64>();
            let best = |i: usize| texts[1].scored_rows(d).map(|j| product(i, j)).reduce(f64::max).expect("scored");
            texts[0].rows(q).map(best).sum()
        };
        vec![score(0, 0), score(0, 1), score(1, 0), score(1, 1)]
    };
    check("MaxSim", &inputs, &operator, &exact);
}

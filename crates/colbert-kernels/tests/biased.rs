//! Attention with a bias and causal attention, against attention without either, and a slope.

use burn::tensor::Tensor;
use colbert_kernels::{AttentionPlan, Dropout, Precision, Rotation, Segments, attention, biased_attention, rotate};

use crate::support::{Back, numbers, random, run};

/// Float32 sums of up to 60 numbers below 1, summed in another order.
const ERROR: f32 = 1e-5;

fn plan(probability: f32) -> AttentionPlan {
    AttentionPlan {
        segments: Segments::new([(9, 5), (1, 1), (6, 6)]),
        heads: 3,
        reach: None,
        dropout: Dropout { probability, seed: 5 },
        precision: Precision::F32,
    }
}

fn largest(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A bias of one number for all keys changes no weight.
#[test]
fn a_constant_bias_is_no_bias() {
    let plan = plan(0.0);
    let inputs = [1, 2, 3].map(|seed| random([plan.segments.tokens(), 24], seed));
    let bias = Tensor::<Back, 3>::ones([3, 9, 9], &inputs[0].device()) * 0.7;
    let plain = run(&inputs, &|x| attention(x[0].clone(), x[1].clone(), x[2].clone(), &plan));
    for bias in [None, Some(&bias)] {
        let found = run(&inputs, &|x| biased_attention([x[0].clone(), x[1].clone(), x[2].clone()], bias, false, &plan));
        assert!(largest(&found.0, &plain.0) < ERROR);
        for (found, expected) in found.1.iter().zip(&plain.1) {
            assert!(largest(found, expected) < ERROR);
        }
    }
}

/// The gradient of the bias is the slope of the output's weighted sum.
#[test]
fn the_gradient_of_a_bias_is_a_slope() {
    let plan = plan(0.0);
    let inputs = [1, 2, 3].map(|seed| random([plan.segments.tokens(), 24], seed));
    let bias = random([27, 9], 4);
    let operator = |x: &[Tensor<Back, 2>]| {
        let bias = x[0].clone().reshape([3, 9, 9]);
        biased_attention(inputs.clone(), Some(&bias), false, &plan)
    };
    let (output, gradients) = run(std::slice::from_ref(&bias), &operator);
    let weights = numbers(random([plan.segments.tokens(), 24], 1234));
    assert_eq!(output.len(), weights.len());
    let loss = |bias: Vec<f32>| -> f64 {
        let bias = Tensor::<Back, 1>::from_floats(bias.as_slice(), &inputs[0].device()).reshape([27, 9]);
        numbers(operator(&[bias])).iter().zip(&weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum()
    };
    let step = 0.01;
    for i in (0..243).step_by(7) {
        let at = |change: f32| {
            let mut values = numbers(bias.clone());
            values[i] += change;
            loss(values)
        };
        let slope = (at(step) - at(-step)) / (2.0 * f64::from(step));
        assert!((slope - f64::from(gradients[0][i])).abs() < 1e-3, "{i}: {} and {slope}", gradients[0][i]);
    }
}

#[test]
fn a_causal_token_sees_none_behind_it() {
    let plan = plan(0.0);
    let inputs = [1, 2, 3].map(|seed| random([plan.segments.tokens(), 24], seed));
    let (output, _) =
        run(&inputs, &|x| biased_attention([x[0].clone(), x[1].clone(), x[2].clone()], None, true, &plan));
    // The third token of the first sequence is the last one of the three alone.
    let alone = AttentionPlan { segments: Segments::new([(3, 3)]), ..plan.clone() };
    let first = inputs.clone().map(|input| input.narrow(0, 0, 3));
    let found = numbers(biased_attention(first.clone(), None, true, &alone));
    assert!(largest(&found, &output[..3 * 24]) < ERROR);
    let [query, key, value] = first;
    let last = numbers(attention(query, key, value, &alone));
    assert!(largest(&found[2 * 24..], &last[2 * 24..]) < ERROR && largest(&found[..24], &last[..24]) > 1e-3);
}

#[test]
fn the_same_weights_are_dropped_again() {
    let plan = plan(0.4);
    let inputs = [1, 2, 3].map(|seed| random([plan.segments.tokens(), 24], seed));
    let encode = |plan: &AttentionPlan| numbers(biased_attention(inputs.clone(), None, false, plan));
    let other = AttentionPlan { dropout: Dropout { probability: 0.4, seed: 6 }, ..plan.clone() };
    assert_eq!(encode(&plan), encode(&plan));
    assert_ne!(encode(&plan), encode(&other));
}

/// Rotation keeps lengths, and products of rotated tokens depend on their distance alone.
#[test]
fn products_of_rotated_tokens_follow_their_distance() {
    let segments = Segments::new([(8, 8)]);
    let rotation = Rotation::new(&[1.0, 0.3], 8);
    let row = random([1, 4], 9);
    let same = Tensor::cat(vec![row; 8], 0);
    let rotated = numbers(rotate(same, &rotation, &segments, 1));
    // On the host, as a device's matmul may round its factors.
    let product = |i: usize| (0..4).map(|n| rotated[i / 8 * 4 + n] * rotated[i % 8 * 4 + n]).sum::<f32>();
    let products: Vec<f32> = (0..64).map(product).collect();
    for i in 0..7 {
        assert!((products[i * 8 + i + 1] - products[1]).abs() < ERROR);
        assert!((products[i * 9] - products[0]).abs() < ERROR);
    }
    assert!((products[1] - products[0]).abs() > 1e-3);
}

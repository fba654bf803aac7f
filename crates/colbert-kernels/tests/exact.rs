//! Comparison of an operator with double precision, and operators in it.

use burn::tensor::Tensor;
use colbert_kernels::Segments;

use crate::support::{Back, numbers, random, run};

/// Float32 sums of up to 100 numbers below 1, against f64.
const ERROR: f64 = 2e-5;

/// Distance of a central difference.
const STEP: f64 = 1e-5;

/// Elements of an input whose gradient is compared.
const SAMPLES: usize = 60;

/// Matrices in double precision.
pub(crate) type Wide = Vec<Vec<f64>>;

/// Compares values and gradients with an exact version and its central differences.
pub(crate) fn check(
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

pub(crate) fn vector(row: &Tensor<Back, 2>) -> Tensor<Back, 1> {
    row.clone().reshape([-1])
}

/// `x W^T + b`, `b` perhaps empty.
pub(crate) fn exact_linear(x: &[f64], weight: &[f64], bias: &[f64], size: usize) -> Vec<f64> {
    let row = |x: &[f64]| -> Vec<f64> {
        let sums = weight.chunks(size).map(|w| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>());
        sums.enumerate().map(|(i, sum)| sum + bias.get(i).copied().unwrap_or(0.0)).collect()
    };
    x.chunks(size).flat_map(row).collect()
}

/// GELU, erf by its series of positive terms (Abramowitz and Stegun 1964, 7.1.6).
pub(crate) fn exact_gelu(x: f64) -> f64 {
    let z = x / 2f64.sqrt();
    let (mut term, mut sum) = (z, z);
    for n in 1..300 {
        term *= 2.0 * z * z / f64::from(2 * n + 1);
        sum += term;
    }
    0.5 * x * (1.0 + sum * (-z * z).exp() * std::f64::consts::FRAC_2_SQRT_PI)
}

pub(crate) fn exact_norm(x: &[f64], weight: &[f64], bias: &[f64], eps: f64) -> Vec<f64> {
    let size = weight.len();
    let row = |x: &[f64]| -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / size as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / size as f64;
        (0..size).map(|i| (x[i] - mean) / (variance + eps).sqrt() * weight[i] + bias[i]).collect()
    };
    x.chunks(size).flat_map(row).collect()
}

/// Attention of query, key and value, without dropout.
pub(crate) fn exact_attention([query, key, value]: [&[f64]; 3], segments: &Segments, heads: usize) -> Vec<f64> {
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

//! Matmuls in float16, if the backend has them; in float32 otherwise.

use burn::backend::Autodiff;
use burn::tensor::{Tensor, f16};
use colbert_kernels::{AttentionPlan, Dropout, Kernels, Precision, Segments, attention, linear};
use test_backend::{TestBackend, device};

use crate::support::{Back, numbers, random, run};

/// The error of a product that is rounded to float16: half a unit in the last of 11 bits.
const ROUNDED: f64 = 1.0 / 2048.0;

/// Float32 sums of up to 50 products of numbers below 1, and float16's smallest steps.
const SUMS: f64 = 2e-6;

fn has_f16() -> bool {
    TestBackend::has_f16(&device())
}

/// The numbers in f64, rounded to float16 first if the backend does so.
fn factor(x: &Tensor<Back, 2>) -> Vec<f64> {
    let rounded = |x: &f32| if has_f16() { f16::from_f32(*x).to_f64() } else { f64::from(*x) };
    numbers(x.clone()).iter().map(rounded).collect()
}

/// `left right`, `left` of `[rows, depth]`, in f64.
fn product(left: &[f64], right: &[f64], depth: usize) -> Vec<f64> {
    let columns = right.len() / depth;
    let cell = |row: &[f64], column| (0..depth).map(|i| row[i] * right[i * columns + column]).sum();
    left.chunks(depth).flat_map(|row| (0..columns).map(move |column| cell(row, column))).collect()
}

fn transposed(x: &[f64], columns: usize) -> Vec<f64> {
    (0..columns).flat_map(|column| x.iter().skip(column).step_by(columns).copied()).collect()
}

fn assert_rounded(what: &str, found: &[f32], exact: &[f64]) {
    assert_eq!(found.len(), exact.len(), "{what}");
    for (found, exact) in found.iter().zip(exact) {
        assert!((f64::from(*found) - exact).abs() <= exact.abs() * ROUNDED + SUMS, "{what}: {found}, not {exact}");
    }
}

#[test]
fn products_are_those_of_factors_rounded_to_float16() {
    let (tokens, size, out) = (37, 50, 29);
    let inputs = [random([tokens, size], 1), random([out, size], 2)];
    let of = |precision| run(&inputs, &move |x| linear(x[0].clone(), x[1].clone(), None, precision));
    let (output, gradients) = of(Precision::F16);
    let [input, weight, gradient] = [&inputs[0], &inputs[1], &random([tokens, out], 1234)].map(factor);
    assert_rounded("product", &output, &product(&input, &transposed(&weight, size), size));
    assert_rounded("input's gradient", &gradients[0], &product(&gradient, &weight, out));
    assert_rounded("weight's gradient", &gradients[1], &product(&transposed(&gradient, out), &input, tokens));
    assert_eq!((output, gradients) != of(Precision::F32), has_f16(), "rounded where there is float16");
}

#[test]
fn a_product_beyond_float16_is_infinite() {
    let of = |number: f32| {
        let factor = Tensor::<Autodiff<TestBackend>, 2>::full([2, 2], number, &device());
        let product = linear(factor.clone(), factor, None, Precision::F16);
        product.into_data().to_vec::<f32>().expect("float32")
    };
    assert_eq!(of(181.0), [65_536.0_f32; 4].map(|_| if has_f16() { f32::INFINITY } else { 65_522.0 }));
    assert!(of(180.0).iter().all(|x| (x - 64_800.0).abs() <= 16.0));
}

/// Values and gradients are below 2; factors, weights of the tokens and gradients each have an error of up to 1/2048.
const ATTENTION_ERROR: f32 = 5e-3;

#[test]
fn attention_is_that_of_float32_up_to_rounding() {
    let segments = Segments::new([(6, 4), (9, 9), (1, 1)]);
    let inputs = [0, 1, 2].map(|seed| random([16, 32], seed));
    for probability in [0.0, 0.2] {
        let of = |precision| {
            let dropout = Dropout { probability, seed: 7 };
            let plan = AttentionPlan { segments: segments.clone(), heads: 2, reach: None, dropout, precision };
            let (output, gradients) =
                run(&inputs, &move |x| attention(x[0].clone(), x[1].clone(), x[2].clone(), &plan));
            [vec![output], gradients].concat()
        };
        let (half, single) = (of(Precision::F16), of(Precision::F32));
        for (half, single) in half.iter().flatten().zip(single.iter().flatten()) {
            assert!((half - single).abs() < ATTENTION_ERROR, "{half}, not {single}");
        }
        assert_eq!(half != single, has_f16(), "rounded where there is float16");
    }
}

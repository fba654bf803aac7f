//! Functions that the tests of the kernels share.

use burn::tensor::TensorData;
use burn_flex::FlexTensor;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Draws `count` numbers in [-1, 1).
pub(crate) fn random(count: usize, seed: usize) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed as u64);
    (0..count).map(|_| random.random_range(-1.0..1.0)).collect()
}

/// Fails where `found` and `expected` differ by more than `error`.
pub(crate) fn close(found: &[f32], expected: &[f64], error: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*found) - expected).abs() <= error, "{what}: element {i} is {found}, not {expected}");
    }
}

/// Returns the slope of `f` along element `i` of `x`, by central differences.
pub(crate) fn slope(f: impl Fn(&[f64]) -> f64, x: &[f64], i: usize) -> f64 {
    /// Far enough apart that rounding in f64 does not matter, near enough that curvature does not.
    const STEP: f64 = 1e-5;
    let at = |change: f64| {
        let mut x = x.to_vec();
        x[i] += change;
        f(&x)
    };
    (at(STEP) - at(-STEP)) / (2.0 * STEP)
}

/// Returns the same numbers in double precision.
pub(crate) fn wide(numbers: &[f32]) -> Vec<f64> {
    numbers.iter().copied().map(f64::from).collect()
}

/// Makes a tensor of these numbers.
pub(crate) fn matrix(numbers: &[f32], columns: usize) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(numbers.to_vec(), [numbers.len() / columns, columns]))
}

/// Returns all numbers of a tensor.
pub(crate) fn flat(tensor: &FlexTensor) -> Vec<f32> {
    tensor.to_contiguous().as_slice().expect("float32").to_vec()
}

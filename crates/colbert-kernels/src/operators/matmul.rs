//! Matmuls whose factors have a requested number format.

use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Tensor};

use crate::backend::Kernels;
use crate::precision::Precision;

/// Multiplies, in the requested format if the device supports it.
pub(crate) fn composed<B: Kernels, const D: usize>(
    left: Tensor<B, D>,
    right: Tensor<B, D>,
    precision: Precision,
) -> Tensor<B, D> {
    let device = left.device();
    let format = match precision {
        Precision::F32 => None,
        Precision::Tf32 => return B::tf32_product(left, right),
        Precision::Bf16 => B::has_bf16(&device).then_some(FloatDType::BF16),
        Precision::F16 => B::has_f16(&device).then_some(FloatDType::F16),
    };
    match format {
        Some(format) => left.cast(format).matmul(right.cast(format)).cast(FloatDType::F32),
        None => B::float32_product(left, right),
    }
}

/// The factor that splits a number into two of 12 significant bits (Dekker 1971, "A floating-point technique for
/// extending the available precision", section 5): 2^12 + 1 for half of float32's 24 bits, and one bit more leaves 11
/// in the first.
const CUT: f32 = 8193.0;

/// Computes a float32 matmul from matmuls that round their factors to TF32: each factor is split into a first part,
/// which TF32 represents exactly, and the rest, of which it keeps enough. The product of the rests is left out, as it
/// is below the precision of float32. The device multiplies three times. (Known as 3xTF32: NVIDIA CUTLASS, example 27.)
#[cfg_attr(not(any(feature = "cube", test)), expect(dead_code, reason = "for CUDA alone"))]
pub(crate) fn in_parts<B: Backend, const D: usize>(
    left: Tensor<B, D>,
    right: Tensor<B, D>,
    product: impl Fn(Tensor<B, D>, Tensor<B, D>) -> Tensor<B, D>,
) -> Tensor<B, D> {
    let cut = |x: Tensor<B, D>| {
        let large = x.clone() * CUT;
        let first = large.clone() - (large - x.clone());
        (first.clone(), x - first)
    };
    let ((left, left_rest), (right, right_rest)) = (cut(left), cut(right));
    // The small ones first, as each alone would be lost to rounding.
    let rest = product(left.clone(), right_rest) + product(left_rest, right.clone());
    rest + product(left, right)
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;
    use burn_flex::{Flex, FlexDevice};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Of the largest of the products' sums: float32's own rounding of 300 terms, and what the parts leave out, 2^-21.
    const EXACT: f64 = 2e-6;

    /// Cuts float32 as tensor cores may read it: without the lowest 13 bits.
    fn truncated(x: Tensor<Flex, 2>) -> Tensor<Flex, 2> {
        let shape = x.dims();
        let bits = |x: f32| f32::from_bits(x.to_bits() & !0x1fff);
        let values = x.into_data().into_vec::<f32>().unwrap().into_iter().map(bits).collect();
        Tensor::from_data(TensorData::new(values, shape), &FlexDevice)
    }

    #[test]
    fn three_products_of_tf32_are_one_of_float32() {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let (rows, depth, columns) = (7, 300, 5);
        let mut matrix = |rows: usize, columns: usize| -> Vec<f32> {
            (0..rows * columns)
                .map(|_| random.random_range(-1.0f32..1.0) * 10f32.powi(random.random_range(-3..4)))
                .collect()
        };
        let (a, b) = (matrix(rows, depth), matrix(depth, columns));
        let tensor =
            |values: &[f32], shape| Tensor::<Flex, 2>::from_data(TensorData::new(values.to_vec(), shape), &FlexDevice);
        let tf32 = |left, right| truncated(left).matmul(truncated(right));
        let once = tf32(tensor(&a, [rows, depth]), tensor(&b, [depth, columns]));
        let thrice = in_parts(tensor(&a, [rows, depth]), tensor(&b, [depth, columns]), tf32);
        let off = |found: Tensor<Flex, 2>| {
            let found = found.into_data().into_vec::<f32>().unwrap();
            let mut most = 0.0f64;
            for (i, found) in found.into_iter().enumerate() {
                let terms =
                    (0..depth).map(|j| f64::from(a[i / columns * depth + j]) * f64::from(b[j * columns + i % columns]));
                let (exact, size) = terms.fold((0.0, 0.0f64), |(sum, size), term| (sum + term, size.max(term.abs())));
                most = most.max((f64::from(found) - exact).abs() / size);
            }
            most
        };
        let (once, thrice) = (off(once), off(thrice));
        assert!(once > 1e-4 && thrice < EXACT, "{once} and {thrice}");
    }
}

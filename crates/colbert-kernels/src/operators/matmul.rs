//! Matmuls whose factors have a requested number format.

use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{FloatDType, Tensor};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};

use crate::backend::Kernels;
use crate::backend::differentiable::KernelBackend;
use crate::operators::node::record;
use crate::operators::primitive::{primitive, tensor};
use crate::precision::Precision;

/// Multiplies matrices in float32, also where the device's own matmul would round float32 factors, and so for the
/// gradients.
///
/// # Shapes
/// `[.., rows, depth]` and `[.., depth, columns]` to `[.., rows, columns]`, the leading axes alike
///
/// # Panics
/// If the shapes do not fit.
pub fn float32_matmul<B: KernelBackend, const D: usize>(left: Tensor<B, D>, right: Tensor<B, D>) -> Tensor<B, D> {
    let (rows, columns) = (left.dims(), right.dims());
    assert!(
        rows[..D - 2] == columns[..D - 2] && rows[D - 1] == columns[D - 2],
        "matrices of {rows:?} and {columns:?} cannot be multiplied"
    );
    tensor(B::kernel_float32_matmul::<D>(primitive(left), primitive(right)))
}

#[derive(Debug)]
struct Node<const D: usize>;

impl<B: Kernels, const D: usize> Backward<B, 2> for Node<D> {
    /// Both factors, each if the gradient of the other is asked for.
    type State = [Option<FloatTensor<B>>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = tensor::<B, D>(gradients.consume::<B>(&ops.node));
        let ([of_left, of_right], [left, right]) = (ops.parents, ops.state);
        let turned = |factor: FloatTensor<B>| tensor::<B, D>(factor).transpose();
        if let (Some(node), Some(right)) = (of_left, right) {
            gradients.register::<B>(node.id, primitive(B::float32_product(gradient.clone(), turned(right))));
        }
        if let (Some(node), Some(left)) = (of_right, left) {
            gradients.register::<B>(node.id, primitive(B::float32_product(turned(left), gradient)));
        }
    }
}

pub(crate) fn differentiable<B: Kernels, C: CheckpointStrategy, const D: usize>(
    left: FloatTensor<Autodiff<B, C>>,
    right: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let [a, b] = [&left, &right].map(|factor| factor.primitive.clone());
    let output = B::float32_product(tensor::<B, D>(a.clone()), tensor(b.clone()));
    let state = [right.is_tracked().then_some(a), left.is_tracked().then_some(b)];
    record::<_, B, C, 2>(Node::<D>, [&left, &right], primitive(output), state)
}

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
        Some(format) => B::rounded_product(left.cast(format), right.cast(format)),
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

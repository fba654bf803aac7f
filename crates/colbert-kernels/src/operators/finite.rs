//! A check that numbers are finite, by the means of the device.

use burn::tensor::Tensor;

use crate::backend::differentiable::KernelBackend;
use crate::operators::primitive::primitive;

/// Returns whether all numbers of a tensor are finite. A GPU checks their bits, as it may assume that there is no NaN;
/// elsewhere the sum is checked, which large numbers may make infinite.
///
/// # Shapes
/// Any.
pub fn all_finite<B: KernelBackend, const D: usize>(input: Tensor<B, D>) -> bool {
    B::kernel_all_finite(primitive(input))
}

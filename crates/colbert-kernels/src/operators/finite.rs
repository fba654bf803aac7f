//! Whether numbers are finite, as the device can tell.

use burn::tensor::Tensor;

use crate::backend::KernelBackend;
use crate::operators::primitive::primitive;

/// Returns whether all numbers of a tensor are finite. A GPU checks their bits, as it may assume that there is no NaN;
/// elsewhere the sum is checked, which large numbers may make infinite.
pub fn all_finite<B: KernelBackend, const D: usize>(input: Tensor<B, D>) -> bool {
    B::kernel_all_finite(primitive(input))
}

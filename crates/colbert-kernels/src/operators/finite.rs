//! Whether numbers are finite, as the device can tell.

use burn::tensor::Tensor;

use crate::backend::KernelBackend;
use crate::operators::primitive::primitive;

/// Whether all numbers of a tensor are finite. A GPU is asked for their bits, as it may assume that there is no NaN and
/// then passes over one; elsewhere the sum tells, which large numbers may make infinite.
pub fn all_finite<B: KernelBackend, const D: usize>(input: Tensor<B, D>) -> bool {
    B::kernel_all_finite(primitive(input))
}

//! The number format of matrix products.

use burn::tensor::{FloatDType, Tensor};

use crate::backend::Kernels;

/// How the factors of a matrix product are stored while they are multiplied. Sums, results and everything else
/// are float32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// float32.
    #[default]
    F32,
    /// bfloat16, rounded to nearest, ties to even: 8 significant bits. Where a backend has no faster products for it
    /// ([`Kernels::has_bf16`](crate::Kernels::has_bf16)), float32 is taken.
    Bf16,
}

/// `left right`, in bfloat16 if asked for and had.
pub(crate) fn composed_product<B: Kernels, const D: usize>(
    left: Tensor<B, D>,
    right: Tensor<B, D>,
    precision: Precision,
) -> Tensor<B, D> {
    if precision == Precision::Bf16 && B::has_bf16(&left.device()) {
        left.cast(FloatDType::BF16).matmul(right.cast(FloatDType::BF16)).cast(FloatDType::F32)
    } else {
        left.matmul(right)
    }
}

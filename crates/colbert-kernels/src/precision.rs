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
    /// float16, rounded to nearest, ties to even: 11 significant bits, infinite from 65,520 on, 0 below 3e-8. Where a backend
    /// has no products for it ([`Kernels::has_f16`](crate::Kernels::has_f16)), float32 is taken. A product of two such factors
    /// is itself rounded to float16 on the way, so a gradient is infinite where it leaves that range.
    F16,
}

/// `left right`, in the format that is asked for if it is had.
pub(crate) fn composed_product<B: Kernels, const D: usize>(
    left: Tensor<B, D>,
    right: Tensor<B, D>,
    precision: Precision,
) -> Tensor<B, D> {
    let device = left.device();
    let format = match precision {
        Precision::F32 => None,
        Precision::Bf16 => B::has_bf16(&device).then_some(FloatDType::BF16),
        Precision::F16 => B::has_f16(&device).then_some(FloatDType::F16),
    };
    match format {
        Some(format) => left.cast(format).matmul(right.cast(format)).cast(FloatDType::F32),
        None => left.matmul(right),
    }
}

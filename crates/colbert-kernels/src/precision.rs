//! The number format of matmuls.

/// The storage of the factors of a matmul while they are multiplied. Sums, results and everything else
/// are float32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// float32.
    #[default]
    F32,
    /// float32 factors that the device may round to TF32 while it multiplies: 11 significant bits and float32's range.
    /// Where a backend does not do so ([`Kernels::has_tf32`](crate::Kernels::has_tf32)), they stay as they are.
    Tf32,
    /// bfloat16, rounded to nearest, ties to even: 8 significant bits. Where a backend has no faster products for it
    /// ([`Kernels::has_bf16`](crate::Kernels::has_bf16)), float32 is taken.
    Bf16,
    /// float16, rounded to nearest, ties to even: 11 significant bits, infinite from 65,520 on, 0 below 3e-8. Where a
    /// backend has no products for it ([`Kernels::has_f16`](crate::Kernels::has_f16)), float32 is taken. A product of
    /// two such factors is itself rounded to float16 on the way, so a gradient is infinite where it leaves that range.
    F16,
}

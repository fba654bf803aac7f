//! The number format of matmuls.

/// The number format of a matmul's factors while they are multiplied. Sums, results and everything else are always
/// float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// float32.
    #[default]
    F32,
    /// float32 factors that the device may round to TF32 while it multiplies: 11 significant bits and float32's range.
    /// If a backend does not ([`Kernels::has_tf32`](crate::Kernels::has_tf32)), they stay as they are.
    Tf32,
    /// bfloat16, rounded to nearest, ties to even: 8 significant bits. If a backend has no faster matmuls for it
    /// ([`Kernels::has_bf16`](crate::Kernels::has_bf16)), float32 is used.
    Bf16,
    /// float16, rounded to nearest, ties to even: 11 significant bits, infinite from 65,520 on, 0 below 3e-8. If a
    /// backend has no matmuls for it ([`Kernels::has_f16`](crate::Kernels::has_f16)), float32 is used. The result of
    /// such a matmul is itself rounded to float16 before it becomes float32, so a gradient beyond that range is
    /// infinite.
    F16,
}

//! The limits that a GPU must reach for every kernel. The kernels keep within them, and a device below one is refused.

/// The most units of a cube in any kernel.
#[cfg(feature = "wgpu")]
pub(crate) const MOST_UNITS: u32 = 128;

/// Storage buffers of the kernel with the most, including the one for CubeCL's own numbers.
#[cfg(feature = "wgpu")]
pub(crate) const LEAST_BINDINGS: u32 = 11;

/// Shared memory that suffices for every kernel, in bytes.
pub(crate) const LEAST_SHARED_BYTES: u32 = 16 * 1024;

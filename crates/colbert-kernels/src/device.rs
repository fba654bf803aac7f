//! Devices: how their panics are recognised, which GPU a driver reports, and which adapters there are.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(any(feature = "cuda", feature = "tch"))]
pub(crate) mod generation;
#[cfg(feature = "cube")]
pub(crate) mod limits;
pub(crate) mod memory;
pub(crate) mod panics;
#[cfg(feature = "wgpu")]
pub(crate) mod wgpu;

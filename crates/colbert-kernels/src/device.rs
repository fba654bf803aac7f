//! Devices: how their panics are recognised, and which GPU a driver reports.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(any(feature = "cuda", feature = "tch"))]
pub(crate) mod generation;
pub(crate) mod memory;
pub(crate) mod panics;

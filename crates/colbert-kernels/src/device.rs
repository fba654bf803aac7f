//! Devices: which ones exist, what they lack, where they keep tensors, and how they report failures.

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(any(feature = "cuda", feature = "tch"))]
pub(crate) mod generation;
#[cfg(feature = "tch")]
mod libtorch;
#[cfg(feature = "cube")]
pub(crate) mod limits;
mod link;
mod memory;
#[cfg(feature = "cuda")]
mod nccl;
mod panics;
#[cfg(feature = "wgpu")]
pub(crate) mod wgpu;

#[cfg(feature = "cuda")]
pub use cuda::{CudaMissing, probe_cuda};
#[cfg(feature = "cuda")]
pub use generation::gpu_address;
#[cfg(feature = "tch")]
pub use libtorch::{LibTorchMissing, bound_libtorch_caches, probe_libtorch_cuda, set_libtorch_threads};
pub use link::DeviceLink;
pub use memory::DeviceMemory;
#[cfg(feature = "cuda")]
pub use nccl::{Nccl, NcclError, nccl_version};
pub use panics::DevicePanics;
#[cfg(feature = "wgpu")]
pub use wgpu::{WgpuAdapter, WgpuMissing, open_wgpu, wgpu_adapters};

//! Facts about devices that runtimes know: number formats, memory, the wording of failures, links.

#[cfg(feature = "wgpu")]
use burn::tensor::DType;
#[cfg(feature = "wgpu")]
use burn_cubecl::CubeBackend;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;

#[cfg(feature = "cuda")]
use crate::cube::exchange;
#[cfg(feature = "cuda")]
use crate::device::generation::{gpu_free_memory, gpu_has_bf16, gpu_has_f16, gpu_has_tf32};
use crate::device::{DeviceLink, DeviceMemory};

/// A runtime that knows its devices.
pub(crate) trait Gpu: CubeRuntime {
    /// Words that begin its messages about exhausted memory.
    const OUT_OF_MEMORY: &'static [&'static str];

    /// Returns whether a device multiplies bfloat16 faster than float32.
    fn has_bf16(device: &Self::CubeDevice) -> bool;

    /// Returns whether it multiplies float16.
    fn has_f16(device: &Self::CubeDevice) -> bool;

    /// Returns whether it rounds float32 factors to TF32 by default.
    fn has_tf32(_device: &Self::CubeDevice) -> bool {
        false
    }

    /// Returns where its tensors are.
    fn memory(device: &Self::CubeDevice) -> DeviceMemory;

    /// See [`Kernels::all_to_all`].
    fn all_to_all(_parts: CubeTensor<Self>, _link: &DeviceLink) -> CubeTensor<Self> {
        unreachable!("no link joins devices of this runtime")
    }

    /// See [`Kernels::all_gather`].
    fn all_gather(_own: CubeTensor<Self>, _link: &DeviceLink) -> CubeTensor<Self> {
        unreachable!("no link joins devices of this runtime")
    }
}

#[cfg(feature = "cuda")]
impl Gpu for cubecl::cuda::CudaRuntime {
    /// Words of cubecl-runtime 0.10 (`IoError::BufferTooBig`) and cubecl-cuda 0.10 (`GpuStorage::alloc`).
    const OUT_OF_MEMORY: &'static [&'static str] =
        &["can't allocate buffer of size", "CUDA allocation error", "CUDA_ERROR_OUT_OF_MEMORY"];

    fn has_bf16(device: &Self::CubeDevice) -> bool {
        gpu_has_bf16(device.index)
    }

    fn has_f16(device: &Self::CubeDevice) -> bool {
        gpu_has_f16(device.index)
    }

    fn has_tf32(device: &Self::CubeDevice) -> bool {
        gpu_has_tf32(device.index)
    }

    fn memory(device: &Self::CubeDevice) -> DeviceMemory {
        DeviceMemory::Own(gpu_free_memory(device.index))
    }

    fn all_to_all(parts: CubeTensor<Self>, DeviceLink::Nccl(nccl): &DeviceLink) -> CubeTensor<Self> {
        exchange::all_to_all(nccl, parts)
    }

    fn all_gather(own: CubeTensor<Self>, DeviceLink::Nccl(nccl): &DeviceLink) -> CubeTensor<Self> {
        exchange::all_gather(nccl, own)
    }
}

#[cfg(feature = "wgpu")]
impl Gpu for cubecl::wgpu::WgpuRuntime {
    /// Words of cubecl-runtime 0.10 (`IoError::BufferTooBig`), wgpu-core 29 (`DeviceError::OutOfMemory`) and wgpu 29.
    const OUT_OF_MEMORY: &'static [&'static str] =
        &["can't allocate buffer of size", "Not enough memory left", "Out of Memory", "Out Of Memory"];

    /// WGSL has no bfloat16.
    fn has_bf16(_: &Self::CubeDevice) -> bool {
        false
    }

    fn has_f16(device: &Self::CubeDevice) -> bool {
        use burn::tensor::backend::Backend;
        CubeBackend::<Self, f32, i32, u32>::supports_dtype(device, DType::F16)
    }

    fn memory(device: &Self::CubeDevice) -> DeviceMemory {
        crate::device::wgpu::memory(device)
    }
}

//! libtorch as a device: whether it finds a GPU, and how many threads and how much memory it may use.

/// The reason why libtorch cannot use a GPU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LibTorchMissing {
    /// It was built for the CPU, or finds no driver.
    #[error("this libtorch finds no CUDA: it was built for the CPU alone, or NVIDIA's driver is missing")]
    Cuda,
    /// No such device.
    #[error("there is no device {asked}: libtorch finds {count}, counted from 0")]
    Device {
        /// The requested index.
        asked: usize,
        /// Number of devices.
        count: usize,
    },
}

/// Asks libtorch for a GPU of this index.
///
/// # Errors
/// There is no such GPU.
pub fn probe_libtorch_cuda(index: usize) -> Result<(), LibTorchMissing> {
    if !tch::Cuda::is_available() {
        return Err(LibTorchMissing::Cuda);
    }
    let count = usize::try_from(tch::Cuda::device_count()).unwrap_or_default();
    if index < count { Ok(()) } else { Err(LibTorchMissing::Device { asked: index, count }) }
}

/// Uses `threads` threads for an operator of libtorch on the CPU.
pub fn set_libtorch_threads(threads: usize) {
    tch::set_num_threads(threads.try_into().unwrap_or(i32::MAX));
}

/// Limits the memory that oneDNN keeps on the CPU. It computes the matmuls of bfloat16 and float16, and caches what it
/// compiled for 1,024 shapes, a megabyte and more each, though the shapes of packed texts hardly ever repeat. The limit
/// is what one step needs, unless the environment sets another. Call this before other threads start: nothing is done
/// if there are any.
pub fn bound_libtorch_caches() {
    const VARIABLE: &str = "ONEDNN_PRIMITIVE_CACHE_CAPACITY";
    const SHAPES: &str = "64";
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let alone = status.lines().any(|line| line.split_whitespace().eq(["Threads:", "1"]));
    if alone && std::env::var_os(VARIABLE).is_none() {
        // SAFETY: this is the only thread, so nobody reads the environment meanwhile.
        unsafe { std::env::set_var(VARIABLE, SHAPES) };
    }
}

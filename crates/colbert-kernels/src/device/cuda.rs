//! A check that CUDA can be used, made before the first use: without a driver or a library, CubeCL would panic on a
//! thread of its own.

use std::path::{Path, PathBuf};

use cudarc::driver::CudaContext;

/// The reason why CUDA cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CudaMissing {
    /// No driver.
    #[error("the library libcuda was not found: install NVIDIA's driver")]
    Driver,
    /// No compiler for kernels.
    #[error("the library libnvrtc was not found: install the CUDA toolkit, or NVIDIA's package of that library alone")]
    Compiler,
    /// No headers for that compiler.
    #[error("no CUDA headers in {}: install the CUDA toolkit, or name its folder in CUDA_PATH", looked_in.display())]
    Headers {
        /// The folder they were expected in.
        looked_in: PathBuf,
    },
    /// The driver refuses.
    #[error("the driver refuses: {reason}")]
    Refused {
        /// The driver's reason.
        reason: String,
    },
    /// No such device.
    #[error("there is no device {asked}: this machine has {count}, counted from 0")]
    Device {
        /// The requested index.
        asked: usize,
        /// Number of devices.
        count: usize,
    },
}

/// Looks for the driver, the compiler and its headers, and the device of this index.
///
/// # Errors
/// The first that is missing.
pub fn probe_cuda(index: usize) -> Result<(), CudaMissing> {
    // SAFETY: looks for a library by its names and loads it, which runs nothing but what the library itself does then.
    if !unsafe { cudarc::driver::sys::is_culib_present() } {
        return Err(CudaMissing::Driver);
    }
    // SAFETY: as above.
    if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        return Err(CudaMissing::Compiler);
    }
    // CubeCL 0.10 looks there.
    let toolkit = std::env::var_os("CUDA_PATH").map_or_else(|| Path::new("/usr/local/cuda").to_owned(), PathBuf::from);
    let looked_in = toolkit.join("include");
    if !looked_in.is_dir() {
        return Err(CudaMissing::Headers { looked_in });
    }
    let count = CudaContext::device_count().map_err(|error| CudaMissing::Refused { reason: error.to_string() })?;
    let count = usize::try_from(count).unwrap_or_default();
    if index < count { Ok(()) } else { Err(CudaMissing::Device { asked: index, count }) }
}

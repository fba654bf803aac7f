//! Which backends are compiled in, and how a name becomes one. The only file with backend `cfg`s.

use burn::backend::Autodiff;
use colbert_config::Precision;
use colbert_kernels::{KernelAutodiffBackend, Kernels};

use crate::error::Error;

/// Names that this build accepts.
pub const AVAILABLE: &[&str] = &[
    "auto",
    "flex",
    #[cfg(feature = "cuda")]
    "cuda",
    #[cfg(feature = "cuda")]
    "cuda:N",
    #[cfg(feature = "tch")]
    "libtorch",
    #[cfg(feature = "tch")]
    "libtorch:cuda:N",
];

/// A backend and a device on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The embedded CPU backend, on all cores.
    Flex,
    /// An NVIDIA GPU by its index, through CubeCL.
    #[cfg(feature = "cuda")]
    Cuda(usize),
    /// libtorch on the CPU.
    #[cfg(feature = "tch")]
    LibTorch,
    /// An NVIDIA GPU by its index, through libtorch.
    #[cfg(feature = "tch")]
    LibTorchCuda(usize),
}

/// Number formats that a device multiplies, besides float32.
#[derive(Debug, Clone, Copy)]
struct Formats {
    tf32: bool,
    bf16: bool,
    f16: bool,
    gpu: bool,
}

impl Formats {
    fn nearest(self, asked: Precision) -> Precision {
        match asked {
            Precision::F16 if self.f16 => Precision::F16,
            Precision::Tf32 if self.tf32 => Precision::Tf32,
            Precision::Auto | Precision::Bf16 | Precision::F16 if self.bf16 => Precision::Bf16,
            // A processor has float16 for trying it, not for speed.
            Precision::Auto if self.f16 && self.gpu => Precision::F16,
            Precision::F32 | Precision::Tf32 | Precision::Auto | Precision::Bf16 | Precision::F16 => Precision::F32,
        }
    }
}

/// Work that is generic over the backend.
pub trait Job {
    /// The result.
    type Output;

    /// Does the work on one backend.
    fn run<B: KernelAutodiffBackend>(self, device: &B::Device) -> Self::Output;
}

impl Backend {
    /// The backend of a name: `flex`, `cuda`, `cuda:1`, `libtorch`, `libtorch:cuda:1`; `auto` is the first of `cuda`,
    /// `libtorch:cuda` and `flex` that can be used.
    ///
    /// # Errors
    /// A name that is unknown, whose backend was not compiled in, or whose device is not available on this machine.
    pub fn from_name(name: &str) -> Result<Self, Error> {
        let unknown = || Error::UnknownBackend { found: name.to_owned(), available: AVAILABLE.join(", ") };
        let device = |index: &str| index.parse::<usize>().map_err(|_| unknown());
        match name.split(':').collect::<Vec<_>>().as_slice() {
            ["auto"] => {
                let on_gpu = ["cuda", "libtorch:cuda"].into_iter().find_map(|name| Self::from_name(name).ok());
                Ok(on_gpu.unwrap_or(Self::Flex))
            }
            ["flex"] => Ok(Self::Flex),
            ["cuda"] => Self::cuda(name, 0),
            ["cuda", index] => Self::cuda(name, device(index)?),
            ["libtorch"] => Self::libtorch(name, None),
            ["libtorch", "cuda"] => Self::libtorch(name, Some(0)),
            ["libtorch", "cuda", index] => Self::libtorch(name, Some(device(index)?)),
            _ => Err(unknown()),
        }
    }

    /// A GPU, once it is known that there is one: burn would only panic later.
    #[cfg(feature = "cuda")]
    fn cuda(name: &str, index: usize) -> Result<Self, Error> {
        colbert_kernels::probe_cuda(index).map(|()| Self::Cuda(index)).map_err(|missing| unusable(name, missing))
    }

    #[cfg(not(feature = "cuda"))]
    fn cuda(name: &str, _: usize) -> Result<Self, Error> {
        Err(Error::BackendNotBuilt { found: name.to_owned(), available: AVAILABLE.join(", "), feature: "cuda" })
    }

    #[cfg(feature = "tch")]
    fn libtorch(name: &str, gpu: Option<usize>) -> Result<Self, Error> {
        let Some(index) = gpu else { return Ok(Self::LibTorch) };
        let usable = colbert_kernels::probe_libtorch_cuda(index);
        usable.map(|()| Self::LibTorchCuda(index)).map_err(|missing| unusable(name, missing))
    }

    #[cfg(not(feature = "tch"))]
    fn libtorch(name: &str, _: Option<usize>) -> Result<Self, Error> {
        Err(Error::BackendNotBuilt { found: name.to_owned(), available: AVAILABLE.join(", "), feature: "tch" })
    }

    /// Whether bfloat16 matmul is faster here than float32 matmul.
    pub fn has_bf16(self) -> bool {
        self.formats().bf16
    }

    /// Replaces a requested precision by the nearest available one: bfloat16 and TF32 are taken only where the device gains
    /// speed by them.
    ///
    /// # Errors
    /// float16 on a device without it: it is not replaced, as its runs differ from others by more than rounding. TF32 on a
    /// CPU, which does not have it.
    pub fn precision(self, asked: Precision) -> Result<Precision, Error> {
        let formats = self.formats();
        let nearest = formats.nearest(asked);
        if asked == Precision::Tf32 && !formats.gpu {
            return Err(Error::NoTf32 { backend: self });
        }
        if asked == Precision::F16 && nearest != asked {
            return Err(Error::NoFloat16 { backend: self, nearest });
        }
        Ok(nearest)
    }

    /// Returns the nearest available precision, for encoding, where any will do.
    pub(crate) fn nearest_precision(self, asked: Precision) -> Precision {
        self.formats().nearest(asked)
    }

    fn formats(self) -> Formats {
        struct Ask;
        impl Job for Ask {
            type Output = [bool; 3];

            fn run<B: KernelAutodiffBackend>(self, device: &B::Device) -> [bool; 3] {
                [B::InnerBackend::has_tf32(device), B::InnerBackend::has_bf16(device), B::InnerBackend::has_f16(device)]
            }
        }
        let gpu = match self {
            Self::Flex => false,
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => true,
            #[cfg(feature = "tch")]
            Self::LibTorch => false,
            #[cfg(feature = "tch")]
            Self::LibTorchCuda(_) => true,
        };
        let [tf32, bf16, f16] = self.run(Ask);
        Formats { tf32, bf16, f16, gpu }
    }

    /// Whether the backend keeps what it once had of the device's memory, and has no way to be asked to give it back.
    pub(crate) fn keeps_memory(self) -> bool {
        match self {
            Self::Flex => false,
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => false,
            #[cfg(feature = "tch")]
            Self::LibTorch => false,
            #[cfg(feature = "tch")]
            Self::LibTorchCuda(_) => true,
        }
    }

    /// Runs a job on this backend.
    pub fn run<J: Job>(self, job: J) -> J::Output {
        match self {
            Self::Flex => job.run::<Autodiff<burn_flex::Flex>>(&burn_flex::FlexDevice),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => {
                job.run::<Autodiff<burn::backend::Cuda<f32, i32>>>(&burn::backend::cuda::CudaDevice::new(index))
            }
            #[cfg(feature = "tch")]
            Self::LibTorch => on_libtorch(job, burn::backend::libtorch::LibTorchDevice::Cpu),
            #[cfg(feature = "tch")]
            Self::LibTorchCuda(index) => on_libtorch(job, burn::backend::libtorch::LibTorchDevice::Cuda(index)),
        }
    }
}

/// Bounds what libraries of the backends keep of what they compiled (docs/backends.md, libtorch). For a program to call first of all;
/// without effect once there are other threads.
pub fn bound_caches() {
    #[cfg(feature = "tch")]
    colbert_kernels::bound_libtorch_caches();
}

/// Uses N threads of the CPU in place of all. To be called first, and once; a caller with a rayon thread pool has chosen
/// already. Environment variables that say it too (`RAYON_NUM_THREADS`, `OMP_NUM_THREADS`) are overruled.
///
/// # Errors
/// No thread, more than this machine has, or a pool that is in use.
pub fn set_threads(threads: usize) -> Result<(), Error> {
    let most = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let refused = |problem: &str| Error::Threads { found: threads, problem: problem.to_owned() };
    if threads == 0 {
        return Err(refused("the fewest are 1"));
    }
    if threads > most {
        return Err(refused(&format!("the most that this machine runs at once are {most}")));
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build_global().map_err(|_| refused("others were set before"))?;
    #[cfg(feature = "tch")]
    colbert_kernels::set_libtorch_threads(threads);
    Ok(())
}

#[cfg(feature = "tch")]
fn on_libtorch<J: Job>(job: J, device: burn::backend::libtorch::LibTorchDevice) -> J::Output {
    job.run::<Autodiff<burn::backend::LibTorch<f32>>>(&device)
}

#[cfg(any(feature = "cuda", feature = "tch"))]
fn unusable(name: &str, missing: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::BackendUnusable { found: name.to_owned(), source: missing.into() }
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flex => write!(f, "flex (CPU)"),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            #[cfg(feature = "tch")]
            Self::LibTorch => write!(f, "libtorch (CPU)"),
            #[cfg(feature = "tch")]
            Self::LibTorchCuda(index) => write!(f, "libtorch:cuda:{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precision_becomes_the_nearest_that_the_device_has() {
        use Precision::{Auto, Bf16, F16, F32, Tf32};
        // TF32 came with bfloat16.
        let formats = |bf16, f16, gpu| Formats { tf32: bf16 && gpu, bf16, f16, gpu };
        let taken = |bf16, f16, gpu| [F32, Bf16, F16, Auto].map(|asked| formats(bf16, f16, gpu).nearest(asked));
        assert_eq!(taken(false, false, false), [F32, F32, F32, F32], "flex without bfloat16");
        assert_eq!(taken(true, false, false), [F32, Bf16, Bf16, Bf16], "flex with it");
        assert_eq!(taken(false, true, false), [F32, F32, F16, F32], "libtorch on a processor without bfloat16");
        assert_eq!(taken(true, true, false), [F32, Bf16, F16, Bf16], "and on one with it");
        assert_eq!(taken(false, true, true), [F32, F32, F16, F16], "a GPU before Ampere");
        assert_eq!(taken(true, true, true), [F32, Bf16, F16, Bf16], "a newer one");
        assert_eq!(formats(true, true, true).nearest(Tf32), Tf32);
        assert_eq!(formats(false, true, true).nearest(Tf32), F32, "a GPU before Ampere");
        let message = Backend::Flex.precision(Tf32).unwrap_err().to_string();
        assert!(message.contains("tf32") && message.contains("flex") && message.contains("\"f32\""), "{message}");
        let message = Backend::Flex.precision(F16).unwrap_err().to_string();
        let nearest = if Backend::Flex.has_bf16() { "\"bf16\"" } else { "\"f32\"" };
        assert!(message.contains("float16") && message.contains("flex") && message.contains(nearest), "{message}");
        #[cfg(feature = "tch")]
        assert_eq!(Backend::LibTorch.precision(F16).unwrap(), F16);
    }

    #[test]
    fn names() {
        assert_eq!(Backend::from_name("flex").unwrap(), Backend::Flex);
        assert!(Backend::from_name("auto").is_ok());
        let error = Backend::from_name("tpu").unwrap_err().to_string();
        assert!(error.contains("tpu") && error.contains("flex"), "{error}");
        for wrong in ["flex:1", "cuda:one", "cuda:0:0", "libtorch:cpu", "libtorch:cuda:-1", ""] {
            let error = Backend::from_name(wrong).unwrap_err();
            assert!(matches!(error, Error::UnknownBackend { .. }), "{wrong}: {error}");
        }
        #[cfg(not(feature = "cuda"))]
        assert!(Backend::from_name("cuda:1").unwrap_err().to_string().contains("--features cuda"));
        #[cfg(not(feature = "tch"))]
        assert!(Backend::from_name("libtorch").unwrap_err().to_string().contains("--features tch"));
        #[cfg(feature = "tch")]
        {
            assert_eq!(Backend::from_name("libtorch").unwrap(), Backend::LibTorch);
            let error = Backend::from_name("libtorch:cuda:999").unwrap_err();
            assert!(matches!(error, Error::BackendUnusable { .. }), "{error}");
        }
    }
}

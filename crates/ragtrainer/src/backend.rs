//! Which backends are compiled in, and how a name becomes one. Each has a file of its own: its names, its device, how
//! it is looked for. `cfg` stands on modules, variants, and the two lists of them.

#[cfg(feature = "cuda-untuned")]
mod cuda;
mod flex;
#[cfg(feature = "tch")]
mod libtorch;
#[cfg(feature = "wgpu-untuned")]
mod wgpu;

use std::fmt;

use colbert_config::Precision;
use colbert_kernels::{KernelAutodiffBackend, Kernels};

use crate::error::Error;

/// A backend and a device on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The embedded CPU backend, on all cores.
    Flex,
    /// An NVIDIA GPU by its index, through CubeCL.
    #[cfg(feature = "cuda-untuned")]
    Cuda(usize),
    /// A GPU of any maker by its adapter's number, through Vulkan, Metal or DirectX 12.
    #[cfg(feature = "wgpu-untuned")]
    Wgpu(usize),
    /// libtorch on the CPU.
    #[cfg(feature = "tch")]
    LibTorch,
    /// An NVIDIA GPU by its index, through libtorch.
    #[cfg(feature = "tch")]
    LibTorchCuda(usize),
}

/// A kind of backend, by its names.
struct Kind {
    /// First part of its names.
    name: &'static str,
    /// All that this build accepts, for people.
    forms: &'static [&'static str],
    /// The device that "auto" takes, if there is one.
    preferred: fn() -> Option<Backend>,
    /// The backend of a name, whose parts between colons follow the first. None if there is no such name.
    parse: fn(&[&str]) -> Option<Result<Backend, Missing>>,
}

/// The reason why a backend cannot be used here.
type Missing = Box<dyn std::error::Error + Send + Sync>;

/// The kinds that are compiled in, in the order in which "auto" tries them.
const KINDS: &[Kind] = &[
    flex::KIND,
    #[cfg(feature = "cuda-untuned")]
    cuda::KIND,
    #[cfg(feature = "tch")]
    libtorch::KIND,
    #[cfg(feature = "wgpu-untuned")]
    wgpu::KIND,
];

/// Kinds and the cargo features that compile them in.
const FEATURES: [(&str, &str); 3] = [("cuda", "cuda"), ("libtorch", "tch"), ("wgpu", "wgpu")];

/// A device of a backend that is compiled in.
trait Device: Copy + fmt::Display {
    /// Whether it is a GPU.
    fn is_gpu(self) -> bool;

    /// Whether the backend keeps what it once had of the device's memory, and has no way to be asked to give it back.
    fn keeps_memory(self) -> bool {
        false
    }

    /// Runs a job on it.
    fn run<J: Job>(self, job: J) -> J::Output;
}

/// Evaluates an expression with the device of a backend.
macro_rules! with_device {
    ($backend:expr, $device:ident => $result:expr) => {
        match $backend {
            Backend::Flex => {
                let $device = flex::Cpu;
                $result
            }
            #[cfg(feature = "cuda-untuned")]
            Backend::Cuda(index) => {
                let $device = cuda::Gpu(index);
                $result
            }
            #[cfg(feature = "wgpu-untuned")]
            Backend::Wgpu(index) => {
                let $device = wgpu::Gpu(index);
                $result
            }
            #[cfg(feature = "tch")]
            Backend::LibTorch => {
                let $device = libtorch::Place(None);
                $result
            }
            #[cfg(feature = "tch")]
            Backend::LibTorchCuda(index) => {
                let $device = libtorch::Place(Some(index));
                $result
            }
        }
    };
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

/// Names that this build accepts.
pub fn available_backends() -> Vec<&'static str> {
    ["auto"].into_iter().chain(KINDS.iter().flat_map(|kind| kind.forms.iter().copied())).collect()
}

impl Backend {
    /// The backend of a name: `flex`, `cuda`, `cuda:1`, `libtorch`, `libtorch:cuda:1`, `wgpu`, `wgpu:1`; `auto` is the
    /// first of `cuda`, `libtorch:cuda`, `wgpu` and `flex` that can be used, and never a GPU in software.
    ///
    /// # Errors
    /// A name that is unknown, whose backend was not compiled in, or whose device is not available on this machine.
    pub fn from_name(name: &str) -> Result<Self, Error> {
        if name == "auto" {
            let preferred = KINDS.iter().find_map(|kind| (kind.preferred)());
            return Ok(preferred.unwrap_or(Self::Flex));
        }
        let available = || available_backends().join(", ");
        let found = || name.to_owned();
        let parts: Vec<&str> = name.split(':').collect();
        if let Some(kind) = KINDS.iter().find(|kind| kind.name == parts[0]) {
            let parsed = (kind.parse)(&parts[1..]);
            let parsed = parsed.ok_or_else(|| Error::UnknownBackend { found: found(), available: available() })?;
            return parsed.map_err(|source| Error::BackendUnusable { found: found(), source });
        }
        // A wrong name of a backend that is not there is wrong all the same.
        let is_index = |text: &&str| text.parse::<usize>().is_ok();
        let is_form = match parts.as_slice() {
            ["cuda" | "wgpu", rest @ ..] | ["libtorch", "cuda", rest @ ..] => {
                rest.len() <= 1 && rest.iter().all(is_index)
            }
            parts => parts.len() == 1,
        };
        match FEATURES.iter().find(|(kind, _)| *kind == parts[0]).filter(|_| is_form) {
            Some((_, feature)) => Err(Error::BackendNotBuilt { found: found(), available: available(), feature }),
            None => Err(Error::UnknownBackend { found: found(), available: available() }),
        }
    }

    /// As [`Backend::from_name`], for one of several processes of a machine: where the name leaves the GPU open, the
    /// process takes that of its own number.
    ///
    /// # Errors
    /// As [`Backend::from_name`]; a machine with fewer GPUs than processes.
    pub(crate) fn of_process(name: &str, local_rank: usize) -> Result<Self, Error> {
        let first = Self::from_name(name)?;
        let is_open = !name.ends_with(|last: char| last.is_ascii_digit());
        match first.kind_of_gpu().filter(|_| local_rank > 0 && is_open) {
            Some(kind) => Self::from_name(&format!("{kind}:{local_rank}")),
            None => Ok(first),
        }
    }

    /// The name of its GPUs, without their numbers; none if it is a CPU.
    fn kind_of_gpu(self) -> Option<&'static str> {
        match self {
            Self::Flex => None,
            #[cfg(feature = "cuda-untuned")]
            Self::Cuda(_) => Some("cuda"),
            #[cfg(feature = "wgpu-untuned")]
            Self::Wgpu(_) => Some("wgpu"),
            #[cfg(feature = "tch")]
            Self::LibTorch => None,
            #[cfg(feature = "tch")]
            Self::LibTorchCuda(_) => Some("libtorch:cuda"),
        }
    }

    /// Whether it uses NVIDIA's own interfaces, the only ones to TF32.
    fn reaches_tf32(self) -> bool {
        matches!(self.kind_of_gpu(), Some("cuda" | "libtorch:cuda"))
    }

    /// Whether bfloat16 matmul is faster here than float32 matmul.
    pub fn has_bf16(self) -> bool {
        self.formats().bf16
    }

    /// Replaces a requested precision by the nearest available one: bfloat16 and TF32 are taken only where the device
    /// gains speed by them.
    ///
    /// # Errors
    /// float16 on a device without it: it is not replaced, as its runs differ from others by more than rounding. TF32
    /// on a CPU, and through Vulkan, Metal and DirectX 12, which do not have it.
    pub fn precision(self, asked: Precision) -> Result<Precision, Error> {
        let formats = self.formats();
        let nearest = formats.nearest(asked);
        if asked == Precision::Tf32 && !self.reaches_tf32() {
            return Err(Error::NoTf32 { backend: self.to_string() });
        }
        if asked == Precision::F16 && nearest != asked {
            return Err(Error::NoFloat16 { backend: self.to_string(), nearest });
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
        let [tf32, bf16, f16] = self.run(Ask);
        Formats { tf32, bf16, f16, gpu: self.is_gpu() }
    }

    /// Whether its device is a GPU.
    pub(crate) fn is_gpu(self) -> bool {
        with_device!(self, device => device.is_gpu())
    }

    /// Whether the backend keeps what it once had of the device's memory, and has no way to be asked to give it back.
    pub(crate) fn keeps_memory(self) -> bool {
        with_device!(self, device => device.keeps_memory())
    }

    /// Runs a job on this backend.
    pub fn run<J: Job>(self, job: J) -> J::Output {
        with_device!(self, device => device.run(job))
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        with_device!(*self, device => device.fmt(f))
    }
}

/// Bounds what libraries of the backends keep of what they compiled (docs/backends.md, libtorch). For a program to call
/// first of all; without effect once there are other threads.
pub fn bound_caches() {
    #[cfg(feature = "tch")]
    colbert_kernels::device::bound_libtorch_caches();
}

/// Uses N threads of the CPU in place of all. To be called first, and once; a caller with a rayon thread pool has
/// chosen already. Environment variables that say it too (`RAYON_NUM_THREADS`, `OMP_NUM_THREADS`) are overruled.
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
    colbert_kernels::device::set_libtorch_threads(threads);
    Ok(())
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

    /// (A machine with GPUs was not at hand.)
    #[test]
    fn processes_of_a_cpu_share_it_and_wrong_names_stay_wrong() {
        for local_rank in 0..3 {
            assert_eq!(Backend::of_process("flex", local_rank).unwrap(), Backend::Flex);
            assert!(matches!(Backend::of_process("tpu", local_rank), Err(Error::UnknownBackend { .. })));
        }
    }

    #[test]
    fn names() {
        assert_eq!(Backend::from_name("flex").unwrap(), Backend::Flex);
        assert!(Backend::from_name("auto").is_ok());
        let error = Backend::from_name("tpu").unwrap_err().to_string();
        assert!(error.contains("tpu") && error.contains("flex"), "{error}");
        for wrong in ["flex:1", "cuda:one", "cuda:0:0", "libtorch:cpu", "libtorch:cuda:-1", "wgpu:one", ""] {
            let error = Backend::from_name(wrong).unwrap_err();
            assert!(matches!(error, Error::UnknownBackend { .. }), "{wrong}: {error}");
        }
        #[cfg(not(feature = "cuda-untuned"))]
        assert!(Backend::from_name("cuda:1").unwrap_err().to_string().contains("--features cuda"));
        #[cfg(not(feature = "wgpu-untuned"))]
        assert!(Backend::from_name("wgpu:1").unwrap_err().to_string().contains("--features wgpu"));
        #[cfg(feature = "wgpu-untuned")]
        {
            let error = Backend::from_name("wgpu:999").unwrap_err();
            assert!(matches!(error, Error::BackendUnusable { .. }), "{error}");
            assert!(!Backend::from_name("auto").unwrap().to_string().contains("in software"));
        }
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

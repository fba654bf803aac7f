//! Which backends are compiled in, and how a name becomes one. The only file with backend `cfg`s.

use burn::backend::Autodiff;
use colbert_kernels::{KernelAutodiffBackend, Kernels};

use crate::error::Error;

/// Names that this build accepts.
pub const AVAILABLE: &str = if cfg!(feature = "cuda") { "auto, flex, cuda, cuda:N" } else { "auto, flex" };

/// A backend and a device on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The embedded CPU backend, on all cores.
    Flex,
    /// An NVIDIA GPU by its index.
    #[cfg(feature = "cuda")]
    Cuda(usize),
}

/// Work that is generic over the backend.
pub trait Job {
    /// What it gives back.
    type Output;

    /// Does the work on one backend.
    fn run<B: KernelAutodiffBackend>(self, device: &B::Device) -> Self::Output;
}

impl Backend {
    /// The backend of a name: `auto`, `flex`, `cuda`, `cuda:1`.
    ///
    /// # Errors
    /// A name that is unknown, whose backend was not compiled in, or whose device is not to be had on this machine.
    pub fn from_name(name: &str) -> Result<Self, Error> {
        let found = || name.to_owned();
        match name.split(':').collect::<Vec<_>>().as_slice() {
            ["auto" | "flex"] => Ok(Self::Flex),
            #[cfg(feature = "cuda")]
            ["cuda"] => Self::cuda(name, 0),
            #[cfg(feature = "cuda")]
            ["cuda", index] => match index.parse() {
                Ok(index) => Self::cuda(name, index),
                Err(_) => Err(Error::UnknownBackend { found: found(), available: AVAILABLE }),
            },
            #[cfg(not(feature = "cuda"))]
            ["cuda", ..] => Err(Error::BackendNotBuilt { found: found(), available: AVAILABLE, feature: "cuda" }),
            _ => Err(Error::UnknownBackend { found: found(), available: AVAILABLE }),
        }
    }

    /// A GPU, once it is known that there is one: burn would only panic later.
    #[cfg(feature = "cuda")]
    fn cuda(name: &str, index: usize) -> Result<Self, Error> {
        match colbert_kernels::probe_cuda(index) {
            Ok(()) => Ok(Self::Cuda(index)),
            Err(missing) => Err(Error::BackendUnusable { found: name.to_owned(), source: missing.into() }),
        }
    }

    /// Whether products of bfloat16 are faster here than those of float32.
    pub fn has_bf16(self) -> bool {
        struct Ask;
        impl Job for Ask {
            type Output = bool;

            fn run<B: KernelAutodiffBackend>(self, device: &B::Device) -> bool {
                B::InnerBackend::has_bf16(device)
            }
        }
        self.run(Ask)
    }

    /// Runs a job on this backend.
    pub fn run<J: Job>(self, job: J) -> J::Output {
        match self {
            Self::Flex => job.run::<Autodiff<burn_flex::Flex>>(&burn_flex::FlexDevice),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => {
                job.run::<Autodiff<burn::backend::Cuda<f32, i32>>>(&burn::backend::cuda::CudaDevice::new(index))
            }
        }
    }
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flex => write!(f, "flex (CPU)"),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(Backend::from_name("auto").unwrap(), Backend::Flex);
        assert_eq!(Backend::from_name("flex").unwrap(), Backend::Flex);
        let error = Backend::from_name("tpu").unwrap_err().to_string();
        assert!(error.contains("tpu") && error.contains("flex"), "{error}");
        assert!(Backend::from_name("flex:1").is_err());
        assert!(Backend::from_name("cuda:one").is_err());
        #[cfg(not(feature = "cuda"))]
        assert!(Backend::from_name("cuda:1").unwrap_err().to_string().contains("--features cuda"));
    }
}

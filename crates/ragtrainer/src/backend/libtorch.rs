//! libtorch, on the CPU and on NVIDIA GPUs.

use std::fmt;

use burn::backend::libtorch::LibTorchDevice;
use burn::backend::{Autodiff, LibTorch};

use crate::backend::{Backend, Device, Job, Kind};

pub(super) const KIND: Kind = Kind {
    name: "libtorch",
    forms: &["libtorch", "libtorch:cuda:N"],
    preferred: || Backend::from_name("libtorch:cuda").ok(),
    parse: |parts| {
        let index = match parts {
            [] => return Some(Ok(Backend::LibTorch)),
            ["cuda"] => 0,
            ["cuda", index] => index.parse().ok()?,
            _ => return None,
        };
        let usable = colbert_kernels::device::probe_libtorch_cuda(index);
        Some(usable.map(|()| Backend::LibTorchCuda(index)).map_err(Into::into))
    },
};

/// The CPU, or a GPU by its index.
#[derive(Clone, Copy)]
pub(super) struct Place(pub(super) Option<usize>);

impl Device for Place {
    fn is_gpu(self) -> bool {
        self.0.is_some()
    }

    fn keeps_memory(self) -> bool {
        self.is_gpu()
    }

    fn run<J: Job>(self, job: J) -> J::Output {
        let device = self.0.map_or(LibTorchDevice::Cpu, LibTorchDevice::Cuda);
        job.run::<Autodiff<LibTorch<f32>>>(&device)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("libtorch (CPU)"),
            Some(index) => write!(f, "libtorch:cuda:{index}"),
        }
    }
}

//! NVIDIA GPUs through CubeCL.

use std::fmt;

use burn::backend::cuda::CudaDevice;
use burn::backend::{Autodiff, Cuda};

use crate::backend::{Backend, Device, Job, Kind};

pub(super) const KIND: Kind = Kind {
    name: "cuda",
    forms: &["cuda", "cuda:N"],
    preferred: || Backend::from_name("cuda").ok(),
    parse: |parts| {
        let index = match parts {
            [] => 0,
            [index] => index.parse().ok()?,
            _ => return None,
        };
        // burn would only panic later where there is no such device.
        Some(colbert_kernels::device::probe_cuda(index).map(|()| Backend::Cuda(index)).map_err(Into::into))
    },
};

/// A GPU by its index.
#[derive(Clone, Copy)]
pub(super) struct Gpu(pub(super) usize);

impl Device for Gpu {
    fn is_gpu(self) -> bool {
        true
    }

    fn run<J: Job>(self, job: J) -> J::Output {
        job.run::<Autodiff<Cuda<f32, i32>>>(&CudaDevice::new(self.0))
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cuda:{}", self.0)
    }
}

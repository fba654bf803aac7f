//! GPUs of any maker through Vulkan, Metal or DirectX 12.

use std::fmt;

use burn::backend::{Autodiff, Wgpu};
use colbert_kernels::device::{open_wgpu, wgpu_adapters};

use crate::backend::{Backend, Device, Job, Kind};

pub(super) const KIND: Kind = Kind {
    name: "wgpu",
    forms: &["wgpu", "wgpu:N"],
    // An adapter in software computes what flex does, many times slower.
    preferred: || {
        let gpus = wgpu_adapters().into_iter().enumerate().filter(|(_, adapter)| !adapter.is_software);
        gpus.map(|(index, _)| index).find(|index| open_wgpu(*index).is_ok()).map(Backend::Wgpu)
    },
    parse: |parts| {
        let index = match parts {
            [] => 0,
            [index] => index.parse().ok()?,
            _ => return None,
        };
        Some(open_wgpu(index).map(|_| Backend::Wgpu(index)).map_err(Into::into))
    },
};

/// An adapter by its number.
#[derive(Clone, Copy)]
pub(super) struct Gpu(pub(super) usize);

impl Device for Gpu {
    fn is_gpu(self) -> bool {
        true
    }

    fn run<J: Job>(self, job: J) -> J::Output {
        let device = open_wgpu(self.0).unwrap_or_else(|error| panic!("adapter {} was open before: {error}", self.0));
        job.run::<Autodiff<Wgpu<f32, i32>>>(&device)
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match wgpu_adapters().get(self.0) {
            Some(adapter) => write!(f, "wgpu:{}, {adapter}", self.0),
            None => write!(f, "wgpu:{}", self.0),
        }
    }
}

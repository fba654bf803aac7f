//! The embedded CPU backend.

use std::fmt;

use burn::backend::Autodiff;
use burn_flex::{Flex, FlexDevice};

use crate::backend::{Backend, Device, Job, Kind};

pub(super) const KIND: Kind = Kind {
    name: "flex",
    forms: &["flex"],
    preferred: || None,
    parse: |parts| parts.is_empty().then_some(Ok(Backend::Flex)),
};

/// All cores of the processor.
#[derive(Clone, Copy)]
pub(super) struct Cpu;

impl Device for Cpu {
    fn is_gpu(self) -> bool {
        false
    }

    fn run<J: Job>(self, job: J) -> J::Output {
        job.run::<Autodiff<Flex>>(&FlexDevice)
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("flex (CPU)")
    }
}

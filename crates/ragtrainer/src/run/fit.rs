//! Micro-batches that fit a memory limit: computed by a formula, or tried out on the device.

pub(crate) mod computed;
pub(crate) mod tried;

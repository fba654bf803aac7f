//! The link between the devices of several processes.

#[cfg(feature = "cuda")]
use crate::device::nccl::Nccl;

/// Joins the devices of several processes, so that tensors move from one to another without the host.
#[derive(Debug)]
#[non_exhaustive]
pub enum DeviceLink {
    /// NVIDIA GPUs of the backend `cuda`.
    #[cfg(feature = "cuda")]
    Nccl(Nccl),
}

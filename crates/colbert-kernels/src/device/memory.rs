//! Memory of devices.

/// Where a device keeps its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceMemory {
    /// In the memory of the process.
    Host,
    /// In memory of its own: bytes that nobody has, if the driver says how many.
    Own(Option<u64>),
}

//! Memory of devices.

/// The place where a device keeps its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceMemory {
    /// In the memory of the process.
    Host,
    /// In memory of its own: the bytes that are free, if the driver reports them.
    Own(Option<u64>),
}

//! Device failures and the memory of this process.

pub(crate) mod cgroup;
pub(crate) mod fault;
pub mod memory;

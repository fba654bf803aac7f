//! The processes that train one model together, each with a share of every batch.

pub(crate) mod devices;
pub(crate) mod exchange;
pub(crate) mod tokens;

use std::fmt;

use colbert_kernels::device::DeviceLink;

/// Processes that work on one run, each with the whole data and the whole model.
///
/// Every process calls the same methods in the same order, from one thread; a call returns when all have made it. The
/// implementation handles a process that is gone: MPI ends the others.
pub trait Processes: fmt::Debug + Send + Sync {
    /// Returns the number of this process, from 0. Process 0 writes and prints.
    fn rank(&self) -> usize;

    /// Returns the number of processes.
    fn size(&self) -> usize;

    /// Returns the number of this process among those of its machine, from 0, which decides its GPU.
    fn local_rank(&self) -> usize {
        self.rank()
    }

    /// Returns how many processes its machine has: they divide its memory.
    fn local_size(&self) -> usize {
        self.size()
    }

    /// Returns the bytes of every process, by rank. Their numbers may differ.
    fn all_gather(&self, own: &[u8]) -> Vec<Vec<u8>>;

    /// Gives `parts[i]` to process i, and returns what every process gave to this one, by rank.
    fn all_to_all(&self, parts: &[&[u32]]) -> Vec<Vec<u32>>;

    /// Returns what joins the devices of the processes, if tensors can move between them without the host. Gradients
    /// and embeddings then do; what is on the host goes the ways above.
    fn device_link(&self) -> Option<&DeviceLink> {
        None
    }

    /// Returns whether this is process 0.
    fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Waits until all are here.
    fn barrier(&self) {
        self.all_gather(&[]);
    }

    /// Returns what process 0 gave.
    fn broadcast(&self, own: &[u8]) -> Vec<u8> {
        let own = if self.is_first() { own } else { &[] };
        self.all_gather(own).swap_remove(0)
    }
}

/// One process, on its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct OneProcess;

impl Processes for OneProcess {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_gather(&self, own: &[u8]) -> Vec<Vec<u8>> {
        vec![own.to_vec()]
    }

    fn all_to_all(&self, parts: &[&[u32]]) -> Vec<Vec<u32>> {
        vec![parts[0].to_vec()]
    }
}

//! The encoder and the processes of a run, which most of its parts need.

use std::sync::Arc;

use colbert_train::Processes;

use crate::backend::Backend;
use crate::error::Error;

/// The encoder of a run, and its processes.
pub(crate) struct Sharing<'a, E> {
    pub(crate) encoder: &'a E,
    pub(crate) processes: &'a Arc<dyn Processes>,
}

impl<E> Clone for Sharing<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Sharing<'_, E> {}

impl<E> Sharing<'_, E> {
    /// The backend of a name, on this process's own device.
    pub(crate) fn backend(&self, name: &str) -> Result<Backend, Error> {
        Backend::of_process(name, self.processes.local_rank())
    }
}

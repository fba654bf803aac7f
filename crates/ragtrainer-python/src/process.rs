//! The process that uses the library: its start, and forks of it.

use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::prelude::*;

use crate::error::Kind;
use crate::logging;

/// Id of the process in which threads were started; 0 before.
static USED_IN: AtomicU32 = AtomicU32::new(0);

/// Must be called before any work: starts the bridge to `logging` at the first call, and refuses a forked child, as the
/// library's threads exist only in its parent and waiting for them would never end.
pub(crate) fn enter() -> PyResult<()> {
    let own = process::id();
    match USED_IN.compare_exchange(0, own, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => {
            ragtrainer::backend::bound_caches();
            logging::install()
        }
        Err(used) if used == own => Ok(()),
        Err(used) => Err(Kind::Fork.raise(format!(
            "ragtrainer was used in process {used} before this process ({own}) was forked from it, and its threads are \
             not here; expected a process of its own: start it with multiprocessing.get_context(\"spawn\"), or use \
             ragtrainer only in the children"
        ))),
    }
}

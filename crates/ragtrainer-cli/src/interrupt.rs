//! Ctrl-C, SIGTERM and SIGHUP: the first asks the run to end after the current step, the second ends the program at
//! once.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
#[cfg(unix)]
use signal_hook::consts::SIGHUP;
use signal_hook::consts::{SIGINT, SIGTERM};

/// Exit code of a run that was interrupted.
pub(crate) const INTERRUPTED: u8 = 130;

/// The panic payload that ends work by unwinding.
struct Ended;

/// Signals that request the end of a run. SIGHUP means that the terminal was closed.
const SIGNALS: &[i32] = &[
    SIGINT,
    SIGTERM,
    #[cfg(unix)]
    SIGHUP,
];

/// The request to end the run after the current step.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Installs the handlers.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for &signal in SIGNALS {
            // In this order: the second signal finds the flag set and ends the program.
            signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED.into(), Arc::clone(&flag))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
                .context("cannot install the handler of signals")?;
        }
        Ok(Self(flag))
    }

    /// Runs work that has no request to stop, such as mining. Returns `None` if [`Interrupt::end_if_requested`] ended
    /// it; what the work had made, files included, is gone then.
    pub(crate) fn ending<T>(&self, work: impl FnOnce(&Self) -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(done) => Some(done),
            Err(payload) if payload.is::<Ended>() => None,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Ends the work of [`Interrupt::ending`] if an end was requested.
    pub(crate) fn end_if_requested(&self) {
        if self.requested() {
            // Past the hook that reports panics, as this is not a fault.
            resume_unwind(Box::new(Ended));
        }
    }

    /// Whether an end was requested.
    pub(crate) fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

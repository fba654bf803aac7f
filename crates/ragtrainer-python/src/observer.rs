//! Events for Python: how a callable receives them, and how it stops the work.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use ragtrainer::data::MiningPhase;
use ragtrainer::train::{Event, Flow};
use serde_json::json;

/// Time between two checks for signals, and between two events that only report progress.
const PAUSE: Duration = Duration::from_millis(100);

/// Passes events to a Python callable, and keeps the exception that ends the work: one raised by the callable, or
/// `KeyboardInterrupt`.
#[derive(Debug)]
pub(crate) struct Listener {
    callable: Option<Py<PyAny>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    raised: Option<PyErr>,
    next: Instant,
}

/// A panic payload that unwinds through a miner to end it; caught in [`Listener::interruptible`].
struct Interrupted;

impl Listener {
    pub(crate) fn new(callable: Option<Py<PyAny>>) -> Self {
        Self { callable, state: Mutex::new(State { raised: None, next: Instant::now() }) }
    }

    /// The exception that ended the work, if one did.
    pub(crate) fn take_raised(&self) -> Option<PyErr> {
        self.lock().raised.take()
    }

    /// Passes on an event of a run.
    pub(crate) fn event(&self, event: &Event) -> Flow {
        let counts = matches!(event, Event::Evaluating { .. });
        let text = || serde_json::to_string(event).expect("events have a JSON form");
        if self.tell(counts, text) { Flow::Continue } else { Flow::Stop }
    }

    /// Passes on the progress of mining; ends it by unwinding if Python wants to stop.
    pub(crate) fn mining(&self, phase: MiningPhase, done: usize, total: usize) {
        let phase = match phase {
            MiningPhase::Indexing => "indexing",
            MiningPhase::Ranking => "ranking",
            MiningPhase::Rescoring => "rescoring",
            MiningPhase::Teaching => "teaching",
            // Phases that were added after this crate was written.
            _ => "mining",
        };
        let text = || json!({ "event": "mining", "phase": phase, "done": done, "total": total }).to_string();
        if !self.tell(done < total, text) {
            resume_unwind(Box::new(Interrupted));
        }
    }

    /// Passes on the number of encoded documents; ends the work by unwinding if Python wants to stop.
    pub(crate) fn encoding(&self, done: usize, total: usize) {
        let text = || json!({ "event": "encoding", "done": done, "total": total }).to_string();
        if !self.tell(done < total, text) {
            resume_unwind(Box::new(Interrupted));
        }
    }

    /// Runs work that has no request to stop. Returns `None` if it was ended.
    pub(crate) fn interruptible<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(done) => Some(done),
            Err(payload) if payload.is::<Interrupted>() => None,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Calls the callable with an event and checks for signals. Returns whether to go on.
    fn tell(&self, may_be_left_out: bool, text: impl FnOnce() -> String) -> bool {
        // The lock is not held while Python runs: the callable may wait for another thread.
        {
            let mut state = self.lock();
            if state.raised.is_some() {
                return false;
            }
            if may_be_left_out && Instant::now() < state.next {
                return true;
            }
            state.next = Instant::now() + PAUSE;
        }
        let told = Python::attach(|py| {
            py.check_signals()?;
            match &self.callable {
                Some(callable) => callable.call1(py, (text(),)).map(drop),
                None => Ok(()),
            }
        });
        match told {
            Ok(()) => true,
            Err(error) => {
                self.lock().raised = Some(error);
                false
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

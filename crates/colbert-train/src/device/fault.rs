//! Conversion of device failures that arrive as panics into errors.
//!
//! libtorch's bindings panic on the thread that calls them. CubeCL 0.10 panics on a thread of its own, catches the
//! panic there and continues: later results are computed from unwritten memory, without any report. So both kinds are
//! watched, by a panic hook that is set when a device of such a backend is first used; it passes all other panics on.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use colbert_kernels::device::DevicePanics;
use colbert_kernels::{KernelAutodiffBackend, Kernels};

use crate::error::TrainError;

/// A failure of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceFault {
    /// Whether memory was exhausted.
    pub(crate) out_of_memory: bool,
    /// Its message.
    pub(crate) said: String,
}

impl DeviceFault {
    /// Returns the error of a fault in a step, from 1, of `batch_size` queries with `micro_batch` of them computed at
    /// once.
    pub(crate) fn in_step(self, step: usize, batch_size: usize, micro_batch: usize) -> TrainError {
        let Self { out_of_memory, said } = self;
        match out_of_memory {
            true => TrainError::OutOfMemory { step, batch_size, micro_batch, said },
            false => TrainError::Device { during: format!("step {step}"), said },
        }
    }
}

/// Returns the message of a panic.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it did not say why".to_owned())
}

/// The watch over the threads of devices: what to look for, and the message of the first panic there.
static WATCHED: Mutex<(Option<DevicePanics>, Option<String>)> = Mutex::new((None, None));

thread_local! {
    /// The messages to look for in a panic of this thread, while it does guarded work.
    static GUARDED: Cell<Option<DevicePanics>> = const { Cell::new(None) };
}

fn watched() -> MutexGuard<'static, (Option<DevicePanics>, Option<String>)> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does work on a device; a failure of the device is an error, any other panic stays one. The work must end with a
/// number that is read from the device, so that what failed has failed by then.
pub(crate) fn guarded<B: KernelAutodiffBackend, T>(work: impl FnOnce() -> T) -> Result<T, DeviceFault> {
    match B::InnerBackend::device_panics() {
        Some(panics) => guarded_from(panics, work),
        None => Ok(work()),
    }
}

/// Does work on a device; a failure of the device is an error that names the work.
///
/// # Errors
/// The device failed.
pub fn on_device<B: KernelAutodiffBackend, T>(during: &str, work: impl FnOnce() -> T) -> Result<T, TrainError> {
    guarded::<B, _>(work).map_err(|fault| TrainError::Device { during: during.to_owned(), said: fault.said })
}

fn guarded_from<T>(panics: DevicePanics, work: impl FnOnce() -> T) -> Result<T, DeviceFault> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !is_told_as_an_error(panic) {
                before(panic);
            }
        }));
    });
    if !panics.threads.is_empty() {
        watched().0 = Some(panics);
    }
    let outer = GUARDED.replace(Some(panics));
    // The caller abandons the work during which a device failed: it ends the run, or tries smaller work.
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(outer);
    let fault = |said: String| match panics.out_of_memory(&said) {
        Some(words) => DeviceFault { out_of_memory: true, said: words.to_owned() },
        None => DeviceFault { out_of_memory: false, said },
    };
    match (done, watched().1.take()) {
        (Ok(done), None) => Ok(done),
        (_, Some(said)) => Err(fault(said)),
        (Err(payload), None) => match fault(panic_message(&*payload)) {
            fault if fault.out_of_memory => Err(fault),
            _ => resume_unwind(payload),
        },
    }
}

/// Notes a panic of a device. True if nothing is to be printed, as an error will say it: memory that is missing, and
/// what follows from that.
fn is_told_as_an_error(panic: &PanicHookInfo<'_>) -> bool {
    let message = panic_message(panic.payload());
    let mut watched = watched();
    let (panics, first) = &mut *watched;
    let thread = std::thread::current();
    if let Some(panics) = panics.filter(|panics| panics.is_of_device(thread.name())) {
        let first = first.get_or_insert(message);
        return panics.out_of_memory(first).is_some();
    }
    // A thread that is ending has no guard.
    let Some(panics) = GUARDED.try_with(Cell::get).ok().flatten() else { return false };
    panics.out_of_memory(first.as_deref().unwrap_or(&message)).is_some()
}

#[cfg(test)]
mod tests {
    use std::thread::Builder;

    use super::*;

    const PANICS: DevicePanics = DevicePanics { out_of_memory: &["no memory"], threads: &["a device of the tests"] };

    #[test]
    fn a_dead_thread_is_quoted() {
        let said = |work: fn()| panic_message(&*std::thread::spawn(work).join().unwrap_err());
        assert_eq!(said(|| panic!("the file is gone")), "the file is gone");
        assert_eq!(said(|| panic!("{} is gone", 3)), "3 is gone");
        assert_eq!(said(|| std::panic::panic_any(3)), "it did not say why");
    }

    /// One test, as the threads of devices are those of the process.
    #[test]
    fn panics_of_a_device_are_errors_and_others_stay_panics() {
        assert_eq!(guarded_from(PANICS, || 3), Ok(3));
        let fault = guarded_from(PANICS, || -> u8 { panic!("Torch(\"at x.cpp: no memory for 12 bytes\\nframe\")") });
        assert_eq!(fault, Err(DeviceFault { out_of_memory: true, said: "no memory for 12 bytes".to_owned() }));
        let panicked = catch_unwind(|| guarded_from(PANICS, || -> u8 { panic!("a defect") }));
        assert_eq!(panic_message(&*panicked.unwrap_err()), "a defect");

        let on_device = |said: &'static str| {
            let thread = Builder::new().name("a device of the tests".to_owned());
            thread.spawn(move || panic!("{said}")).unwrap().join().unwrap_err();
        };
        // As CubeCL does: the work itself continues, with meaningless numbers.
        let fault = guarded_from(PANICS, || {
            on_device("no memory for 13 bytes");
            on_device("Resource to exist.");
            17.0
        });
        assert_eq!(fault, Err(DeviceFault { out_of_memory: true, said: "no memory for 13 bytes".to_owned() }));
        let fault = guarded_from(PANICS, || -> f64 {
            on_device("no memory for 14 bytes");
            panic!("called `Result::unwrap()` on an `Err` value: CallError")
        });
        assert_eq!(fault, Err(DeviceFault { out_of_memory: true, said: "no memory for 14 bytes".to_owned() }));
        let fault = guarded_from(PANICS, || on_device("a kernel does not compile"));
        assert_eq!(fault, Err(DeviceFault { out_of_memory: false, said: "a kernel does not compile".to_owned() }));
        assert_eq!(guarded_from(PANICS, || 4), Ok(4), "nothing is left of them");
    }
}

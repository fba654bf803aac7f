//! The definition of a crash.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::sync::Mutex;

/// The latest panics, in words.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Replaces libFuzzer's hook, which ends the process at any panic, even if the code under test catches the panic of a
/// decoder. This one only remembers it.
pub fn remember() {
    set_hook(Box::new(|info| {
        if let Ok(mut panics) = PANICS.lock() {
            if panics.len() >= 4 {
                panics.remove(0);
            }
            panics.push(info.to_string());
        }
    }));
}

/// Runs a target on one input; a panic that nobody caught ends the process.
#[expect(clippy::print_stderr, reason = "libFuzzer's output is read there")]
pub fn end_the_process(target: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(target)).is_err() {
        let panics = PANICS.lock().map(|panics| panics.join("\n")).unwrap_or_default();
        eprintln!("uncaught panic; the latest panics:\n{panics}");
        std::process::abort();
    }
}

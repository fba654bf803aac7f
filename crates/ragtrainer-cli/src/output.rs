//! Lines to standard output and standard error.
//!
//! Standard output may be closed: a training run goes on without a reader; every other command ends quietly when the
//! pipe that it writes to is closed. Control characters in foreign texts never reach the terminal.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit code after a closed pipe, as a shell reports a program that SIGPIPE ended.
const CLOSED_PIPE: i32 = 141;

static IS_TRAINING: AtomicBool = AtomicBool::new(false);

/// Whether this process prints: of several processes only the first does.
static IS_SILENT: AtomicBool = AtomicBool::new(false);

/// Prints a line to standard output.
macro_rules! say {
    () => { $crate::output::line("") };
    ($($words:tt)*) => { $crate::output::line(&format!($($words)*)) };
}

/// Prints a line to standard error.
macro_rules! complain {
    ($($words:tt)*) => { $crate::output::error_line(&format!($($words)*)) };
}

pub(crate) use {complain, say};

/// Ignores errors of standard output from here on: the work is worth more than its progress lines.
pub(crate) fn outlive_reader() {
    IS_TRAINING.store(true, Ordering::Relaxed);
}

/// Prints nothing from here on: another process does.
pub(crate) fn be_silent() {
    IS_SILENT.store(true, Ordering::Relaxed);
}

/// Prints again.
pub(crate) fn be_heard() {
    IS_SILENT.store(false, Ordering::Relaxed);
}

/// Whether there is a terminal to draw progress on, and this process draws on it.
pub(crate) fn has_terminal() -> bool {
    !IS_SILENT.load(Ordering::Relaxed) && io::stderr().is_terminal()
}

/// Prints a line to standard output, or ends the program if that is closed and it does not train.
pub(crate) fn line(text: &str) {
    print(&shown(text));
}

/// Prints a JSON value on a line of its own.
pub(crate) fn json_line(json: &str) {
    // Control characters stand in JSON only inside of strings, where this is another spelling of them.
    let unsafe_for_terminals = |c: char| is_control(c) && c != '\n';
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if unsafe_for_terminals(c) {
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
    }
    print(&text);
}

fn print(text: &str) {
    if IS_SILENT.load(Ordering::Relaxed) {
        return;
    }
    let Err(error) = writeln!(io::stdout(), "{text}") else { return };
    if IS_TRAINING.load(Ordering::Relaxed) {
        return;
    }
    if error.kind() != ErrorKind::BrokenPipe {
        error_line(&format!("error: cannot write to standard output: {error}"));
        process::exit(1);
    }
    process::exit(CLOSED_PIPE);
}

/// Prints a line to standard error; does nothing if that is closed.
pub(crate) fn error_line(text: &str) {
    if IS_SILENT.load(Ordering::Relaxed) {
        return;
    }
    // There is no other place left to report this error to.
    drop(writeln!(io::stderr(), "{}", shown(text)));
}

/// The text with control characters escaped, but for line breaks and tabs.
pub(crate) fn shown(text: &str) -> String {
    let is_hidden = |c: char| is_control(c) && !matches!(c, '\n' | '\t');
    if !text.contains(is_hidden) {
        return text.to_owned();
    }
    text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        if is_hidden(c) {
            shown.extend(c.escape_unicode())
        } else {
            shown.push(c)
        }
        shown
    })
}

/// Control characters, and those that turn the direction of what follows.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_spelled_out() {
        assert_eq!(shown("a\tb\nc é 日"), "a\tb\nc é 日");
        assert_eq!(shown("\u{1b}]0;title\u{7}"), "\\u{1b}]0;title\\u{7}");
        assert_eq!(shown("\u{9b}2J \u{202e}txt"), "\\u{9b}2J \\u{202e}txt");
    }
}

//! Lines of a file, one at a time, with their places for messages.

use std::io::{BufRead, Read};
use std::path::Path;

use serde_json::Value;

use super::input::Input;
use crate::error::{DataError, Place};

/// Longest line that is read, bytes: a file without line ends is refused before it fills the memory.
pub(super) const LONGEST_LINE: u64 = 1 << 30;

/// Reads a file line by line; memory holds one line. Lines of white space are passed over and counted.
#[derive(Debug)]
pub(crate) struct Lines {
    input: Input,
    line: Vec<u8>,
    number: u64,
    blank: u64,
    longest: u64,
    again: bool,
}

impl Lines {
    pub(crate) fn open(path: &Path, expected: &str) -> Result<Self, DataError> {
        Input::open(path, expected).map(Self::of)
    }

    pub(crate) fn of(input: Input) -> Self {
        Self { input, line: Vec::new(), number: 0, blank: 0, longest: LONGEST_LINE, again: false }
    }

    /// Goes to the next line that is not blank; `false` at the end of the file.
    pub(crate) fn advance(&mut self) -> Result<bool, DataError> {
        if std::mem::take(&mut self.again) {
            return Ok(true);
        }
        loop {
            self.line.clear();
            let read = (&mut self.input.reader).take(self.longest).read_until(b'\n', &mut self.line);
            let read = read.map_err(|source| self.input.failure(source))?;
            if read == 0 {
                return Ok(false);
            }
            self.number += 1;
            if read as u64 == self.longest && self.line.last() != Some(&b'\n') {
                let path = self.input.path().to_owned();
                return Err(DataError::LongLine { path, line: self.number, longest: self.longest });
            }
            while self.line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                self.line.pop();
            }
            if self.line.iter().any(|byte| !byte.is_ascii_whitespace()) {
                return Ok(true);
            }
            self.blank += 1;
        }
    }

    /// The line, without its end.
    pub(crate) fn text(&self) -> Result<&str, DataError> {
        text(&self.line, || self.place())
    }

    /// The line as JSON.
    pub(crate) fn json(&self) -> Result<Value, DataError> {
        let text = self.text()?;
        serde_json::from_str(text).map_err(|error| DataError::Malformed {
            place: self.place(),
            expected: "one JSON value on the line".to_owned(),
            found: format!("at column {}: {}", error.column(), reason(&error, text)),
        })
    }

    pub(crate) fn place(&self) -> Place {
        Place::Line { path: self.input.path().to_owned(), line: self.number }
    }

    /// The first line of the file.
    pub(crate) fn first_place(&self) -> Place {
        Place::Line { path: self.input.path().to_owned(), line: 1 }
    }

    pub(crate) fn path(&self) -> &Path {
        self.input.path()
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The next [`Lines::advance`] stays on this line.
    pub(crate) fn stay(&mut self) {
        self.again = true;
    }

    /// Undoes [`Lines::stay`].
    pub(crate) fn pass(&mut self) {
        self.again = false;
    }

    /// Blank lines so far.
    pub(crate) fn blank(&self) -> u64 {
        self.blank
    }
}

/// serde_json's message without its own position, which is within the line and would read as one within the file.
/// `json` is what was parsed.
pub(super) fn reason(error: &serde_json::Error, json: &str) -> String {
    // Python writes these for numbers that are not finite, and pandas for what is missing.
    let line = json.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    let rest = line.get(error.column().saturating_sub(1)..).unwrap_or_default();
    if let Some(word) = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| rest.starts_with(word)) {
        return format!(
            "{word}, which JSON does not have; write null for a missing value, and a text in quotation marks"
        );
    }
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(reason, _)| reason.to_owned())
}

/// Bytes as text.
pub(super) fn text(bytes: &[u8], place: impl FnOnce() -> Place) -> Result<&str, DataError> {
    str::from_utf8(bytes).map_err(|error| DataError::InvalidUtf8 { place: place(), byte: error.valid_up_to() + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order_mark_line_ends_and_blank_lines_are_not_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"\xef\xbb\xbfone\r\n\n \t\ntwo\xff\nthree").unwrap();
        let mut lines = Lines::open(&path, "lines").unwrap();
        assert!(lines.advance().unwrap());
        assert_eq!((lines.text().unwrap(), lines.number()), ("one", 1));
        assert!(lines.advance().unwrap());
        let message = lines.text().unwrap_err().to_string();
        assert!(message.contains("file, line 4, byte 4: expected UTF-8"), "{message}");
        assert!(lines.advance().unwrap());
        assert_eq!((lines.text().unwrap(), lines.number(), lines.blank()), ("three", 5, 2));
        assert!(!lines.advance().unwrap());
    }

    #[test]
    fn a_file_without_line_ends_is_refused_before_it_fills_the_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "short\n0123456789\n01234567890").unwrap();
        let mut lines = Lines { longest: 11, ..Lines::open(&path, "lines").unwrap() };
        assert!(lines.advance().unwrap() && lines.advance().unwrap());
        let message = lines.advance().unwrap_err().to_string();
        assert!(message.contains("file, line 3: expected a line end within 11 bytes"), "{message}");
    }
}

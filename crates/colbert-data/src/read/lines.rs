//! Lines of a file, one at a time, with everything that messages need.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::{DataError, Place};

/// Reads a file line by line; memory holds one line. Lines of white space are passed over and counted.
#[derive(Debug)]
pub(crate) struct Lines {
    reader: BufReader<File>,
    path: PathBuf,
    line: Vec<u8>,
    number: u64,
    blank: u64,
}

impl Lines {
    pub(crate) fn open(path: &Path, expected: &str) -> Result<Self, DataError> {
        let failed = |source| DataError::Read { path: path.to_owned(), source };
        match std::fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(DataError::Missing { path: path.to_owned(), expected: format!("a file with {expected}") })
            }
            Err(error) => Err(failed(error)),
            Ok(metadata) if metadata.is_dir() => Err(DataError::WrongKind {
                path: path.to_owned(),
                expected: format!("a file with {expected}"),
                found: "a folder".to_owned(),
            }),
            Ok(_) => Ok(Self {
                reader: BufReader::with_capacity(1 << 16, File::open(path).map_err(failed)?),
                path: path.to_owned(),
                line: Vec::new(),
                number: 0,
                blank: 0,
            }),
        }
    }

    /// Goes to the next line that is not blank; `false` at the end of the file.
    pub(crate) fn advance(&mut self) -> Result<bool, DataError> {
        loop {
            self.line.clear();
            let read = self.reader.read_until(b'\n', &mut self.line);
            if read.map_err(|source| DataError::Read { path: self.path.clone(), source })? == 0 {
                return Ok(false);
            }
            self.number += 1;
            if self.number == 1 && self.line.starts_with(b"\xef\xbb\xbf") {
                self.line.drain(..3);
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
        str::from_utf8(&self.line)
            .map_err(|error| DataError::InvalidUtf8 { place: self.place(), byte: error.valid_up_to() + 1 })
    }

    pub(crate) fn place(&self) -> Place {
        Place::Line { path: self.path.clone(), line: self.number }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Blank lines so far.
    pub(crate) fn blank(&self) -> u64 {
        self.blank
    }
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
}

//! CSV with a header: quoted cells, any of three separators.

use csv::{ByteRecord, Reader, ReaderBuilder};
use serde_json::Value;

use super::input::Input;
use super::lines::text;
use super::records::named;
use crate::error::{DataError, Place};

/// Rows of a CSV file.
pub(super) struct CsvRecords {
    reader: Reader<Input>,
    header: Vec<String>,
    record: ByteRecord,
    delimiter: u8,
    path: std::path::PathBuf,
    line: u64,
}

impl std::fmt::Debug for CsvRecords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CsvRecords").field("header", &self.header).field("line", &self.line).finish_non_exhaustive()
    }
}

impl CsvRecords {
    /// Reads the header. `None`: the file is empty.
    pub(super) fn of(mut input: Input) -> Result<Option<Self>, DataError> {
        let delimiter = delimiter(input.peek()?);
        let path = input.path().to_owned();
        let reader = ReaderBuilder::new().delimiter(delimiter).has_headers(false).flexible(true).from_reader(input);
        let mut records = Self { reader, header: Vec::new(), record: ByteRecord::new(), delimiter, path, line: 0 };
        if !records.advance()? {
            return Ok(None);
        }
        records.header = records.cells()?.iter().map(|name| name.trim().to_owned()).collect();
        Ok(Some(records))
    }

    pub(super) fn next(&mut self) -> Result<Option<Value>, DataError> {
        if !self.advance()? {
            return Ok(None);
        }
        let cells = self.cells()?;
        named(Some(&self.header), cells, self.place()).map(Some)
    }

    pub(super) fn place(&self) -> Place {
        Place::Line { path: self.path.clone(), line: self.line }
    }

    pub(super) fn header(&self) -> &[String] {
        &self.header
    }

    pub(super) fn delimiter(&self) -> char {
        char::from(self.delimiter)
    }

    fn advance(&mut self) -> Result<bool, DataError> {
        let read = self.reader.read_byte_record(&mut self.record);
        self.line = self.record.position().map_or(self.line, csv::Position::line);
        read.map_err(|error| match error.into_kind() {
            csv::ErrorKind::Io(source) => self.reader.get_ref().failure(source),
            other => DataError::Damaged {
                path: self.path.clone(),
                what: "CSV",
                source: format!("after line {}: {other:?}", self.line).into(),
            },
        })
    }

    fn cells(&self) -> Result<Vec<String>, DataError> {
        self.record.iter().map(|cell| text(cell, || self.place()).map(str::to_owned)).collect()
    }
}

impl std::io::Read for Input {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.reader.read(into)
    }
}

/// The separator that the first line has most of; a comma where it has none.
fn delimiter(start: &[u8]) -> u8 {
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut quoted = false;
    let mut counts = [(b',', 0), (b';', 0), (b'\t', 0)];
    for &byte in line {
        quoted ^= byte == b'"';
        for (delimiter, count) in &mut counts {
            *count += usize::from(!quoted && byte == *delimiter);
        }
    }
    // The last of equal maxima would win, so the order is turned round.
    counts.iter().rev().max_by_key(|(_, count)| *count).map_or(b',', |(delimiter, _)| *delimiter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_shows_the_separator() {
        for (line, expected) in [
            ("a,b,c\n1;2;3;4", b','),
            ("a;b\n", b';'),
            ("a\tb", b'\t'),
            ("\"a;b;c\",d\n", b','),
            ("alone", b','),
            ("", b','),
        ] {
            assert_eq!(delimiter(line.as_bytes()), expected, "{line}");
        }
    }
}

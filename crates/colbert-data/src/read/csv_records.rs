//! Quoted cells, separated by commas, semicolons, tabs or the separator that Excel's first line names.

use std::collections::VecDeque;

use csv::{ByteRecord, Reader, ReaderBuilder};
use serde_json::Value;

use super::dialect::Dialect;
use super::header::named;
use super::input::Input;
use super::lines::text;
use crate::error::{DataError, Place};

/// Rows of a file of cells.
pub(super) struct CsvRecords {
    reader: Reader<Cells>,
    header: Option<Vec<String>>,
    record: ByteRecord,
    dialect: Dialect,
    path: std::path::PathBuf,
    line: u64,
    header_line: u64,
}

impl std::fmt::Debug for CsvRecords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CsvRecords").field("header", &self.header).field("line", &self.line).finish_non_exhaustive()
    }
}

impl CsvRecords {
    /// CSV, with names in its first line or without. `None`: the file is empty.
    pub(super) fn csv(mut input: Input, has_header: bool) -> Result<Option<Self>, DataError> {
        let separator = separator_line(input.peek()?);
        if let Some((_, length)) = separator {
            input.skip(length);
        }
        let sample = input.peek()?;
        let delimiter = separator.map_or_else(|| delimiter(sample), |(delimiter, _)| delimiter);
        let dialect = Dialect::of_csv(sample, delimiter);
        Self::of(input, dialect, has_header, u64::from(separator.is_some()))
    }

    /// Cells of a dialect, after some lines that were passed over.
    pub(super) fn of(
        input: Input,
        dialect: Dialect,
        has_header: bool,
        lines_before: u64,
    ) -> Result<Option<Self>, DataError> {
        let path = input.path().to_owned();
        let reader = ReaderBuilder::new()
            .delimiter(dialect.delimiter)
            .quoting(dialect.quotes)
            .escape(dialect.escapes.then_some(b'\\'))
            .has_headers(false)
            .flexible(true)
            .from_reader(Cells::of(input, dialect, lines_before));
        let mut records =
            Self { reader, header: None, record: ByteRecord::new(), dialect, path, line: 0, header_line: 1 };
        if has_header {
            if !records.advance()? {
                return Ok(None);
            }
            records.header = Some(records.cells()?.iter().map(|name| name.trim().to_owned()).collect());
            records.header_line = records.line;
        }
        Ok(Some(records))
    }

    pub(super) fn next(&mut self) -> Result<Option<Value>, DataError> {
        if !self.advance()? {
            return Ok(None);
        }
        let cells = self.cells()?;
        named(self.header.as_deref(), cells, self.place()).map(Some)
    }

    /// The cells of the next record, whether there are names for them or not.
    pub(super) fn next_cells(&mut self) -> Result<Option<Vec<String>>, DataError> {
        if self.advance()? { self.cells().map(Some) } else { Ok(None) }
    }

    pub(super) fn place(&self) -> Place {
        Place::Line { path: self.path.clone(), line: self.line }
    }

    pub(super) fn header_place(&self) -> Place {
        Place::Line { path: self.path.clone(), line: self.header_line }
    }

    pub(super) fn header(&self) -> Option<&[String]> {
        self.header.as_deref()
    }

    /// The syntax in words.
    pub(super) fn syntax(&self) -> String {
        match (self.dialect.delimiter, &self.header) {
            (b'\t', Some(_)) => "TSV with a header, cells in quotation marks".to_owned(),
            (b'\t', None) => "TSV, cells in quotation marks".to_owned(),
            (delimiter, Some(_)) => format!("CSV separated by `{}`", char::from(delimiter)),
            (delimiter, None) => format!("CSV without a header, separated by `{}`", char::from(delimiter)),
        }
    }

    fn advance(&mut self) -> Result<bool, DataError> {
        let read = self.reader.read_byte_record(&mut self.record);
        let start = self.record.position().map(csv::Position::byte);
        if let Some(start) = start {
            self.line = self.reader.get_mut().line_at(start);
        }
        read.map_err(|error| match error.into_kind() {
            csv::ErrorKind::Io(source) => self.reader.get_ref().input.failure(source),
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

/// The bytes handed to the crate `csv`, which counts the second byte of a line end to the next record and does not
/// allow spaces before a quotation mark: line ends are noted on the way, and such spaces dropped.
struct Cells {
    input: Input,
    dialect: Dialect,
    /// Places of bytes that end lines, and whether a line is counted there; those before the latest record are gone.
    ends: VecDeque<(u64, bool)>,
    /// Lines that end before the first of them.
    lines: u64,
    given: u64,
    last: u8,
    /// Spaces at the start of a cell, until it is known whether a quotation mark follows.
    spaces: u64,
    at: At,
}

#[derive(Clone, Copy, PartialEq)]
enum At {
    Start,
    Bare,
    Quoted,
    Escaped,
    /// After a quotation mark that may close a cell.
    Closed,
}

impl Cells {
    fn of(input: Input, dialect: Dialect, lines: u64) -> Self {
        Self { input, dialect, ends: VecDeque::new(), lines, given: 0, last: 0, spaces: 0, at: At::Start }
    }

    /// The line, from 1, of the record that begins at a byte or at the first one after it that ends no line.
    fn line_at(&mut self, byte: u64) -> u64 {
        let mut start = byte;
        while let Some(&(end, counts)) = self.ends.front()
            && end <= start
        {
            self.ends.pop_front();
            self.lines += u64::from(counts);
            start = start.max(end + 1);
        }
        self.lines + 1
    }

    /// Passes a byte on, and notes it if it ends a line.
    fn give(&mut self, byte: u8, into: &mut Vec<u8>) {
        if matches!(byte, b'\n' | b'\r') {
            let is_second = byte == b'\n' && self.last == b'\r';
            self.ends.push_back((self.given, !is_second));
        }
        self.last = byte;
        self.given += 1;
        into.push(byte);
    }

    fn pass(&mut self, byte: u8, into: &mut Vec<u8>) {
        let is_delimiter = byte == self.dialect.delimiter;
        if self.dialect.spaces && byte == b' ' && matches!(self.at, At::Start | At::Closed) {
            self.spaces += 1;
            return;
        }
        // Spaces around a quoted cell go; those at the start of a bare one stay.
        let spaces = std::mem::take(&mut self.spaces);
        let around = (self.at == At::Start && byte == b'"')
            || (self.at == At::Closed && (is_delimiter || matches!(byte, b'\n' | b'\r')));
        if !around {
            for _ in 0..spaces {
                self.give(b' ', into);
            }
        }
        self.at = match (self.at, byte) {
            (At::Escaped, _) => At::Quoted,
            (At::Quoted, b'\\') if self.dialect.escapes => At::Escaped,
            (At::Quoted, b'"') => At::Closed,
            (At::Quoted, _) => At::Quoted,
            // Two quotation marks are one within the cell.
            (At::Closed, b'"') if spaces == 0 => At::Quoted,
            (_, b'\n' | b'\r') => At::Start,
            (_, _) if is_delimiter => At::Start,
            (At::Start, b'"') if self.dialect.quotes => At::Quoted,
            _ => At::Bare,
        };
        self.give(byte, into);
    }
}

impl std::io::Read for Cells {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        use std::io::BufRead;

        // Held-back spaces come out with the byte after them, so that fewer bytes are taken than fit.
        let room = into.len().saturating_sub(usize::try_from(self.spaces).unwrap_or(usize::MAX));
        if room == 0 {
            return Err(std::io::Error::other("a cell begins with more spaces than fit"));
        }
        let mut out = Vec::new();
        loop {
            let chunk = self.input.reader.fill_buf()?;
            if chunk.is_empty() {
                return Ok(0);
            }
            let taken: Vec<u8> = chunk[..chunk.len().min(room)].to_vec();
            self.input.reader.consume(taken.len());
            taken.iter().for_each(|byte| self.pass(*byte, &mut out));
            if !out.is_empty() {
                into[..out.len()].copy_from_slice(&out);
                return Ok(out.len());
            }
        }
    }
}

/// Excel's first line `sep=;`: the separator and the length of the line, bytes.
fn separator_line(start: &[u8]) -> Option<(u8, usize)> {
    let rest = start.strip_prefix(b"sep=").or_else(|| start.strip_prefix(b"\"sep="))?;
    let (&delimiter, rest) = rest.split_first()?;
    let rest = rest.strip_prefix(b"\"").unwrap_or(rest);
    let ends = [&b"\r\n"[..], b"\n", b"\r"].into_iter().find(|end| rest.starts_with(end))?;
    Some((delimiter, start.len() - rest.len() + ends.len()))
}

/// The separator that the first line has most of; a comma where it has none.
fn delimiter(start: &[u8]) -> u8 {
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut quoted = false;
    let mut counts = [(b',', 0), (b';', 0), (b'\t', 0), (b'|', 0)];
    for &byte in line {
        quoted ^= byte == b'"';
        for (delimiter, count) in &mut counts {
            *count += usize::from(!quoted && byte == *delimiter);
        }
    }
    // `max_by_key` returns the last of equal maxima, so the order is reversed.
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
            ("a|b|c", b'|'),
            ("\"a;b;c\",d\n", b','),
            ("alone", b','),
            ("", b','),
        ] {
            assert_eq!(delimiter(line.as_bytes()), expected, "{line}");
        }
        assert_eq!(separator_line(b"sep=;\r\na;b"), Some((b';', 7)));
        assert_eq!(separator_line(b"\"sep=,\"\na"), Some((b',', 8)));
        assert_eq!(separator_line(b"sep=;a"), None);
    }

    fn records(content: &[u8]) -> Vec<(u64, Vec<String>)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, content).unwrap();
        let mut records = CsvRecords::csv(Input::open(&path, "cells").unwrap(), true).unwrap().unwrap();
        let mut found = vec![(records.line, records.header().unwrap().to_vec())];
        while records.advance().unwrap() {
            found.push((records.line, records.cells().unwrap()));
        }
        found
    }

    /// By every end of line, with blank lines, line breaks within cells, and a separator line.
    #[test]
    fn a_record_is_on_the_line_that_an_editor_shows() {
        let lines = ["a,b", "1,\"x", "", "y\"", "", "2,z", "", "", "3,w"];
        for end in ["\n", "\r\n", "\r"] {
            let content = lines.join(end) + end;
            let found: Vec<u64> = records(content.as_bytes()).into_iter().map(|(line, _)| line).collect();
            assert_eq!(found, [1, 2, 6, 9], "{end:?}");
            let found: Vec<u64> =
                records(format!("sep=,{end}{content}").as_bytes()).into_iter().map(|(line, _)| line).collect();
            assert_eq!(found, [2, 3, 7, 10], "{end:?}");
        }
        let many: String = (0..50_000).map(|row| format!("{row},\"one\r\ntwo\"\r\n")).collect();
        let found = records(format!("a,b\r\n{many}").as_bytes());
        assert!(found[1..].iter().zip(0..).all(|((line, _), row)| *line == 2 + 2 * row));
    }

    #[test]
    fn spaces_and_backslashes_before_quotation_marks_are_understood() {
        let texts = |content: &str| records(content.as_bytes())[1].1.clone();
        assert_eq!(texts("a, b, c\nx, \"y, \"\"z\"\"\" , w\n"), ["x", "y, \"z\"", " w"]);
        assert_eq!(texts("a,b\n\"he said \\\"x, y\\\"\",z\n"), ["he said \"x, y\"", "z"]);
        assert_eq!(texts("a,b\n\"x \"\"y\"\"\",  z\n"), ["x \"y\"", "  z"]);
    }
}

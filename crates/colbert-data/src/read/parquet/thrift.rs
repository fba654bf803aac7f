//! Walks over the headers of a Parquet file before they are decoded: a damaged one may claim more members than its
//! bytes hold, and the crate `parquet` (60.1) iterates over up to two billion of them.
//!
//! Format: the compact protocol of Thrift (github.com/apache/thrift, doc/specs/thrift-compact-protocol.md);
//! `PageHeader` of github.com/apache/parquet-format, parquet.thrift.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;

use parquet::errors::{ParquetError, Result};

/// Structs within structs, at most.
const DEEPEST: usize = 32;

/// Length of a footer and the four letters after it.
const TRAILER: u64 = 8;

/// The field of a `PageHeader` that says how many bytes follow it.
const COMPRESSED_PAGE_SIZE: i64 = 3;

// Types of the compact protocol.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;
const UUID: u8 = 13;

/// Walks over the description of the whole file, at its end. A file that has none is left to the decoder to refuse.
pub(crate) fn check_footer(file: &mut File) -> Result<()> {
    let length = file.seek(SeekFrom::End(0))?;
    let Some(trailer) = length.checked_sub(TRAILER) else { return Ok(()) };
    file.seek(SeekFrom::Start(trailer))?;
    let mut bytes = [0; 4];
    file.read_exact(&mut bytes)?;
    let Some(start) = trailer.checked_sub(u32::from_le_bytes(bytes).into()) else { return Ok(()) };
    file.seek(SeekFrom::Start(start))?;
    Walk::over(file, trailer - start).fields(0).map(|_| ())
}

/// Walks over the headers of all pages in these bytes of the file.
pub(crate) fn check_page_headers(file: &mut File, bytes: Range<u64>) -> Result<()> {
    file.seek(SeekFrom::Start(bytes.start))?;
    let mut walk = Walk::over(file, bytes.end - bytes.start);
    while walk.left > 0 {
        let size = walk.fields(0)?.and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| damaged("a page without a size"))?;
        walk.skip(size)?;
    }
    Ok(())
}

struct Walk<'a> {
    file: BufReader<&'a mut File>,
    /// Bytes that may be read.
    left: u64,
}

impl<'a> Walk<'a> {
    fn over(file: &'a mut File, left: u64) -> Self {
        Self { file: BufReader::new(file), left }
    }

    /// The fields of a struct. Gives the number in the field of [`COMPRESSED_PAGE_SIZE`].
    fn fields(&mut self, depth: usize) -> Result<Option<i64>> {
        if depth > DEEPEST {
            return Err(damaged("structs within structs without end"));
        }
        let (mut id, mut size) = (0i64, None);
        loop {
            let header = self.byte()?;
            if header == 0 {
                return Ok(size);
            }
            id = match header >> 4 {
                0 => self.zigzag()?,
                step => id.saturating_add(step.into()),
            };
            match header & 0xf {
                TRUE | FALSE => {}
                kind @ (I16 | I32 | I64) => {
                    let number = self.zigzag()?;
                    if id == COMPRESSED_PAGE_SIZE && kind == I32 {
                        size = Some(number);
                    }
                }
                kind => self.value(kind, depth)?,
            }
        }
    }

    /// A value in a field, or a member of a list.
    fn value(&mut self, kind: u8, depth: usize) -> Result<()> {
        match kind {
            TRUE | FALSE | BYTE => self.skip(1),
            I16 | I32 | I64 => self.zigzag().map(|_| ()),
            DOUBLE => self.skip(8),
            BINARY => {
                let length = self.number()?;
                self.skip(length)
            }
            LIST | SET => {
                let header = self.byte()?;
                let count = if header >> 4 == 15 { self.number()? } else { u64::from(header >> 4) };
                self.members(count, &[header & 0xf], depth)
            }
            MAP => {
                let count = self.number()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                self.members(count, &[kinds >> 4, kinds & 0xf], depth)
            }
            STRUCT => self.fields(depth + 1).map(|_| ()),
            UUID => self.skip(16),
            unknown => Err(damaged(&format!("a value of type {unknown}"))),
        }
    }

    fn members(&mut self, count: u64, kinds: &[u8], depth: usize) -> Result<()> {
        // No list of truth values is part of these headers, and the decoder takes no byte for one: they could go on for
        // ever.
        if count > 0 && kinds.iter().any(|kind| [TRUE, FALSE].contains(kind)) {
            return Err(damaged("a list of truth values"));
        }
        if count > self.left {
            return Err(damaged(&format!("{count} members in {} bytes", self.left)));
        }
        if depth > DEEPEST {
            return Err(damaged("lists within lists without end"));
        }
        (0..count).try_for_each(|_| kinds.iter().try_for_each(|kind| self.value(*kind, depth + 1)))
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.left = self.left.checked_sub(1).ok_or_else(|| damaged("it ends within a header"))?;
        self.file.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// A number in seven bits a byte, the lowest first.
    fn number(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(damaged("a number of more than 64 bits"))
    }

    /// The same, its sign in the lowest bit.
    fn zigzag(&mut self) -> Result<i64> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| damaged("a value or page beyond its end"))?;
        let bytes = i64::try_from(bytes).map_err(|_| damaged("a value or page beyond its end"))?;
        Ok(self.file.seek_relative(bytes)?)
    }
}

fn damaged(what: &str) -> ParquetError {
    ParquetError::General(format!("in a header: {what}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn footer(fields: &[u8]) -> String {
        let mut bytes = b"PAR1".to_vec();
        bytes.extend(fields);
        bytes.extend(u32::try_from(fields.len()).unwrap().to_le_bytes());
        bytes.extend(b"PAR1");
        check_footer(&mut file(&bytes)).map_or_else(|error| error.to_string(), |()| "whole".to_owned())
    }

    #[test]
    fn values_of_every_type_are_passed_over() {
        let mut fields = vec![0x11, 0x12, 0x13, 7, 0x15, 0x80, 1];
        fields.extend([0x17, 0, 0, 0, 0, 0, 0, 0, 0, 0x18, 3, 1, 2, 3]);
        // A list of two numbers, a map of one text to a struct, a UUID in the field 300.
        fields.extend([0x19, 0x25, 2, 4, 0x1b, 1, 0x8c, 1, 65, 0x15, 2, 0, 0x0d, 0xd8, 4]);
        fields.extend([0; 17]);
        assert_eq!(footer(&fields), "whole");
        assert!(footer(&fields[..fields.len() - 1]).contains("ends within"));
    }

    #[test]
    fn claims_that_the_bytes_do_not_account_for_are_refused() {
        assert!(footer(&[0x19, 0xf5, 0xff, 0xff, 0xff, 0xff, 7, 0]).contains("members in"));
        assert!(footer(&[0x19, 0xf1, 0xff, 0xff, 0xff, 0xff, 7, 0]).contains("truth values"));
        assert!(footer(&[0x1b, 9, 0x11, 0]).contains("truth values"));
        assert!(footer(&[0x18, 0xff, 0xff, 3, 0]).contains("beyond its end"));
        assert!(footer(&[0x1e, 0]).contains("type 14"));
        assert!(footer(&[0x1c; 100]).contains("structs within structs"));
        assert!(footer(&[0x19].into_iter().chain([0x19; 100]).collect::<Vec<_>>()).contains("within"));
        assert!(footer(&[0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).contains("64 bits"));
        // No footer at all is the decoder's to tell.
        assert!(check_footer(&mut file(b"PAR1")).is_ok());
    }

    #[test]
    fn pages_are_walked_over_to_the_end_of_the_column() {
        // Type 0, 9 bytes whole, 4 compressed.
        let page = [0x15, 0, 0x15, 18, 0x15, 8, 0, 1, 2, 3, 4];
        let two = [page, page].concat();
        let said = |bytes: Range<u64>| check_page_headers(&mut file(&two), bytes).map_err(|error| error.to_string());
        assert_eq!(said(0..22), Ok(()));
        assert_eq!(said(11..22), Ok(()));
        assert!(said(0..21).unwrap_err().contains("beyond its end"));
        assert!(said(0..14).unwrap_err().contains("ends within"));
        assert!(check_page_headers(&mut file(&[0x15, 0, 0]), 0..3).unwrap_err().to_string().contains("without a size"));
        assert!(check_page_headers(&mut file(&[0x35, 1, 0]), 0..3).unwrap_err().to_string().contains("without a size"));
    }
}

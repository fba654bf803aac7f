//! The bytes of a file: decompressed if it is gzip, converted from UTF-16 to UTF-8, without a byte order mark.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_16BE, UTF_16LE};
use flate2::bufread::MultiGzDecoder;

use crate::error::DataError;

/// Bytes read at once.
const BUFFER: usize = 1 << 16;

/// The content of one file.
pub(crate) struct Input {
    pub(crate) reader: BufReader<Box<dyn Read + Send>>,
    path: PathBuf,
    is_gzip: bool,
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input").field("path", &self.path).field("is_gzip", &self.is_gzip).finish_non_exhaustive()
    }
}

impl Input {
    /// Opens a file; `expected` says what it should hold.
    pub(crate) fn open(path: &Path, expected: &str) -> Result<Self, DataError> {
        let failed = |source| DataError::Read { path: path.to_owned(), source };
        match std::fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(DataError::Missing { path: path.to_owned(), expected: format!("a file with {expected}") });
            }
            Err(error) => return Err(failed(error)),
            Ok(metadata) if metadata.is_dir() => {
                return Err(DataError::WrongKind {
                    path: path.to_owned(),
                    expected: format!("a file with {expected}"),
                    found: "a folder".to_owned(),
                });
            }
            Ok(_) => {}
        }
        let mut file = BufReader::with_capacity(BUFFER, File::open(path).map_err(failed)?);
        let is_gzip = file.fill_buf().map_err(failed)?.starts_with(b"\x1f\x8b");
        let content: Box<dyn Read + Send> = if is_gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let mut input = Self { reader: BufReader::with_capacity(BUFFER, content), path: path.to_owned(), is_gzip };
        if let Some(found) = other_kind(input.peek()?) {
            let expected = format!("a file with {expected}");
            return Err(DataError::WrongKind { path: path.to_owned(), expected, found: found.to_owned() });
        }
        if input.peek()?.starts_with(b"\xef\xbb\xbf") {
            input.reader.consume(3);
        } else if let Some(encoding) = utf16(input.peek()?) {
            let content: Box<dyn Read + Send> = Box::new(Utf16::new(input.reader, encoding));
            input.reader = BufReader::with_capacity(BUFFER, content);
        }
        Ok(input)
    }

    /// Consumes bytes that were peeked at.
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.reader.consume(bytes);
    }

    /// Returns the next bytes without consuming them; empty at the end.
    pub(crate) fn peek(&mut self) -> Result<&[u8], DataError> {
        match self.reader.fill_buf() {
            // The borrow of the error arm would otherwise reach to the end of the function.
            Ok(_) => Ok(self.reader.buffer()),
            Err(source) => Err(failure(&self.path, self.is_gzip, source)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn is_gzip(&self) -> bool {
        self.is_gzip
    }

    /// The name's last extension in lower case, that of gzip set aside.
    pub(crate) fn extension(&self) -> String {
        extension(&self.path)
    }

    /// Turns a failure to read into an error with its meaning.
    pub(crate) fn failure(&self, source: io::Error) -> DataError {
        failure(&self.path, self.is_gzip, source)
    }
}

/// Kind of a file that has no text, by its first bytes, with the way to get at the text.
fn other_kind(start: &[u8]) -> Option<&'static str> {
    const KINDS: [(&[u8], &str); 16] = [
        (
            b"version https://git-lfs.github.com/spec/",
            "a Git LFS pointer, not the file itself; run `git lfs pull` in its folder",
        ),
        (b"PK\x03\x04", "a zip archive or an Excel workbook; unpack it, or save the sheet as CSV"),
        (b"\xd0\xcf\x11\xe0", "an Excel workbook; save the sheet as CSV"),
        (b"%PDF-", "a PDF document; extract its text"),
        (b"\x28\xb5\x2f\xfd", "a file compressed by Zstandard; unpack it (`zstd -d`) or compress it with gzip"),
        (b"\xfd7zXZ\0", "a file compressed by xz; unpack it (`xz -d`) or compress it with gzip"),
        (b"BZh91AY&SY", "a file compressed by bzip2; unpack it (`bzip2 -d`) or compress it with gzip"),
        (b"ARROW1\0\0", "an Arrow file; write it as Parquet or JSONL"),
        (b"\xff\xff\xff\xff", "an Arrow stream; write it as Parquet or JSONL"),
        (b"SQLite format 3\0", "an SQLite database; export the table as CSV"),
        (b"\x93NUMPY", "a NumPy array; write texts as JSONL"),
        (b"\x89HDF\r\n", "an HDF5 file; write texts as JSONL"),
        (b"\x80\x02", "a pickle of Python; write it as JSONL"),
        (b"\x80\x03", "a pickle of Python; write it as JSONL"),
        (b"\x80\x04", "a pickle of Python; write it as JSONL"),
        (b"\x80\x05", "a pickle of Python; write it as JSONL"),
    ];
    if let Some((_, kind)) = KINDS.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Some(kind);
    }
    let text = start.trim_ascii_start();
    let begins = |tag: &str| text.get(..tag.len()).is_some_and(|found| found.eq_ignore_ascii_case(tag.as_bytes()));
    let is_page = begins("<!doctype html") || begins("<html");
    is_page.then_some("an HTML page, such as a failed download leaves; fetch the file itself")
}

/// UTF-16 (Excel's "Unicode text"), by its byte order mark, or by the zero bytes between letters.
fn utf16(start: &[u8]) -> Option<&'static Encoding> {
    match *start {
        [0xff, 0xfe, ..] => Some(UTF_16LE),
        [0xfe, 0xff, ..] => Some(UTF_16BE),
        [first, 0, second, 0, ..] if first > 0 && second > 0 => Some(UTF_16LE),
        [0, first, 0, second, ..] if first > 0 && second > 0 => Some(UTF_16BE),
        _ => None,
    }
}

/// UTF-16 read as UTF-8, without its byte order mark.
struct Utf16<R> {
    inner: R,
    decoder: Decoder,
    decoded: Vec<u8>,
    given: usize,
    is_done: bool,
}

impl<R: BufRead> Utf16<R> {
    fn new(inner: R, encoding: &'static Encoding) -> Self {
        let decoder = encoding.new_decoder_with_bom_removal();
        Self { inner, decoder, decoded: Vec::new(), given: 0, is_done: false }
    }
}

impl<R: BufRead> Read for Utf16<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.given == self.decoded.len() && !self.is_done {
            let chunk = self.inner.fill_buf()?;
            self.is_done = chunk.is_empty();
            let most = self.decoder.max_utf8_buffer_length_without_replacement(chunk.len()).unwrap_or(chunk.len() * 4);
            self.decoded.resize(most, 0);
            let (result, read, written) =
                self.decoder.decode_to_utf8_without_replacement(chunk, &mut self.decoded, self.is_done);
            if let DecoderResult::Malformed(..) = result {
                return Err(io::Error::new(ErrorKind::InvalidData, "the UTF-16 text is truncated or damaged"));
            }
            self.decoded.truncate(written);
            self.given = 0;
            self.inner.consume(read);
        }
        let length = into.len().min(self.decoded.len() - self.given);
        into[..length].copy_from_slice(&self.decoded[self.given..self.given + length]);
        self.given += length;
        Ok(length)
    }
}

fn failure(path: &Path, is_gzip: bool, source: io::Error) -> DataError {
    let path = path.to_owned();
    // Errors of the system carry its number; the others are the decoder's.
    if is_gzip && source.raw_os_error().is_none() {
        return DataError::Damaged { path, what: "gzip", source: Box::new(source) };
    }
    DataError::Read { path, source }
}

/// The name's last extension in lower case, that of gzip set aside; empty if there is none.
pub(crate) fn extension(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.rsplit_once('.').map(|(_, extension)| extension.to_owned()).unwrap_or_default()
}

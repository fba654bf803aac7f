//! The zip archive that `torch.save` writes: entries that are not compressed, with a directory at the end (PKWARE
//! APPNOTE 6.3, sections 4.3.7, 4.3.12 and 4.3.16). Nothing else of the format is read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// Bytes of the record at the end, and the longest comment that may follow it.
const END: u64 = 22;
const LONGEST_COMMENT: u64 = 65_535;

/// An archive, and where its entries are.
#[derive(Debug)]
pub(crate) struct TorchArchive {
    file: File,
    /// Place of the entry's header, and its bytes.
    entries: BTreeMap<String, (u64, u64)>,
    /// Bytes that entries may still have: those of a whole archive do not overlap.
    left: u64,
}

impl TorchArchive {
    /// Reads the directory of an archive. The error says what is wrong.
    pub(crate) fn open(mut file: File) -> Result<Self, String> {
        let fail = |error: std::io::Error| error.to_string();
        let length = file.seek(SeekFrom::End(0)).map_err(fail)?;
        let start = length.saturating_sub(END + LONGEST_COMMENT);
        let tail = read(&mut file, start, length - start)?;
        let end =
            tail.windows(4).rposition(|bytes| bytes == b"PK\x05\x06").and_then(|at| tail.get(at..at + END as usize));
        let end =
            end.ok_or("it is no archive of torch.save, or is cut short; files of PyTorch before 1.6 are not read")?;
        let (size, at) = (number(end, 12, 4), number(end, 16, 4));
        if size == 0xffff_ffff || at == 0xffff_ffff {
            return Err("it is larger than 4 GB".to_owned());
        }
        let directory = read(&mut file, at, size)?;
        let mut entries = BTreeMap::new();
        let mut rest = &directory[..];
        while let Some(header) = rest.get(..46).filter(|header| header.starts_with(b"PK\x01\x02")) {
            let lengths = [28, 30, 32].map(|at| number(header, at, 2) as usize);
            let whole = 46 + lengths.iter().sum::<usize>();
            let name = rest.get(46..46 + lengths[0]).ok_or("its directory is cut short")?;
            let name = String::from_utf8(name.to_vec()).map_err(|_| "an entry has no proper name".to_owned())?;
            if number(header, 10, 2) != 0 {
                return Err(format!("{name} is compressed, which torch.save does not do"));
            }
            entries.insert(name, (number(header, 42, 4), number(header, 24, 4)));
            rest = rest.get(whole..).ok_or("its directory is cut short")?;
        }
        Ok(Self { file, entries, left: length })
    }

    /// Names of the entries.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Reads the bytes of an entry. The error says what is wrong.
    pub(crate) fn entry(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let (at, size) = *self.entries.get(name).ok_or_else(|| format!("it has no entry {name}"))?;
        let header = read(&mut self.file, at, 30)?;
        if !header.starts_with(b"PK\x03\x04") {
            return Err(format!("the entry {name} is not where the directory says"));
        }
        self.left = self.left.checked_sub(size).ok_or("its entries overlap")?;
        read(&mut self.file, at + 30 + number(&header, 26, 2) + number(&header, 28, 2), size)
    }
}

/// Reads a number of `width` bytes, little-endian.
fn number(bytes: &[u8], at: usize, width: usize) -> u64 {
    bytes[at..at + width].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn read(file: &mut File, at: u64, size: u64) -> Result<Vec<u8>, String> {
    // The size comes from the file, so no more is taken than there is.
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(at)).map_err(|error| error.to_string())?;
    file.by_ref().take(size).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 == size { Ok(bytes) } else { Err("it is truncated".to_owned()) }
}

//! Reading at a place of a file that threads share.

use std::fs::File;
use std::io::Result;

/// Fills `to` with the bytes from `offset` on. The file's own position is neither used nor, on Unix, moved.
#[cfg(unix)]
pub(super) fn read_at(file: &File, offset: u64, to: &mut [u8]) -> Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, to, offset)
}

/// Fills `to` with the bytes from `offset` on.
#[cfg(windows)]
pub(super) fn read_at(file: &File, mut offset: u64, mut to: &mut [u8]) -> Result<()> {
    while !to.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, to, offset)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => {
                offset += count as u64;
                to = &mut to[count..];
            }
        }
    }
    Ok(())
}

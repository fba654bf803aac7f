//! Pages compressed with Zstandard, unpacked in Rust: the crate `parquet` (60.1) has a codec in C alone.
//!
//! That crate reads the pages of such a column as if they were not compressed; what they hold is unpacked here.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::SerializedPageReader;
use ruzstd::decoding::StreamingDecoder;

/// The pages of one column.
pub(super) struct ZstandardPages {
    pages: SerializedPageReader<File>,
    /// Bytes that the whole column takes unpacked, as the file says: no page has more.
    longest: u64,
}

impl ZstandardPages {
    /// The pages of a column, if they are compressed with Zstandard.
    pub(super) fn of(path: &Path, group: &RowGroupMetaData, column: usize) -> Result<Option<Self>> {
        let chunk = group.column(column);
        if !matches!(chunk.compression(), Compression::ZSTD(_)) {
            return Ok(None);
        }
        let as_stored = chunk.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build()?;
        let rows = usize::try_from(group.num_rows()).map_err(|_| damaged("a negative number of rows"))?;
        let longest = u64::try_from(chunk.uncompressed_size()).map_err(|_| damaged("a negative size"))?;
        let pages = SerializedPageReader::new(Arc::new(File::open(path)?), &as_stored, rows, None)?;
        Ok(Some(Self { pages, longest }))
    }

    fn unpacked(&self, packed: &[u8]) -> Result<Vec<u8>> {
        let failed = |reason: String| damaged(&format!("Zstandard: {reason}"));
        let decoder = StreamingDecoder::new(packed).map_err(|error| failed(error.to_string()))?;
        let mut unpacked = Vec::new();
        decoder.take(self.longest + 1).read_to_end(&mut unpacked).map_err(|error| failed(error.to_string()))?;
        if unpacked.len() as u64 > self.longest {
            return Err(failed(format!("a page of more bytes than the {} of its column", self.longest)));
        }
        Ok(unpacked)
    }
}

impl Iterator for ZstandardPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for ZstandardPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let Some(mut page) = self.pages.get_next_page()? else { return Ok(None) };
        match &mut page {
            Page::DataPage { buf, .. } | Page::DictionaryPage { buf, .. } if !buf.is_empty() => {
                *buf = self.unpacked(buf)?.into();
            }
            // Levels stand before the values and are never compressed.
            Page::DataPageV2 { buf, def_levels_byte_len, rep_levels_byte_len, is_compressed: true, .. } => {
                let levels = *def_levels_byte_len as usize + *rep_levels_byte_len as usize;
                let (levels, values) = buf.split_at_checked(levels).ok_or_else(|| damaged("levels beyond the page"))?;
                let values = if values.is_empty() { Vec::new() } else { self.unpacked(values)? };
                *buf = [levels, &values].concat().into();
            }
            _ => {}
        }
        Ok(Some(page))
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }
}

fn damaged(what: &str) -> ParquetError {
    ParquetError::General(what.to_owned())
}

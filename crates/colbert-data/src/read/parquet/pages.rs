//! Pages of a Parquet file, each checked before it is decoded: a damaged page may claim more values than its bytes can
//! hold, and the decoders of the crate `parquet` (60.1) reserve memory for what is claimed, which can end the process.
//!
//! Format: "Encodings" of the Parquet specification (github.com/apache/parquet-format, Encodings.md).

use std::fs::File;
use std::path::{Path, PathBuf};

use parquet::basic::Encoding;
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::schema::types::Type;

use super::thrift::{check_footer, check_page_headers};
use super::zstandard::ZstandardPages;

/// Up to this many values of a page are accepted without bytes that account for them.
const FREE_VALUES: usize = 1 << 20;

/// Beyond them, the most values that a byte of a page may account for. The writers that are in use make blocks of 128
/// values, at least five bytes each.
const VALUES_PER_BYTE: usize = 256;

/// A Parquet file whose pages are checked.
pub(crate) struct CheckedFile {
    pages: SerializedFileReader<File>,
    path: PathBuf,
}

impl CheckedFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        // Clones of a file share their place in it, so that the headers are read from another one.
        check_footer(&mut File::open(path)?)?;
        Ok(Self { pages: SerializedFileReader::new(File::open(path)?)?, path: path.to_owned() })
    }
}

impl FileReader for CheckedFile {
    fn metadata(&self) -> &ParquetMetaData {
        self.pages.metadata()
    }

    fn num_row_groups(&self) -> usize {
        self.pages.num_row_groups()
    }

    fn get_row_group(&self, index: usize) -> Result<Box<dyn RowGroupReader + '_>> {
        Ok(Box::new(CheckedRowGroup { pages: self.pages.get_row_group(index)?, path: &self.path }))
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>> {
        RowIter::from_file(projection, self)
    }
}

struct CheckedRowGroup<'a> {
    pages: Box<dyn RowGroupReader + 'a>,
    path: &'a Path,
}

impl RowGroupReader for CheckedRowGroup<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.pages.metadata()
    }

    fn num_columns(&self) -> usize {
        self.pages.num_columns()
    }

    fn get_column_page_reader(&self, column: usize) -> Result<Box<dyn PageReader>> {
        let (start, length) = self.metadata().column(column).byte_range();
        check_page_headers(&mut File::open(self.path)?, start..start.saturating_add(length))?;
        let descriptor = self.metadata().schema_descr().column(column);
        let levels = Levels { repetition: descriptor.max_rep_level(), definition: descriptor.max_def_level() };
        let pages: Box<dyn PageReader> = match ZstandardPages::of(self.path, self.metadata(), column)? {
            Some(pages) => Box::new(pages),
            None => self.pages.get_column_page_reader(column)?,
        };
        Ok(Box::new(CheckedPages { pages, levels }))
    }

    fn get_column_bloom_filter(&self, column: usize) -> Option<&Sbbf> {
        self.pages.get_column_bloom_filter(column)
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

/// Largest levels of a column; 0 means that its pages hold none.
#[derive(Clone, Copy)]
struct Levels {
    repetition: i16,
    definition: i16,
}

struct CheckedPages {
    pages: Box<dyn PageReader>,
    levels: Levels,
}

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        page.iter().try_for_each(|page| check(page, self.levels))?;
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }
}

fn check(page: &Page, levels: Levels) -> Result<()> {
    match page {
        // A value takes at least a byte there.
        Page::DictionaryPage { buf, num_values, .. } => {
            let (values, bytes) = (*num_values as usize, buf.len());
            if values > bytes {
                Err(damaged(format!("{values} values in a dictionary of {bytes} bytes")))
            } else {
                Ok(())
            }
        }
        Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, .. } => {
            let values = *num_values as usize;
            let mut rest = &buf[..];
            for (level, encoding) in
                [(levels.repetition, *rep_level_encoding), (levels.definition, *def_level_encoding)]
            {
                if level > 0 {
                    rest = after_levels(rest, level, encoding, values)?;
                }
            }
            check_values(rest, *encoding, values)
        }
        Page::DataPageV2 { buf, num_values, encoding, def_levels_byte_len, rep_levels_byte_len, .. } => {
            let levels = u64::from(*def_levels_byte_len) + u64::from(*rep_levels_byte_len);
            let rest = usize::try_from(levels).ok().and_then(|levels| buf.get(levels..));
            check_values(rest.ok_or_else(|| damaged("levels beyond the page"))?, *encoding, *num_values as usize)
        }
    }
}

/// Checks the bytes that follow the levels in a page of version 1.
#[expect(deprecated, reason = "BIT_PACKED is only read")]
fn after_levels(bytes: &[u8], level: i16, encoding: Encoding, values: usize) -> Result<&[u8]> {
    let length = match encoding {
        Encoding::BIT_PACKED => (values * (16 - level.leading_zeros() as usize)).div_ceil(8),
        _ => bytes
            .first_chunk()
            .map_or(usize::MAX, |&length| 4_usize.saturating_add(u32::from_le_bytes(length) as usize)),
    };
    bytes.get(length..).ok_or_else(|| damaged("levels beyond the page"))
}

/// Whether the numbers of values that a page states within its values agree with its bytes.
fn check_values(bytes: &[u8], encoding: Encoding, values: usize) -> Result<()> {
    match encoding {
        Encoding::DELTA_LENGTH_BYTE_ARRAY => after_deltas(bytes, values).map(|_| ()),
        Encoding::DELTA_BYTE_ARRAY => after_deltas(after_deltas(bytes, values)?, values).map(|_| ()),
        _ => Ok(()),
    }
}

/// Returns the bytes that follow numbers in the encoding DELTA_BINARY_PACKED.
fn after_deltas(bytes: &[u8], values: usize) -> Result<&[u8]> {
    let mut rest = bytes;
    let block = number(&mut rest)?;
    let parts = number(&mut rest)?;
    let claimed = number(&mut rest)?;
    number(&mut rest)?;
    if claimed > values || (claimed > FREE_VALUES && claimed / VALUES_PER_BYTE > bytes.len()) {
        return Err(damaged(format!("{claimed} lengths in {} bytes, of a page of {values} values", bytes.len())));
    }
    if block == 0 || parts == 0 || !block.is_multiple_of(parts) {
        return Err(damaged(format!("blocks of {block} values in {parts} parts")));
    }
    // The first value stands before the blocks.
    let mut left = claimed.saturating_sub(1);
    while left > 0 {
        number(&mut rest)?;
        let widths = take(&mut rest, parts)?;
        for &width in widths {
            if left == 0 {
                break;
            }
            take(&mut rest, (block / parts).saturating_mul(width.into()) / 8)?;
            left = left.saturating_sub(block / parts);
        }
    }
    Ok(rest)
}

/// A number in seven bits a byte, the lowest first.
fn number(bytes: &mut &[u8]) -> Result<usize> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return usize::try_from(number).map_err(|_| damaged("a number of more than 64 bits"));
        }
    }
    Err(damaged("a number of more than 64 bits"))
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or_else(|| damaged("values beyond the page"))?;
    *bytes = rest;
    Ok(taken)
}

fn damaged(what: impl Into<String>) -> ParquetError {
    ParquetError::General(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 300 numbers: blocks of 128 in 4 parts, all widths 1; after the first value 299 are left, ten parts.
    fn deltas(claimed: u8) -> Vec<u8> {
        let mut bytes = vec![0x80, 1, 4, claimed | 0x80, 2, 0];
        for parts in [4, 4, 2] {
            bytes.extend([0, 1, 1, 1, 1]);
            bytes.extend(vec![0b0101_0101; parts * 4]);
        }
        bytes
    }

    #[test]
    fn the_end_of_packed_numbers_is_where_the_format_says() {
        let mut bytes = deltas(44);
        bytes.extend(b"after");
        assert_eq!(after_deltas(&bytes, 300).unwrap(), b"after");
        // One value or none: nothing but the header.
        for claimed in [0, 1] {
            assert_eq!(after_deltas(&[0x80, 1, 4, claimed, 0, 7], 1).unwrap(), [7]);
        }
    }

    #[test]
    fn claims_that_the_bytes_do_not_account_for_are_refused() {
        let said = |bytes: &[u8], values: usize| after_deltas(bytes, values).unwrap_err().to_string();
        assert!(said(&deltas(44), 299).contains("300 lengths"));
        assert!(said(&deltas(44)[..60], 300).contains("beyond the page"));
        // 2^28 values in a block of 2^28: a few bytes, none of them for the values.
        let vast = [0x80, 0x80, 0x80, 0x80, 1, 1, 0x80, 0x80, 0x80, 0x80, 1, 0, 0, 0];
        assert!(said(&vast, usize::MAX).contains("268435456 lengths in 14 bytes"));
        assert!(said(&[0x80, 1, 0, 5, 0], 5).contains("in 0 parts"));
        assert!(said(&[0xff; 12], 5).contains("64 bits"));
        assert!(said(&[], 5).contains("beyond the page"));
        // The second of two such streams is checked too.
        let mut two = deltas(44);
        two.extend(deltas(45));
        assert!(check_values(&two, Encoding::DELTA_BYTE_ARRAY, 300).is_err());
        two.truncate(two.len() - deltas(45).len());
        two.extend(deltas(44));
        check_values(&two, Encoding::DELTA_BYTE_ARRAY, 300).unwrap();
    }

    /// Why pages are walked at all: the crate `parquet` reserves memory for the values that a page claims before it
    /// looks at the page's bytes. If this fails after an update of that crate, `check_values` and its tests can go.
    #[test]
    #[cfg(target_os = "linux")]
    fn the_decoder_still_reserves_memory_for_claims() {
        use std::sync::Arc;

        use parquet::column::reader::{get_column_reader, get_typed_column_reader};
        use parquet::data_type::ByteArrayType;
        use parquet::schema::parser::parse_message_type;
        use parquet::schema::types::SchemaDescriptor;

        struct OnePage(Option<Page>);
        impl Iterator for OnePage {
            type Item = Result<Page>;

            fn next(&mut self) -> Option<Self::Item> {
                self.0.take().map(Ok)
            }
        }
        impl PageReader for OnePage {
            fn get_next_page(&mut self) -> Result<Option<Page>> {
                Ok(self.0.take())
            }

            fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
                Ok(None)
            }

            fn skip_next_page(&mut self) -> Result<()> {
                Ok(())
            }
        }
        let peak = || -> u64 {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("VmPeak:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        // 2^26 lengths of four bytes, in ten bytes.
        let vast = vec![0x80, 0x80, 0x80, 0x20, 1, 0x80, 0x80, 0x80, 0x20, 0];
        assert!(check_values(&vast, Encoding::DELTA_LENGTH_BYTE_ARRAY, 1 << 26).is_err(), "our walk refuses it");
        let page = Page::DataPage {
            buf: vast.into(),
            num_values: 1 << 26,
            encoding: Encoding::DELTA_LENGTH_BYTE_ARRAY,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let schema = parse_message_type("message m { required binary text; }").unwrap();
        let descriptor = SchemaDescriptor::new(Arc::new(schema));
        let reader = get_column_reader(descriptor.column(0), Box::new(OnePage(Some(page))));
        let before = peak();
        let decoded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            get_typed_column_reader::<ByteArrayType>(reader).read_records(1, None, None, &mut Vec::new())
        }));
        assert!(!matches!(decoded, Ok(Ok(_))), "the page is damaged");
        // Less than the 256 MiB, as some of them may be free already.
        assert!(peak() - before >= 100 << 10, "the decoder grew by {} KiB", peak() - before);
    }

    #[test]
    fn levels_are_passed_over() {
        let rle = [2, 0, 0, 0, 9, 9, 7];
        assert_eq!(after_levels(&rle, 1, Encoding::RLE, 100).unwrap(), [7]);
        assert!(after_levels(&rle[..5], 1, Encoding::RLE, 100).is_err());
        assert!(after_levels(&[1], 1, Encoding::RLE, 100).is_err());
        // Levels up to 3 take two bits each.
        #[expect(deprecated, reason = "BIT_PACKED is only read")]
        let packed = Encoding::BIT_PACKED;
        assert_eq!(after_levels(&[9, 9, 7], 3, packed, 8).unwrap(), [7]);
    }
}

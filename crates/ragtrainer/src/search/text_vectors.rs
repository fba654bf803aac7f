//! Token vectors of many texts, and the files that other programs read them from.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use colbert_kernels::VectorRows;
use colbert_model::write_vectors;

use crate::error::Error;

/// The scored token vectors of texts, one text after the other, in float32.
#[derive(Debug, Clone, PartialEq)]
pub struct TextVectors {
    dim: usize,
    offsets: Vec<usize>,
    values: Vec<f32>,
}

impl TextVectors {
    /// No texts yet; their vectors will have `dim` numbers.
    pub fn new(dim: usize) -> Self {
        Self { dim, offsets: vec![0], values: Vec::new() }
    }

    /// Adds a text's vectors, `[tokens, dim]` row by row.
    ///
    /// # Panics
    /// If they are not whole rows.
    pub fn push(&mut self, rows: &[f32]) {
        assert!(rows.len().is_multiple_of(self.dim), "rows of {} numbers", self.dim);
        self.values.extend_from_slice(rows);
        self.offsets.push(self.values.len() / self.dim);
    }

    /// Adds the texts of another list.
    pub(crate) fn append(&mut self, other: &Self) {
        for text in 0..other.len() {
            self.push(other.rows(text));
        }
    }

    /// Encodes the vectors for another process: number of texts, where the rows of each end, and the numbers.
    pub(crate) fn to_words(&self) -> Vec<u32> {
        let ends = self.offsets[1..].iter().map(|end| *end as u32);
        let numbers = self.values.iter().map(|value| value.to_bits());
        [self.len() as u32].into_iter().chain(ends).chain(numbers).collect()
    }

    /// Decodes what [`TextVectors::to_words`] made; no texts from nothing.
    pub(crate) fn from_words(dim: usize, words: &[u32]) -> Self {
        let Some((count, words)) = words.split_first() else { return Self::new(dim) };
        let (ends, numbers) = words.split_at(*count as usize);
        Self {
            dim,
            offsets: [0].into_iter().chain(ends.iter().map(|end| *end as usize)).collect(),
            values: numbers.iter().map(|bits| f32::from_bits(*bits)).collect(),
        }
    }

    /// Cuts every vector to its first `dim` numbers and brings it back to length 1.
    pub(crate) fn truncated(&self, dim: usize) -> Self {
        let mut values = Vec::with_capacity(self.tokens() * dim);
        for vector in self.values.chunks_exact(self.dim) {
            let kept = &vector[..dim];
            let length = kept.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt().max(1e-12);
            values.extend(kept.iter().map(|value| (f64::from(*value) / length) as f32));
        }
        Self { dim, offsets: self.offsets.clone(), values }
    }

    /// Keeps the texts for which `keep` is true.
    pub(crate) fn retain(&mut self, keep: impl Fn(usize) -> bool) {
        let mut kept = Self::new(self.dim);
        for text in (0..self.len()).filter(|text| keep(*text)) {
            kept.push(self.rows(text));
        }
        *self = kept;
    }

    /// Numbers of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Vectors of all texts together.
    pub fn tokens(&self) -> usize {
        self.values.len() / self.dim
    }

    /// Row of each text's first vector, and at the end the number of rows: `[texts + 1]`.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// All vectors, `[tokens, dim]`, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Vectors of a text, `[tokens, dim]`, row by row.
    ///
    /// # Panics
    /// If there is no such text.
    pub fn rows(&self, text: usize) -> &[f32] {
        &self.values[self.offsets[text] * self.dim..self.offsets[text + 1] * self.dim]
    }

    /// Vectors of the texts at these places.
    pub(crate) fn block(&self, places: Range<usize>) -> VectorBlock<'_> {
        let offsets = &self.offsets[places.start..=places.end];
        let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
        VectorBlock {
            offsets: offsets.iter().map(|offset| offset - first).collect(),
            rows: VectorRows::Numbers(&self.values[first * self.dim..last * self.dim]),
            places: places.collect(),
        }
    }

    /// Writes two NumPy files: the vectors (`<f4`, `[tokens, dim]`) at `path`, and beside it the offsets (`<i8`,
    /// `[texts + 1]`), whose name ends in `.offsets.npy`. Returns the second path.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write_npy(&self, path: &Path) -> Result<PathBuf, Error> {
        let offsets = path.with_extension("offsets.npy");
        let numbers = self.values.iter().flat_map(|value| value.to_le_bytes());
        write_npy(path, "<f4", &format!("({}, {})", self.tokens(), self.dim), numbers)?;
        let starts = self.offsets.iter().flat_map(|offset| (*offset as i64).to_le_bytes());
        write_npy(&offsets, "<i8", &format!("({},)", self.offsets.len()), starts)?;
        Ok(offsets)
    }

    /// Writes a safetensors file with `vectors` (F32, `[tokens, dim]`) and `offsets` (I64, `[texts + 1]`).
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write_safetensors(&self, path: &Path) -> Result<(), Error> {
        Ok(write_vectors(path, &self.values, self.dim, &self.offsets)?)
    }
}

/// Vectors of some passages.
#[derive(Debug, Clone)]
pub struct VectorBlock<'a> {
    /// Places of the passages.
    pub places: Vec<usize>,
    /// Row of each passage's first vector, and at the end the number of rows: `[passages + 1]`.
    pub offsets: Vec<usize>,
    /// The vectors, `[tokens, dim]`.
    pub rows: VectorRows<'a>,
}

impl VectorBlock<'_> {
    /// The vectors as float32, `dim` numbers each.
    pub fn text_vectors(&self, dim: usize) -> TextVectors {
        let mut decoded = Vec::new();
        let numbers = match self.rows {
            VectorRows::Numbers(numbers) => numbers,
            VectorRows::Stored(format, bytes) => {
                format.decode(bytes, dim, &mut decoded);
                &decoded
            }
        };
        let mut vectors = TextVectors::new(dim);
        self.offsets.windows(2).for_each(|rows| vectors.push(&numbers[rows[0] * dim..rows[1] * dim]));
        vectors
    }
}

/// A NumPy file of format 1.0: magic, version, length of the header, the header filled up to a multiple of 64, the
/// numbers.
fn write_npy(path: &Path, descr: &str, shape: &str, bytes: impl Iterator<Item = u8>) -> Result<(), Error> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(b"\x93NUMPY\x01\x00")?;
        file.write_all(&(length as u16).to_le_bytes())?;
        file.write_all(format!("{header:width$}\n", width = length - 1).as_bytes())?;
        for byte in bytes {
            file.write_all(&[byte])?;
        }
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
    };
    write().map_err(|source| Error::Io { action: "write", path: path.to_owned(), source })
}

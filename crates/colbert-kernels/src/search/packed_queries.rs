//! MaxSim of a fixed set of queries against stored documents, in any number and any order.
//!
//! The counterpart in training, `operators::maxsim`, lays out documents for every call; here queries are laid out
//! once, and documents are read as they are stored. Both add the same products in the same order, so their scores are
//! the same bits.

use std::fmt;
use std::ops::Range;

use crate::flex::level::{Level, for_each_level};
use crate::flex::tile::{Begin, Format, Left, Product, Right, Size};
use crate::operators::maxsim::NEVER;
use crate::search::vector_format::VectorFormat;

/// Document tokens whose products are held at once: a multiple of every level's rows of a tile.
const ROWS: usize = 48;

/// Query tokens of a group: their products with [`ROWS`] document tokens fit in a second-level cache.
const GROUP: usize = 1024;

/// Queries, laid out to be scored against many documents on the CPU. Shared by threads; each has a [`Scratch`] of its
/// own.
pub struct PackedQueries {
    level: Level,
    dim: usize,
    count: usize,
    groups: Vec<Group>,
}

/// Queries whose tokens are multiplied at once.
struct Group {
    /// Number of the first query.
    first: usize,
    /// First token of each query in the group, and at the end their number.
    starts: Vec<usize>,
    /// Tokens, rounded up to whole panels.
    wide: usize,
    /// Panels of columns: element (k, j) of panel p is at `(p * dim + k) * columns + j`.
    panels: Vec<f32>,
}

/// Memory that scoring reuses.
#[derive(Debug, Default)]
pub struct Scratch {
    rows: Vec<f32>,
    products: Vec<f32>,
    best: Vec<f32>,
}

/// Token vectors of documents, row by row.
#[derive(Debug, Clone, Copy)]
pub enum VectorRows<'a> {
    /// In memory, `[tokens, dim]`.
    Numbers(&'a [f32]),
    /// As [`VectorFormat::encode`] writes them.
    Stored(VectorFormat, &'a [u8]),
}

for_each_level! {
    /// Raises each of `best` to the largest number of its column, in rows of as many numbers.
    fn raise(best: &mut [f32], rows: &[f32]) = raise_body
}

#[inline(always)]
fn raise_body<const FUSED: bool>(best: &mut [f32], rows: &[f32]) {
    for row in rows.chunks_exact(best.len().max(1)) {
        for (best, number) in best.iter_mut().zip(row) {
            *best = if *number > *best { *number } else { *best };
        }
    }
}

impl PackedQueries {
    /// Lays out queries.
    ///
    /// # Shapes
    /// - vectors: `[tokens, dim]`, row by row
    /// - offsets: `[queries + 1]`, row of each query's first vector, and at the end the number of rows
    ///
    /// # Panics
    /// If the offsets do not rise from 0 to the number of rows.
    pub fn new(vectors: &[f32], offsets: &[usize], dim: usize) -> Self {
        Self::with_level(Level::detect(), vectors, offsets, dim)
    }

    fn with_level(level: Level, vectors: &[f32], offsets: &[usize], dim: usize) -> Self {
        assert!(dim > 0 && offsets.is_sorted() && offsets.first() == Some(&0), "offsets that rise from 0");
        assert_eq!(
            offsets.last().map(|rows| rows * dim),
            Some(vectors.len()),
            "rows of the offsets, and of the vectors"
        );
        let count = offsets.len() - 1;
        let mut groups = Vec::new();
        let mut first = 0;
        while first < count {
            // At least one query, however long it is.
            let fits = (first + 1..=count).take_while(|end| offsets[*end] - offsets[first] <= GROUP).count();
            let end = first + fits.max(1);
            groups.push(Group::new(level, vectors, &offsets[first..=end], first, dim));
            first = end;
        }
        Self { level, dim, count, groups }
    }

    /// Returns the number of queries.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns whether there is no query.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Scores documents on this thread. A document without vectors gets -9999 a query token. In one of fewer than
    /// `floored_below` vectors, no query token counts less than 0.
    ///
    /// # Shapes
    /// - documents: `[tokens, dim]`
    /// - offsets: `[docs + 1]`, row of each document's first vector, and at the end the number of rows
    /// - scores: `[docs, queries]`, row by row
    ///
    /// # Panics
    /// If these sizes do not fit each other.
    pub fn score(
        &self,
        documents: VectorRows<'_>,
        offsets: &[usize],
        floored_below: usize,
        scratch: &mut Scratch,
        scores: &mut [f32],
    ) {
        assert!(offsets.is_sorted() && offsets.first() == Some(&0), "offsets that rise from 0");
        let (rows, count) = (offsets[offsets.len() - 1], offsets.len() - 1);
        assert_eq!(documents.rows(self.dim), rows, "rows of the documents, and of their offsets");
        assert_eq!(scores.len(), count * self.count, "a score for each document and query");
        for group in &self.groups {
            let mut document = Document { place: 0, offsets, floored_below };
            scratch.best.clear();
            scratch.best.resize(group.wide, document.least());
            scratch.products.resize(ROWS * group.wide, 0.0);
            for start in (0..rows).step_by(ROWS) {
                let block = start..rows.min(start + ROWS);
                group.multiply(
                    self.level,
                    self.dim,
                    documents,
                    block.clone(),
                    &mut scratch.rows,
                    &mut scratch.products,
                );
                let mut row = start;
                while row < block.end {
                    let end = document.end().min(block.end);
                    let products = &scratch.products[(row - start) * group.wide..(end - start) * group.wide];
                    raise(self.level, &mut scratch.best, products);
                    row = end;
                    // Documents without vectors end where they begin.
                    while document.place < count && document.end() == row && row < rows {
                        group.finish(&mut document, &mut scratch.best, self.count, scores);
                    }
                }
            }
            while document.place < count {
                group.finish(&mut document, &mut scratch.best, self.count, scores);
            }
        }
    }
}

impl fmt::Debug for PackedQueries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedQueries({} queries, dim {}, {:?})", self.count, self.dim, self.level)
    }
}

/// The document that the current rows belong to.
struct Document<'a> {
    place: usize,
    offsets: &'a [usize],
    floored_below: usize,
}

impl Document<'_> {
    /// Returns the row after its last one.
    fn end(&self) -> usize {
        self.offsets[self.place + 1]
    }

    fn rows(&self) -> usize {
        self.end() - self.offsets[self.place]
    }

    /// Returns the least value of a query token.
    fn least(&self) -> f32 {
        match self.offsets.get(self.place + 1) {
            Some(_) if self.rows() < self.floored_below => 0.0,
            _ => f32::NEG_INFINITY,
        }
    }
}

impl Group {
    fn new(level: Level, vectors: &[f32], offsets: &[usize], first: usize, dim: usize) -> Self {
        let (columns, row) = (level.columns(), offsets[0]);
        let starts: Vec<usize> = offsets.iter().map(|offset| offset - row).collect();
        let tokens = starts[starts.len() - 1];
        let wide = tokens.next_multiple_of(columns);
        let mut panels = vec![0.0; wide * dim];
        for token in 0..tokens {
            let (panel, column) = (token / columns, token % columns);
            for (k, number) in vectors[(row + token) * dim..][..dim].iter().enumerate() {
                panels[(panel * dim + k) * columns + column] = *number;
            }
        }
        Self { first, starts, wide, panels }
    }

    /// Multiplies some rows of documents with all tokens: `[rows, wide]`.
    fn multiply(
        &self,
        level: Level,
        dim: usize,
        documents: VectorRows<'_>,
        rows: Range<usize>,
        decoded: &mut Vec<f32>,
        products: &mut [f32],
    ) {
        let left = documents.numbers(level, dim, rows.clone(), decoded);
        let columns = level.columns();
        assert!(left.len() == rows.len() * dim && products.len() >= rows.len() * self.wide, "rows, and their products");
        // SAFETY: `left` has these rows of `dim` numbers, `panels` whole panels of `wide` columns, `products` a row of
        // `wide` numbers for each.
        unsafe {
            level.multiply(
                Format::Single,
                Size { rows: rows.len(), columns: self.wide, depth: dim },
                Left { start: left.as_ptr(), group: level.rows() * dim, row: dim, step: 1 },
                Right { start: self.panels.as_ptr(), panel: columns * dim, step: columns },
                Product { start: products.as_mut_ptr(), row: self.wide },
                Begin::Zero,
            );
        }
    }

    /// Writes the scores of a document whose rows were all folded, and begins the next.
    fn finish(&self, document: &mut Document<'_>, best: &mut [f32], queries: usize, scores: &mut [f32]) {
        let scores = &mut scores[document.place * queries + self.first..][..self.starts.len() - 1];
        for (score, range) in scores.iter_mut().zip(self.starts.windows(2)) {
            let best = &best[range[0]..range[1]];
            *score = if document.rows() == 0 { NEVER * best.len() as f32 } else { best.iter().sum() };
        }
        document.place += 1;
        best.fill(document.least());
    }
}

impl<'a> VectorRows<'a> {
    fn rows(self, dim: usize) -> usize {
        match self {
            Self::Numbers(numbers) => numbers.len() / dim,
            Self::Stored(format, bytes) => bytes.len() / format.row_bytes(dim),
        }
    }

    /// Returns these rows as float32: in place if they can be read there, else in `decoded`.
    fn numbers<'b>(self, level: Level, dim: usize, rows: Range<usize>, decoded: &'b mut Vec<f32>) -> &'b [f32]
    where
        'a: 'b,
    {
        let (format, bytes) = match self {
            Self::Numbers(numbers) => return &numbers[rows.start * dim..rows.end * dim],
            Self::Stored(format, bytes) => (format, bytes),
        };
        let size = format.row_bytes(dim);
        let bytes = &bytes[rows.start * size..rows.end * size];
        if format == VectorFormat::Float32 && cfg!(target_endian = "little") {
            // SAFETY: any four bytes are a float32.
            if let ([], numbers, []) = unsafe { bytes.align_to::<f32>() } {
                return numbers;
            }
        }
        decoded.resize(rows.len() * dim, 0.0);
        format.decode_rows(level, bytes, dim, decoded);
        decoded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flex::maxsim::maxsim;
    use crate::flex::testing::random;
    use crate::operators::maxsim::ScoredTexts;

    fn offsets(lengths: &[usize]) -> Vec<usize> {
        let ends = lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end)
        });
        std::iter::once(0).chain(ends).collect()
    }

    fn scores(queries: &PackedQueries, documents: VectorRows<'_>, offsets: &[usize], floor: usize) -> Vec<f32> {
        let mut scores = vec![0.0; (offsets.len() - 1) * queries.len()];
        queries.score(documents, offsets, floor, &mut Scratch::default(), &mut scores);
        scores
    }

    #[test]
    fn scores_have_the_bits_of_the_operator_in_training() {
        let cases: [(&[usize], &[usize], usize); 4] = [
            (&[1], &[1], 1),
            (&[3, 5], &[70, 1, 40, 2, 48, 48, 96], 128),
            (&[32; 70], &[33, 32, 31, 150], 24),
            (&[8, 1500, 2], &[5], 7),
        ];
        for (case, (query_lengths, document_lengths, dim)) in cases.into_iter().enumerate() {
            let (q, d) = (query_lengths.iter().sum::<usize>(), document_lengths.iter().sum::<usize>());
            let vectors = random((q + d) * dim, case);
            let (queries, documents) = vectors.split_at(q * dim);
            let texts = |lengths: &[usize]| ScoredTexts::new(lengths, vec![true; lengths.iter().sum::<usize>()]);
            let texts = [texts(query_lengths), texts(document_lengths)];
            for level in Level::available() {
                let expected = maxsim(level, queries, documents, &texts).0;
                let packed = PackedQueries::with_level(level, queries, &offsets(query_lengths), dim);
                let found = scores(&packed, VectorRows::Numbers(documents), &offsets(document_lengths), 0);
                for (query, of_query) in expected.chunks_exact(document_lengths.len()).enumerate() {
                    for (document, expected) in of_query.iter().enumerate() {
                        let found = found[document * query_lengths.len() + query];
                        let place = format!("{level:?}, case {case}, query {query}, document {document}");
                        assert_eq!(found.to_bits(), expected.to_bits(), "{place}: {found}, {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn stored_vectors_score_as_what_they_decode_to_wherever_they_lie() {
        let (dim, lengths) = (16, [3usize, 60, 1, 7]);
        let tokens: usize = lengths.iter().sum();
        let vectors = random((tokens + 9) * dim, 3);
        let (queries, documents) = vectors.split_at(9 * dim);
        let packed = PackedQueries::new(queries, &[0, 4, 9], dim);
        for format in VectorFormat::ALL {
            let (mut bytes, mut decoded) = (Vec::new(), Vec::new());
            format.encode(documents, dim, &mut bytes);
            format.decode(&bytes, dim, &mut decoded);
            let expected = scores(&packed, VectorRows::Numbers(&decoded), &offsets(&lengths), 0);
            // At an address that float32 may not have, too.
            for shift in [0, 1] {
                let shifted = [vec![0; shift], bytes.clone()].concat();
                let rows = VectorRows::Stored(format, &shifted[shift..]);
                assert_eq!(scores(&packed, rows, &offsets(&lengths), 0), expected, "{format}");
            }
        }
    }

    #[test]
    fn documents_without_vectors_and_the_floor() {
        let queries = PackedQueries::new(&[1.0, 0.0, 0.0, 1.0], &[0, 2], 2);
        let documents = VectorRows::Numbers(&[-1.0, 0.5, -1.0, -1.0]);
        let found = scores(&queries, documents, &[0, 0, 1, 1, 2, 2], 0);
        assert_eq!(found, [2.0 * NEVER, -0.5, 2.0 * NEVER, -2.0, 2.0 * NEVER]);
        let floored = scores(&queries, documents, &[0, 0, 1, 1, 2, 2], 2);
        assert_eq!(floored, [2.0 * NEVER, 0.5, 2.0 * NEVER, 0.0, 2.0 * NEVER]);
        assert_eq!(scores(&queries, VectorRows::Numbers(&[]), &[0], 0), [0.0; 0]);
        assert_eq!(scores(&queries, VectorRows::Numbers(&[]), &[0, 0], 0), [2.0 * NEVER]);
    }
}

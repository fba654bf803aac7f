//! Counts of rows by kind, and of rows that were left out as malformed.

use std::fmt;

use serde::Serialize;

use crate::error::DataError;

/// Numbers of rows of each kind that were read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RowCounts {
    /// (query, positives).
    pub pairs: u64,
    /// (query, document, label).
    pub labelled_pairs: u64,
    /// (query, positives, negatives).
    pub triplets: u64,
    /// (query, document, teacher score).
    pub scored_pairs: u64,
    /// Ready-made examples, with or without teacher scores.
    pub ready_made: u64,
    /// Lines of a BEIR judgement file.
    pub judgements: u64,
    /// Further documents, not part of any row.
    pub documents: u64,
    /// Rows that added nothing new.
    pub duplicates: u64,
    /// Lines of white space, passed over.
    pub blank_lines: u64,
    /// Documents of white space that nothing refers to, left out of a BEIR corpus.
    pub empty_documents: u64,
}

impl RowCounts {
    /// Adds the rows of another source.
    pub(super) fn add(&mut self, other: &Self) {
        // Every field by name, so that a new one is not forgotten.
        let Self {
            pairs,
            labelled_pairs,
            triplets,
            scored_pairs,
            ready_made,
            judgements,
            documents,
            duplicates,
            blank_lines,
            empty_documents,
        } = other;
        self.pairs += pairs;
        self.labelled_pairs += labelled_pairs;
        self.triplets += triplets;
        self.scored_pairs += scored_pairs;
        self.ready_made += ready_made;
        self.judgements += judgements;
        self.documents += documents;
        self.duplicates += duplicates;
        self.blank_lines += blank_lines;
        self.empty_documents += empty_documents;
    }
}

/// Rows that were left out as malformed; empty unless a reader skips such rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BadRows {
    /// Number of rows by kind of error, in order of first sight.
    pub by_kind: Vec<(String, u64)>,
    /// The first ones.
    pub first: Vec<BadRow>,
}

/// One row that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadRow {
    /// Kind of error.
    pub kind: String,
    /// The whole message, with file and line.
    pub message: String,
}

/// Number of messages of bad rows that are kept.
pub(super) const BAD_ROWS_KEPT: usize = 10;

impl BadRows {
    /// Number of rows that were left out.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_kind.iter().map(|(_, count)| count).sum()
    }

    pub(crate) fn record(&mut self, error: &DataError) {
        let kind = error.kind();
        match self.by_kind.iter_mut().find(|(known, _)| known == kind) {
            Some((_, count)) => *count += 1,
            None => self.by_kind.push((kind.to_owned(), 1)),
        }
        if self.first.len() < BAD_ROWS_KEPT {
            self.first.push(BadRow { kind: kind.to_owned(), message: error.to_string() });
        }
    }
}

/// One line with the number of rows in all and by kind.
impl fmt::Display for BadRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<_> = self.by_kind.iter().map(|(kind, count)| format!("{kind}: {count}")).collect();
        write!(f, "{} rows are wrong and were left out ({})", self.total(), kinds.join(", "))
    }
}

//! The places of the sequences in a packed batch.

use std::sync::Arc;

/// One sequence of a packed batch, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Row of its first token.
    pub start: usize,
    /// Its tokens.
    pub length: usize,
    /// How many of its first tokens can be attended to. The rest, a query's \[MASK\] expansion, only attend to others.
    pub attended: usize,
}

/// The sequences of a packed batch: they lie one after the other, without padding. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    all: Arc<[Segment]>,
}

impl Segments {
    /// Describes sequences by (length, attended) pairs, in tokens, in the order of their rows.
    ///
    /// # Panics
    /// If a sequence has no attended token or more of them than tokens.
    pub fn new(sequences: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut start = 0;
        let all = sequences.into_iter().enumerate().map(|(i, (length, attended))| {
            assert!(
                (1..=length).contains(&attended),
                "sequence {i} of {length} tokens must have 1 to {length} attended tokens, not {attended}"
            );
            let segment = Segment { start, length, attended };
            start += length;
            segment
        });
        Self { all: all.collect() }
    }

    /// Returns the sequences, in the order of their rows.
    pub fn as_slice(&self) -> &[Segment] {
        &self.all
    }

    /// Returns the number of tokens of all sequences together.
    pub fn tokens(&self) -> usize {
        self.all.last().map_or(0, |last| last.start + last.length)
    }

    /// Returns the number of tokens of the longest sequence.
    pub fn max_length(&self) -> usize {
        self.all.iter().map(|segment| segment.length).max().unwrap_or(0)
    }

    /// Returns the position of every token in its sequence, counted from 0.
    pub fn positions(&self) -> Arc<[u32]> {
        self.all.iter().flat_map(|segment| 0..segment.length as u32).collect()
    }
}

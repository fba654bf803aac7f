//! Token sequences on the host.

/// One text as the encoder sees it, unpadded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSequence {
    /// Token ids, markers included.
    pub ids: Vec<u32>,
    /// The first `attended` tokens can be attended to; the rest (`[MASK]` expansion) only attend.
    pub attended: usize,
    /// True where the token takes part in MaxSim; as long as `ids`.
    pub scored: Vec<bool>,
}

impl TokenSequence {
    /// Returns the number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns whether there are no tokens at all, which a ColBERT tokenizer never produces.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

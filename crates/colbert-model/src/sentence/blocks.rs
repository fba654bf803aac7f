//! Blocks of texts that are encoded at once.

use crate::tokenizer::sequence::TokenSequence;

/// Tokens encoded at once, at most, unless one text has more.
const TOKENS_AT_ONCE: usize = 8192;

/// Splits texts into blocks of at most [`TOKENS_AT_ONCE`] tokens, in their order.
pub(super) fn blocks(sequences: &[TokenSequence]) -> impl Iterator<Item = &[TokenSequence]> {
    let mut rest = sequences;
    std::iter::from_fn(move || {
        let mut tokens = 0;
        let fitting = rest.iter().take_while(|sequence| {
            tokens += sequence.len();
            tokens <= TOKENS_AT_ONCE
        });
        let (block, left) = rest.split_at(fitting.count().max(1).min(rest.len()));
        rest = left;
        (!block.is_empty()).then_some(block)
    })
}

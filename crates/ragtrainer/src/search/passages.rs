//! Documents as passages.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use crate::error::Error;
use crate::search::pretrained::RagPretrainedModel;

/// How documents become passages, each with vectors of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Split {
    /// A document is one passage; what is longer than the model's `doc_maxlen` is cut off.
    #[default]
    Whole,
    /// Whole sentences (Unicode Standard Annex 29), as many as fit. A longer sentence is split by tokens.
    Sentences {
        /// Tokens of a passage at most, markers not counted; none for as many as the model takes.
        tokens: Option<usize>,
    },
    /// Stretches of tokens, cut between words where there are any.
    Tokens {
        /// Tokens of a passage at most, markers not counted; none for as many as the model takes.
        tokens: Option<usize>,
        /// Tokens that a passage shares with the one before it at most.
        overlap: usize,
    },
}

impl Split {
    /// Passages of each text, in order: parts of the text without white space around them. None of them is empty,
    /// unless the text is.
    pub(crate) fn passages<'t>(
        self,
        model: &RagPretrainedModel,
        texts: &[&'t str],
    ) -> Result<Vec<Vec<&'t str>>, Error> {
        let (tokens, overlap) = match self {
            Self::Whole => return Ok(texts.iter().map(|text| vec![*text]).collect()),
            Self::Sentences { tokens } => (tokens, 0),
            Self::Tokens { tokens, overlap } => (tokens, overlap),
        };
        let most = model.room_for_text()?;
        let limit = tokens.unwrap_or(most);
        if limit == 0 || limit > most || overlap >= limit {
            return Err(Error::PassageLength { tokens: limit, overlap, most });
        }
        let mut all = Vec::with_capacity(texts.len());
        // A few at a time, because spans of tokens take more memory than the texts.
        for texts in texts.chunks(256) {
            for (text, spans) in texts.iter().zip(model.token_spans(texts)?) {
                let ranges = match self {
                    Self::Sentences { .. } => by_sentences(text, &spans, limit),
                    _ => by_tokens(text, &spans, limit, overlap),
                };
                let mut passages: Vec<&str> = ranges.into_iter().map(|range| text[range].trim()).collect();
                passages.retain(|passage| !passage.is_empty());
                // A text without any token is refused or encoded as any other.
                all.push(if passages.is_empty() { vec![*text] } else { passages });
            }
        }
        Ok(all)
    }
}

/// Stretches of at most `limit` tokens, each of which begins `overlap` tokens before the last one's end, or at the word
/// after it.
fn by_tokens(text: &str, spans: &[Range<usize>], limit: usize, overlap: usize) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut first = 0;
    while first < spans.len() {
        let mut end = spans.len().min(first + limit);
        if end < spans.len() {
            // Back to where a word begins, unless a single word is longer than the limit.
            end = (first + 1..=end).rev().find(|token| begins_word(text, spans, *token)).unwrap_or(end);
        }
        ranges.push(spans[first].start..spans[end - 1].end);
        if end == spans.len() {
            break;
        }
        let back = end.saturating_sub(overlap).max(first + 1);
        first = (back..=end).find(|token| begins_word(text, spans, *token)).unwrap_or(end);
    }
    ranges
}

fn begins_word(text: &str, spans: &[Range<usize>], token: usize) -> bool {
    let (before, span) = (&spans[token - 1], &spans[token]);
    // A byte-level token holds the space before its word.
    before.end < span.start || text[span.clone()].starts_with(char::is_whitespace) || {
        let ended = text[..span.start].chars().next_back().is_some_and(char::is_alphanumeric);
        let begun = text[span.start..].chars().next().is_some_and(char::is_alphanumeric);
        begun && !ended
    }
}

/// Runs of sentences of at most `limit` tokens together.
fn by_sentences(text: &str, spans: &[Range<usize>], limit: usize) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    // First token, first byte and last byte of the passage that grows.
    let (mut first, mut start, mut end) = (0, 0, 0);
    let mut token = 0;
    for (at, sentence) in text.split_sentence_bound_indices() {
        let behind = at + sentence.len();
        let from = token;
        token += spans[token..].iter().take_while(|span| span.start < behind).count();
        if token - first > limit && start < at {
            ranges.push(start..at);
            (first, start) = (from, at);
        }
        end = behind;
        if token - first > limit {
            ranges.extend(by_tokens(text, &spans[first..token], limit, 0));
            (first, start) = (token, behind);
        }
    }
    if start < end {
        ranges.push(start..end);
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token a word, and one a full stop.
    fn spans(text: &str) -> Vec<Range<usize>> {
        let mut spans: Vec<Range<usize>> = Vec::new();
        for (at, c) in text.char_indices() {
            match spans.last_mut() {
                Some(last) if last.end == at && c.is_alphanumeric() => last.end += c.len_utf8(),
                _ if !c.is_whitespace() => spans.push(at..at + c.len_utf8()),
                _ => {}
            }
        }
        spans
    }

    fn texts(text: &str, ranges: Vec<Range<usize>>) -> Vec<&str> {
        ranges.into_iter().map(|range| text[range].trim()).collect()
    }

    #[test]
    fn sentences_stay_whole_where_they_fit() {
        let text = "A tor is a hill. A fen is wet! Is it? A beck is a small stream that runs down from the moor.";
        let found = texts(text, by_sentences(text, &spans(text), 12));
        assert_eq!(
            found,
            ["A tor is a hill. A fen is wet!", "Is it?", "A beck is a small stream that runs down from the", "moor."]
        );
        assert_eq!(texts(text, by_sentences(text, &spans(text), 1000)), [text]);
        assert!(by_sentences("", &[], 5).is_empty());
    }

    #[test]
    fn stretches_of_tokens_overlap_and_cover_everything() {
        let text = "one two three four five six seven eight nine ten";
        let found = texts(text, by_tokens(text, &spans(text), 4, 1));
        assert_eq!(found, ["one two three four", "four five six seven", "seven eight nine ten"]);
        for (limit, overlap) in [(1, 0), (2, 1), (3, 0), (5, 4), (10, 9), (99, 3)] {
            let found = by_tokens(text, &spans(text), limit, overlap);
            assert_eq!((found[0].start, found[found.len() - 1].end), (0, text.len()));
            for pair in found.windows(2) {
                assert!(pair[0].start < pair[1].start && text[pair[0].end..].len() < text[pair[0].start..].len());
                assert!(pair[1].start <= pair[0].end + 1, "nothing is left out between {pair:?}");
            }
            assert!(found.iter().all(|range| text[range.clone()].split(' ').count() <= limit), "{limit} {overlap}");
        }
    }

    /// A word of several tokens is cut only where it is longer than a passage; a character never is.
    #[test]
    fn words_stay_whole_where_they_fit() {
        let text = "ab cd überall";
        let spans = [0..1, 1..2, 3..4, 4..5, 6..8, 8..10, 10..14];
        assert_eq!(texts(text, by_tokens(text, &spans, 3, 0)), ["ab", "cd", "überall"]);
        assert_eq!(texts(text, by_tokens(text, &spans, 2, 1)), ["ab", "cd", "übe", "rall"]);
    }
}

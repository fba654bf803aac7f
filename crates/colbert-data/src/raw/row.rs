//! One row of training data, independent of the syntax it came from.

use crate::error::{DataError, Place};

/// The content of one row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Row {
    Pair {
        query: String,
        positives: Vec<String>,
    },
    Labelled {
        query: String,
        document: String,
        positive: bool,
    },
    Triplet {
        query: String,
        positives: Vec<String>,
        negatives: Vec<String>,
    },
    /// One scored document; all those of a query become one example.
    Scored {
        query: String,
        document: String,
        score: f32,
    },
    /// Documents with their own labels; possibly none of them is relevant.
    Judged {
        query: String,
        positives: Vec<String>,
        negatives: Vec<String>,
    },
    /// An example for each positive, with all the negatives; scores of the positives, then of the negatives.
    ReadyEach {
        query: String,
        positives: Vec<String>,
        negatives: Vec<String>,
        scores: Vec<f32>,
    },
    /// A ready-made example, the positive first.
    Ready {
        query: String,
        documents: Vec<String>,
        scores: Vec<f32>,
    },
}

impl Row {
    pub(crate) fn query(&self) -> &str {
        match self {
            Self::Pair { query, .. }
            | Self::Labelled { query, .. }
            | Self::Triplet { query, .. }
            | Self::Scored { query, .. }
            | Self::Judged { query, .. }
            | Self::ReadyEach { query, .. }
            | Self::Ready { query, .. } => query,
        }
    }

    /// Refuses texts of white space, rows without a positive, and scores that are missing or not finite.
    pub(crate) fn check(&self, place: &Place) -> Result<(), DataError> {
        let filled = |text: &str, field: &str| {
            if text.trim().is_empty() {
                return Err(DataError::EmptyText { place: place.clone(), field: field.to_owned() });
            }
            Ok(())
        };
        let some = |texts: &[String], expected: &str| {
            if texts.is_empty() {
                let (expected, found) = (expected.to_owned(), "an empty list".to_owned());
                return Err(DataError::Malformed { place: place.clone(), expected, found });
            }
            Ok(())
        };
        filled(self.query(), "query")?;
        match self {
            Self::Pair { positives, .. } => {
                some(positives, "at least one positive")?;
                positives.iter().try_for_each(|text| filled(text, "positive"))
            }
            Self::Labelled { document, .. } => filled(document, "document"),
            Self::Scored { document, score, .. } => {
                filled(document, "document")?;
                check_scores(&[*score], 1, place)
            }
            Self::Triplet { positives, negatives, .. } => {
                some(positives, "at least one positive")?;
                positives.iter().try_for_each(|text| filled(text, "positive"))?;
                negatives.iter().try_for_each(|text| filled(text, "negative"))
            }
            Self::Judged { positives, negatives, .. } => {
                positives.iter().try_for_each(|text| filled(text, "positive"))?;
                negatives.iter().try_for_each(|text| filled(text, "negative"))
            }
            Self::ReadyEach { positives, negatives, scores, .. } => {
                some(positives, "at least one positive")?;
                positives.iter().try_for_each(|text| filled(text, "positive"))?;
                negatives.iter().try_for_each(|text| filled(text, "negative"))?;
                check_scores(scores, positives.len() + negatives.len(), place)
            }
            Self::Ready { documents, scores, .. } => {
                some(documents, "at least one document")?;
                documents.iter().try_for_each(|text| filled(text, "document"))?;
                check_scores(scores, documents.len(), place)
            }
        }
    }
}

/// Refuses scores that are not finite, or whose number is not that of the documents.
pub(crate) fn check_scores(scores: &[f32], documents: usize, place: &Place) -> Result<(), DataError> {
    if scores.len() != documents {
        return Err(DataError::ScoreCount { place: place.clone(), documents, scores: scores.len() });
    }
    match scores.iter().find(|score| !score.is_finite()) {
        Some(score) => {
            Err(DataError::NonFinite { place: place.clone(), field: "scores".to_owned(), found: score.to_string() })
        }
        None => Ok(()),
    }
}

//! Raw data from values in memory.

use super::{RawData, unknown_label};
use crate::error::{DataError, Place};
use crate::raw::labels::Labels;
use crate::raw::row::Row;

impl RawData {
    /// (query, positive) rows.
    ///
    /// # Errors
    /// [`DataError::EmptyText`] with the row, [`DataError::NoRows`].
    pub fn from_pairs<Q, D>(rows: impl IntoIterator<Item = (Q, D)>) -> Result<Self, DataError>
    where
        Q: Into<String>,
        D: Into<String>,
    {
        Self::from_rows(
            rows.into_iter()
                .map(|(query, positive)| Row::Pair { query: query.into(), positives: vec![positive.into()] }),
        )
    }

    /// (query, document, label) rows; the label is anything that prints as one of `labels`.
    ///
    /// # Errors
    /// [`DataError::UnknownLabel`] and [`DataError::EmptyText`] with the row, [`DataError::NoRows`].
    pub fn from_labelled_pairs<Q, D, L>(
        rows: impl IntoIterator<Item = (Q, D, L)>,
        labels: &Labels,
    ) -> Result<Self, DataError>
    where
        Q: Into<String>,
        D: Into<String>,
        L: ToString,
    {
        let rows = rows.into_iter().zip(1..).map(|((query, document, label), row)| {
            let label = label.to_string();
            let positive =
                labels.is_positive(&label).ok_or_else(|| unknown_label(Place::Row { row }, labels, label))?;
            Ok(Row::Labelled { query: query.into(), document: document.into(), positive })
        });
        Self::collect(rows)
    }

    /// (query, positives, negatives) rows; either list may have one member.
    ///
    /// # Errors
    /// [`DataError::EmptyText`] and [`DataError::Malformed`] with the row, [`DataError::NoRows`].
    pub fn from_triplets<Q, P, N>(rows: impl IntoIterator<Item = (Q, P, N)>) -> Result<Self, DataError>
    where
        Q: Into<String>,
        P: IntoIterator<Item: Into<String>>,
        N: IntoIterator<Item: Into<String>>,
    {
        Self::from_rows(rows.into_iter().map(|(query, positives, negatives)| Row::Triplet {
            query: query.into(),
            positives: positives.into_iter().map(Into::into).collect(),
            negatives: negatives.into_iter().map(Into::into).collect(),
        }))
    }

    /// (query, documents, teacher scores) rows, the positive first.
    ///
    /// # Errors
    /// [`DataError::ScoreCount`], [`DataError::NonFinite`] and [`DataError::EmptyText`] with the row,
    /// [`DataError::NoRows`].
    pub fn from_scored<Q, D>(rows: impl IntoIterator<Item = (Q, Vec<D>, Vec<f32>)>) -> Result<Self, DataError>
    where
        Q: Into<String>,
        D: Into<String>,
    {
        Self::from_rows(rows.into_iter().map(|(query, documents, scores)| Row::Ready {
            query: query.into(),
            documents: documents.into_iter().map(Into::into).collect(),
            scores,
        }))
    }

    /// (query, document, teacher score) rows. The rows of a query become one example, the best-scored document first.
    ///
    /// # Errors
    /// [`DataError::NonFinite`], [`DataError::EmptyText`], and [`DataError::Malformed`] for a document with two scores,
    /// with the row; [`DataError::NoRows`].
    pub fn from_scored_pairs<Q, D>(rows: impl IntoIterator<Item = (Q, D, f32)>) -> Result<Self, DataError>
    where
        Q: Into<String>,
        D: Into<String>,
    {
        Self::from_rows(rows.into_iter().map(|(query, document, score)| Row::Scored {
            query: query.into(),
            document: document.into(),
            score,
        }))
    }

    fn from_rows(rows: impl IntoIterator<Item = Row>) -> Result<Self, DataError> {
        Self::collect(rows.into_iter().map(Ok))
    }

    pub(crate) fn collect(rows: impl IntoIterator<Item = Result<Row, DataError>>) -> Result<Self, DataError> {
        let mut raw = Self::default();
        let mut count = 0;
        for row in rows {
            count += 1;
            raw.push(row?, &Place::Row { row: count })?;
        }
        if count == 0 {
            return Err(DataError::NoRows {
                origin: "raw data".to_owned(),
                expected: "at least one (query, positive) pair".to_owned(),
            });
        }
        raw.group_scored_pairs();
        raw.announcement = format!("raw data in memory: {count} rows");
        Ok(raw)
    }
}

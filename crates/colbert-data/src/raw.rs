//! Raw data: every text once, and the judgements of each query. Readers fill it row by row, so that memory holds only
//! the distinct texts and ids.

pub(crate) mod counts;
mod in_memory;
mod known_positives;
pub(crate) mod labels;
mod merge;
pub(crate) mod row;
mod scored_pairs;
mod split;

pub use split::DevSplit;

use std::collections::{HashMap, HashSet};

use crate::error::{DataError, Place};
use crate::raw::counts::{BadRows, RowCounts};
use crate::raw::labels::Labels;
use crate::raw::row::Row;
use crate::sets::training_set::Example;
use crate::texts::pid_set::FEW;
use crate::texts::{Collection, Queries};

use scored_pairs::ScoredPairs;

/// Texts and judgements as they were given, grouped by query, before any negative is added.
#[derive(Debug, Clone, Default)]
pub struct RawData {
    pub(crate) queries: Queries,
    pub(crate) collection: Collection,
    pub(crate) groups: Vec<Group>,
    pub(crate) ready: Vec<Example>,
    /// Whether those were put together from rows of one document each, so that some may be too short.
    pub(crate) grouped: bool,
    pub(crate) scored_pairs: ScoredPairs,
    /// Members of the long lists of `groups`, by query and whether the list is that of the positives.
    pub(crate) long_lists: HashMap<(u32, bool), HashSet<u32>>,
    pub(crate) counts: RowCounts,
    pub(crate) bad_rows: BadRows,
    pub(crate) announcement: String,
    /// First query of each source, where several were merged: a query belongs to the first source that has it.
    pub(crate) sources: Vec<u32>,
}

/// Most queries have a positive or two: these need no memory of their own.
pub(crate) type Pids = smallvec::SmallVec<[u32; 4]>;

/// The judgements of one query: pids in order of first sight, without repeats.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) positives: Pids,
    pub(crate) negatives: Pids,
    /// Whether a row that is no example yet judged it, so that examples are to be made of it.
    pub(crate) open: bool,
}

impl RawData {
    /// Adds documents that negatives may be drawn from.
    ///
    /// # Errors
    /// [`DataError::EmptyText`] with the document's place in the list.
    pub fn add_documents<D: AsRef<str>>(&mut self, documents: impl IntoIterator<Item = D>) -> Result<(), DataError> {
        for (document, row) in documents.into_iter().zip(1..) {
            self.add_document(document.as_ref(), &Place::Row { row })?;
        }
        Ok(())
    }

    /// Distinct queries.
    #[must_use]
    pub fn queries(&self) -> &Queries {
        &self.queries
    }

    /// Distinct documents, in rows or added.
    #[must_use]
    pub fn collection(&self) -> &Collection {
        &self.collection
    }

    /// Known positives of a query, in order of first sight.
    #[must_use]
    pub fn positives(&self, qid: u32) -> &[u32] {
        self.groups.get(qid as usize).map_or(&[], |group| group.positives.as_slice())
    }

    /// Given negatives of a query, in order of first sight.
    #[must_use]
    pub fn negatives(&self, qid: u32) -> &[u32] {
        self.groups.get(qid as usize).map_or(&[], |group| group.negatives.as_slice())
    }

    /// Examples that came ready-made: rows with teacher scores, or the reference's training files.
    #[must_use]
    pub fn ready_made(&self) -> &[Example] {
        &self.ready
    }

    /// Whether some rows are not ready-made examples, so that negatives are added to their queries.
    #[must_use]
    pub fn needs_negatives(&self) -> bool {
        self.ready.is_empty() || self.groups.iter().any(|group| group.open)
    }

    /// Rows by kind.
    #[must_use]
    pub fn counts(&self) -> &RowCounts {
        &self.counts
    }

    /// Rows that were left out.
    #[must_use]
    pub fn bad_rows(&self) -> &BadRows {
        &self.bad_rows
    }

    /// One line: what was read, in which layout, and which column plays which role.
    #[must_use]
    pub fn announcement(&self) -> &str {
        &self.announcement
    }

    pub(crate) fn add_document(&mut self, text: &str, place: &Place) -> Result<u32, DataError> {
        if text.trim().is_empty() {
            return Err(DataError::EmptyText { place: place.clone(), field: "document".to_owned() });
        }
        let pid = self.collection.add(text)?;
        self.counts.documents += 1;
        Ok(pid)
    }

    /// Adds a checked row; on an error nothing of it has been added.
    pub(crate) fn push(&mut self, row: Row, place: &Place) -> Result<(), DataError> {
        row.check(place)?;
        let qid = self.queries.add(row.query())?;
        let mut new = false;
        match &row {
            Row::Pair { positives, .. } => {
                self.counts.pairs += 1;
                new |= self.add_judged(qid, positives, true)?;
            }
            Row::Labelled { document, positive, .. } => {
                self.counts.labelled_pairs += 1;
                new |= self.add_judged(qid, std::slice::from_ref(document), *positive)?;
            }
            Row::Triplet { positives, negatives, .. } | Row::Judged { positives, negatives, .. } => {
                self.counts.triplets += 1;
                new |= self.add_judged(qid, positives, true)?;
                new |= self.add_judged(qid, negatives, false)?;
            }
            Row::Scored { document, score, .. } => {
                let pid = self.collection.add(document)?;
                new = self.scored_pairs.add(qid, pid, *score, place)?;
                self.counts.scored_pairs += 1;
            }
            Row::ReadyEach { positives, negatives, scores, .. } => {
                let (of_positives, of_negatives) = scores.split_at(positives.len());
                let rest = negatives.iter().map(|text| self.collection.add(text)).collect::<Result<Vec<_>, _>>()?;
                for (positive, score) in positives.iter().zip(of_positives) {
                    let pid = self.collection.add(positive)?;
                    // All positives are known before any example is checked.
                    self.note(qid, pid, true);
                    let documents = std::iter::once(pid).chain(rest.iter().copied()).collect();
                    let scores = std::iter::once(*score).chain(of_negatives.iter().copied()).collect();
                    self.push_ready(Example { query: qid, documents, scores: Some(scores) });
                }
                new = true;
            }
            Row::Ready { documents, scores, .. } => {
                let pids = documents.iter().map(|text| self.collection.add(text)).collect::<Result<Vec<_>, _>>()?;
                self.push_ready(Example { query: qid, documents: pids, scores: Some(scores.clone()) });
                new = true;
            }
        }
        self.counts.duplicates += u64::from(!new);
        Ok(())
    }

    /// Adds a ready-made example. Its first document is a known positive; the others are only called negatives where no
    /// teacher scored them.
    pub(crate) fn push_ready(&mut self, example: Example) {
        self.counts.ready_made += 1;
        for (position, &pid) in example.documents.iter().enumerate() {
            if position == 0 || example.scores.is_none() {
                self.note(example.query, pid, position == 0);
            }
        }
        self.ready.push(example);
    }

    /// Makes an example of each query that has rows of one scored document each. To be called after the last row.
    pub(crate) fn group_scored_pairs(&mut self) {
        for example in std::mem::take(&mut self.scored_pairs).into_examples() {
            self.grouped = true;
            self.push_ready(example);
        }
    }

    fn add_judged(&mut self, qid: u32, texts: &[String], positive: bool) -> Result<bool, DataError> {
        let mut new = false;
        for text in texts {
            let pid = self.collection.add(text)?;
            new |= self.judge(qid, pid, positive);
        }
        Ok(new)
    }

    /// Notes a judgement of a row that is not a ready-made example, and returns whether it is new.
    pub(crate) fn judge(&mut self, qid: u32, pid: u32, positive: bool) -> bool {
        let new = self.note(qid, pid, positive);
        self.groups[qid as usize].open = true;
        new
    }

    /// Notes a judgement and returns whether it is new.
    fn note(&mut self, qid: u32, pid: u32, positive: bool) -> bool {
        let index = qid as usize;
        if self.groups.len() <= index {
            self.groups.resize_with(index + 1, Group::default);
        }
        let group = &mut self.groups[index];
        let list = if positive { &mut group.positives } else { &mut group.negatives };
        let new = if list.len() <= FEW {
            !list.contains(&pid)
        } else {
            let members = self.long_lists.entry((qid, positive));
            members.or_insert_with(|| list.iter().copied().collect()).insert(pid)
        };
        if new {
            list.push(pid);
        }
        new
    }
}

pub(crate) fn unknown_label(place: Place, labels: &Labels, found: String) -> DataError {
    DataError::UnknownLabel { place, positive: labels.positive.clone(), negative: labels.negative.clone(), found }
}

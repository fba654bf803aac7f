//! Several sources as one data set.

use super::RawData;
use crate::error::DataError;
use crate::raw::counts::BadRows;
use crate::sets::training_set::Example;
use crate::texts::Texts;

impl RawData {
    /// Adds all data of another source: texts that are equal byte for byte become one, judgements of a query are
    /// joined, rows are counted together. A source's own id of a text is kept unless it names another text here. The
    /// added data count as one source, even if they were merged themselves.
    ///
    /// # Errors
    /// [`DataError::TooMany`] past 2^32 - 1 texts.
    pub fn merge(&mut self, other: Self) -> Result<(), DataError> {
        if self.sources.is_empty() {
            self.sources.push(0);
        }
        self.sources.push(self.queries.len() as u32);
        let qids = merge_texts(&mut self.queries, &other.queries)?;
        let pids = merge_texts(&mut self.collection, &other.collection)?;
        for (group, &qid) in other.groups.iter().zip(&qids) {
            for (list, positive) in [(&group.positives, true), (&group.negatives, false)] {
                for &pid in list {
                    self.note(qid, pids[pid as usize], positive);
                }
            }
            if group.open {
                self.groups[qid as usize].open = true;
            }
        }
        self.ready.extend(other.ready.into_iter().map(|example| Example {
            query: qids[example.query as usize],
            documents: example.documents.iter().map(|&pid| pids[pid as usize]).collect(),
            scores: example.scores,
        }));
        self.grouped |= other.grouped;
        self.counts.add(&other.counts);
        self.bad_rows.add(other.bad_rows);
        if !self.announcement.is_empty() {
            self.announcement.push_str("; ");
        }
        self.announcement.push_str(&other.announcement);
        Ok(())
    }
}

/// Adds texts and returns their new ids in the order of the old ones.
fn merge_texts<Kind>(to: &mut Texts<Kind>, from: &Texts<Kind>) -> Result<Vec<u32>, DataError> {
    let add = |id: u32| {
        if let Some(external) = from.id(id)
            && let Some(known) = to.add_with_id(external, from.text(id))?
        {
            return Ok(known);
        }
        to.add(from.text(id))
    };
    (0..from.len() as u32).map(add).collect()
}

impl BadRows {
    fn add(&mut self, other: Self) {
        for (kind, count) in other.by_kind {
            match self.by_kind.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, known)) => *known += count,
                None => self.by_kind.push((kind, count)),
            }
        }
        self.first.extend(other.first);
        self.first.truncate(super::counts::BAD_ROWS_KEPT);
    }
}

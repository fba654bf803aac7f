//! Rows of one query, one document and a teacher's score, until all rows of a query are together.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::error::{DataError, Place};
use crate::sets::training_set::Example;

/// Scored documents of every query.
#[derive(Debug, Clone, Default)]
pub(crate) struct ScoredPairs {
    /// Pids of every query in order of first sight.
    of_query: Vec<Vec<u32>>,
    scores: HashMap<(u32, u32), f32>,
}

impl ScoredPairs {
    /// Notes a score and says whether it is new.
    pub(super) fn add(&mut self, qid: u32, pid: u32, score: f32, place: &Place) -> Result<bool, DataError> {
        match self.scores.entry((qid, pid)) {
            Entry::Occupied(known) if *known.get() == score => Ok(false),
            Entry::Occupied(known) => Err(DataError::Malformed {
                place: place.clone(),
                expected: format!("one score for a query and a document, {} as in an earlier row", known.get()),
                found: score.to_string(),
            }),
            Entry::Vacant(free) => {
                free.insert(score);
                if self.of_query.len() <= qid as usize {
                    self.of_query.resize_with(qid as usize + 1, Vec::new);
                }
                self.of_query[qid as usize].push(pid);
                Ok(true)
            }
        }
    }

    /// An example for each query: documents by falling score, equal scores in order of first sight.
    pub(super) fn into_examples(self) -> impl Iterator<Item = Example> {
        let Self { of_query, scores } = self;
        of_query.into_iter().zip(0u32..).filter(|(pids, _)| !pids.is_empty()).map(move |(mut documents, query)| {
            let score = |pid: &u32| scores[&(query, *pid)];
            documents.sort_by(|a, b| score(b).total_cmp(&score(a)));
            Example { query, scores: Some(documents.iter().map(score).collect()), documents }
        })
    }
}

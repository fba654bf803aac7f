//! Known positives of every query, twins of documents and of queries included.

use super::RawData;
use crate::texts::judgements::Judgements;
use crate::texts::twins::Twins;

impl RawData {
    /// Returns the positives of each query, then those of its twins among the queries, then all twins of these among
    /// the documents: none of them may be a negative of that query. `documents` are the twins within the collection.
    pub(crate) fn known_positives(&self, documents: &Twins) -> Judgements {
        let queries = Twins::find(&self.queries);
        let mut known = Judgements::new();
        for qid in 0..self.queries.len() as u32 {
            let others = queries.of(qid).iter().copied().filter(|&twin| twin != qid);
            let direct: Vec<u32> =
                [qid].into_iter().chain(others).flat_map(|query| self.positives(query)).copied().collect();
            direct.iter().for_each(|&pid| known.insert(qid, pid, 1));
            direct.iter().flat_map(|&pid| documents.of(pid)).for_each(|&twin| known.insert(qid, twin, 1));
        }
        known
    }
}

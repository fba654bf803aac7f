//! Queries with known relevant documents, for evaluation.

use std::collections::HashSet;
use std::sync::Arc;

use rand::Rng;

use crate::error::DataError;
use crate::texts::judgements::Judgements;
use crate::texts::sample::rng_for;
use crate::texts::{Collection, Queries, Texts};

/// Queries, the documents they are ranked against, and which of those are relevant. Every query has a relevant
/// document.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationSet {
    /// Distinct queries.
    pub queries: Queries,
    /// Documents that are ranked; shared between the splits of a folder.
    pub collection: Arc<Collection>,
    /// Graded judgements.
    pub judgements: Judgements,
}

impl EvaluationSet {
    /// Approximate memory of the set in bytes, without its collection, which other sets may share.
    #[must_use]
    pub fn memory_without_collection(&self) -> u64 {
        self.queries.memory() + self.judgements.memory()
    }

    /// Returns a smaller set: at most `max_queries` queries, chosen at random by the seed, ranked against all documents
    /// relevant to them and random others, `pool_size` in all. `None` keeps all. Order is kept.
    ///
    /// The pool is larger than `pool_size` if there are more relevant documents than that. Which texts are chosen
    /// depends on the seed and the texts, not on their order.
    ///
    /// # Errors
    /// [`DataError::OptionRange`] for a limit of 0.
    pub fn with_pool(
        &self,
        pool_size: Option<usize>,
        max_queries: Option<usize>,
        seed: u64,
    ) -> Result<Self, DataError> {
        for (option, limit) in [("evaluation.pool_size", pool_size), ("evaluation.max_queries", max_queries)] {
            if limit == Some(0) {
                let (expected, found) = ("at least 1, or none for all".to_owned(), "0".to_owned());
                return Err(DataError::OptionRange { option, expected, found });
            }
        }
        let qids = choose(&self.queries, max_queries, &HashSet::new(), seed, "evaluation queries");
        let relevant: HashSet<u32> = qids.iter().flat_map(|&qid| self.judgements.positives(qid)).collect();
        let pids = pool_size
            .filter(|&size| size < self.collection.len())
            .map(|size| choose(&self.collection, Some(size), &relevant, seed, "evaluation pool"));
        self.restricted_to(&qids, pids.as_deref())
    }

    /// The set with these queries and these documents only, in the order given; `None` keeps all documents. A judgement
    /// of a document that is not among them is left out.
    ///
    /// # Panics
    /// When an id is not of this set.
    ///
    /// # Errors
    /// [`DataError::TooMany`], which cannot happen for ids that differ.
    pub fn restricted_to(&self, qids: &[u32], pids: Option<&[u32]>) -> Result<Self, DataError> {
        let mut new_pid: Vec<Option<u32>> = (0..self.collection.len() as u32).map(Some).collect();
        let mut collection = Arc::clone(&self.collection);
        if let Some(pids) = pids {
            let mut chosen = Collection::new();
            new_pid.fill(None);
            for &pid in pids {
                new_pid[pid as usize] = Some(copy(&mut chosen, &self.collection, pid)?);
            }
            collection = Arc::new(chosen);
        }
        let (mut queries, mut judgements) = (Queries::new(), Judgements::new());
        for &old in qids {
            let qid = copy(&mut queries, &self.queries, old)?;
            for &(pid, grade) in self.judgements.of(old) {
                if let Some(pid) = new_pid[pid as usize] {
                    judgements.insert(qid, pid, grade);
                }
            }
        }
        Ok(Self { queries, collection, judgements })
    }
}

/// All of `needed` and the texts with the lowest drawn numbers, `limit` in all; in the order of their ids.
fn choose<Kind>(
    texts: &Texts<Kind>,
    limit: Option<usize>,
    needed: &HashSet<u32>,
    seed: u64,
    purpose: &str,
) -> Vec<u32> {
    let ids = 0..texts.len() as u32;
    let Some(limit) = limit.filter(|&limit| limit < texts.len()) else { return ids.collect() };
    let mut drawn: Vec<(u64, u32)> =
        ids.filter(|id| !needed.contains(id)).map(|id| (rng_for(seed, purpose, texts.text(id)).random(), id)).collect();
    drawn.sort_unstable();
    let others = limit.saturating_sub(needed.len());
    let mut chosen: Vec<u32> = needed.iter().copied().chain(drawn.into_iter().take(others).map(|(_, id)| id)).collect();
    chosen.sort_unstable();
    chosen
}

pub(crate) fn copy<Kind>(to: &mut Texts<Kind>, from: &Texts<Kind>, id: u32) -> Result<u32, DataError> {
    if let Some(external) = from.id(id)
        && let Some(added) = to.add_with_id(external, from.text(id))?
    {
        return Ok(added);
    }
    to.add(from.text(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(order: impl Iterator<Item = u32>) -> EvaluationSet {
        let (mut queries, mut collection, mut judgements) = (Queries::new(), Collection::new(), Judgements::new());
        for number in order {
            let pid = collection.add_with_id(&format!("d{number}"), &format!("document {number}")).unwrap().unwrap();
            if number < 20 {
                let qid = queries.add_with_id(&format!("q{number}"), &format!("query {number}")).unwrap().unwrap();
                judgements.insert(qid, pid, 2);
            }
        }
        EvaluationSet { queries, collection: Arc::new(collection), judgements }
    }

    fn ids<Kind>(texts: &Texts<Kind>) -> Vec<String> {
        let mut ids: Vec<_> = (0..texts.len() as u32).map(|id| texts.id(id).unwrap().to_owned()).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn a_pool_holds_every_relevant_document_and_random_others() {
        let pooled = set(0..100).with_pool(Some(30), Some(8), 5).unwrap();
        assert_eq!((pooled.queries.len(), pooled.collection.len()), (8, 30));
        for qid in 0..8 {
            let pid = pooled.judgements.positives(qid).next().unwrap();
            assert_eq!(pooled.queries.id(qid).unwrap()[1..], pooled.collection.id(pid).unwrap()[1..]);
        }
        assert_ne!(ids(&pooled.queries), ids(&set(0..100).with_pool(None, Some(8), 6).unwrap().queries));
    }

    #[test]
    fn the_choice_depends_on_texts_and_not_on_their_order() {
        let one = set(0..100).with_pool(Some(30), Some(8), 5).unwrap();
        let other = set((0..100).rev()).with_pool(Some(30), Some(8), 5).unwrap();
        assert_eq!((ids(&one.queries), ids(&one.collection)), (ids(&other.queries), ids(&other.collection)));
    }

    #[test]
    fn named_queries_and_documents_keep_their_order() {
        let whole = set(0..30);
        let restricted = whole.restricted_to(&[5, 2], Some(&[25, 2, 5])).unwrap();
        assert_eq!(restricted.queries.iter().collect::<Vec<_>>(), ["query 5", "query 2"]);
        assert_eq!(restricted.collection.iter().collect::<Vec<_>>(), ["document 25", "document 2", "document 5"]);
        assert_eq!((restricted.judgements.of(0), restricted.judgements.of(1)), (&[(2, 2)][..], &[(1, 2)][..]));
        assert!(whole.restricted_to(&[5], Some(&[1])).unwrap().judgements.is_empty());
    }

    #[test]
    fn no_limits_keep_everything_and_few_never_lose_a_relevant_document() {
        let whole = set(0..100);
        assert_eq!(whole.with_pool(None, None, 1).unwrap(), whole);
        let tiny = whole.with_pool(Some(1), None, 1).unwrap();
        assert_eq!((tiny.collection.len(), tiny.judgements.len()), (20, 20));
        let message = whole.with_pool(Some(0), None, 1).unwrap_err().to_string();
        assert!(message.contains("evaluation.pool_size: expected at least 1"), "{message}");
    }
}

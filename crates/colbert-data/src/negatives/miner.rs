//! The contract of a miner, and what all miners share: the rank window.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::DataError;
use crate::texts::{Collection, Queries};

/// A document and how well it matches a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// Pid.
    pub pid: u32,
    /// Higher is better; comparable within one query only.
    pub score: f32,
}

/// Ranks documents for queries. A miner knows nothing of rank windows, known positives or sampling;
/// [`prepare`](crate::prepare()) does all of that.
pub trait NegativeMiner: Debug + Send + Sync {
    /// Short name for reports, such as `bm25 (en)`.
    fn name(&self) -> String;

    /// The best `depth` documents of `collection` for every query, best first: one list per query in the order of qids,
    /// shorter than `depth` where nothing else matches. Equal scores go by pid, so that the ranking is reproducible.
    ///
    /// `progress` may be called at any time, from any thread, phase after phase, and need not be called at all: where
    /// no ranking was reported, it is reported as done at the end.
    ///
    /// # Errors
    /// [`DataError::Miner`] with the miner's own reason.
    fn rank(
        &self,
        queries: &Queries,
        collection: &Collection,
        depth: usize,
        progress: &MiningProgress<'_>,
    ) -> Result<Vec<Vec<Ranked>>, DataError>;
}

/// A function that is called with the phase, the number of items done and their total; from several threads, and not
/// always in order.
pub type MiningProgress<'a> = dyn Fn(MiningPhase, usize, usize) + Sync + 'a;

/// The phase of a miner's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MiningPhase {
    /// Reading documents.
    Indexing,
    /// Ranking for queries.
    Ranking,
    /// Rescoring candidates; counts documents.
    Rescoring,
    /// Scoring candidates by a teacher; counts (query, document) pairs, those of earlier runs included.
    Teaching,
}

/// Ranks with `miner` down to `depth`, after checking that the miner kept its contract.
pub(crate) fn mine(
    miner: &dyn NegativeMiner,
    queries: &Queries,
    collection: &Collection,
    depth: usize,
    progress: &MiningProgress<'_>,
) -> Result<Vec<Vec<Ranked>>, DataError> {
    let start = std::time::Instant::now();
    let tells_ranking = AtomicBool::new(false);
    let mut rankings = miner.rank(queries, collection, depth, &|phase, done, total| {
        tells_ranking.fetch_or(phase == MiningPhase::Ranking, Ordering::Relaxed);
        progress(phase, done, total);
    })?;
    if !tells_ranking.into_inner() {
        progress(MiningPhase::Ranking, queries.len(), queries.len());
    }
    let seconds = start.elapsed().as_secs_f64();
    let per_second = queries.len() as f64 / seconds.max(1e-9);
    tracing::info!(miner = miner.name(), queries = queries.len(), seconds, per_second, "mined");
    let broken = |expected: String, found: String| DataError::MinerContract { miner: miner.name(), expected, found };
    if rankings.len() != queries.len() {
        return Err(broken(format!("a ranking for each of the {} queries", queries.len()), rankings.len().to_string()));
    }
    for ranking in &mut rankings {
        if let Some(ranked) = ranking.iter().find(|ranked| ranked.pid as usize >= collection.len()) {
            return Err(broken(format!("pids below {}", collection.len()), ranked.pid.to_string()));
        }
        if let Some(ranked) = ranking.iter().find(|ranked| ranked.score.is_nan()) {
            return Err(broken("a score that is a number".to_owned(), format!("NaN for pid {}", ranked.pid)));
        }
        ranking.truncate(depth);
    }
    Ok(rankings)
}

/// The ranks in `window`, of which there may be fewer.
pub(crate) fn within(ranking: &[Ranked], window: Range<usize>) -> &[Ranked] {
    let end = window.end.min(ranking.len());
    &ranking[window.start.min(end)..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the same ranking for every query, `rankings` of them.
    #[derive(Debug)]
    struct Fixed {
        ranking: Vec<(u32, f32)>,
        rankings: usize,
    }

    impl NegativeMiner for Fixed {
        fn name(&self) -> String {
            "fixed".to_owned()
        }

        fn rank(
            &self,
            _: &Queries,
            _: &Collection,
            _: usize,
            _: &MiningProgress<'_>,
        ) -> Result<Vec<Vec<Ranked>>, DataError> {
            let ranking: Vec<_> = self.ranking.iter().map(|&(pid, score)| Ranked { pid, score }).collect();
            Ok(vec![ranking; self.rankings])
        }
    }

    fn mined(ranking: &[(u32, f32)], rankings: usize, window: Range<usize>) -> Result<Vec<Vec<u32>>, DataError> {
        let (mut queries, mut collection) = (Queries::new(), Collection::new());
        queries.add("q").unwrap();
        ["a", "b", "c", "d"].iter().for_each(|text| {
            collection.add(text).unwrap();
        });
        let miner = Fixed { ranking: ranking.to_vec(), rankings };
        let rankings = mine(&miner, &queries, &collection, window.end, &|_, _, _| ())?;
        let pids = |ranking: &Vec<Ranked>| within(ranking, window.clone()).iter().map(|ranked| ranked.pid).collect();
        Ok(rankings.iter().map(pids).collect())
    }

    #[test]
    fn the_window_is_half_open_and_survives_short_rankings() {
        let ranking = [(3, 4.0), (1, 3.0), (0, 2.0), (2, 1.0)];
        assert_eq!(mined(&ranking, 1, 1..3).unwrap(), [[1, 0]]);
        assert_eq!(mined(&ranking, 1, 3..9).unwrap(), [[2]]);
        assert_eq!(mined(&ranking, 1, 5..9).unwrap(), [[0u32; 0]]);
    }

    #[test]
    fn a_miner_that_breaks_its_contract_is_named() {
        let messages = [
            mined(&[(4, 1.0)], 1, 0..4).unwrap_err().to_string(),
            mined(&[(0, f32::NAN)], 1, 0..4).unwrap_err().to_string(),
            mined(&[(0, 1.0)], 2, 0..4).unwrap_err().to_string(),
        ];
        assert_eq!(messages[0], "miner fixed: expected pids below 4, found 4");
        assert!(messages[1].contains("NaN for pid 0"), "{}", messages[1]);
        assert!(messages[2].contains("each of the 1 queries, found 2"), "{}", messages[2]);
    }
}

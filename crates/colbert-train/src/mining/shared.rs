//! Ranking, and scoring by a teacher, shared among processes.

use std::sync::Arc;

use colbert_data::{Collection, DataError, MiningProgress, NegativeMiner, Queries, Ranked, ScoreExchange};

use super::best::best_first;
use crate::processes::Processes;
use crate::processes::exchange::gather_floats;
use crate::step::ordered_sum::part;

/// A miner whose queries are shared among processes: each process ranks the whole collection for its part of them, and
/// all get all rankings. For miners that read a collection fast and rank slowly, such as BM25.
#[derive(Debug)]
pub struct SharedMiner {
    miner: Arc<dyn NegativeMiner>,
    processes: Arc<dyn Processes>,
}

impl SharedMiner {
    /// Shares `miner`, which every process has and calls with the same texts.
    pub fn new(miner: Arc<dyn NegativeMiner>, processes: Arc<dyn Processes>) -> Self {
        Self { miner, processes }
    }
}

impl NegativeMiner for SharedMiner {
    fn name(&self) -> String {
        self.miner.name()
    }

    fn rank(
        &self,
        queries: &Queries,
        collection: &Collection,
        depth: usize,
        progress: &MiningProgress<'_>,
    ) -> Result<Vec<Vec<Ranked>>, DataError> {
        let mut own = Queries::new();
        for place in part(queries.len(), self.processes.rank(), self.processes.size()) {
            own.add(queries.text(place as u32))?;
        }
        let rankings = self.miner.rank(&own, collection, depth, progress)?;
        Ok(gather_rankings(&*self.processes, &rankings).concat())
    }
}

/// Processes that share the work of a teacher ([`Teaching::exchange`](colbert_data::Teaching)).
#[derive(Debug)]
pub struct SharedScores(Arc<dyn Processes>);

impl SharedScores {
    /// Shares the work among `processes`.
    pub fn new(processes: Arc<dyn Processes>) -> Self {
        Self(processes)
    }
}

impl ScoreExchange for SharedScores {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn all_gather(&self, own: &[f32]) -> Vec<Vec<f32>> {
        gather_floats(&*self.0, own)
    }
}

/// Gathers the rankings of every process, by rank.
pub(super) fn gather_rankings(processes: &dyn Processes, own: &[Vec<Ranked>]) -> Vec<Vec<Vec<Ranked>>> {
    let mut bytes = Vec::new();
    for ranking in own {
        bytes.extend((ranking.len() as u32).to_le_bytes());
        for Ranked { pid, score } in ranking {
            bytes.extend(pid.to_le_bytes());
            bytes.extend(score.to_le_bytes());
        }
    }
    let all = processes.all_gather(&bytes).into_iter();
    all.map(|bytes| {
        let four = |four: &[u8]| four.try_into().expect("four bytes each");
        let mut words = bytes.chunks_exact(4);
        let mut rankings = Vec::new();
        while let Some(count) = words.next() {
            let count = u32::from_le_bytes(four(count)) as usize;
            let mut ranking = Vec::with_capacity(count);
            for _ in 0..count {
                let (Some(pid), Some(score)) = (words.next(), words.next()) else { break };
                ranking.push(Ranked { pid: u32::from_le_bytes(four(pid)), score: f32::from_le_bytes(four(score)) });
            }
            rankings.push(ranking);
        }
        rankings
    })
    .collect()
}

/// Merges the rankings over the part of the collection that each process has: the best `depth` of all.
pub(super) fn merge_rankings(processes: &dyn Processes, own: Vec<Vec<Ranked>>, depth: usize) -> Vec<Vec<Ranked>> {
    if processes.size() == 1 {
        return own;
    }
    let mut merged: Vec<Vec<Ranked>> = vec![Vec::new(); own.len()];
    for rankings in gather_rankings(processes, &own) {
        merged.iter_mut().zip(rankings).for_each(|(merged, ranking)| merged.extend(ranking));
    }
    for ranking in &mut merged {
        ranking.sort_unstable_by(best_first);
        ranking.truncate(depth);
    }
    merged
}

//! The contract of a teacher, and the scoring of pairs by a teacher and its cache.

use std::collections::HashMap;
use std::fmt::Debug;

use crate::error::DataError;
use crate::negatives::miner::{MiningPhase, MiningProgress};
use crate::negatives::score_cache::ScoreCache;
use crate::sets::training_set::Example;
use crate::texts::{Collection, Queries};

/// Number of pairs that are scored and stored before progress is reported.
const PAIRS: usize = 256;

/// Another model that scores documents for queries: a cross-encoder, or a ColBERT that is trained already. Its scores
/// tell false negatives from true ones, and the student is trained towards them.
pub trait Teacher: Debug + Send + Sync {
    /// Short name for reports.
    fn name(&self) -> String;

    /// Letters and digits, usable as a file name, that identify this teacher's scores: they change with weights,
    /// tokenizer and lengths.
    fn fingerprint(&self) -> String;

    /// Returns the scores of (query, document) pairs in their order; higher is better.
    ///
    /// # Errors
    /// [`DataError::Teacher`] with the teacher's own reason.
    fn scores(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, DataError>;
}

/// Processes that share the work of a teacher: each of them prepares the same data with the same teacher.
pub trait ScoreExchange: Debug + Send + Sync {
    /// Number of this process, from 0.
    fn rank(&self) -> usize;

    /// How many processes there are.
    fn size(&self) -> usize;

    /// Returns the scores of every process, by rank. Their numbers may differ.
    fn all_gather(&self, own: &[f32]) -> Vec<Vec<f32>>;
}

/// A teacher, and the scores that it gave in earlier runs.
#[derive(Debug, Clone, Copy)]
pub struct Teaching<'a> {
    /// The model.
    pub teacher: &'a dyn Teacher,
    /// Scores that are known and new ones, on disk. Of several processes the first one's counts, and the others need
    /// none.
    pub cache: Option<&'a ScoreCache>,
    /// Processes that share the work; none for one process.
    pub exchange: Option<&'a dyn ScoreExchange>,
}

/// Scores by qid and pid.
pub(crate) type PairScores = HashMap<(u32, u32), f32>;

/// The scores of some pairs, and how many of them the teacher computed now.
pub(crate) struct Scored {
    pub(crate) scores: PairScores,
    pub(crate) computed: usize,
}

impl Teaching<'_> {
    /// Scores each of these (qid, pid) pairs once.
    ///
    /// # Errors
    /// The teacher's, one that breaks its contract, and a cache that cannot be written.
    pub(crate) fn score(
        &self,
        pairs: impl IntoIterator<Item = (u32, u32)>,
        queries: &Queries,
        collection: &Collection,
        progress: &MiningProgress<'_>,
    ) -> Result<Scored, DataError> {
        let mut scores = PairScores::new();
        // A score that is missing is overwritten below, or the whole call fails.
        let distinct: Vec<_> = pairs.into_iter().filter(|&pair| scores.insert(pair, f32::NAN).is_none()).collect();
        let texts = |pairs: &[(u32, u32)]| -> Vec<(&str, &str)> {
            pairs.iter().map(|&(qid, pid)| (queries.text(qid), collection.text(pid))).collect()
        };
        let mut missing = Vec::new();
        let look_up = |&(qid, pid): &(u32, u32)| self.cache?.get(queries.text(qid), collection.text(pid));
        let known = self.agreed(distinct.iter().map(|pair| look_up(pair).unwrap_or(f32::NAN)).collect());
        for (pair, score) in distinct.into_iter().zip(known) {
            if score.is_nan() {
                missing.push(pair);
            }
            scores.insert(pair, score);
        }
        // By document: a teacher that encodes texts by themselves then encodes each long one in one call, or two.
        missing.sort_unstable_by_key(|&(qid, pid)| (pid, qid));
        let total = scores.len();
        let known = total - missing.len();
        progress(MiningPhase::Teaching, known, total);
        let mut done = known;
        for round in missing.chunks(PAIRS * self.exchange.map_or(1, ScoreExchange::size)) {
            let texts = texts(round);
            let computed = self.computed(&texts)?;
            if let Some(cache) = self.cache {
                cache.add(&texts, &computed)?;
            }
            scores.extend(round.iter().copied().zip(computed));
            done += round.len();
            progress(MiningPhase::Teaching, done, total);
        }
        Ok(Scored { scores, computed: missing.len() })
    }

    /// Returns the known scores of the first process, so that all ask for the same ones.
    fn agreed(&self, own: Vec<f32>) -> Vec<f32> {
        match self.exchange {
            Some(exchange) if exchange.rank() == 0 => exchange.all_gather(&own).swap_remove(0),
            Some(exchange) => exchange.all_gather(&[]).swap_remove(0),
            None => own,
        }
    }

    /// Computes the scores of at most [`PAIRS`] pairs for each process. A call of the teacher has the pairs that it has
    /// in one process, so that its scores have the same bits.
    fn computed(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, DataError> {
        let Some(exchange) = self.exchange else { return self.asked(pairs) };
        let own = pairs.chunks(PAIRS).nth(exchange.rank()).map_or(Ok(Vec::new()), |own| self.asked(own))?;
        let all = exchange.all_gather(&own).concat();
        self.check(pairs, &all)?;
        Ok(all)
    }

    /// Asks the teacher, and checks that it kept its contract.
    fn asked(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, DataError> {
        let scores = self.teacher.scores(pairs)?;
        self.check(pairs, &scores)?;
        Ok(scores)
    }

    /// Gives examples without scores those of their documents.
    ///
    /// # Errors
    /// As [`Teaching::score`].
    pub(crate) fn score_examples(
        &self,
        examples: &mut [Example],
        queries: &Queries,
        collection: &Collection,
        progress: &MiningProgress<'_>,
    ) -> Result<Scored, DataError> {
        let without = examples.iter().filter(|example| example.scores.is_none());
        let pairs = without.flat_map(|example| example.documents.iter().map(|&pid| (example.query, pid)));
        let scored = self.score(pairs, queries, collection, progress)?;
        attach(examples, &scored.scores);
        Ok(scored)
    }

    fn check(&self, pairs: &[(&str, &str)], scores: &[f32]) -> Result<(), DataError> {
        let broken = |expected: String, found: String| {
            Err(DataError::TeacherContract { teacher: self.teacher.name(), expected, found })
        };
        if scores.len() != pairs.len() {
            return broken(format!("a score for each of {} pairs", pairs.len()), scores.len().to_string());
        }
        match scores.iter().zip(pairs).find(|(score, _)| !score.is_finite()) {
            Some((score, (query, document))) => {
                broken("a finite score".to_owned(), format!("{score} for query \"{query}\", document \"{document}\""))
            }
            None => Ok(()),
        }
    }
}

/// Gives examples without scores those of their documents, which are all in `scores`.
pub(crate) fn attach(examples: &mut [Example], scores: &PairScores) {
    for example in examples.iter_mut().filter(|example| example.scores.is_none()) {
        let of = |pid: &u32| scores[&(example.query, *pid)];
        example.scores = Some(example.documents.iter().map(of).collect());
    }
}

/// Returns the highest score that a candidate may have: this share of a positive's, on a scale that may be negative.
pub(crate) fn highest_allowed(positive: f64, share: f64) -> f64 {
    positive - (1.0 - share) * positive.abs()
}

//! The outcome of preparation, in numbers and in words.

use std::fmt;

use serde::Serialize;

use crate::negatives::teacher::{Scored, Teacher};
use crate::raw::Group;
use crate::texts::{Collection, Queries};

/// Ranks that mined negatives were taken from, 0-based, the end not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RankWindow {
    /// First rank taken.
    pub start: usize,
    /// First rank not taken.
    pub end: usize,
    /// The end that was asked for, where the collection has fewer documents than that.
    pub clamped_from: Option<usize>,
}

/// The outcome of preparation. Every query and every candidate that was left out is counted here.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PrepareReport {
    /// Distinct queries.
    pub queries: usize,
    /// Distinct documents.
    pub documents: usize,
    /// Examples made.
    pub examples: usize,
    /// Documents in every example.
    pub nway: usize,
    /// (query, positive) pairs known.
    pub positives: usize,
    /// (query, negative) pairs given.
    pub given_negatives: usize,
    /// Given negatives left out because the same text is a positive of the same query.
    pub contradictions: usize,
    /// New negatives asked for each query.
    pub asked: usize,
    /// New negatives that a miner found.
    pub mined_negatives: usize,
    /// New negatives drawn at random.
    pub random_negatives: usize,
    /// Name of the miner, if one was used.
    pub miner: Option<String>,
    /// Ranks that mined negatives were taken from.
    pub window: Option<RankWindow>,
    /// Candidates left out as known positives of their query.
    pub dropped_positives: usize,
    /// Given negatives left out because their text differs from a positive of the same query only in case, white space
    /// and Unicode form.
    pub contradictions_equal: usize,
    /// Candidates left out because their text differs from a positive or another candidate only in case, white space
    /// and Unicode form.
    pub dropped_equal: usize,
    /// Candidates left out as negatives that were given already.
    pub dropped_given: usize,
    /// Name of the teacher, if one scored candidates.
    pub teacher: Option<String>,
    /// (query, document) pairs with a score of the teacher.
    pub teacher_pairs: usize,
    /// How many of them it scored in an earlier run.
    pub teacher_known: usize,
    /// Candidates left out because teacher or miner scores them above a share of the positive's score.
    pub dropped_close: usize,
    /// That share, if candidates were compared with the positive.
    pub positive_score_share: Option<f64>,
    /// Queries without a positive in the miner's ranking, so that candidates could not be compared with one.
    pub positive_unranked: usize,
    /// Queries with no mined candidate left, so that their negatives were drawn at random.
    pub random_fallback: usize,
    /// Queries that got fewer new negatives than asked.
    pub short_of_asked: usize,
    /// Queries without a known positive: no example.
    pub without_positives: usize,
    /// Queries without a single negative: no example.
    pub without_negatives: usize,
    /// Queries with fewer than `nway - 1` negatives, though with some: no example.
    pub short_of_nway: usize,
    /// Queries and ready-made examples with fewer negatives than `negatives.min_negatives`: no example.
    pub below_minimum: usize,
    /// Examples with fewer than `nway` documents, as `negatives.min_negatives` allows.
    pub narrower: usize,
    /// Examples of each source; empty where there is one source alone.
    pub by_source: Vec<usize>,
    /// Queries with fewer than `nway` scored documents: no example.
    pub short_of_scored: usize,
    /// Examples that repeat negatives of an earlier example of the same positive, as the last group was not full.
    pub filled_up: usize,
    /// Examples that came ready-made and were taken as they are.
    pub ready_made: usize,
    /// Ready-made examples cut to `nway` documents.
    pub cut_to_nway: usize,
    /// Ready-made examples in which a known positive of the query stands as a negative; taken as they are.
    pub ready_made_contradictions: usize,
}

impl PrepareReport {
    /// Counts what is known before anything is added.
    pub(crate) fn of(queries: &Queries, collection: &Collection, groups: &[Group], nway: usize) -> Self {
        Self {
            queries: queries.len(),
            documents: collection.len(),
            nway,
            positives: groups.iter().map(|group| group.positives.len()).sum(),
            given_negatives: groups.iter().map(|group| group.negatives.len()).sum(),
            ..Self::default()
        }
    }

    /// Counts that are worth a line unless they are 0, each with the words after it.
    fn remarks(&self) -> [(usize, &'static str); 18] {
        [
            (self.random_fallback, "queries had nothing left in those ranks: their negatives were drawn at random"),
            (self.short_of_asked, "queries got fewer new negatives than asked: there were no more candidates"),
            (self.dropped_positives, "candidates left out: known positives of their query"),
            (
                self.dropped_equal,
                "candidates left out: same text as a positive or an earlier candidate but for case, white space and Unicode form",
            ),
            (
                self.dropped_close,
                "candidates left out: scored above negatives.positive_score_share of the positive's score, so likely relevant",
            ),
            (
                self.positive_unranked,
                "queries whose positive is not in those ranks: their candidates could not be compared with it",
            ),
            (self.dropped_given, "candidates left out: given as negatives already"),
            (self.contradictions, "given negatives left out: the same text is a positive of the same query"),
            (
                self.contradictions_equal,
                "given negatives left out: same text as a positive of the same query but for case, white space and Unicode form",
            ),
            (self.without_positives, "queries without a positive: no example"),
            (self.without_negatives, "queries without a negative: no example; raise negatives.num_new_negatives"),
            (
                self.short_of_nway,
                "queries with too few negatives for train.nway: no example; raise negatives.num_new_negatives or lower train.nway",
            ),
            (
                self.below_minimum,
                "queries or ready-made examples with fewer negatives than negatives.min_negatives: left out",
            ),
            (self.narrower, "examples have fewer documents than train.nway"),
            (self.short_of_scored, "queries with fewer scored documents than train.nway: no example; lower train.nway"),
            (self.filled_up, "examples repeat some negatives of their query to be full"),
            (self.cut_to_nway, "ready-made examples cut to train.nway documents"),
            (self.ready_made_contradictions, "ready-made examples have a known positive among their negatives"),
        ]
    }

    /// Counts what a teacher scored.
    pub(crate) fn judged_by(&mut self, teacher: &dyn Teacher, scored: &Scored) {
        self.teacher = Some(teacher.name());
        self.teacher_pairs += scored.scores.len();
        self.teacher_known += scored.scores.len() - scored.computed;
    }
}

impl fmt::Display for PrepareReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} examples of {} documents each, from {} queries and {} documents ({} positives, {} negatives given)",
            self.examples, self.nway, self.queries, self.documents, self.positives, self.given_negatives
        )?;
        if !self.by_source.is_empty() {
            let counts: Vec<String> = self.by_source.iter().map(ToString::to_string).collect();
            writeln!(f, "  examples by source, in the order of data.train: {}", counts.join(", "))?;
        }
        if self.ready_made > 0 {
            writeln!(
                f,
                "  {} examples came ready-made and were taken as they are; no negatives were added to them",
                self.ready_made
            )?;
        }
        if let (Some(miner), Some(window)) = (&self.miner, &self.window) {
            write!(
                f,
                "  {} negatives mined by {miner}, ranks {} to {}",
                self.mined_negatives, window.start, window.end
            )?;
            match window.clamped_from {
                Some(asked) => writeln!(f, " (asked for {asked}; there are no more documents)")?,
                None => writeln!(f)?,
            }
        }
        if let Some(teacher) = &self.teacher {
            writeln!(
                f,
                "  {} query-document pairs scored by {teacher}, {} of them in an earlier run",
                self.teacher_pairs, self.teacher_known
            )?;
        }
        if self.random_negatives > 0 {
            writeln!(f, "  {} negatives drawn at random", self.random_negatives)?;
        }
        for (count, text) in self.remarks().into_iter().filter(|(count, _)| *count > 0) {
            writeln!(f, "  {count} {text}")?;
        }
        Ok(())
    }
}

//! New negatives: mined within a rank window or drawn at random, never a known positive.

pub(crate) mod bm25;
pub(crate) mod examples;
pub(crate) mod miner;
pub(crate) mod prepare;
pub(crate) mod prepare_report;
pub(crate) mod remining;
pub(crate) mod score_cache;
pub(crate) mod teacher;

use std::collections::HashSet;

use colbert_config::{Miner, NegativeOptions};
use rayon::prelude::*;

use crate::error::DataError;
use crate::negatives::bm25::Bm25Miner;
use crate::negatives::miner::{MiningProgress, NegativeMiner, Ranked, mine, within};
use crate::negatives::prepare_report::{PrepareReport, RankWindow};
use crate::negatives::teacher::{PairScores, Teaching, highest_allowed};
use crate::raw::Group;
use crate::sets::training_set::TrainingSet;
use crate::texts::Collection;
use crate::texts::judgements::Judgements;
use crate::texts::pid_set::PidSet;
use crate::texts::sample::{distinct_below, distinct_outside, rng_for};
use crate::texts::twins::Twins;

/// Candidates drawn for each new negative if a teacher scores them, as it drops likely positives.
const DRAWN_FOR_TEACHER: usize = 2;

/// The negatives chosen for one query, with counts for the report.
#[derive(Default)]
struct Chosen {
    negatives: Vec<u32>,
    random: bool,
    fallback: bool,
    dropped_positives: usize,
    dropped_equal: usize,
    dropped_given: usize,
    dropped_close: usize,
    positive_unranked: bool,
}

/// The miner and the teacher, if there are any.
#[derive(Clone, Copy)]
pub(crate) struct Models<'a> {
    pub(crate) miner: Option<&'a dyn NegativeMiner>,
    pub(crate) teaching: Option<Teaching<'a>>,
}

/// Drops contradictions and appends new negatives to every query that has a positive. With a teacher, returns the
/// scores of all documents in the groups of such queries.
pub(crate) fn add_negatives(
    mut groups: Vec<Group>,
    set: &TrainingSet,
    twins: &Twins,
    options: &NegativeOptions,
    models: Models<'_>,
    progress: &MiningProgress<'_>,
    report: &mut PrepareReport,
) -> Result<(Vec<Group>, Option<PairScores>), DataError> {
    for (group, qid) in groups.iter_mut().zip(0..) {
        let given = group.negatives.len();
        let positives = PidSet::of(&group.positives);
        group.negatives.retain(|pid| !positives.contains(*pid));
        let different = group.negatives.len();
        report.contradictions += given - different;
        group.negatives.retain(|pid| !set.positives.is_positive(qid, *pid));
        report.contradictions_equal += different - group.negatives.len();
    }
    let asked = options.num_new_negatives;
    report.asked = asked;
    let chosen = match asked {
        0 => groups.iter().map(|_| Chosen::default()).collect(),
        _ => choose(&groups, set, twins, options, models, progress, report)?,
    };
    let (chosen, scores) = match models.teaching {
        None => (chosen, None),
        Some(teaching) => {
            let (chosen, scores) = judge(teaching, &groups, chosen, set, options, progress, report)?;
            (chosen, Some(scores))
        }
    };
    for (group, chosen) in groups.iter_mut().zip(chosen) {
        if group.positives.is_empty() {
            continue;
        }
        let found = chosen.negatives.len();
        *(if chosen.random { &mut report.random_negatives } else { &mut report.mined_negatives }) += found;
        report.random_fallback += usize::from(chosen.fallback && found > 0);
        report.short_of_asked += usize::from(found < asked);
        report.dropped_positives += chosen.dropped_positives;
        report.dropped_equal += chosen.dropped_equal;
        report.dropped_given += chosen.dropped_given;
        report.dropped_close += chosen.dropped_close;
        report.positive_unranked += usize::from(chosen.positive_unranked);
        group.negatives.extend(chosen.negatives);
    }
    Ok((groups, scores))
}

/// Candidates for every query that has a positive: as many as are asked for, or more if a teacher will leave some out.
fn choose(
    groups: &[Group],
    set: &TrainingSet,
    twins: &Twins,
    options: &NegativeOptions,
    models: Models<'_>,
    progress: &MiningProgress<'_>,
    report: &mut PrepareReport,
) -> Result<Vec<Chosen>, DataError> {
    let rankings = rankings(set, options, models.miner, progress, report)?;
    let judged = models.teaching.is_some();
    let wanted = options.num_new_negatives.saturating_mul(if judged { DRAWN_FOR_TEACHER } else { 1 });
    // The share then applies to the teacher's scores alone: one judge is enough, and this is the better one.
    let share = options.positive_score_share.filter(|_| !judged);
    let chooser = Chooser { collection: &set.collection, known: &set.positives, twins, options, wanted, share };
    let chosen = groups
        .par_iter()
        .enumerate()
        .map(|(qid, group)| {
            if group.positives.is_empty() {
                return Chosen::default();
            }
            let query = Query { qid: qid as u32, text: set.queries.text(qid as u32), group };
            match &rankings {
                Some(rankings) => chooser.mined(query, &rankings[qid]),
                None => chooser.random(query),
            }
        })
        .collect();
    Ok(chosen)
}

/// Lets the teacher score all documents of every query that has a positive, drops candidates that it scores above a
/// share of the best positive's score, and keeps as many of the others as are asked for.
fn judge(
    teaching: Teaching<'_>,
    groups: &[Group],
    mut chosen: Vec<Chosen>,
    set: &TrainingSet,
    options: &NegativeOptions,
    progress: &MiningProgress<'_>,
    report: &mut PrepareReport,
) -> Result<(Vec<Chosen>, PairScores), DataError> {
    let pairs = groups.iter().zip(&chosen).zip(0..).filter(|((group, _), _)| !group.positives.is_empty());
    let pairs = pairs.flat_map(|((group, chosen), qid)| {
        let pids = group.positives.iter().chain(&group.negatives).chain(&chosen.negatives);
        pids.map(move |pid| (qid, *pid))
    });
    let scored = teaching.score(pairs, &set.queries, &set.collection, progress)?;
    report.judged_by(teaching.teacher, &scored);
    report.positive_score_share = options.positive_score_share;
    for ((group, chosen), qid) in groups.iter().zip(&mut chosen).zip(0..) {
        let best = group.positives.iter().map(|pid| f64::from(scored.scores[&(qid, *pid)])).reduce(f64::max);
        if let (Some(best), Some(share)) = (best, options.positive_score_share) {
            let highest = highest_allowed(best, share);
            let drawn = chosen.negatives.len();
            chosen.negatives.retain(|pid| f64::from(scored.scores[&(qid, *pid)]) <= highest);
            chosen.dropped_close += drawn - chosen.negatives.len();
        }
        chosen.negatives.truncate(options.num_new_negatives);
    }
    Ok((chosen, scored.scores))
}

/// Rankings for every query down to the window's end, or nothing if negatives are to be drawn at random.
fn rankings(
    set: &TrainingSet,
    options: &NegativeOptions,
    miner: Option<&dyn NegativeMiner>,
    progress: &MiningProgress<'_>,
    report: &mut PrepareReport,
) -> Result<Option<Vec<Vec<Ranked>>>, DataError> {
    if !options.mines() {
        return Ok(None);
    }
    let default = Bm25Miner::default();
    if miner.is_none() && options.miner != Miner::Bm25 {
        return Err(DataError::OptionRange {
            option: "negatives.miner",
            expected: "bm25 or random, as no other miner was given (colbert-train has those that need a model)"
                .to_owned(),
            found: format!("{:?}", options.miner),
        });
    }
    let miner = miner.unwrap_or(&default);
    let (start, asked_end) = (options.hard_negative_minimum_rank, options.hard_negative_maximum_rank);
    let end = asked_end.min(set.collection.len());
    report.miner = Some(miner.name());
    report.window = Some(RankWindow { start, end, clamped_from: (end < asked_end).then_some(asked_end) });
    if start >= end {
        tracing::warn!(
            documents = set.collection.len(),
            start,
            "no document has a rank that far down: drawing at random"
        );
        return Ok(Some(vec![Vec::new(); set.queries.len()]));
    }
    report.positive_score_share = options.positive_score_share;
    mine(miner, &set.queries, &set.collection, end, progress).map(Some)
}

struct Chooser<'a> {
    collection: &'a Collection,
    /// Positives of every query, twins included.
    known: &'a Judgements,
    twins: &'a Twins,
    options: &'a NegativeOptions,
    /// Candidates to draw.
    wanted: usize,
    /// Share of the positive's score above which a mined candidate is left out.
    share: Option<f64>,
}

/// One query and what is given for it.
#[derive(Clone, Copy)]
struct Query<'a> {
    qid: u32,
    text: &'a str,
    group: &'a Group,
}

impl Chooser<'_> {
    fn mined(&self, query: Query<'_>, ranking: &[Ranked]) -> Chosen {
        let options = self.options;
        let positives = PidSet::of(&query.group.positives);
        let given: HashSet<u32> = query.group.negatives.iter().map(|&pid| self.twins.first(pid)).collect();
        let window = options.hard_negative_minimum_rank..options.hard_negative_maximum_rank;
        let highest = self.share.map(|share| self.highest_score(query.qid, ranking, share));
        let mut chosen = Chosen { positive_unranked: highest == Some(None), ..Chosen::default() };
        let highest = highest.flatten().unwrap_or(f64::INFINITY);
        let (mut left, mut taken) = (Vec::new(), HashSet::new());
        for &Ranked { pid, score } in within(ranking, window) {
            if positives.contains(pid) {
                chosen.dropped_positives += 1;
            } else if self.known.is_positive(query.qid, pid) {
                chosen.dropped_equal += 1;
            } else if given.contains(&self.twins.first(pid)) {
                chosen.dropped_given += 1;
            } else if f64::from(score) > highest {
                chosen.dropped_close += 1;
            } else if !taken.insert(self.twins.first(pid)) {
                chosen.dropped_equal += 1;
            } else {
                left.push(pid);
            }
        }
        if left.is_empty() {
            let random = self.random(query);
            return Chosen { negatives: random.negatives, random: true, fallback: true, ..chosen };
        }
        let mut rng = rng_for(self.options.seed, "mined negatives", query.text);
        chosen.negatives =
            distinct_below(&mut rng, left.len(), self.wanted).into_iter().map(|index| left[index]).collect();
        chosen
    }

    fn random(&self, query: Query<'_>) -> Chosen {
        let negatives = &query.group.negatives;
        let twins = negatives.iter().flat_map(|&pid| self.twins.of(pid));
        let mut excluded: Vec<u32> = negatives.iter().chain(twins).copied().collect();
        excluded.extend(self.known.positives(query.qid));
        excluded.sort_unstable();
        excluded.dedup();
        let mut rng = rng_for(self.options.seed, "random negatives", query.text);
        let negatives = distinct_outside(&mut rng, self.collection.len(), &excluded, self.wanted);
        Chosen { negatives, random: true, ..Chosen::default() }
    }

    /// Highest score that a candidate may have: this share of the best-scored positive's, on a scale that may be
    /// negative. `None` if the miner finds no positive, as its scores then say nothing about relevance.
    fn highest_score(&self, qid: u32, ranking: &[Ranked], share: f64) -> Option<f64> {
        let positive = ranking.iter().find(|ranked| self.known.is_positive(qid, ranked.pid))?;
        Some(highest_allowed(f64::from(positive.score), share))
    }
}

//! Turns raw data into a training set: known positives and negatives, new negatives, examples.

use colbert_config::{NegativeOptions, TriplePolicy, validate_nway};

use crate::error::DataError;
use crate::negatives::examples;
use crate::negatives::miner::{MiningProgress, NegativeMiner};
use crate::negatives::prepare_report::PrepareReport;
use crate::negatives::teacher::{Teaching, attach};
use crate::negatives::{Models, add_negatives};
use crate::raw::{Group, RawData};
use crate::sets::training_set::{Example, TrainingSet};
use crate::texts::Queries;
use crate::texts::twins::Twins;

/// Options for making a training set from raw data.
#[derive(Debug, Clone, PartialEq)]
pub struct PrepareOptions {
    /// Which negatives are added.
    pub negatives: NegativeOptions,
    /// Documents per example, the positive included. Default 2, as in the reference.
    pub nway: usize,
    /// Which pairings become examples; `negatives.triples` can ask for the reference's as well.
    pub triples: TriplePolicy,
    /// Make one example per positive with all negatives of its query, from which the trainer draws at each use.
    pub draw_negatives: bool,
}

impl PrepareOptions {
    /// Negatives below which a query or a ready-made example is left out.
    fn least(&self) -> usize {
        self.negatives.min_negatives.unwrap_or(self.nway.saturating_sub(1))
    }

    fn policy(&self) -> TriplePolicy {
        if self.triples == TriplePolicy::All { self.negatives.triples } else { self.triples }
    }
}

impl Default for PrepareOptions {
    fn default() -> Self {
        Self { negatives: NegativeOptions::default(), nway: 2, triples: TriplePolicy::default(), draw_negatives: false }
    }
}

/// Adds negatives to raw data and makes examples of it.
///
/// Negatives are mined by `miner`, or by [`Bm25Miner`](crate::Bm25Miner) for English if there is none (and
/// `negatives.miner` names no other); with `negatives.mine_hard_negatives` off, or `negatives.miner` random, they are
/// drawn at random and no miner is used. A query for which mining leaves no candidate gets random ones, which the
/// report counts. Rows that are examples already (with teacher scores, or from the reference's training files) are
/// taken as they are, in their order, cut to `nway`; the examples of other rows follow.
///
/// The negatives of a query depend on the seed, the query's text and the collection, but not on the number of threads
/// or on other queries.
///
/// # Errors
/// [`DataError::Options`] for options that contradict each other, [`DataError::NoExamples`] with what to do,
/// [`DataError::ShortExample`] for a ready-made example that is too small, and the miner's own errors.
pub fn prepare(
    raw: RawData,
    options: &PrepareOptions,
    miner: Option<&dyn NegativeMiner>,
) -> Result<(TrainingSet, PrepareReport), DataError> {
    if let Some(teacher) = &options.negatives.teacher {
        return Err(DataError::OptionRange {
            option: "negatives.teacher",
            expected: "none, as no teacher was handed over (prepare_with_teacher takes one)".to_owned(),
            found: teacher.display().to_string(),
        });
    }
    prepare_with_teacher(raw, options, miner, None, &|_, _, _| ())
}

/// As [`prepare`], with the progress of mining, and a teacher that scores every candidate of every query once, those
/// that were given included.
///
/// A mined or drawn candidate that it scores above `negatives.positive_score_share` of the best positive's score is
/// left out, in place of the same rule on the miner's scores. Every example gets the teacher's scores, for
/// distillation; rows that came with scores keep theirs.
///
/// # Errors
/// As [`prepare`], and the teacher's own.
pub fn prepare_with_teacher(
    raw: RawData,
    options: &PrepareOptions,
    miner: Option<&dyn NegativeMiner>,
    teaching: Option<Teaching<'_>>,
    progress: &MiningProgress<'_>,
) -> Result<(TrainingSet, PrepareReport), DataError> {
    check(options)?;
    let mut report = PrepareReport::of(&raw.queries, &raw.collection, &raw.groups, options.nway);
    let twins = Twins::find(&raw.collection);
    let positives = raw.known_positives(&twins);
    let (needs_negatives, has_ready) = (raw.needs_negatives(), !raw.ready.is_empty());
    let mut set = TrainingSet {
        queries: raw.queries,
        collection: raw.collection,
        examples: raw.ready,
        positives,
        sources: raw.sources,
    };
    if has_ready {
        take_ready_made(&mut set, raw.grouped, options, &mut report)?;
        if let Some(teaching) = teaching {
            let TrainingSet { queries, collection, examples, .. } = &mut set;
            let scored = teaching.score_examples(examples, queries, collection, progress)?;
            report.judged_by(teaching.teacher, &scored);
        }
    }
    if needs_negatives {
        let models = Models { miner, teaching };
        let (groups, scores) =
            add_negatives(raw.groups, &set, &twins, &options.negatives, models, progress, &mut report)?;
        let mut made = make_examples(&groups, has_ready, &set.queries, options, &mut report);
        if let Some(scores) = &scores {
            attach(&mut made, scores);
        }
        set.examples.extend(made);
    }
    report.examples = set.examples.len();
    if !set.sources.is_empty() {
        report.by_source = set.examples_by_source().iter().map(Vec::len).collect();
    }
    if set.examples.is_empty() {
        return Err(no_examples(&report, options));
    }
    tracing::info!(queries = report.queries, documents = report.documents, examples = report.examples, "prepared");
    Ok((set, report))
}

pub(crate) fn check(options: &PrepareOptions) -> Result<(), DataError> {
    validate_nway(options.nway)?;
    options.negatives.validate()?;
    if options.policy() == TriplePolicy::Reference && options.draw_negatives {
        return Err(DataError::OptionRange {
            option: "train.draw_negatives",
            expected: "false, as the reference's triple counts are asked for".to_owned(),
            found: "true".to_owned(),
        });
    }
    if options.policy() == TriplePolicy::Reference && options.nway != 2 {
        return Err(DataError::OptionRange {
            option: "train.nway",
            expected: "2, as the reference's triple counts are asked for".to_owned(),
            found: options.nway.to_string(),
        });
    }
    Ok(())
}

/// Makes examples of groups; with `only_open`, of those alone that some row asks for.
pub(crate) fn make_examples(
    groups: &[Group],
    only_open: bool,
    queries: &Queries,
    options: &PrepareOptions,
    report: &mut PrepareReport,
) -> Vec<Example> {
    let mut examples = Vec::new();
    for (qid, group) in groups.iter().enumerate() {
        let query = qid as u32;
        if only_open && !group.open {
            continue;
        }
        if group.positives.is_empty() {
            report.without_positives += 1;
        } else if group.negatives.is_empty() && options.nway > 1 {
            report.without_negatives += 1;
        } else if group.negatives.len() < options.least() {
            *(if options.negatives.min_negatives.is_some() {
                &mut report.below_minimum
            } else {
                &mut report.short_of_nway
            }) += 1;
        } else {
            let Group { positives, negatives, .. } = group;
            let width = options.nway.min(negatives.len() + 1);
            let made = match options.policy() {
                _ if options.draw_negatives => examples::pools(query, positives, negatives),
                TriplePolicy::All => examples::all(query, positives, negatives, width),
                TriplePolicy::Reference => {
                    let text = queries.text(query);
                    examples::reference(query, positives, negatives, options.negatives.seed, text)
                }
            };
            report.filled_up += made.filled_up;
            if width < options.nway {
                report.narrower += made.examples.len();
            }
            examples.extend(made.examples);
        }
    }
    examples
}

/// Takes the examples of the set as they came, `grouped` if rows of one document each made them.
fn take_ready_made(
    set: &mut TrainingSet,
    grouped: bool,
    options: &PrepareOptions,
    report: &mut PrepareReport,
) -> Result<(), DataError> {
    let (before, has_minimum) = (set.examples.len(), options.negatives.min_negatives.is_some());
    if grouped || has_minimum {
        // An example of one document teaches nothing, whatever nway is.
        let least = if has_minimum { options.least().max(1) + 1 } else { options.nway };
        set.examples.retain(|example| example.documents.len() >= least);
        let left_out = before - set.examples.len();
        *(if has_minimum { &mut report.below_minimum } else { &mut report.short_of_scored }) += left_out;
    }
    report.ready_made = set.examples.len();
    for (index, example) in set.examples.iter_mut().enumerate() {
        let documents = example.documents.len();
        if documents < options.nway {
            if !has_minimum {
                return Err(DataError::ShortExample { example: index + 1, documents, nway: options.nway });
            }
            report.narrower += 1;
        }
        if documents > options.nway && !options.draw_negatives {
            report.cut_to_nway += 1;
            example.documents.truncate(options.nway);
            if let Some(scores) = &mut example.scores {
                scores.truncate(options.nway);
            }
        }
        let contradicts = |pid: &u32| set.positives.is_positive(example.query, *pid);
        if example.scores.is_none() && example.documents[1..].iter().any(contradicts) {
            report.ready_made_contradictions += 1;
        }
    }
    Ok(())
}

/// The reason and the advice if no document is left as a negative.
pub(crate) fn all_positive(documents: usize) -> (String, &'static str) {
    let reason = format!("all {documents} documents are positives, so that none is left as a negative");
    (reason, "give more documents (data.all_documents)")
}

pub(crate) fn no_examples(report: &PrepareReport, options: &PrepareOptions) -> DataError {
    let all_positive = all_positive(report.documents);
    let (reason, advice) = if report.positives == 0 {
        ("no query has a positive".to_owned(), "check which column or label marks the positives")
    } else if report.below_minimum > 0 {
        let least = options.least();
        let reason = format!("no query has the {least} negatives that negatives.min_negatives asks for");
        (reason, "lower negatives.min_negatives, raise negatives.num_new_negatives, or give more documents")
    } else if report.short_of_scored > 0 {
        let reason = format!("no query has the {} scored documents that train.nway asks for", options.nway);
        // An example of one document teaches nothing, so that 2 is the least.
        let advice = if options.nway > 2 {
            "lower train.nway, or give more scored documents of each query"
        } else {
            "give at least two scored documents of each query; if the scores are labels, give their column the role label"
        };
        (reason, advice)
    } else if report.short_of_nway > 0 {
        let reason =
            format!("no query has the {} negatives that train.nway = {} needs", options.nway - 1, options.nway);
        (reason, "raise negatives.num_new_negatives, give more documents, or lower train.nway")
    } else if options.negatives.num_new_negatives == 0 {
        ("no query has a negative, and negatives.num_new_negatives is 0".to_owned(), "set it to 10, say")
    } else {
        all_positive
    };
    DataError::NoExamples { reason, advice: advice.to_owned() }
}

//! Choosing negatives again for a later epoch.

use crate::error::DataError;
use crate::negatives::miner::{MiningProgress, NegativeMiner};
use crate::negatives::prepare::{PrepareOptions, check, make_examples, no_examples};
use crate::negatives::prepare_report::PrepareReport;
use crate::negatives::{Models, add_negatives};
use crate::raw::{Group, RawData};
use crate::sets::training_set::{Example, TrainingSet};
use crate::texts::sample::{distinct_below, rng_for};
use crate::texts::twins::Twins;

/// The judgements that raw data came with, and the options: negatives of later epochs are chosen from these.
#[derive(Debug, Clone)]
pub struct Remining {
    groups: Vec<Group>,
    /// Examples that came ready-made, as they are trained on.
    ready: Vec<Example>,
    options: PrepareOptions,
}

impl Remining {
    /// Keeps what [`prepare`](crate::prepare()) will use up. Nothing, if the data are examples already: these get no
    /// negatives.
    #[must_use]
    pub fn of(raw: &RawData, options: &PrepareOptions) -> Option<Self> {
        let ready = Vec::new();
        raw.needs_negatives().then(|| Self { groups: raw.groups.clone(), ready, options: options.clone() })
    }

    /// Keeps the examples of a prepared set that came ready-made: later epochs have them as the first one has.
    #[must_use]
    pub fn with_ready_made(mut self, set: &TrainingSet, report: &PrepareReport) -> Self {
        self.ready = set.examples[..report.ready_made].to_vec();
        self
    }

    /// Examples for an epoch, counted from 0, with negatives by `miner`, or drawn at random if the options say so.
    ///
    /// There are as many as in `set`, so that the plan of a run holds: of more examples some are left out, and of fewer
    /// the first ones are repeated. Draws depend on the seed, the epoch and the query.
    ///
    /// # Errors
    /// As [`prepare`](crate::prepare()).
    pub fn examples(
        &self,
        set: &TrainingSet,
        epoch: usize,
        miner: Option<&dyn NegativeMiner>,
        progress: &MiningProgress<'_>,
    ) -> Result<(Vec<Example>, PrepareReport), DataError> {
        let mut options = self.options.clone();
        options.negatives.seed = options.negatives.seed.wrapping_add(epoch as u64);
        check(&options)?;
        let mut report = PrepareReport::of(&set.queries, &set.collection, &self.groups, options.nway);
        // Options refuse a teacher here: its scores of new candidates would cost more than the epoch.
        let models = Models { miner, teaching: None };
        let (groups, _) = add_negatives(
            self.groups.clone(),
            set,
            &Twins::find(&set.collection),
            &options.negatives,
            models,
            progress,
            &mut report,
        )?;
        let made = make_examples(&groups, !self.ready.is_empty(), &set.queries, &options, &mut report);
        if made.is_empty() {
            return Err(no_examples(&report, &options));
        }
        let wanted = set.examples.len() - self.ready.len();
        let examples: Vec<Example> = if made.len() > wanted {
            let mut rng = rng_for(options.negatives.seed, "examples of a later epoch", "");
            let mut kept = distinct_below(&mut rng, made.len(), wanted);
            kept.sort_unstable();
            kept.into_iter().map(|place| made[place].clone()).collect()
        } else {
            made.iter().cycle().take(wanted).cloned().collect()
        };
        let examples: Vec<Example> = self.ready.iter().cloned().chain(examples).collect();
        report.examples = examples.len();
        Ok((examples, report))
    }
}

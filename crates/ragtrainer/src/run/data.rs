//! From options to texts: training data, its report, and the sets that models are measured on.

use std::path::Path;

use colbert_config::{Options, Refresh};
use colbert_data::{
    BeirFolder, DataReport, EvaluationSet, MiningProgress, PrepareOptions, PrepareReport, RawData, ReadOptions,
    Remining, ReportOptions, Side, TextAnalysis, TokenCount, TokenLimits, TrainingSet, prepare_with_progress,
    read_documents, read_training_data,
};

use crate::error::Error;
use crate::run::miner::miner;
use crate::source::read_model;

/// What a run is fed with.
#[derive(Debug)]
pub struct LoadedData {
    /// What was found, a line each.
    pub announcements: Vec<String>,
    /// What is wrong with it.
    pub report: DataReport,
    /// What became of it.
    pub prepared: PrepareReport,
    /// Examples.
    pub set: TrainingSet,
    /// What negatives are chosen anew from, if `negatives.refresh` asks for it.
    pub remining: Option<Remining>,
    /// Queries that choose the best model.
    pub dev: Option<EvaluationSet>,
    /// Queries that are measured before and after, and never choose.
    pub test: Option<EvaluationSet>,
}

/// Raw data and what it will be measured on, before negatives are added.
#[derive(Debug)]
pub struct RawInput {
    /// What was found, a line each.
    pub announcements: Vec<String>,
    /// Texts and judgements.
    pub raw: RawData,
    /// What is wrong with it.
    pub report: DataReport,
    /// Queries that choose the best model, a seeded choice of them.
    pub dev: Option<EvaluationSet>,
    /// Queries that are measured before and after.
    pub test: Option<EvaluationSet>,
}

/// Reads everything that `options.data` names.
///
/// # Errors
/// `data.train` is not set, or whatever is wrong with the files.
pub fn read_input(options: &Options) -> Result<RawInput, Error> {
    let Some(train) = &options.data.train else {
        let hint = "name the training data with --train-data, or train = \"...\" under [data] in the config file";
        return Err(Error::NotSet { option: "data.train", hint });
    };
    let read_options = ReadOptions::from(&options.data);
    let mut raw = read_training_data(train, &read_options)?;
    let mut announcements = vec![raw.announcement().to_owned()];
    if let Some(path) = &options.data.all_documents {
        announcements.push(read_documents(path, &read_options, &mut raw)?);
    }
    let evaluation = &options.evaluation;
    let mut folders = EvaluationFolders { train, options: &read_options, opened: None };
    let mut dev = folders.set(options.data.dev.as_deref(), "dev", &mut announcements)?;
    match (options.data.dev_split, dev.is_some()) {
        (0, _) => {}
        (_, true) => announcements.push("there are dev queries, so data.dev_split is not used".to_owned()),
        (count, false) => {
            let (left, split_off, split) = raw.split_dev(count, evaluation.seed)?;
            announcements.push(split.to_string());
            (raw, dev) = (left, Some(split_off));
        }
    }
    let dev =
        dev.map(|set| set.with_pool(evaluation.pool_size, evaluation.max_queries, evaluation.seed)).transpose()?;
    let test = folders.set(options.data.test.as_deref(), "test", &mut announcements)?;
    for (name, set) in [("dev", &dev), ("test", &test)] {
        if let Some(set) = set {
            announcements.push(format!(
                "{name}: {} queries against {} documents",
                set.queries.len(),
                set.collection.len()
            ));
        }
    }
    let report = report(options, &raw, dev.as_ref(), test.as_ref())?;
    Ok(RawInput { announcements, raw, report, dev, test })
}

/// What is wrong with the data; with the model's own tokenizer if the options name a model.
fn report(
    options: &Options,
    raw: &RawData,
    dev: Option<&EvaluationSet>,
    test: Option<&EvaluationSet>,
) -> Result<DataReport, Error> {
    let analysis = TextAnalysis::for_language(&options.language_code);
    let plain = ReportOptions { evaluations: evaluations(dev, test), tokens: None, analysis };
    if options.pretrained_model_name.is_empty() {
        return Ok(DataReport::with_options(raw, &plain)?);
    }
    let pretrained = read_model(&options.pretrained_model_name)?;
    let settings = pretrained.settings(&options.train);
    let tokenizer = pretrained.tokenizer(&settings)?;
    let counter = |texts: &[&str], _: Side| {
        let lengths = tokenizer.lengths(texts)?;
        Ok(lengths.into_iter().map(|(tokens, unknown)| TokenCount { tokens, unknown }).collect())
    };
    let (query_maxlen, doc_maxlen) = (settings.query_maxlen, settings.doc_maxlen);
    let tokens = Some(TokenLimits { counter: &counter, query_maxlen, doc_maxlen });
    Ok(DataReport::with_options(raw, &ReportOptions { tokens, ..plain })?)
}

/// Evaluation sets with the names of their splits, for the data report.
pub(crate) fn evaluations<'a>(
    dev: Option<&'a EvaluationSet>,
    test: Option<&'a EvaluationSet>,
) -> Vec<(&'static str, &'a EvaluationSet)> {
    [("dev", dev), ("test", test)].into_iter().filter_map(|(name, set)| Some((name, set?))).collect()
}

/// Reads everything and adds negatives.
///
/// # Errors
/// As [`read_input`], and when there are no examples in the end.
pub fn load(options: &Options) -> Result<LoadedData, Error> {
    read_input(options)?.prepare(options, &|_, _, _| ())
}

impl RawInput {
    /// Adds negatives, with word of how far mining is.
    ///
    /// # Errors
    /// No examples in the end, and what the miner reports.
    pub fn prepare(self, options: &Options, progress: &MiningProgress<'_>) -> Result<LoadedData, Error> {
        let Self { announcements, raw, report, dev, test } = self;
        let prepare_options = prepare_options(options);
        // Examples that came ready-made get no negatives: no model is read for them.
        let miner = if raw.ready_made().is_empty() { miner(options)? } else { None };
        let remining = match options.negatives.refresh {
            Refresh::Epoch => Remining::of(&raw, &prepare_options),
            Refresh::Never => None,
        };
        let (set, prepared) = prepare_with_progress(raw, &prepare_options, miner.as_deref(), progress)?;
        Ok(LoadedData { announcements, report, prepared, set, remining, dev, test })
    }
}

/// The part of the options that adds negatives.
pub fn prepare_options(options: &Options) -> PrepareOptions {
    PrepareOptions { negatives: options.negatives.clone(), nway: options.train.nway, ..PrepareOptions::default() }
}

/// Where dev and test queries come from; the folder that is trained on is opened once.
struct EvaluationFolders<'a> {
    train: &'a Path,
    options: &'a ReadOptions,
    opened: Option<BeirFolder>,
}

impl EvaluationFolders<'_> {
    /// The named folder's split, or that of the training folder if it is a BEIR folder that has one.
    fn set(
        &mut self,
        named: Option<&Path>,
        split: &str,
        announcements: &mut Vec<String>,
    ) -> Result<Option<EvaluationSet>, Error> {
        let other;
        let folder: &BeirFolder = match named {
            Some(path) if path != self.train => {
                other = BeirFolder::open_with(path, self.options)?;
                &other
            }
            None if !BeirFolder::is_one(self.train) => return Ok(None),
            _ => match &mut self.opened {
                Some(folder) => folder,
                closed => closed.insert(BeirFolder::open_with(self.train, self.options)?),
            },
        };
        if named.is_none() && !folder.splits()?.iter().any(|name| name == split) {
            return Ok(None);
        }
        let (set, bad_rows) = folder.evaluation_and_bad_rows(split)?;
        if bad_rows.total() > 0 {
            announcements.push(format!("{split}: {bad_rows}"));
        }
        Ok(Some(set))
    }
}

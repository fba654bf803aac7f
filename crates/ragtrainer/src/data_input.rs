//! From options to texts: training data, its report, and the sets that models are measured on.

use std::path::Path;

use colbert_config::Options;
use colbert_data::{
    BeirFolder, Bm25Miner, DataReport, EvaluationSet, PrepareOptions, PrepareReport, RawData, ReadOptions,
    ReportOptions, Side, TextAnalysis, TokenCount, TokenLimits, TrainingSet, prepare, read_documents,
    read_evaluation_set, read_training_data,
};
use colbert_model::{ColbertSettings, Pretrained};

use crate::error::Error;

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
    let dev = evaluation_set(options.data.dev.as_deref(), train, "dev")?;
    let dev =
        dev.map(|set| set.with_pool(evaluation.pool_size, evaluation.max_queries, evaluation.seed)).transpose()?;
    let test = evaluation_set(options.data.test.as_deref(), train, "test")?;
    for (name, set) in [("dev", &dev), ("test", &test)] {
        if let Some(set) = set {
            announcements.push(format!(
                "{name}: {} queries against {} documents",
                set.queries.len(),
                set.collection.len()
            ));
        }
    }
    let report = report(options, &raw, dev.as_ref())?;
    Ok(RawInput { announcements, raw, report, dev, test })
}

/// What is wrong with the data; with the model's own tokenizer if the options name a model.
fn report(options: &Options, raw: &RawData, dev: Option<&EvaluationSet>) -> Result<DataReport, Error> {
    let analysis = TextAnalysis::for_language(&options.language_code);
    let plain = ReportOptions { evaluation: dev, tokens: None, analysis };
    if options.pretrained_model_name.is_empty() {
        return Ok(DataReport::with_options(raw, &plain)?);
    }
    let settings = ColbertSettings::from(&options.train);
    let tokenizer = Pretrained::read(Path::new(&options.pretrained_model_name))?.tokenizer(&settings)?;
    let counter = |texts: &[&str], _: Side| {
        let lengths = tokenizer.lengths(texts)?;
        Ok(lengths.into_iter().map(|(tokens, unknown)| TokenCount { tokens, unknown }).collect())
    };
    let (query_maxlen, doc_maxlen) = (settings.query_maxlen, settings.doc_maxlen);
    let tokens = Some(TokenLimits { counter: &counter, query_maxlen, doc_maxlen });
    Ok(DataReport::with_options(raw, &ReportOptions { tokens, ..plain })?)
}

/// Reads everything and adds negatives.
///
/// # Errors
/// As [`read_input`], and when there are no examples in the end.
pub fn load(options: &Options) -> Result<LoadedData, Error> {
    let RawInput { announcements, raw, report, dev, test } = read_input(options)?;
    let miner = Bm25Miner::new(&options.language_code);
    let (set, prepared) = prepare(raw, &prepare_options(options), Some(&miner))?;
    Ok(LoadedData { announcements, report, prepared, set, dev, test })
}

/// The part of the options that adds negatives.
pub fn prepare_options(options: &Options) -> PrepareOptions {
    PrepareOptions { negatives: options.negatives.clone(), nway: options.train.nway, ..PrepareOptions::default() }
}

/// The named folder's split, or that of the training folder if it is a BEIR folder that has one.
fn evaluation_set(named: Option<&Path>, train: &Path, split: &str) -> Result<Option<EvaluationSet>, Error> {
    if let Some(path) = named {
        return Ok(Some(read_evaluation_set(path, split)?));
    }
    if !train.join("corpus.jsonl").is_file() {
        return Ok(None);
    }
    let folder = BeirFolder::open(train)?;
    if folder.splits()?.iter().any(|name| name == split) {
        return Ok(Some(folder.evaluation(split)?));
    }
    Ok(None)
}

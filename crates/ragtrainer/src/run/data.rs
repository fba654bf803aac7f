//! From options to examples: training data, its report, negatives, and the sets that models are measured on.

use std::path::Path;
use std::sync::Arc;

use colbert_config::{Miner, Options, Refresh};
use colbert_data::{
    BeirFolder, Bm25Index, Collection, DataReport, EvaluationSet, MiningProgress, NegativeMiner, PrepareOptions,
    PrepareReport, RawData, ReadOptions, Remining, ReportOptions, Side, TextAnalysis, TokenCount, TokenLimits,
    TrainingSet, check_language_code, prepare_with_teacher, read_documents, read_training_data,
};
use colbert_train::Processes;

use crate::error::Error;
use crate::run::encoder::RunEncoder;
use crate::run::miner::miner;
use crate::run::sharing::Sharing;
use crate::run::teacher::{SharedTeacher, teacher};
use crate::source::read_start;

/// Raw data and the sets that models are measured on, before negatives are added.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    /// A line for each thing that was found.
    pub(crate) announcements: Vec<String>,
    raw: RawData,
    pub(crate) report: DataReport,
    dev: Option<EvaluationSet>,
    test: Option<EvaluationSet>,
}

/// Training examples, and the sets that models are measured on.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) set: TrainingSet,
    /// Findings about the raw data.
    pub(crate) data: DataReport,
    /// Where the negatives came from.
    pub(crate) report: PrepareReport,
    /// Material for new negatives in later epochs, if `negatives.refresh` asks for them.
    pub(crate) remining: Option<Remining>,
    pub(crate) dev: Option<EvaluationSet>,
    pub(crate) test: Option<EvaluationSet>,
}

impl Prepared {
    /// Bytes of memory that the sets take, about, and the largest index for BM25 over one of them: of documents that
    /// negatives are mined from, or that a test ranks.
    pub(crate) fn memory(&self, options: &Options) -> u64 {
        let sets: Vec<&EvaluationSet> = self.dev.iter().chain(&self.test).collect();
        let mut collections: Vec<&Arc<Collection>> = sets.iter().map(|set| &set.collection).collect();
        // The splits of a folder share their documents.
        collections.dedup_by(|a, b| Arc::ptr_eq(a, b));
        let of_collections: u64 = collections.into_iter().map(|collection| collection.memory()).sum();
        let of_sets: u64 = sets.into_iter().map(EvaluationSet::memory_without_collection).sum();
        let mined = options.negatives.mines().then_some(&self.set.collection);
        let indexed = mined.into_iter().chain(self.test.as_ref().map(|set| &*set.collection));
        let index = indexed.map(Bm25Index::memory).max().unwrap_or(0);
        self.set.memory() + of_sets + of_collections + index
    }

    /// Queries whose vectors are held at once outside of training steps: those of an evaluation, or of mining for a
    /// later epoch, which has them twice for a moment.
    pub(crate) fn queries_held(&self, options: &Options) -> usize {
        let of = |set: &Option<EvaluationSet>| set.as_ref().map_or(0, |set| set.queries.len());
        let mines = self.remining.is_some() && options.negatives.miner == Miner::LateInteraction;
        let mined = if mines { 2 * self.set.queries.len() } else { 0 };
        of(&self.dev).max(of(&self.test)).max(mined)
    }
}

impl Input {
    /// Reads everything that `options.data` names; `dev` and `test` go before what the options name.
    pub(crate) fn read(
        options: &Options,
        dev: Option<EvaluationSet>,
        test: Option<EvaluationSet>,
        processes: &dyn Processes,
    ) -> Result<Self, Error> {
        // Before hours of reading; once more where data in memory come in.
        check_language_code(&options.language_code)?;
        let Some((first, others)) = options.data.train.0.split_first() else {
            let hint = "name the training data with --train-data, or train = \"...\" under [data] in the config file";
            return Err(Error::NotSet { option: "data.train", hint });
        };
        let read_options = ReadOptions::from(&options.data);
        let mut raw = read_training_data(first, &read_options)?;
        for source in others {
            raw.merge(read_training_data(source, &read_options)?)?;
        }
        let mut announcements = vec![raw.announcement().to_owned()];
        if let Some(path) = &options.data.all_documents {
            announcements.push(read_documents(path, &read_options, &mut raw)?);
        }
        let train = options.data.train.only();
        let mut folders = EvaluationFolders { train, options: &read_options, opened: None };
        let mut set = |given: Option<EvaluationSet>, named: Option<&Path>, split| match given {
            Some(set) => Ok(Some(set)),
            None => folders.set(named, split, &mut announcements),
        };
        let dev = set(dev, options.data.dev.as_deref(), "dev")?;
        let skips_test = options.data.skip_test;
        let test = if skips_test { None } else { set(test, options.data.test.as_deref(), "test")? };
        Self::new(options, raw, dev, test, announcements, processes)
    }

    /// Holds out dev queries if there are none and the options ask for it, chooses the pool, and examines the data.
    pub(crate) fn new(
        options: &Options,
        mut raw: RawData,
        mut dev: Option<EvaluationSet>,
        test: Option<EvaluationSet>,
        mut announcements: Vec<String>,
        processes: &dyn Processes,
    ) -> Result<Self, Error> {
        check_language_code(&options.language_code)?;
        let test = test.filter(|_| !options.data.skip_test);
        if options.data.skip_test {
            announcements.push("test queries are left out, as data.skip_test is true".to_owned());
        }
        let evaluation = &options.evaluation;
        match (options.data.dev_split, dev.is_some()) {
            (0, _) => {}
            (_, true) => announcements.push("there are dev queries, so data.dev_split is not used".to_owned()),
            (count, false) => {
                let (left, held_out, split) = raw.split_dev(count, evaluation.seed)?;
                announcements.push(split.to_string());
                (raw, dev) = (left, Some(held_out));
            }
        }
        let dev =
            dev.map(|set| set.with_pool(evaluation.pool_size, evaluation.max_queries, evaluation.seed)).transpose()?;
        for (name, set) in evaluations(dev.as_ref(), test.as_ref()) {
            let (queries, documents) = (set.queries.len(), set.collection.len());
            announcements.push(format!("{name}: {queries} queries against {documents} documents"));
        }
        let report = report(options, &raw, dev.as_ref(), test.as_ref(), processes)?;
        Ok(Self { announcements, raw, report, dev, test })
    }

    /// Adds negatives, by `own` if it is given and else by the miner that the options ask for.
    pub(crate) fn prepare<E: RunEncoder>(
        self,
        options: &Options,
        prepare: &PrepareOptions,
        own: Option<&Arc<dyn NegativeMiner>>,
        sharing: Sharing<'_, E>,
        progress: &MiningProgress<'_>,
    ) -> Result<Prepared, Error> {
        let Self { raw, report: data, dev, test, .. } = self;
        // Examples that came ready-made get no negatives: no model is read for them.
        let miner = match own {
            _ if !raw.needs_negatives() => None,
            Some(own) => options.negatives.mines().then(|| Arc::clone(own)),
            None => miner(options, sharing)?,
        };
        let remining = match options.negatives.refresh {
            Refresh::Epoch => Remining::of(&raw, prepare),
            Refresh::Never => None,
        };
        // Rows that all came with scores keep them: no teacher is read for them.
        let scored = |raw: &RawData| raw.ready_made().iter().all(|example| example.scores.is_some());
        let teacher = if !raw.ready_made().is_empty() && scored(&raw) { None } else { teacher(options, sharing)? };
        let teaching = teacher.as_ref().map(SharedTeacher::teaching);
        let (set, report) = prepare_with_teacher(raw, prepare, miner.as_deref(), teaching, progress)?;
        let remining = remining.map(|remining| remining.with_ready_made(&set, &report));
        Ok(Prepared { set, data, report, remining, dev, test })
    }
}

/// The findings about the data; with token counts if the options name a model.
fn report(
    options: &Options,
    raw: &RawData,
    dev: Option<&EvaluationSet>,
    test: Option<&EvaluationSet>,
    processes: &dyn Processes,
) -> Result<DataReport, Error> {
    let analysis = TextAnalysis::for_language(&options.language_code);
    let training = Some((&options.train, &options.negatives));
    let plain = ReportOptions { evaluations: evaluations(dev, test), tokens: None, analysis, training };
    if options.pretrained_model_name.is_empty() {
        return Ok(DataReport::with_options(raw, &plain)?);
    }
    let pretrained = read_start(options)?;
    let settings = pretrained.settings(&options.train);
    let tokenizer = pretrained.tokenizer(&settings)?;
    // Each process counts a part of the texts.
    let counter = |texts: &[&str], side: Side| {
        let each = texts.len().div_ceil(processes.size()).max(1);
        let own = texts.chunks(each).nth(processes.rank()).unwrap_or_default();
        let lengths = match side {
            Side::Query => tokenizer.query_lengths(own)?,
            Side::Document => tokenizer.document_lengths(own)?,
        };
        let own: Vec<u32> = lengths.into_iter().flat_map(|(tokens, unknown)| [tokens as u32, unknown as u32]).collect();
        let all = processes.all_to_all(&vec![own.as_slice(); processes.size()]).concat();
        let count = |pair: &[u32]| TokenCount { tokens: pair[0] as usize, unknown: pair[1] as usize };
        Ok(all.chunks_exact(2).map(count).collect())
    };
    let (query_maxlen, doc_maxlen) = (settings.query_maxlen, settings.doc_maxlen);
    let longest = pretrained.max_length();
    let tokens = Some(TokenLimits { counter: &counter, query_maxlen, doc_maxlen, longest });
    Ok(DataReport::with_options(raw, &ReportOptions { tokens, ..plain })?)
}

/// The evaluation sets there are, with the names of their splits.
fn evaluations<'a>(
    dev: Option<&'a EvaluationSet>,
    test: Option<&'a EvaluationSet>,
) -> Vec<(&'static str, &'a EvaluationSet)> {
    [("dev", dev), ("test", test)].into_iter().filter_map(|(name, set)| Some((name, set?))).collect()
}

/// Where dev and test queries come from; the folder that is trained on is opened once. Of several sources none is asked
/// for splits of its own.
struct EvaluationFolders<'a> {
    train: Option<&'a Path>,
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
        let folder: &BeirFolder = match (named, self.train.filter(|train| BeirFolder::is_one(train))) {
            (None, None) => return Ok(None),
            (Some(path), train) if train != Some(path) => {
                other = BeirFolder::open_with(path, self.options)?;
                &other
            }
            (_, train) => match &mut self.opened {
                Some(folder) => folder,
                closed => {
                    let train = train.expect("no other arm has neither a named folder nor one that is trained on");
                    closed.insert(BeirFolder::open_with(train, self.options)?)
                }
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

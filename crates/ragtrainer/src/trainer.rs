//! The facade: the reference's `RAGTrainer`, in Rust.

use std::path::{Path, PathBuf};

use colbert_config::{EvaluationOptions, NegativeOptions, Options, Refresh, TrainOptions};
use colbert_data::{
    DataReport, EvaluationSet, PrepareOptions, PrepareReport, RawData, ReadOptions, ReferenceFiles, Remining,
    ReportOptions, TextAnalysis, TrainingSet, export_reference, import_reference, prepare,
};
use colbert_train::{Begin, Event, Flow, Observer};

use crate::error::Error;
use crate::run::data::evaluations;
use crate::run::inherit::{inherit, set_by_caller};
use crate::run::miner::miner;
use crate::run::outcome::Outcome;
use crate::run::session::{self, Preview, RunData};

/// Prepares data and trains a ColBERT from it. See the crate's example.
#[derive(Debug, Clone)]
pub struct RagTrainer {
    model_name: String,
    pretrained_model_name: String,
    language_code: String,
    backend: String,
    output: PathBuf,
    overwrite: bool,
    inherit_settings: bool,
    evaluation: EvaluationOptions,
    dev_split: usize,
    documents: Vec<String>,
    prepared: Option<Prepared>,
    dev: Option<EvaluationSet>,
    test: Option<EvaluationSet>,
}

/// Examples, and what is known of them.
#[derive(Debug, Clone)]
struct Prepared {
    set: TrainingSet,
    data: DataReport,
    report: PrepareReport,
    /// How negatives were chosen, for later epochs.
    negatives: NegativeOptions,
    remining: Option<Remining>,
}

impl RagTrainer {
    /// A trainer that starts from the model directory `pretrained_model_name`. `model_name` is a label.
    ///
    /// The run is written to `runs/<model_name>`; see [`RagTrainer::with_output`].
    pub fn new(model_name: impl Into<String>, pretrained_model_name: impl Into<String>) -> Self {
        let model_name = model_name.into();
        Self {
            output: Path::new("runs").join(&model_name),
            model_name,
            pretrained_model_name: pretrained_model_name.into(),
            language_code: "en".to_owned(),
            backend: "auto".to_owned(),
            overwrite: false,
            inherit_settings: true,
            evaluation: EvaluationOptions::default(),
            dev_split: 0,
            documents: Vec::new(),
            prepared: None,
            dev: None,
            test: None,
        }
    }

    /// Language of the texts (`en`, `de`, ...): stemming and stop words of the BM25 miner. Default `en`.
    #[must_use]
    pub fn with_language_code(mut self, language_code: impl Into<String>) -> Self {
        self.language_code = language_code.into();
        self
    }

    /// Backend and device by name. Default `auto`.
    #[must_use]
    pub fn with_device(mut self, backend: impl Into<String>) -> Self {
        self.backend = backend.into();
        self
    }

    /// Take over the lengths, masks and sizes of a ColBERT to start from, where the options of a run have their defaults.
    /// Default true.
    #[must_use]
    pub fn with_inherited_settings(mut self, inherit: bool) -> Self {
        self.inherit_settings = inherit;
        self
    }

    /// Folder of the run. An earlier run in it is refused, or replaced if `overwrite` is set.
    #[must_use]
    pub fn with_output(mut self, folder: impl Into<PathBuf>, overwrite: bool) -> Self {
        self.output = folder.into();
        self.overwrite = overwrite;
        self
    }

    /// Held-out queries that choose the best model, and how many of them and of their documents are used. Without them the
    /// best model is the last.
    ///
    /// # Errors
    /// A pool or a number of queries of 0.
    pub fn with_dev(mut self, set: &EvaluationSet, options: EvaluationOptions) -> Result<Self, Error> {
        self.dev = Some(set.with_pool(options.pool_size, options.max_queries, options.seed)?);
        self.evaluation = options;
        Ok(self)
    }

    /// Splits so many queries off the data that is prepared next, as dev queries; see [`RawData::split_dev`]. The size of the
    /// pool and the seed come from `options`.
    #[must_use]
    pub fn with_dev_split(mut self, queries: usize, options: EvaluationOptions) -> Self {
        self.dev_split = queries;
        self.evaluation = options;
        self
    }

    /// Queries that are measured before and after training and never choose.
    #[must_use]
    pub fn with_test(mut self, set: EvaluationSet) -> Self {
        self.test = Some(set);
        self
    }

    /// Adds documents that negatives may be drawn from in the next [`RagTrainer::prepare_training_data`].
    pub fn add_documents<D: Into<String>>(&mut self, documents: impl IntoIterator<Item = D>) {
        self.documents.extend(documents.into_iter().map(Into::into));
    }

    /// Adds negatives to raw data and makes training examples of it. Documents that were added count for this call
    /// alone. The late-interaction miner ranks here with the default lengths and sizes of [`TrainOptions`]; at the start
    /// of later epochs (`negatives.refresh`), with those of the model that is trained.
    ///
    /// # Errors
    /// Data that gives no example, or options that contradict each other.
    pub fn prepare_training_data(
        &mut self,
        mut raw_data: RawData,
        options: &PrepareOptions,
    ) -> Result<PrepareReport, Error> {
        raw_data.add_documents(self.documents.drain(..))?;
        if self.dev_split > 0 {
            let (left, dev, _) = raw_data.split_dev(self.dev_split, self.evaluation.seed)?;
            raw_data = left;
            let choice = &self.evaluation;
            self.dev = Some(dev.with_pool(choice.pool_size, choice.max_queries, choice.seed)?);
        }
        let report_options = ReportOptions {
            evaluations: evaluations(self.dev.as_ref(), self.test.as_ref()),
            analysis: TextAnalysis::for_language(&self.language_code),
            ..ReportOptions::default()
        };
        let data = DataReport::with_options(&raw_data, &report_options)?;
        let mut mining = self.named_options(&TrainOptions { nway: options.nway, ..TrainOptions::default() });
        mining.negatives = options.negatives.clone();
        let miner = if raw_data.ready_made().is_empty() { miner(&mining)? } else { None };
        let remining = match options.negatives.refresh {
            Refresh::Epoch => Remining::of(&raw_data, options),
            Refresh::Never => None,
        };
        let (set, report) = prepare(raw_data, options, miner.as_deref())?;
        self.prepared =
            Some(Prepared { set, data, report: report.clone(), negatives: options.negatives.clone(), remining });
        Ok(report)
    }

    /// Writes the reference's three files: queries, corpus and triples.
    ///
    /// # Errors
    /// Nothing is prepared yet, or the disk refuses.
    pub fn export_training_data(&self, folder: &Path) -> Result<ReferenceFiles, Error> {
        Ok(export_reference(&self.known()?.set, folder)?)
    }

    /// Takes up data that was exported before, by this program or by RAGatouille.
    ///
    /// # Errors
    /// Files that are missing or do not fit together.
    pub fn load_training_data(&mut self, folder: &Path, options: &PrepareOptions) -> Result<PrepareReport, Error> {
        let raw = import_reference(&ReferenceFiles::in_folder(folder), &ReadOptions::default())?;
        self.prepare_training_data(raw, options)
    }

    /// What was prepared, if anything.
    pub fn training_set(&self) -> Option<&TrainingSet> {
        self.prepared.as_ref().map(|prepared| &prepared.set)
    }

    /// What is wrong with the data that was prepared, if any was; also written into the run folder.
    pub fn data_report(&self) -> Option<&DataReport> {
        self.prepared.as_ref().map(|prepared| &prepared.data)
    }

    fn known(&self) -> Result<&Prepared, Error> {
        self.prepared.as_ref().ok_or(Error::NotPrepared)
    }

    /// What [`RagTrainer::train`] would do; writes nothing.
    ///
    /// # Errors
    /// Whatever would make training fail at its start.
    pub fn plan(&self, options: &TrainOptions) -> Result<Preview, Error> {
        session::preview(&self.options(options)?, &self.known()?.set)
    }

    /// Trains, and returns the directory of the best model and what happened.
    ///
    /// # Errors
    /// No data is prepared, options or model cannot be used, or training stopped; what was written before stays.
    pub fn train(&self, options: &TrainOptions) -> Result<Outcome, Error> {
        self.run(options, Begin::Anew, &mut |_: &Event| Flow::Continue)
    }

    /// Goes on with the run in the folder from its newest whole checkpoint, or from the start if it has none. Data and
    /// options must be those the run was started with, unless `accept_changes` is set. The result equals that of a run
    /// that was never interrupted, to the last bit (same backend and machine).
    ///
    /// # Errors
    /// As [`RagTrainer::train`]; there is no run in the folder, or it was made with something else, which is named.
    pub fn resume(&self, options: &TrainOptions, accept_changes: bool) -> Result<Outcome, Error> {
        self.run(options, Begin::Resume { accept_changes }, &mut |_: &Event| Flow::Continue)
    }

    /// [`RagTrainer::train`], telling an observer every event; it may stop the run.
    ///
    /// # Errors
    /// As [`RagTrainer::train`].
    pub fn train_observed(&self, options: &TrainOptions, observer: &mut dyn Observer) -> Result<Outcome, Error> {
        self.run(options, Begin::Anew, observer)
    }

    /// [`RagTrainer::resume`], telling an observer every event; it may stop the run.
    ///
    /// # Errors
    /// As [`RagTrainer::resume`].
    pub fn resume_observed(
        &self,
        options: &TrainOptions,
        accept_changes: bool,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, Error> {
        self.run(options, Begin::Resume { accept_changes }, observer)
    }

    fn run(&self, options: &TrainOptions, begin: Begin, observer: &mut dyn Observer) -> Result<Outcome, Error> {
        let prepared = self.known()?;
        let data = RunData {
            set: &prepared.set,
            dev: self.dev.as_ref(),
            test: self.test.as_ref(),
            language_code: &self.language_code,
            report: Some(&prepared.data),
            prepared: Some(&prepared.report),
            remining: prepared.remining.as_ref(),
            plan: None,
        };
        let mut options = self.options(options)?;
        if begin != Begin::Anew {
            session::keep_micro_batches(&mut options)?;
        }
        session::train(&options, data, begin, observer)
    }

    /// The options of a run, with the settings of the model it starts from where `train` has the defaults.
    fn options(&self, train: &TrainOptions) -> Result<Options, Error> {
        let mut options = self.named_options(train);
        inherit(&mut options, &set_by_caller(train))?;
        Ok(options)
    }

    /// The options as they were given.
    fn named_options(&self, train: &TrainOptions) -> Options {
        Options {
            model_name: self.model_name.clone(),
            pretrained_model_name: self.pretrained_model_name.clone(),
            language_code: self.language_code.clone(),
            output: self.output.clone(),
            overwrite: self.overwrite,
            backend: self.backend.clone(),
            train: train.clone(),
            evaluation: self.evaluation.clone(),
            negatives: self.prepared.as_ref().map(|prepared| prepared.negatives.clone()).unwrap_or_default(),
            inherit_settings: self.inherit_settings,
            ..Options::default()
        }
    }
}

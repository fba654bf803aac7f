//! The facade: the reference's `RAGTrainer`, in Rust.

use std::path::{Path, PathBuf};

use colbert_config::{EvaluationOptions, Options, TrainOptions};
use colbert_data::{
    EvaluationSet, PrepareOptions, PrepareReport, RawData, ReadOptions, ReferenceFiles, TrainingSet, export_reference,
    import_reference, prepare,
};
use colbert_train::{Event, Flow, Observer};

use crate::error::Error;
use crate::session::{self, Outcome, Preview, RunData};

/// Prepares data and trains a ColBERT from it. See the crate's example.
#[derive(Debug, Clone)]
pub struct RagTrainer {
    model_name: String,
    pretrained_model_name: String,
    language_code: String,
    backend: String,
    output: PathBuf,
    overwrite: bool,
    evaluation: EvaluationOptions,
    documents: Vec<String>,
    prepared: Option<TrainingSet>,
    dev: Option<EvaluationSet>,
    test: Option<EvaluationSet>,
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
            evaluation: EvaluationOptions::default(),
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
    /// alone.
    ///
    /// # Errors
    /// Data that gives no example, or options that contradict each other.
    pub fn prepare_training_data(
        &mut self,
        mut raw_data: RawData,
        options: &PrepareOptions,
    ) -> Result<PrepareReport, Error> {
        raw_data.add_documents(self.documents.drain(..))?;
        let miner = colbert_data::Bm25Miner::new(&self.language_code);
        let (set, report) = prepare(raw_data, options, Some(&miner))?;
        self.prepared = Some(set);
        Ok(report)
    }

    /// Writes the reference's three files: queries, corpus and triples.
    ///
    /// # Errors
    /// Nothing is prepared yet, or the disk refuses.
    pub fn export_training_data(&self, folder: &Path) -> Result<ReferenceFiles, Error> {
        Ok(export_reference(self.prepared.as_ref().ok_or(Error::NotPrepared)?, folder)?)
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
        self.prepared.as_ref()
    }

    /// What [`RagTrainer::train`] would do; writes nothing.
    ///
    /// # Errors
    /// Whatever would make training fail at its start.
    pub fn plan(&self, options: &TrainOptions) -> Result<Preview, Error> {
        session::preview(&self.options(options), self.prepared.as_ref().ok_or(Error::NotPrepared)?)
    }

    /// Trains, and returns the directory of the best model and what happened.
    ///
    /// # Errors
    /// No data is prepared, options or model cannot be used, or training stopped; what was written before stays.
    pub fn train(&self, options: &TrainOptions) -> Result<Outcome, Error> {
        self.train_observed(options, &mut |_: &Event| Flow::Continue)
    }

    /// The same, telling an observer every event; it may stop the run.
    ///
    /// # Errors
    /// As [`RagTrainer::train`].
    pub fn train_observed(&self, options: &TrainOptions, observer: &mut dyn Observer) -> Result<Outcome, Error> {
        let data = RunData {
            set: self.prepared.as_ref().ok_or(Error::NotPrepared)?,
            dev: self.dev.as_ref(),
            test: self.test.as_ref(),
            language_code: &self.language_code,
        };
        session::train(&self.options(options), data, observer)
    }

    fn options(&self, train: &TrainOptions) -> Options {
        Options {
            model_name: self.model_name.clone(),
            pretrained_model_name: self.pretrained_model_name.clone(),
            language_code: self.language_code.clone(),
            output: self.output.clone(),
            overwrite: self.overwrite,
            backend: self.backend.clone(),
            train: train.clone(),
            evaluation: self.evaluation.clone(),
            ..Options::default()
        }
    }
}

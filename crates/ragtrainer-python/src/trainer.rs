//! Preparing and training.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, TryLockError};

use pyo3::prelude::*;
use ragtrainer::data::{BeirFolder, Example, Labels};
use ragtrainer::train::{Begin, Event};
use ragtrainer::{Error, Launched, RagTrainer};
use serde_json::json;

use crate::convert;
use crate::error::{Kind, raise};
use crate::observer::Listener;
use crate::options;
use crate::process;

/// A trainer with the most recently prepared data.
#[pyclass(frozen, module = "ragtrainer._native")]
#[derive(Debug, Default)]
pub(crate) struct Trainer {
    prepared: Mutex<Option<RagTrainer>>,
}

#[pymethods]
impl Trainer {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Takes raw data, adds negatives and makes training examples. `raw` is a list of rows, or a path of a file or
    /// folder. Returns the report as JSON.
    #[allow(clippy::too_many_arguments, reason = "keywords of one Python call")]
    #[pyo3(signature = (options, raw, documents, with_labels, positive_label, negative_label, progress))]
    fn prepare(
        &self,
        py: Python<'_>,
        options: &str,
        raw: &Bound<'_, PyAny>,
        documents: &Bound<'_, PyAny>,
        with_labels: bool,
        positive_label: &Bound<'_, PyAny>,
        negative_label: &Bound<'_, PyAny>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        process::enter()?;
        let (options, named) = options::parse(options)?;
        let labels = Labels {
            positive: convert::label("positive_label", positive_label)?,
            negative: convert::label("negative_label", negative_label)?,
        };
        let raw = match options.data.train.0.as_slice() {
            [_, ..] => None,
            [] => Some(convert::raw_data(raw, with_labels, &labels)?),
        };
        let documents = convert::texts("documents", documents)?;
        let listener = Listener::new(progress);
        let mut prepared = self.lock()?;
        let done = py.detach(|| {
            listener.interruptible(|| -> Result<(RagTrainer, String), Error> {
                let sets = (options.data.dev.clone(), options.data.test.clone());
                let mut trainer = RagTrainer::from_options(options.clone()).with_named_options(named);
                trainer.add_documents(documents);
                let found = match raw {
                    Some(raw) => {
                        trainer = with_sets(trainer, &options, sets)?;
                        trainer.set_data(raw)?.to_vec()
                    }
                    None => trainer.read_data()?.to_vec(),
                };
                let report = trainer.add_negatives(&|phase, done, total| listener.mining(phase, done, total))?;
                let report = json!({ "found": found, "report": report, "summary": report.to_string() }).to_string();
                Ok((trainer, report))
            })
        });
        if let Some(raised) = listener.take_raised() {
            return Err(raised);
        }
        let (trainer, report) = done.expect("only a raised exception ends it").map_err(raise)?;
        *prepared = Some(trainer);
        Ok(report)
    }

    /// Writes the reference's three files.
    fn export(&self, py: Python<'_>, folder: PathBuf) -> PyResult<()> {
        process::enter()?;
        let prepared = self.lock()?;
        let trainer: &RagTrainer = known(&prepared)?;
        py.detach(|| trainer.export_training_data(&folder)).map(drop).map_err(raise)
    }

    /// The collection: all documents, in the order of their ids.
    fn collection(&self) -> PyResult<Vec<String>> {
        let prepared = self.lock()?;
        let set = prepared.as_ref().and_then(RagTrainer::training_set);
        Ok(set.map_or_else(Vec::new, |set| set.collection.iter().map(str::to_owned).collect()))
    }

    /// The queries, in the order of their ids.
    fn queries(&self) -> PyResult<Vec<String>> {
        let prepared = self.lock()?;
        let set = prepared.as_ref().and_then(RagTrainer::training_set);
        Ok(set.map_or_else(Vec::new, |set| set.queries.iter().map(str::to_owned).collect()))
    }

    /// The examples as lists of ids: query, positive, negatives.
    fn examples(&self) -> PyResult<Vec<Vec<u32>>> {
        let prepared = self.lock()?;
        let set = prepared.as_ref().and_then(RagTrainer::training_set);
        Ok(set.map_or_else(Vec::new, |set| {
            let numbers =
                |example: &Example| std::iter::once(example.query).chain(example.documents.iter().copied()).collect();
            set.examples.iter().map(numbers).collect()
        }))
    }

    /// The plan as JSON, with its wording as `text`. Writes nothing.
    fn plan(&self, py: Python<'_>, options: &str) -> PyResult<String> {
        process::enter()?;
        let train = options::parse(options)?.0.train;
        let prepared = self.lock()?;
        let trainer: &RagTrainer = known(&prepared)?;
        let preview = py.detach(|| trainer.plan(&train)).map_err(raise)?;
        let (text, parameters) = (preview.to_string(), preview.parameters);
        Ok(json!({ "plan": preview.plan, "parameters": parameters, "text": text }).to_string())
    }

    /// Trains. Returns the outcome as JSON; raises what `progress` or a signal raised, once the run has ended.
    fn train(
        &self,
        py: Python<'_>,
        options: &str,
        resume: bool,
        accept_changes: bool,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        process::enter()?;
        // One of several processes would otherwise do all the work.
        Launched::join().map_err(raise)?;
        let options = options::parse(options)?.0;
        let begin = if resume { Begin::Resume { accept_changes } } else { Begin::New };
        let listener = Listener::new(progress);
        let mut prepared = self.lock()?;
        known(&prepared)?;
        let slot: &mut Option<RagTrainer> = &mut prepared;
        let outcome = py.detach(|| {
            let trainer = slot.take().expect("data was prepared").with_begin(begin);
            let trainer = trainer.with_output(&options.output, options.overwrite);
            let outcome = trainer.train_observed(&options.train, &mut |event: &Event| listener.event(event));
            *slot = Some(trainer);
            outcome
        });
        // An error of the run says more than the exception that came before it.
        let outcome = outcome.map_err(|error| match listener.take_raised() {
            Some(raised) => raised,
            None => raise(error),
        })?;
        match listener.take_raised() {
            Some(raised) => Err(raised),
            None => Ok(serde_json::to_string(&outcome).expect("an outcome has a JSON form")),
        }
    }
}

impl Trainer {
    /// The data, unless another thread works on it.
    fn lock(&self) -> PyResult<MutexGuard<'_, Option<RagTrainer>>> {
        match self.prepared.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Kind::Training.raise(
                "this trainer is at work in another thread; expected one call at a time: make a trainer for each thread"
                    .to_owned(),
            )),
        }
    }
}

fn known<'a>(prepared: &'a MutexGuard<'_, Option<RagTrainer>>) -> PyResult<&'a RagTrainer> {
    prepared.as_ref().ok_or_else(|| raise(Error::NotPrepared))
}

/// The trainer with the dev and test queries of these BEIR folders.
fn with_sets(
    mut trainer: RagTrainer,
    options: &ragtrainer::config::Options,
    (dev, test): (Option<PathBuf>, Option<PathBuf>),
) -> Result<RagTrainer, Error> {
    if let Some(path) = dev {
        trainer = trainer.with_dev(BeirFolder::open(&path)?.evaluation("dev")?, options.evaluation.clone());
    }
    if let Some(path) = test.filter(|_| !options.data.skip_test) {
        trainer = trainer.with_test(BeirFolder::open(&path)?.evaluation("test")?);
    }
    Ok(trainer)
}

//! The facade: the reference's `RAGTrainer`, in Rust.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use colbert_config::{EvaluationOptions, Options, Plan, TrainOptions};
use colbert_data::{
    DataReport, EvaluationSet, MiningProgress, NegativeMiner, PrepareOptions, PrepareReport, RawData, ReadOptions,
    ReferenceFiles, TrainingSet, export_reference, import_reference,
};
use colbert_train::{
    Begin, ColbertObjective, Event, Flow, Objective, Observer, OneProcess, Processes, RunFolder, TrainError,
};

use crate::error::Error;
use crate::record::outcome::Outcome;
use crate::run::checks::ready;
use crate::run::data::{Input, Prepared};
use crate::run::encoder::{DirectoryEncoder, EncoderBuilder, RunEncoder};
use crate::run::inherit::{Inheritance, inherit, set_by_caller};
use crate::run::objective::RunObjective;
use crate::run::session::{self, Preview, RunData};
use crate::run::sharing::Sharing;

/// Prepares data and trains a ColBERT from it. See the crate's example.
///
/// The reference's calls: [`RagTrainer::new`], [`RagTrainer::add_documents`], [`RagTrainer::prepare_training_data`],
/// [`RagTrainer::train`]. The same run from options alone: [`RagTrainer::from_options`], [`RagTrainer::read_data`],
/// [`RagTrainer::add_negatives`], [`RagTrainer::train`]. A loss, a miner or an encoder of another crate goes in
/// by [`RagTrainer::with_objective`], [`RagTrainer::with_miner`] and [`RagTrainer::with_encoder`]; the run keeps its
/// folder, report and card.
#[derive(Clone)]
pub struct RagTrainer<O = ColbertObjective, E = DirectoryEncoder> {
    options: Options,
    named: BTreeSet<String>,
    documents: Vec<String>,
    dev: Option<EvaluationSet>,
    test: Option<EvaluationSet>,
    input: Option<Input>,
    prepared: Option<Prepared>,
    objective: Option<O>,
    encoder: E,
    miner: Option<Arc<dyn NegativeMiner>>,
    begin: Begin,
    plan: Option<Plan>,
    processes: Arc<dyn Processes>,
    n_usable_gpus: i32,
}

impl<O, E> fmt::Debug for RagTrainer<O, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RagTrainer").field("options", &self.options).field("begin", &self.begin).finish_non_exhaustive()
    }
}

impl RagTrainer {
    /// A trainer that starts from `pretrained_model_name`, a directory or a name on the hub. `model_name` is a label.
    ///
    /// The run is written to `runs/<model_name>`, never elsewhere; see [`RagTrainer::with_output`].
    pub fn new(model_name: impl Into<String>, pretrained_model_name: impl Into<String>) -> Self {
        let model_name = model_name.into();
        Self::from_options(Options {
            output: Path::new("runs").join(folder_name(&model_name)),
            model_name,
            pretrained_model_name: pretrained_model_name.into(),
            ..Options::default()
        })
    }

    /// A trainer with these options, as files, environment and command line give them
    /// ([`OptionSources`](colbert_config::OptionSources)).
    pub fn from_options(options: Options) -> Self {
        Self {
            options,
            named: BTreeSet::new(),
            documents: Vec::new(),
            dev: None,
            test: None,
            input: None,
            prepared: None,
            objective: None,
            encoder: DirectoryEncoder,
            miner: None,
            begin: Begin::New,
            plan: None,
            processes: Arc::new(OneProcess),
            n_usable_gpus: -1,
        }
    }

    /// The options file of a run, for [`OptionSources::file`](colbert_config::OptionSources::file).
    ///
    /// # Errors
    /// The folder holds no run.
    pub fn options_file(run: &Path) -> Result<PathBuf, Error> {
        let path = RunFolder::options(run);
        if path.is_file() { Ok(path) } else { Err(TrainError::NoRun { path: run.to_owned() }.into()) }
    }
}

impl<O: Objective, E: RunEncoder> RagTrainer<O, E> {
    /// Names options, such as `train.dim`, that were set on purpose: they are not inherited from the model that
    /// training starts from, even where they have their defaults.
    #[must_use]
    pub fn with_named_options(mut self, named: BTreeSet<String>) -> Self {
        self.named = named;
        self
    }

    /// Sets the language of the texts (`en`, `de`, ...), for stemming and stop words of BM25.
    #[must_use]
    pub fn with_language_code(mut self, language_code: impl Into<String>) -> Self {
        self.options.language_code = language_code.into();
        self
    }

    /// Sets backend and device by name, such as `flex` or `cuda:1`.
    #[must_use]
    pub fn with_backend(mut self, backend: impl Into<String>) -> Self {
        self.options.backend = backend.into();
        self
    }

    /// Sets whether lengths, masks and sizes of a ColBERT to start from are inherited where the options of a run have
    /// their defaults.
    #[must_use]
    pub fn with_inherited_settings(mut self, inherit: bool) -> Self {
        self.options.inherit_settings = inherit;
        self
    }

    /// Sets the folder of the run. An earlier run in it is refused, or replaced if `overwrite` is set.
    #[must_use]
    pub fn with_output(mut self, folder: impl Into<PathBuf>, overwrite: bool) -> Self {
        self.options.output = folder.into();
        self.options.overwrite = overwrite;
        self
    }

    /// Sets the held-out queries that choose the best model, and how many of them and of their documents are used.
    /// Without dev queries the best model is the last. Counts for data that is prepared afterwards.
    #[must_use]
    pub fn with_dev(mut self, set: EvaluationSet, options: EvaluationOptions) -> Self {
        self.dev = Some(set);
        self.options.evaluation = options;
        self
    }

    /// Holds out N queries of the data that is prepared next as dev queries; see [`RawData::split_dev`]. Size of the
    /// pool and seed come from `options`.
    #[must_use]
    pub fn with_dev_split(mut self, queries: usize, options: EvaluationOptions) -> Self {
        self.options.data.dev_split = queries;
        self.options.evaluation = options;
        self
    }

    /// Sets the queries that are measured before and after training and never choose. Counts for data that is prepared
    /// afterwards. `data.skip_test` of the options leaves them out.
    #[must_use]
    pub fn with_test(mut self, set: EvaluationSet) -> Self {
        self.test = Some(set);
        self
    }

    /// Minimises another loss than colbert-ai's.
    #[must_use]
    pub fn with_objective<P: Objective>(self, objective: P) -> RagTrainer<P, E> {
        self.with_parts(|_, encoder| (Some(objective), encoder))
    }

    /// Trains an encoder of another crate in place of that of the directory, which then gives tokenizer and markers.
    #[must_use]
    pub fn with_encoder<T: EncoderBuilder>(self, encoder: T) -> RagTrainer<O, T> {
        self.with_parts(|objective, _| (objective, encoder))
    }

    fn with_parts<P, T>(self, change: impl FnOnce(Option<O>, E) -> (Option<P>, T)) -> RagTrainer<P, T> {
        let (objective, encoder) = change(self.objective, self.encoder);
        RagTrainer {
            options: self.options,
            named: self.named,
            documents: self.documents,
            dev: self.dev,
            test: self.test,
            input: self.input,
            prepared: self.prepared,
            objective,
            encoder,
            miner: self.miner,
            begin: self.begin,
            plan: self.plan,
            processes: self.processes,
            n_usable_gpus: self.n_usable_gpus,
        }
    }

    /// Ranks candidates for negatives with `miner` in place of the one that the options name, in later epochs too.
    #[must_use]
    pub fn with_miner(mut self, miner: Arc<dyn NegativeMiner>) -> Self {
        self.miner = Some(miner);
        self
    }

    /// Starts a new run, which is the default, or resumes the one in the output folder: from its newest whole
    /// checkpoint, with the same data and options. The result then equals that of a run that was never interrupted, to
    /// the last bit (same backend and machine).
    #[must_use]
    pub fn with_begin(mut self, begin: Begin) -> Self {
        self.begin = begin;
        self
    }

    /// Shares the run with other processes ([`Launched::processes`](crate::Launched::processes)), which make the same
    /// calls with the same options and data. Every process has an equal part of each batch, of mining and of evaluations;
    /// process 0 alone writes. A miner of your own ranks in each process and must rank alike there. The result has the bits of a run of one process with as many micro-batches as all have
    /// together.
    #[must_use]
    pub fn with_processes(mut self, processes: Arc<dyn Processes>) -> Self {
        self.processes = processes;
        self
    }

    /// Sets the number of devices as RAGatouille's `n_usable_gpus` does: -1, the default, is one for each process that was
    /// started; 0 is the CPU, where the backend is "auto"; N is N processes, and another number of them is refused.
    #[must_use]
    pub fn with_n_usable_gpus(mut self, n_usable_gpus: i32) -> Self {
        self.n_usable_gpus = n_usable_gpus;
        if n_usable_gpus == 0 && self.options.backend == "auto" {
            self.options.backend = "flex".to_owned();
        }
        self
    }

    /// Uses a plan that [`RagTrainer::plan`] made of the same options and data. Without it, the plan is made again,
    /// which on a device with a memory limit computes some steps.
    #[must_use]
    pub fn with_plan(mut self, plan: Plan) -> Self {
        self.plan = Some(plan);
        self
    }

    /// The options as they were given.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The settings that are inherited from the model that training starts from.
    ///
    /// # Errors
    /// The model cannot be read.
    pub fn inheritance(&self) -> Result<Inheritance, Error> {
        Ok(self.inherited(&self.options.train)?.1)
    }

    /// Checks everything about a run that costs nothing: options, output folder, backend, precision, and the model that
    /// training starts from. `files` are further inputs, such as option files, which must not lie in the output folder.
    /// Writes nothing.
    ///
    /// # Errors
    /// Anything that would end the run after hours of reading and mining.
    pub fn check(&self, files: &[PathBuf]) -> Result<(), Error> {
        ready(&self.inherited(&self.options.train)?.0, files, self.begin, self.sharing())
    }

    /// Adds documents that negatives may be drawn from in the next [`RagTrainer::prepare_training_data`].
    pub fn add_documents<D: Into<String>>(&mut self, documents: impl IntoIterator<Item = D>) {
        self.documents.extend(documents.into_iter().map(Into::into));
    }

    /// Reads the data that the options name, and examines it. Returns a line for each thing that was found.
    ///
    /// # Errors
    /// `data.train` is not set, or whatever is wrong with the files.
    pub fn read_data(&mut self) -> Result<&[String], Error> {
        let options = self.inherited(&self.options.train)?.0;
        let input = Input::read(&options, self.dev.clone(), self.test.clone(), &*self.processes)?;
        Ok(&self.input.insert(input).announcements)
    }

    /// Takes raw data from memory in place of the files that the options name, and examines it. Documents that were
    /// added go with it. Returns a line for each thing that was found.
    ///
    /// # Errors
    /// A document that is empty, or more dev queries than there are.
    pub fn set_data(&mut self, mut raw_data: RawData) -> Result<&[String], Error> {
        raw_data.add_documents(self.documents.drain(..))?;
        let options = self.inherited(&self.options.train)?.0;
        let input = Input::new(&options, raw_data, self.dev.clone(), self.test.clone(), Vec::new(), &*self.processes)?;
        Ok(&self.input.insert(input).announcements)
    }

    /// Adds negatives to the data that was read, and makes training examples of it. `progress` receives how far mining
    /// is.
    ///
    /// # Errors
    /// No data was read, no example comes of it, or what the miner reports.
    pub fn add_negatives(&mut self, progress: &MiningProgress<'_>) -> Result<&PrepareReport, Error> {
        let options = self.inherited(&self.options.train)?.0;
        let prepare = PrepareOptions {
            negatives: options.negatives.clone(),
            nway: options.train.nway,
            draw_negatives: options.train.draw_negatives,
            ..PrepareOptions::default()
        };
        let input = self.input.take().ok_or(Error::NotPrepared)?;
        let prepared = input.prepare(&options, &prepare, self.miner.as_ref(), self.sharing(), progress)?;
        Ok(&self.prepared.insert(prepared).report)
    }

    /// Adds negatives to raw data and makes training examples of it. Documents that were added count for this call
    /// alone. The late-interaction miner ranks here with the default lengths and sizes of [`TrainOptions`]; at the
    /// start of later epochs (`negatives.refresh`), with those of the model that is trained.
    ///
    /// # Errors
    /// Data that gives no example, or options that contradict each other.
    pub fn prepare_training_data(
        &mut self,
        mut raw_data: RawData,
        options: &PrepareOptions,
    ) -> Result<PrepareReport, Error> {
        raw_data.add_documents(self.documents.drain(..))?;
        self.options.negatives = options.negatives.clone();
        let train =
            TrainOptions { nway: options.nway, draw_negatives: options.draw_negatives, ..TrainOptions::default() };
        let all = self.inherited(&train)?.0;
        let input = Input::new(&all, raw_data, self.dev.clone(), self.test.clone(), Vec::new(), &*self.processes)?;
        let prepared = input.prepare(&all, options, self.miner.as_ref(), self.sharing(), &|_, _, _| ())?;
        Ok(self.prepared.insert(prepared).report.clone())
    }

    /// Writes the reference's three files: queries, corpus and triples.
    ///
    /// # Errors
    /// Nothing is prepared yet, or the disk refuses.
    pub fn export_training_data(&self, folder: &Path) -> Result<ReferenceFiles, Error> {
        Ok(export_reference(&self.known()?.set, folder)?)
    }

    /// Reads data that was exported before, by this program or by RAGatouille.
    ///
    /// # Errors
    /// Files that are missing or do not fit together.
    pub fn load_training_data(&mut self, folder: &Path, options: &PrepareOptions) -> Result<PrepareReport, Error> {
        let raw = import_reference(&ReferenceFiles::in_folder(folder), &ReadOptions::default())?;
        self.prepare_training_data(raw, options)
    }

    /// The examples, once data is prepared.
    pub fn training_set(&self) -> Option<&TrainingSet> {
        self.prepared.as_ref().map(|prepared| &prepared.set)
    }

    /// The findings about the data that was read or prepared last; also written into the run folder.
    pub fn data_report(&self) -> Option<&DataReport> {
        let prepared = self.prepared.as_ref().map(|prepared| &prepared.data);
        self.input.as_ref().map(|input| &input.report).or(prepared)
    }

    /// Makes the plan that [`RagTrainer::train`] would follow; writes nothing.
    ///
    /// # Errors
    /// Whatever would make training fail at its start.
    pub fn plan(&self, options: &TrainOptions) -> Result<Preview, Error> {
        session::preview(&self.of_run(options)?, self.known()?, &self.objective(options), self.sharing(), self.begin)
    }

    /// Trains, and returns the directory of the best model and what happened.
    ///
    /// # Errors
    /// No data is prepared, options or model cannot be used, or training stopped; everything written before stays.
    pub fn train(&self, options: &TrainOptions) -> Result<Outcome, Error> {
        self.train_observed(options, &mut |_: &Event| Flow::Continue)
    }

    /// As [`RagTrainer::train`], telling an observer every event; it may stop the run.
    ///
    /// # Errors
    /// As [`RagTrainer::train`].
    pub fn train_observed(&self, options: &TrainOptions, observer: &mut dyn Observer) -> Result<Outcome, Error> {
        let prepared = self.known()?;
        let data = RunData { prepared, miner: self.miner.as_ref(), plan: self.plan.as_ref() };
        session::train(&self.of_run(options)?, data, &self.objective(options), self.sharing(), self.begin, observer)
    }

    fn sharing(&self) -> Sharing<'_, E> {
        Sharing { encoder: &self.encoder, processes: &self.processes }
    }

    fn known(&self) -> Result<&Prepared, Error> {
        self.prepared.as_ref().ok_or(Error::NotPrepared)
    }

    fn objective(&self, train: &TrainOptions) -> RunObjective<'_, O> {
        match &self.objective {
            Some(own) => RunObjective::Own { objective: own, dims: train.dims.0.clone() },
            None => RunObjective::Configured(ColbertObjective::from(train)),
        }
    }

    /// The options of a run with these of training.
    fn of_run(&self, train: &TrainOptions) -> Result<Options, Error> {
        let (asked, processes) = (self.n_usable_gpus, self.processes.size());
        if asked < -1 || (asked > 0 && asked as usize != processes) {
            return Err(Error::UnusableGpus { asked, processes });
        }
        let mut options = self.inherited(train)?.0;
        if self.begin != Begin::New {
            session::keep_micro_batches(&mut options, self.processes.size(), self.begin)?;
        }
        Ok(options)
    }

    /// The options with the settings of the model that training starts from, where `train` has the defaults.
    fn inherited(&self, train: &TrainOptions) -> Result<(Options, Inheritance), Error> {
        let mut options = Options { train: train.clone(), ..self.options.clone() };
        let named = set_by_caller(train).union(&self.named).cloned().collect();
        let inheritance = inherit(&mut options, &named)?;
        Ok((options, inheritance))
    }
}

/// A label as the name of one folder.
fn folder_name(label: &str) -> String {
    let name: String = label.chars().map(|c| if c.is_control() || "/\\:".contains(c) { '-' } else { c }).collect();
    if name.trim_matches(['.', ' ']).is_empty() { "colbert".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_never_leads_out_of_the_folder_of_runs() {
        for (label, folder) in [
            ("my colbert", "runs/my colbert"),
            ("org/name", "runs/org-name"),
            ("/abs", "runs/-abs"),
            ("../x", "runs/..-x"),
            ("..", "runs/colbert"),
            ("", "runs/colbert"),
            ("C:\\x", "runs/C--x"),
        ] {
            let trainer = RagTrainer::new(label, "encoder");
            assert_eq!(trainer.options().output, Path::new(folder), "{label}");
            assert_eq!(trainer.options().model_name, label);
        }
    }
}

//! Errors of training.

use std::path::{Path, PathBuf};

use colbert_config::ConfigError;
use colbert_data::DataError;
use colbert_model::ModelError;

/// An error of this crate. Every message says what was found and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// Invalid options.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Unusable data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A model that cannot be read, built or written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The loss became NaN or infinite.
    #[error(
        "the {what} at step {step} is {value}{}; training stopped, and everything written before is kept. A lower \
         learning_rate usually helps; on_nonfinite = \"skip\" leaves such batches out. Queries of that batch: \
         {queries}{}",
        in_a_row(*skipped),
        dump.as_ref().map_or_else(String::new, |path| format!(". Written to {}", path.display()))
    )]
    NonFinite {
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// Optimizer step, from 1.
        step: usize,
        /// The value.
        value: f64,
        /// Ids of the queries in the batch.
        queries: String,
        /// Batches that were skipped just before it.
        skipped: usize,
        /// Folder with the batch and the weights.
        dump: Option<PathBuf>,
    },
    /// An update left weights that are not finite.
    #[error(
        "weights are not finite (NaN or infinite) after the update of step {step}, at a learning rate of \
         {learning_rate:e}; training stopped, and everything written before is kept. Lower learning_rate, and \
         resume or train again"
    )]
    NonFiniteWeights {
        /// Optimizer step, from 1.
        step: usize,
        /// Learning rate of the update.
        learning_rate: f64,
    },
    /// Processes that should train one model have different options or data.
    #[error(
        "process {rank} of the run has other options or data than this one: {differences}; start all with the same \
         command, and let all read the same files"
    )]
    ProcessesDiffer {
        /// The other process.
        rank: usize,
        /// From this process to the other.
        differences: String,
    },
    /// Processes that train one model have different weights.
    #[error(
        "the processes of the run have different weights after step {step}: they compute differently, as \
         different processors or builds may; use machines of one kind and one build of the program, and resume"
    )]
    ProcessesApart {
        /// Optimizer step, from 1.
        step: usize,
    },
    /// An example names a text that does not exist.
    #[error("example {example} names {what} {id}, but there are only {count}")]
    UnknownId {
        /// Place of the example, from 0.
        example: usize,
        /// `query` or `document`.
        what: &'static str,
        /// The id.
        id: u32,
        /// How many there are.
        count: usize,
    },
    /// An example has no negative, or more documents than `nway`.
    #[error("example {example} has {found} documents; nway = {expected} asks for 2 to {expected}")]
    WrongWidth {
        /// Place of the example, from 0.
        example: usize,
        /// Documents it has.
        found: usize,
        /// The option.
        expected: usize,
    },
    /// Weights of sources that are not one for each.
    #[error(
        "train.mix_weights has {found} weights for {sources} sources of training data: give one for each, in the order of \
         data.train"
    )]
    MixWeights {
        /// Weights there are.
        found: usize,
        /// Sources there are.
        sources: usize,
    },
    /// No source with a weight has an example.
    #[error(
        "no source of training data with a weight above 0 has an example of its own: a query belongs to the first source \
         that has it; raise its weight in train.mix_weights"
    )]
    NothingToMix,
    /// Refreshed negatives gave another number of examples.
    #[error("the negatives chosen for epoch {epoch} give {found} examples, where every epoch must have {expected}")]
    RefreshedCount {
        /// Epoch, from 1.
        epoch: usize,
        /// Examples that there are.
        found: usize,
        /// Examples of the first epoch.
        expected: usize,
    },
    /// A run that is resumed in the middle of an epoch whose negatives are gone.
    #[error(
        "the negatives of epoch {epoch} are not in the folder of the run (negatives/), so it cannot continue with the same \
         ones; start a new run, or train without negatives.refresh"
    )]
    NegativesGone {
        /// Epoch, from 1.
        epoch: usize,
    },
    /// The negatives that a run used are not as they were written.
    #[error(
        "{path}: damaged, so the run cannot continue with the negatives of epoch {epoch}; remove the checkpoints of \
         that epoch to continue from an older one, or start a new run"
    )]
    NegativesDamaged {
        /// File in the folder of the run.
        path: PathBuf,
        /// Epoch, from 1.
        epoch: usize,
    },
    /// Some examples have teacher scores and others do not.
    #[error(
        "example {example} has {found} teacher scores for {documents} documents; give it a score per document or none at \
         all, or set ignore_scores = true to train on labels alone"
    )]
    MixedScores {
        /// Place of the first such example, from 0.
        example: usize,
        /// Scores it has.
        found: usize,
        /// Documents it has.
        documents: usize,
    },
    /// The output folder holds a run already.
    #[error(
        "{} already holds a run; choose another output folder, pass --overwrite to replace it, or continue it with \
         --resume",
        path.display()
    )]
    RunExists {
        /// The folder.
        path: PathBuf,
    },
    /// The folder is not a run, so it is not deleted.
    #[error(
        "{} is not empty and is not a run of this program, so nothing in it is removed; choose another output folder",
        path.display()
    )]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// The folder of a run holds something that no run wrote.
    #[error(
        "{} is not a file of a run, so the run in {} is not removed; move it elsewhere, or choose another output folder",
        foreign.display(),
        path.display()
    )]
    ForeignFile {
        /// The folder of the run.
        path: PathBuf,
        /// The file or folder in it.
        foreign: PathBuf,
    },
    /// There is nothing to resume.
    #[error("{} holds no run, so there is nothing to resume", path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// Another process uses the folder.
    #[error(
        "another process is at work in {}; wait until it has ended, or choose another output folder",
        path.display()
    )]
    RunInUse {
        /// The folder.
        path: PathBuf,
    },
    /// A checkpoint was made with other options or other data.
    #[error(
        "{} was made with other options or inputs: {changes}. Use the original ones, or pass --accept-changes to \
         continue with the current ones (the result then differs from that of an uninterrupted run)",
        path.display()
    )]
    Changed {
        /// The checkpoint.
        path: PathBuf,
        /// The differences, in words.
        changes: String,
    },
    /// A checkpoint is beyond the end of the run.
    #[error(
        "{} is after {done} steps, but the run has only {steps} now; use the options it was made with",
        path.display()
    )]
    BeyondTheEnd {
        /// The checkpoint.
        path: PathBuf,
        /// Steps done.
        done: usize,
        /// Steps of the plan.
        steps: usize,
    },
    /// An evaluation was interrupted.
    #[error("the evaluation was interrupted")]
    Interrupted,
    /// An observer could not continue.
    #[error("an observer ended the run at step {step}; the newest checkpoint stays")]
    Aborted {
        /// Steps done.
        step: usize,
    },
    /// Reading or writing failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The action that failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The thread that prepares batches panicked.
    #[error(
        "the thread that prepares batches stopped before the run was over: {message}. This is a defect, please report \
         it; the newest checkpoint can be resumed"
    )]
    BatchThread {
        /// Its message.
        message: String,
    },
    /// The device has too little memory for a step.
    #[error(
        "the device ran out of memory at step {step}, with {micro_batch} of {batch_size} queries at a time: {said}"
    )]
    OutOfMemory {
        /// Step, from 1; 0 for a rehearsal of memory.
        step: usize,
        /// Queries of a batch.
        batch_size: usize,
        /// Queries that were computed at once.
        micro_batch: usize,
        /// The device's message.
        said: String,
    },
    /// The device failed, and its later results are meaningless.
    #[error("the device failed in {during}: {said}; if there is a checkpoint, the run can be resumed")]
    Device {
        /// The work that failed.
        during: String,
        /// The device's words.
        said: String,
    },
    /// A model returns vectors that are not finite for a text, so that its scores are meaningless.
    #[error(
        "the model returns vectors that are not finite (NaN or infinite) for {what} {id}, so nothing can be ranked by \
         it; its weights or config.json are damaged, or training diverged: lower learning_rate, or use an earlier model"
    )]
    NonFiniteVectors {
        /// `query` or `document`.
        what: &'static str,
        /// The text's id in its source, or its number.
        id: String,
    },
    /// Evaluation has nothing to measure.
    #[error("the evaluation set has no query with a relevant document; check that the qrels name ids of the corpus")]
    NothingToEvaluate,
}

/// Makes an error of a failed read or write.
pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> TrainError + use<> {
    let path = path.to_owned();
    move |source| TrainError::Io { action, path, source }
}

fn in_a_row(skipped: usize) -> String {
    if skipped == 0 { String::new() } else { format!(", as in the {skipped} steps before it, which were skipped") }
}

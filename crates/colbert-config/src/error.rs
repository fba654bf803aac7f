//! Errors in options, their files, and `artifact.metadata`.
//!
//! Each message names the place, what was found, what was expected, and what to do; a cause from elsewhere is the
//! `source`, so print the whole chain. Does not own the checks themselves.

use std::path::PathBuf;

use thiserror::Error;

/// An error in options or metadata.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A metric that does not exist, or one without a cut-off.
    #[error(
        "unknown metric \"{found}\": expected ndcg@k, mrr@k, recall@k, success@k or map@k with k of 1 or more, such as ndcg@10, or \
         loss"
    )]
    UnknownMetric {
        /// The text that was given.
        found: String,
    },

    /// An option file or metadata file that cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why the system refused.
        #[source]
        source: std::io::Error,
    },

    /// An option file whose name does not say which format it has.
    #[error("cannot tell the format of {}: expected a name that ends in .toml, .yaml, .yml or .json", path.display())]
    UnknownFileFormat {
        /// The file.
        path: PathBuf,
    },

    /// An option file that is not well-formed TOML, YAML or JSON.
    #[error("{} is not valid {format}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// `TOML`, `YAML` or `JSON`.
        format: &'static str,
        /// The parser's error, with line and column where it knows them.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A name that is no option.
    #[error("{origin}: unknown option \"{key}\"{}", suggestion(nearest.as_deref()))]
    UnknownOption {
        /// The file, the environment variable, or the command line.
        origin: String,
        /// The name that was given, sections separated by dots.
        key: String,
        /// The known name that looks most like it, if one does.
        nearest: Option<String>,
    },

    /// An option whose value has the wrong type, or is none of the known words.
    #[error("{origin}: {field} is {found}, expected {expected}")]
    WrongType {
        /// The file, the environment variable, or the command line.
        origin: String,
        /// The option, sections separated by dots.
        field: String,
        /// The value that was given.
        found: String,
        /// Values that the option takes.
        expected: String,
    },

    /// An option outside the range in which it makes sense.
    #[error("{field} is {found}, expected {expected}: {advice}")]
    OutOfRange {
        /// The option, sections separated by dots.
        field: &'static str,
        /// The value that was given.
        found: String,
        /// The range.
        expected: String,
        /// A fix.
        advice: String,
    },

    /// A path that the files of a run could not name.
    #[error("{field} is {}, which is not Unicode: rename it, or use a link with a Unicode name", path.display())]
    PathNotUnicode {
        /// The option, sections separated by dots.
        field: &'static str,
        /// The path.
        path: PathBuf,
    },

    /// Processes cannot have equal shares of a batch.
    #[error("{}", unequal_shares(*batch_size, *processes, *accumsteps))]
    UnequalShares {
        /// Queries of a batch.
        batch_size: usize,
        /// Processes.
        processes: usize,
        /// Micro-batches of each.
        accumsteps: usize,
    },
    /// A batch that cannot be cut into equal micro-batches.
    #[error(
        "train.batch_size is {batch_size}, which train.accumsteps = {accumsteps} does not divide: micro-batches must be \
         equally large, so use accumsteps = {nearest} or another divisor of {batch_size}"
    )]
    NotDivisible {
        /// Queries per optimizer step.
        batch_size: usize,
        /// Micro-batches asked for.
        accumsteps: usize,
        /// The largest divisor of `batch_size` below `accumsteps`.
        nearest: usize,
    },

    /// A run that would not make a single step.
    #[error("{}", too_few(*examples, *epochs, *batch_size))]
    TooFewExamples {
        /// Training examples there are.
        examples: usize,
        /// Passes over them.
        epochs: usize,
        /// Queries per optimizer step.
        batch_size: usize,
    },

    /// Options that are fine one by one and contradict each other.
    #[error("{field} is {found}, but {other_field} is {other_found}: {advice}")]
    Contradiction {
        /// The first option, sections separated by dots.
        field: &'static str,
        /// Its value.
        found: String,
        /// The second option.
        other_field: &'static str,
        /// Its value.
        other_found: String,
        /// A fix.
        advice: &'static str,
    },

    /// A warm-up that never ends within the schedule.
    #[error(
        "train.warmup_steps is {warmup_steps}, but the learning rate has to be back at 0 at step {schedule_horizon}: \
         use a number below {schedule_horizon}, or \"auto\""
    )]
    WarmupTooLong {
        /// Steps of rising learning rate asked for.
        warmup_steps: usize,
        /// Step at which the schedule ends.
        schedule_horizon: usize,
    },

    /// `artifact.metadata` that is not a JSON object.
    #[error("{} is not valid JSON", path.display())]
    MalformedMetadata {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        #[source]
        source: serde_json::Error,
    },

    /// A key of `artifact.metadata` with a value it cannot have.
    #[error("{}: key \"{key}\" is {found}, expected {expected}", path.display())]
    MetadataField {
        /// The file.
        path: PathBuf,
        /// The key; `(root)` for the file as a whole.
        key: String,
        /// The value in the file.
        found: String,
        /// The expected value.
        expected: &'static str,
    },

    /// Something that could not be written as JSON or handed between layers.
    #[error("cannot represent {what}")]
    NotRepresentable {
        /// The thing that was being written.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |known| format!(", did you mean \"{known}\"?"))
}

fn too_few(examples: usize, epochs: usize, batch_size: usize) -> String {
    let have = match (examples, epochs) {
        (0, _) => return "there are no training examples: check data.train and data.format".to_owned(),
        (1, 1) => "1 training example".to_owned(),
        (_, 1) => format!("{examples} training examples"),
        (1, _) => format!("1 training example over {epochs} epochs"),
        _ => format!("{examples} training examples over {epochs} epochs"),
    };
    let largest = examples.saturating_mul(epochs);
    format!(
        "{have} cannot fill one batch of {batch_size} queries: use train.batch_size = {largest} or less, or add examples"
    )
}

fn unequal_shares(batch_size: usize, processes: usize, accumsteps: usize) -> String {
    let pieces = processes.saturating_mul(accumsteps);
    let below = batch_size / pieces * pieces;
    let next = if below == 0 { pieces.to_string() } else { format!("{below} or {}", below.saturating_add(pieces)) };
    let micro = if accumsteps == 1 { String::new() } else { format!(" with {accumsteps} micro-batches each") };
    format!(
        "train.batch_size is {batch_size}, which {processes} processes{micro} cannot share equally: use \
         train.batch_size = {next}"
    )
}

//! Errors of the facade; most come from the crates below.

use std::path::PathBuf;

use colbert_config::{Bytes, ConfigError, Precision};
use colbert_data::DataError;
use colbert_model::ModelError;
use colbert_train::TrainError;

/// An error of the facade.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Options that cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Data that cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A model that cannot be read, built or written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A model whose vectors are not finite.
    #[error(
        "{} gives {what} {index} (counted from 0) vectors that are not finite; it is damaged, or its training overflowed: \
         use another checkpoint, or --precision f32",
        path.display()
    )]
    NotFinite {
        /// The directory of the model.
        path: PathBuf,
        /// Query or document.
        what: &'static str,
        /// Place of the text in the list that was given.
        index: usize,
    },
    /// An input of the run that lies in its output folder.
    #[error(
        "{what} ({}) lies in the output folder {}, where a new run would replace it; choose another output folder",
        path.display(),
        output.display()
    )]
    InsideOutput {
        /// The input, in words.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// The folder of the run.
        output: PathBuf,
    },
    /// An option that only the encoders of this program follow is set for one of another crate.
    #[error("{option} is set, but the encoder \"{name}\" is not one of ragtrainer's and cannot follow it; {hint}")]
    OwnEncoder {
        /// Name of the encoder.
        name: &'static str,
        /// Dotted name of the option.
        option: &'static str,
        /// The remedy.
        hint: &'static str,
    },
    /// Training stopped.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The backend is not known.
    #[error("backend \"{found}\" is not known; this program has: {available}")]
    UnknownBackend {
        /// The name that was asked for.
        found: String,
        /// Names that this build accepts.
        available: String,
    },
    /// Another number of processes than of devices that were asked for.
    #[error(
        "n_usable_gpus is {asked}, and this run has {processes} of the processes that take one device each: use -1 for as \
         many as are started, or start that many (docs/scaling.md)"
    )]
    UnusableGpus {
        /// The number that was asked for.
        asked: i32,
        /// Processes of the run.
        processes: usize,
    },
    /// The plan that another process sent.
    #[error("the plan of process {rank} cannot be read: start all processes with the same build of the program")]
    UnreadablePlan {
        /// The process.
        rank: usize,
    },
    /// Several processes without a way to work together.
    #[error(
        "a launcher started {size} processes, but this program was built without MPI, so that each would do the whole work: \
         build it with --features mpi, or start one process"
    )]
    NoMpi {
        /// How many were started.
        size: usize,
    },
    /// The GPUs of several processes cannot be joined, though there is NCCL.
    #[error("the GPUs of the processes cannot be joined: {source}")]
    Link {
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The micro-batches of a run cannot be divided among the processes that resume it.
    #[error(
        "the run computes each batch in {pieces} micro-batches, which {processes} processes cannot share equally: resume \
         it with a number of processes that divides {pieces}, or with --accept-changes, which gives other bits"
    )]
    UndividedMicroBatches {
        /// Micro-batches of a batch.
        pieces: usize,
        /// Processes.
        processes: usize,
    },
    /// A number of threads that is not available.
    #[error("threads = {found}: {problem}")]
    Threads {
        /// The number that was asked for.
        found: usize,
        /// The reason, and the numbers that are possible.
        problem: String,
    },
    /// The backend is known but was not compiled in.
    #[error(
        "backend \"{found}\" is not in this program (it has: {available}); build it with cargo build --release --features {feature}"
    )]
    BackendNotBuilt {
        /// The name that was asked for.
        found: String,
        /// Names that this build accepts.
        available: String,
        /// The cargo feature.
        feature: &'static str,
    },
    /// The backend is compiled in, but cannot be used on this machine.
    #[error("backend \"{found}\" cannot be used here; --backend flex runs on the CPU")]
    BackendUnusable {
        /// The name that was asked for.
        found: String,
        /// The missing part.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// float16 was asked for on a device without it.
    #[error(
        "{backend} does not support train.precision = \"f16\" (no float16 matmul); use train.precision = \"{nearest}\" instead"
    )]
    NoFloat16 {
        /// The backend and device.
        backend: String,
        /// The nearest precision that is available.
        nearest: Precision,
    },
    /// TF32 was asked for on a device without it.
    #[error(
        "{backend} does not support train.precision = \"tf32\", which is a format of NVIDIA GPUs (backends cuda and libtorch:cuda); use train.precision = \"f32\" instead"
    )]
    NoTf32 {
        /// The backend and device.
        backend: String,
    },
    /// A required option is empty.
    #[error("{option} is not set: {hint}")]
    NotSet {
        /// Dotted name of the option.
        option: &'static str,
        /// How to set it.
        hint: &'static str,
    },
    /// A teacher that is neither a cross-encoder nor a trained ColBERT.
    #[error(
        "negatives.teacher: {} has no classification head and no projection of a trained ColBERT, so that it cannot score a \
         document for a query; name a cross-encoder, such as cross-encoder/ms-marco-MiniLM-L6-v2, or a ColBERT",
        path.display()
    )]
    NoTeacher {
        /// The directory.
        path: PathBuf,
    },
    /// The dense miner has no model.
    #[error(
        "negatives.miner_model is not set: name a sentence encoder, a folder or a name on the hub, with --miner-model; the \
         reference would take {name} for language {language_code}"
    )]
    NoMinerModel {
        /// The reference's choice.
        name: &'static str,
        /// The language.
        language_code: String,
    },
    /// `train` was called before there was data.
    #[error(
        "there is no training data yet: call prepare_training_data, or load_training_data with a folder that was exported"
    )]
    NotPrepared,
    /// No number of micro-batches makes training fit.
    #[error(
        "training cannot fit into {}: computed one query at a time it takes about {}; raise train.memory_limit, or lower train.batch_size, train.doc_maxlen or train.nway",
        Bytes(*limit),
        Bytes(*least)
    )]
    LimitTooLow {
        /// Bytes allowed.
        limit: u64,
        /// Bytes needed with as many micro-batches as queries.
        least: u64,
    },
    /// Micro-batches would make training fit, but they would change the loss.
    #[error(
        "training takes about {}, more than {}; with train.accumsteps = {accumsteps} it fits, but train.ib_scope = \"micro_batch\" makes that another loss: set it yourself, or use train.ib_scope = \"batch\"",
        Bytes(*asked),
        Bytes(*limit)
    )]
    LimitChangesLoss {
        /// Bytes allowed.
        limit: u64,
        /// Bytes needed as asked for.
        asked: u64,
        /// Micro-batches with which it would fit.
        accumsteps: usize,
    },
    /// Every part of the loss that the examples have is weighed with 0.
    #[error(
        "no example counts in the loss: {scored} of {examples} have teacher scores, and the parts of the loss that the \
         examples have weigh 0; raise train.cross_entropy_weight (labels) or train.distillation_weight (teacher scores), \
         or use in-batch negatives"
    )]
    NothingToMinimise {
        /// Training examples.
        examples: usize,
        /// Those with teacher scores.
        scored: usize,
    },
    /// "auto" was asked for where free memory cannot be read.
    #[error("train.memory_limit = \"auto\" needs a Linux system; name a size instead, such as \"6GB\"")]
    NoMemoryReading,
    /// A limit was asked for on a device whose free memory no driver reports, as with wgpu.
    #[error(
        "train.memory_limit cannot be kept on this backend, which does not report the GPU's free memory: remove it, and \
         set train.accumsteps if a step does not fit"
    )]
    NoDeviceMemoryReading,
    /// A step did not fit into the device's memory.
    #[error(
        "{backend}: out of memory at step {step}, in a batch of {batch_size} queries of which {micro_batch} were computed at once; \
         {} (the device: {said})", what_fits(*batch_size, *fits)
    )]
    OutOfMemory {
        /// The backend and device.
        backend: String,
        /// Optimizer step, from 1.
        step: usize,
        /// Queries of the batch.
        batch_size: usize,
        /// Queries that were computed at once.
        micro_batch: usize,
        /// The most queries at once with which a step of the longest texts fits; none if not even one does.
        fits: Option<usize>,
        /// The device's words.
        said: String,
    },
    /// The hub does not have a model, does not give it, or gives something else.
    #[error("{name}: {problem}; {advice}")]
    Hub {
        /// Model, or file of a model.
        name: String,
        /// The problem.
        problem: String,
        /// A fix.
        advice: &'static str,
    },
    /// The hub cannot be reached.
    #[error(
        "{name}: there is no folder of that name, and {url} is not available (tried {tries} times; {problem}); check the network \
         and HF_ENDPOINT, give the path of a folder, or set HF_HUB_OFFLINE=1 if the model was downloaded before"
    )]
    HubUnreachable {
        /// Model, or file of a model.
        name: String,
        /// Address that was asked for.
        url: String,
        /// How often.
        tries: u32,
        /// The last answer.
        problem: String,
    },
    /// The model that training starts from cannot be written as a model directory.
    #[error(
        "the model that training starts from cannot be written as a model directory, so that no trained model could be \
         saved; mend its files, start from another model, or change export_dtype"
    )]
    StartNotExportable {
        /// The reason.
        #[source]
        source: ModelError,
    },
    /// A directory that was never trained for retrieval cannot be searched with.
    #[error("{} is no ColBERT: it has no projection, or no settings; train it first", path.display())]
    NoColbert {
        /// The directory.
        path: PathBuf,
    },
    /// A text of nothing but white space.
    #[error("{what} {index} (from 0) is empty; remove it or fill it in")]
    EmptyText {
        /// `query` or `document`.
        what: &'static str,
        /// Its place in the list.
        index: usize,
    },
    /// Nothing was asked for.
    #[error("k = 0 asks for no hit at all; expected 1 or more")]
    NoHits,
    /// Vectors of two models cannot be compared.
    #[error("these documents were encoded by another model than {}; encode them again", path.display())]
    OtherModel {
        /// The directory of the given model.
        path: PathBuf,
    },
    /// Vectors cannot be cut to a size.
    #[error("vectors of {} cannot be cut to {found} numbers; expected 1 to {dim}, which they have", path.display())]
    NoSuchSize {
        /// The directory of the model.
        path: PathBuf,
        /// The size that was asked for.
        found: usize,
        /// The size of its vectors.
        dim: usize,
    },
    /// Vectors of two sizes cannot be compared.
    #[error(
        "these documents have vectors of {found} numbers, and the model is used with {expected}: use it with {found}, or \
         encode the documents again"
    )]
    OtherSize {
        /// Size of the documents' vectors.
        found: usize,
        /// Size of the model's.
        expected: usize,
    },
    /// A document that is not there.
    #[error("there is no document {id}")]
    UnknownDocument {
        /// Its id, or its place.
        id: String,
    },
    /// Two documents with one id.
    #[error("there is a document with the id {id} already; delete it first, or leave ids out")]
    DuplicateDocument {
        /// The id.
        id: String,
    },
    /// An index that cannot be read or written.
    #[cfg(feature = "index")]
    #[error("cannot {action} the index {}; build it again", path.display())]
    Index {
        /// The attempt.
        action: &'static str,
        /// Its folder.
        path: PathBuf,
        /// The reason.
        #[source]
        source: Box<next_plaid::Error>,
    },
    /// A size of compressed numbers that an index cannot have.
    #[error("nbits = {nbits} with vectors of {dim} numbers; expected 1, 2, 4 or 8, and whole bytes for a vector")]
    Bits {
        /// Bits of a number.
        nbits: usize,
        /// Numbers of a vector.
        dim: usize,
    },
    /// Vectors that do not fit the documents or the folder.
    #[error(
        "found vectors of {} texts with {} numbers each, expected {} texts with {} numbers each",
        found.0, found.1, expected.0, expected.1
    )]
    OtherVectors {
        /// Texts, and numbers of a vector.
        found: (usize, usize),
        /// The same of documents and folder.
        expected: (usize, usize),
    },
    /// Passages that the model cannot take.
    #[error(
        "passages of {tokens} tokens with an overlap of {overlap}; expected 1 to {most} tokens, which is what the model's \
         doc_maxlen leaves for text, and an overlap below that"
    )]
    PassageLength {
        /// Tokens of a passage.
        tokens: usize,
        /// Tokens that two passages share.
        overlap: usize,
        /// Tokens that the model takes besides markers.
        most: usize,
    },
    /// A document folder that cannot be used.
    #[error("{}: {problem}", path.display())]
    DocumentFolder {
        /// The folder, or the file in it.
        path: PathBuf,
        /// The problem, and a fix.
        problem: &'static str,
    },
    /// A JSON file that does not parse.
    #[error("{}: expected {expected}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The expected content.
        expected: &'static str,
        /// Where parsing stopped.
        #[source]
        source: serde_json::Error,
    },
    /// Reading or writing failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The attempt.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

fn what_fits(batch_size: usize, fits: Option<usize>) -> String {
    match fits {
        Some(queries) => format!(
            "{queries} at once fit, by a step that was tried: set train.accumsteps = {}, or train.memory_limit, which finds it before \
             the first step",
            batch_size / queries
        ),
        None => "not even one at once fits: lower train.batch_size, train.doc_maxlen or train.nway".to_owned(),
    }
}

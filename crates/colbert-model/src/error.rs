//! Errors of models: files, tensors, tokenizers.

use std::path::PathBuf;

/// An error of this crate. Every message says what was found and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The named directory is not there.
    #[error(
        "no model directory at {}: give the path of a folder that holds config.json, model.safetensors and tokenizer.json",
        path.display()
    )]
    NoSuchDirectory {
        /// Path that was given.
        path: PathBuf,
    },
    /// A file of a model directory is missing.
    #[error("{} is missing: {hint}", path.display())]
    MissingFile {
        /// The file.
        path: PathBuf,
        /// Advice on how to get it.
        hint: &'static str,
    },
    /// Reading or writing failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// `read`, `write`, `rename`, `create`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A JSON file does not parse or lacks a field.
    #[error("{}: expected {expected}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Content that was expected.
        expected: &'static str,
        /// Where parsing stopped.
        #[source]
        source: serde_json::Error,
    },
    /// A factor of token pooling that is out of range.
    #[error(
        "pool_factor = {found}: expected a number of 1 or more; 2 keeps about half of a document's vectors, 1 all of them"
    )]
    PoolFactor {
        /// The factor.
        found: f64,
    },
    /// The encoder family is not one of ours.
    #[error("{}: model_type \"{found}\" is not supported; supported: {supported}", path.display())]
    UnknownArchitecture {
        /// `config.json`.
        path: PathBuf,
        /// Its `model_type`.
        found: String,
        /// Accepted values.
        supported: String,
    },
    /// A field of `config.json` requires something unsupported.
    #[error("{}: {field} = {found} is not supported; expected {expected}", path.display())]
    UnsupportedConfig {
        /// `config.json`.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// Its value.
        found: String,
        /// Accepted values.
        expected: String,
    },
    /// Options describe a new head, but there is a head already.
    #[error(
        "{} has its head, {found}, and train.head asks for {asked}: leave train.head out to train on, or start from a \
         plain encoder", path.display()
    )]
    HeadIsThere {
        /// The directory.
        path: PathBuf,
        /// Its head.
        found: String,
        /// The head of the options.
        asked: String,
    },
    /// Options describe the first weights of a head that is there already.
    #[error(
        "{} has its head, and train.head_init = \"pca\" is for a new one: leave train.head_init out to train on, or \
         start from a plain encoder", path.display()
    )]
    HeadIsTrained {
        /// The directory.
        path: PathBuf,
    },
    /// Token vectors have fewer principal components than a vector is to have numbers.
    #[error(
        "train.head_init = \"pca\" makes vectors of at most {hidden_size} numbers, the encoder's hidden size, and \
         train.dim is {dim}: lower train.dim, or leave train.head_init out"
    )]
    TooFewComponents {
        /// Numbers of a hidden vector.
        hidden_size: usize,
        /// Numbers of a vector to score.
        dim: usize,
    },
    /// A weight file cannot be read: it is truncated, or its header is wrong.
    #[error("{} is not a whole safetensors file; download or copy it again", path.display())]
    BrokenSafetensors {
        /// The file.
        path: PathBuf,
        /// The parser's message.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// A PyTorch file cannot be read, or is more than a file of weights.
    #[error("{}: {problem}; save the model as safetensors, or get it from another source", path.display())]
    BrokenPickle {
        /// The file.
        path: PathBuf,
        /// The defect.
        problem: String,
    },
    /// Git LFS left a pointer in place of a file.
    #[error("{} is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder", path.display())]
    GitLfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// Tensor names have more than one prefix that is not known.
    #[error("{}: tensor names begin with {found}; the prefix of the encoder cannot be determined; expected {expected}", path.display())]
    UnknownPrefix {
        /// The file.
        path: PathBuf,
        /// The prefixes.
        found: String,
        /// Names that are understood.
        expected: String,
    },
    /// A model returns vectors that are not finite.
    #[error("{}: the model returns vectors that are not finite for the text \"{text}\"; its weights are damaged, or training diverged", path.display())]
    NonFiniteVectors {
        /// The directory.
        path: PathBuf,
        /// The text.
        text: String,
    },
    /// A tensor is not in the weight file.
    #[error("{}: tensor {name} is missing", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// Tensor name as this project spells it.
        name: String,
    },
    /// A tensor has the wrong shape.
    #[error("{}: tensor {name} has shape {found:?}, expected {expected:?}{hint}", path.display())]
    WrongShape {
        /// The file.
        path: PathBuf,
        /// Tensor name.
        name: String,
        /// Shape in the file.
        found: Box<[usize]>,
        /// Shape that config.json or the options require.
        expected: Box<[usize]>,
        /// Advice, starting with a semicolon, or nothing.
        hint: Box<str>,
    },
    /// A tensor has an element type that is not a float.
    #[error("{}: tensor {name} holds {found}; expected f32, f16 or bf16", path.display())]
    WrongDtype {
        /// The file.
        path: PathBuf,
        /// Tensor name.
        name: String,
        /// Its element type.
        found: String,
    },
    /// A tensor holds NaN or infinity.
    #[error("{}: tensor {name} holds a value that is not finite (element {index}); the model is damaged", path.display())]
    NonFiniteWeight {
        /// The file.
        path: PathBuf,
        /// Tensor name.
        name: String,
        /// Flat index of the first such value.
        index: usize,
    },
    /// The tokenizer cannot be read or used.
    #[error("{}: {message}", path.display())]
    Tokenizer {
        /// Tokenizer file or folder.
        path: PathBuf,
        /// The tokenizers library's message.
        message: String,
    },
    /// A token that ColBERT needs is not in the vocabulary.
    #[error(
        "{}: the vocabulary has no token {token}, which is needed as {role}; this encoder needs a token of its own for it",
        path.display()
    )]
    MissingToken {
        /// Tokenizer file or folder.
        path: PathBuf,
        /// The token.
        token: String,
        /// The use that it is needed for.
        role: &'static str,
    },
    /// Tokenizer and embedding matrix do not fit.
    #[error(
        "{}: the tokenizer has ids up to {largest_id} but the encoder has only {vocab_size} word embeddings; \
         tokenizer and weights are not of the same model",
        path.display()
    )]
    VocabularyTooLarge {
        /// Tokenizer file or folder.
        path: PathBuf,
        /// Largest id of the tokenizer.
        largest_id: u32,
        /// Rows of the embedding matrix.
        vocab_size: usize,
    },
    /// A length limit does not fit the encoder.
    #[error("{option} = {found} is out of range: expected {}", range(*minimum, *maximum))]
    LengthOutOfRange {
        /// `query_maxlen` or `doc_maxlen`.
        option: &'static str,
        /// The requested length, in tokens.
        found: usize,
        /// Smallest length that has room for the markers.
        minimum: usize,
        /// Positions the encoder has.
        maximum: usize,
    },
    /// `artifact.metadata` cannot be used.
    #[error("{} cannot be used", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<colbert_config::ConfigError>,
    },
    /// A directory's tokenizer does not return the ids that its own `selfcheck.json` records.
    #[error("{}: the tokenizer returns other tokens than selfcheck.json records for the text: {text}", path.display())]
    SelfCheckTokens {
        /// `selfcheck.json`.
        path: PathBuf,
        /// The first text that differs.
        text: String,
    },
    /// The files of an export cannot express the trained model.
    #[error(
        "{}: a program that reads the exported files would use other tokens than training for the text \"{text}\"; \
         choose markers that are special tokens rather than words, or another export_layout",
        path.display()
    )]
    ExportTokens {
        /// The directory that was not written, or the one that training starts from.
        path: PathBuf,
        /// The first text that differs.
        text: String,
    },
    /// A setting that the layout of an export cannot express.
    #[error("export_layout = \"{layout}\" cannot express {setting}; {advice}")]
    LayoutLacks {
        /// The layout.
        layout: &'static str,
        /// The setting.
        setting: &'static str,
        /// Advice.
        advice: &'static str,
    },
    /// A graph for next-plaid of a model without a marker.
    #[error(
        "{}: model.onnx cannot be written for a model without a token that marks a {side}: next-plaid, which reads it, puts \
         one into every text; set train.{option}, or leave export_onnx out",
        path.display()
    )]
    OnnxWithoutMarker {
        /// The model's directory.
        path: PathBuf,
        /// `query` or `document`.
        side: &'static str,
        /// The option.
        option: &'static str,
    },
    /// A ColBERT whose tokenizer puts nothing around a text.
    #[error(
        "{}: the tokenizer puts no {cls} and {sep} around a text, and this ColBERT was saved with it: with them its vectors \
         would not be those of other programs, and without them nothing is trained here; save its encoder with a tokenizer \
         whose post-processor adds them, and train it as a plain encoder",
        path.display()
    )]
    NothingAroundTexts {
        /// `tokenizer.json`.
        path: PathBuf,
        /// Token before a text.
        cls: String,
        /// Token after a text.
        sep: String,
    },
    /// A number that the type of an export cannot hold.
    #[error("{name} holds {value}, more than {dtype} can; export as float32, or as bfloat16")]
    OutOfRange {
        /// Tensor.
        name: String,
        /// The first such number.
        value: f32,
        /// The type, by PyTorch's name.
        dtype: &'static str,
    },
    /// A model of more bytes than an ONNX file may have.
    #[error(
        "{}: {bytes} bytes of weights do not fit into an ONNX file, which has 2 GiB at most; export it without, or as float16",
        path.display()
    )]
    TooLargeForOnnx {
        /// The model's directory.
        path: PathBuf,
        /// Size of its weights as they would be stored.
        bytes: u64,
    },
    /// The output folder exists already.
    #[error("{} exists already; choose another folder or ask to overwrite it", path.display())]
    OutputExists {
        /// The folder.
        path: PathBuf,
    },
}

fn range(minimum: usize, maximum: usize) -> String {
    if maximum == usize::MAX { format!("{minimum} or more") } else { format!("{minimum} to {maximum}") }
}

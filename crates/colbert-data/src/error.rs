//! Errors in data from outside, each with its place, what was expected and what was found.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use colbert_config::ConfigError;
/// The place that a piece of data came from, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// A line of a file, counted from 1.
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
    },
    /// A record of a file that does not count in lines (a JSON list, Parquet), counted from 1.
    Record {
        /// The file.
        path: PathBuf,
        /// The record, from 1.
        record: u64,
    },
    /// A row of data given in memory, counted from 1.
    Row {
        /// The row, from 1.
        row: u64,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Record { path, record } => write!(f, "{}, record {record}", path.display()),
            Self::Row { row } => write!(f, "raw data, row {row}"),
        }
    }
}

/// An error in data or in their preparation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    // Files
    /// A file or folder does not exist.
    #[error("{}: no such file or folder; expected {expected}", path.display())]
    Missing {
        /// The missing path.
        path: PathBuf,
        /// The expected content.
        expected: String,
    },
    /// A folder stands where a file is needed, or the other way round.
    #[error("{}: expected {expected}, found {found}", path.display())]
    WrongKind {
        /// The path.
        path: PathBuf,
        /// The expected content.
        expected: String,
        /// The content that was found.
        found: String,
    },
    /// The operating system failed to read.
    #[error("{}: reading failed: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A file that is truncated or damaged, so that nothing after that place can be read.
    #[error("{}: the {what} data is truncated or damaged: {source}; fetch or write the file again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// `gzip`, `JSON`, `CSV` or `Parquet`.
        what: &'static str,
        /// The decoder's reason.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A line that is too long.
    #[error("{}, line {line}: expected a line end within {longest} bytes, found none; is it a text file?", path.display())]
    LongLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// Longest line that is read, bytes.
        longest: u64,
    },
    /// A file in a format that this build does not read.
    #[error("{}: {what} is not read by this build; {advice}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The file's format.
        what: String,
        /// The way out.
        advice: String,
    },
    /// Columns whose roles are not clear.
    #[error(
        "{place}: {problem}; the columns are {columns}; say which is which with data.columns{} \
         (roles: query, positive, negative, document, label, scores, ignore)",
        suggestion.as_ref().map(|roles| format!(", such as \"{roles}\"")).unwrap_or_default()
    )]
    Columns {
        /// Where the columns are named.
        place: Place,
        /// The unclear part.
        problem: String,
        /// All columns.
        columns: String,
        /// Roles that may be meant, in the form of `data.columns`; following the suggestion makes the data readable.
        suggestion: Option<String>,
    },
    /// Columns of which none, or more than one, could hold the texts.
    #[error(
        "{place}: {problem}; the columns are {columns}; call the one that is meant `text` (and an id `id`, a title `title`)"
    )]
    TextColumn {
        /// Where the columns are named.
        place: Place,
        /// The unclear part.
        problem: String,
        /// All columns.
        columns: String,
    },
    /// The operating system failed to write; nothing was left under the final name.
    #[error("{}: writing failed: {source}; nothing was written under that name", path.display())]
    Write {
        /// The file that was to be written.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// An earlier export that would be replaced.
    #[error("{}: an earlier export is there; name another folder, or pass --overwrite (overwrite = true) to replace it", path.display())]
    EarlierExport {
        /// One of its files.
        path: PathBuf,
    },
    /// A file or raw data without a single row.
    #[error("{origin}: expected {expected}, found no rows at all")]
    NoRows {
        /// File or "raw data".
        origin: String,
        /// The expected row.
        expected: String,
    },

    // Rows
    /// Bytes that are not UTF-8.
    #[error("{place}, byte {byte}: expected UTF-8 text, found other bytes; convert the file to UTF-8")]
    InvalidUtf8 {
        /// Where.
        place: Place,
        /// First bad byte of the line, from 1.
        byte: usize,
    },
    /// A row that is not what its format says.
    #[error("{place}: expected {expected}, found {found}")]
    Malformed {
        /// Where.
        place: Place,
        /// The expected row.
        expected: String,
        /// The row that was found.
        found: String,
    },
    /// A row of another shape than the rows before it.
    #[error("{place}: expected {expected} like the rows before it, found {found}; one file holds one kind of row")]
    MixedRows {
        /// Where.
        place: Place,
        /// Shape of the earlier rows.
        expected: String,
        /// Shape of this row.
        found: String,
    },
    /// A label that is neither the positive nor the negative one.
    #[error(
        "{place}, label: expected `{positive}` (positive) or `{negative}` (negative), found `{found}`; \
         data.positive_label and data.negative_label name the labels; data.format = scored reads a teacher's scores; \
         grades above 1 are read from a column called `grade` or `relevance`"
    )]
    UnknownLabel {
        /// Where.
        place: Place,
        /// Label of a positive.
        positive: String,
        /// Label of a negative.
        negative: String,
        /// The label that is there.
        found: String,
    },
    /// A text of nothing but white space.
    #[error("{place}, {field}: expected a text, found only white space; remove the row or fill it in")]
    EmptyText {
        /// Where.
        place: Place,
        /// Which part of the row.
        field: String,
    },
    /// An id that no row of the other file has.
    #[error("{place}, {field}: id `{id}` is not in {searched}")]
    UnknownId {
        /// Where.
        place: Place,
        /// Which part of the row.
        field: String,
        /// The id.
        id: String,
        /// File that was searched for it.
        searched: String,
    },
    /// An id that two rows with different texts have.
    #[error("{place}, {field}: id `{id}` already names another text; ids must be unique")]
    DuplicateId {
        /// Where the second one is.
        place: Place,
        /// Which part of the row.
        field: String,
        /// The id.
        id: String,
    },
    /// A score that is NaN or infinite.
    #[error("{place}, {field}: expected a finite number, found {found}")]
    NonFinite {
        /// Where.
        place: Place,
        /// Which part of the row.
        field: String,
        /// The number.
        found: String,
    },
    /// Scores and documents that do not pair up.
    #[error("{place}, scores: expected one for each of the {documents} documents, found {scores}")]
    ScoreCount {
        /// Where.
        place: Place,
        /// Documents in the row.
        documents: usize,
        /// Scores in the row.
        scores: usize,
    },
    /// More texts than a `u32` can count.
    #[error("more than {limit} distinct {what}: ids are 32-bit numbers; split the data")]
    TooMany {
        /// Queries or documents.
        what: &'static str,
        /// The largest number of texts.
        limit: u32,
    },

    // Preparation
    /// Options that are out of range or contradict each other.
    #[error(transparent)]
    Options(#[from] ConfigError),
    /// Not one example could be made.
    #[error("no training example could be made: {reason}; {advice}")]
    NoExamples {
        /// Why not.
        reason: String,
        /// The way out.
        advice: String,
    },
    /// A ready-made example with fewer documents than `nway`.
    #[error(
        "example {example} has {documents} documents, but train.nway is {nway}; set train.nway to {documents} or less"
    )]
    ShortExample {
        /// Which example, from 1.
        example: usize,
        /// Its documents.
        documents: usize,
        /// Documents each example must have.
        nway: usize,
    },
    /// A text that is not a language code.
    #[error("language_code: `{found}` is not a language code; {advice}")]
    LanguageCode {
        /// The code.
        found: String,
        /// The right code, or the kind of code that is expected.
        advice: String,
    },
    /// An option out of its range.
    #[error("{option}: expected {expected}, found {found}")]
    OptionRange {
        /// Full name of the option.
        option: &'static str,
        /// Its range.
        expected: String,
        /// The value.
        found: String,
    },
    /// A miner broke its contract.
    #[error("miner {miner}: expected {expected}, found {found}")]
    MinerContract {
        /// Its name.
        miner: String,
        /// The expected result.
        expected: String,
        /// The result that was found.
        found: String,
    },
    /// The tokenizer that counts tokens for a report failed.
    #[error("counting tokens: {source}")]
    Tokenizer {
        /// Its reason.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A teacher broke its contract.
    #[error("teacher {teacher}: expected {expected}, found {found}")]
    TeacherContract {
        /// Its name.
        teacher: String,
        /// The expected result.
        expected: String,
        /// The result that was found.
        found: String,
    },
    /// A teacher failed.
    #[error("teacher {teacher}: {source}")]
    Teacher {
        /// Its name.
        teacher: String,
        /// Its reason.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A miner failed.
    #[error("miner {miner}: {source}")]
    Miner {
        /// Its name.
        miner: String,
        /// Its reason.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl DataError {
    /// Short name of the kind of error, by which bad rows are counted.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing file",
            Self::WrongKind { .. } => "wrong kind of file",
            Self::Read { .. } => "unreadable file",
            Self::Damaged { .. } => "damaged file",
            Self::LongLine { .. } => "endless line",
            Self::Unsupported { .. } => "unsupported file",
            Self::Columns { .. } => "unclear columns",
            Self::TextColumn { .. } => "unclear columns",
            Self::Write { .. } => "unwritable file",
            Self::EarlierExport { .. } => "earlier export",
            Self::NoRows { .. } => "no rows",
            Self::InvalidUtf8 { .. } => "invalid UTF-8",
            Self::Malformed { .. } => "malformed row",
            Self::MixedRows { .. } => "mixed rows",
            Self::UnknownLabel { .. } => "unknown label",
            Self::EmptyText { .. } => "empty text",
            Self::UnknownId { .. } => "unknown id",
            Self::DuplicateId { .. } => "duplicate id",
            Self::NonFinite { .. } => "non-finite score",
            Self::ScoreCount { .. } => "scores and documents differ in number",
            Self::TooMany { .. } => "too many texts",
            Self::NoExamples { .. } => "no examples",
            Self::ShortExample { .. } => "short example",
            Self::LanguageCode { .. } | Self::OptionRange { .. } | Self::Options(_) => "option out of range",
            Self::Tokenizer { .. } => "tokenizer",
            Self::MinerContract { .. } | Self::Miner { .. } => "miner",
            Self::TeacherContract { .. } | Self::Teacher { .. } => "teacher",
        }
    }

    /// Whether a single row is at fault, so that a reader that skips bad rows may count it and go on.
    #[must_use]
    pub fn is_bad_row(&self) -> bool {
        matches!(
            self,
            Self::InvalidUtf8 { .. }
                | Self::Malformed { .. }
                | Self::MixedRows { .. }
                | Self::UnknownLabel { .. }
                | Self::EmptyText { .. }
                | Self::UnknownId { .. }
                | Self::DuplicateId { .. }
                | Self::NonFinite { .. }
                | Self::ScoreCount { .. }
        )
    }
}

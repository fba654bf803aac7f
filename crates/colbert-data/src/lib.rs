//! Texts and ids for ColBERT training: readers and writers, judgements, negatives, examples and the data report.
//!
//! Data flows one way: a reader produces [`RawData`] (each text once, judgements per query), [`prepare`] adds negatives
//! with a [`NegativeMiner`] and produces a [`TrainingSet`], whose [`Example`]s the trainer turns into batches.
//! [`DataReport`] reports problems of raw data before any of that costs time.
//!
//! Nothing here knows a tensor or a tokenizer. Ids are dense `u32`s in order of first sight; equal texts share one id.
//! Everything random is a pure function of a seed and a text
//! ([`NegativeOptions::seed`](colbert_config::NegativeOptions)), so neither the number of threads nor the order of rows
//! changes the negatives of a query.
//!
//! ```
//! use colbert_data::{PrepareOptions, RawData, prepare};
//!
//! let pairs = [("what is a tor", "A tor is a rocky hill."), ("what is a moor", "A moor is wet.")];
//! let mut raw = RawData::from_pairs(pairs)?;
//! raw.add_documents(["A weir is a low dam."])?;
//! let (set, report) = prepare(raw, &PrepareOptions::default(), None)?;
//! assert_eq!(set.queries.text(set.examples[0].query), "what is a tor");
//! println!("{report}");
//! # Ok::<(), colbert_data::DataError>(())
//! ```

mod error;
mod negatives;
mod raw;
mod read;
mod report;
mod sets;
mod texts;
mod write;

pub use error::{DataError, Place};
pub use negatives::bm25::{Bm25Index, Bm25Miner};
pub use negatives::miner::{MiningPhase, MiningProgress, NegativeMiner, Ranked};
pub use negatives::prepare::{PrepareOptions, prepare, prepare_with_teacher};
pub use negatives::prepare_report::{PrepareReport, RankWindow};
pub use negatives::remining::Remining;
pub use negatives::score_cache::ScoreCache;
pub use negatives::teacher::{ScoreExchange, Teacher, Teaching};
pub use raw::counts::{BadRow, BadRows, RowCounts};
pub use raw::labels::Labels;
pub use raw::{DevSplit, RawData};
pub use read::{
    BeirFolder, Candidates, ReadOptions, TextFile, TextRecord, import_reference, read_documents, read_evaluation_set,
    read_texts, read_training_data,
};
pub use report::{
    DataReport, Finding, Histogram, ReportOptions, Severity, SideTokens, TeacherScores, TokenCount, TokenLimits,
    TokenReport, WordLengths, language_mismatch,
};
pub use sets::evaluation_set::EvaluationSet;
pub use sets::reference_files::ReferenceFiles;
pub use sets::training_set::{Example, TrainingSet};
pub use texts::fingerprint::Fingerprint;
pub use texts::judgements::Judgements;
pub use texts::language::TextAnalysis;
pub use texts::language_code::check_language_code;
pub use texts::normalise::normalised;
pub use texts::side::Side;
pub use texts::{Collection, Queries, Texts};
pub use write::reference::export_reference;
pub use write::scored::export_scored;
pub use write::tables::export_tables;

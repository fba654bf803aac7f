//! Traces of a run for people: records, reports, model cards.

pub(crate) mod card;
pub(crate) mod chart;
pub(crate) mod compatibility;
pub(crate) mod data_page;
pub(crate) mod explained_queries;
pub(crate) mod explanation_page;
pub(crate) mod outcome;
pub(crate) mod page;
pub(crate) mod report;
pub(crate) mod run_record;
pub(crate) mod summary;

pub use compatibility::{NotHonoured, not_honoured};
pub use data_page::write_data_page;
pub use explained_queries::{ExplainedDocument, ExplainedQuery};
pub use explanation_page::write_explanations;
pub use outcome::{DevResult, Outcome, TestResult};
pub use report::{write_comparison, write_report};
pub use run_record::{EvaluationLine, Progress, QueryChange, QueryChanges, RunRecord, StepLine, runs_in};
pub use summary::{RunSummary, differing_options};

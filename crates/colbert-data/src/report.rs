//! The report on raw data: figures and findings, before training costs time.

mod false_negatives;
mod finding;
mod findings;
mod foreseen;
mod histogram;
mod language;
mod leakage;
mod odd_texts;
mod teacher;
mod terminal;
mod tokens;
mod words;

use std::path::Path;

use colbert_config::{NegativeOptions, TrainOptions};
use serde::Serialize;

use crate::error::DataError;
use crate::raw::RawData;
use crate::raw::counts::{BadRows, RowCounts};
use crate::sets::evaluation_set::EvaluationSet;
use crate::texts::language::TextAnalysis;
use crate::write::stage;

use foreseen::foreseen;

pub use finding::{Finding, Severity};
pub use histogram::Histogram;
pub use language::language_mismatch;
pub use teacher::TeacherScores;
pub use tokens::{SideTokens, TokenCount, TokenLimits, TokenReport};
pub use words::WordLengths;

/// The inputs of a report besides the data itself.
#[derive(Debug, Clone, Default)]
pub struct ReportOptions<'a> {
    /// Queries and documents that must not be trained on, by the name of their split.
    pub evaluations: Vec<(&'a str, &'a EvaluationSet)>,
    /// The model's tokenizer and lengths, to report how much is cut off.
    pub tokens: Option<TokenLimits<'a>>,
    /// How texts become terms, for lexical matches. Default English.
    pub analysis: TextAnalysis,
    /// The options of training, to foresee what it refuses.
    pub training: Option<(&'a TrainOptions, &'a NegativeOptions)>,
}

/// A report on raw data: its figures and its faults.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataReport {
    /// The source that was read, in one line.
    pub source: String,
    /// Rows by kind.
    pub rows: RowCounts,
    /// Rows that were left out.
    pub bad_rows: BadRows,
    /// Distinct queries.
    pub queries: usize,
    /// Distinct documents.
    pub documents: usize,
    /// (query, positive) pairs.
    pub positives: usize,
    /// (query, negative) pairs.
    pub negatives: usize,
    /// Length of the queries.
    pub query_words: WordLengths,
    /// Length of the documents.
    pub document_words: WordLengths,
    /// Tokens of the texts, where a tokenizer was given.
    pub tokens: Option<TokenReport>,
    /// The teacher's scores, where there are any.
    pub teacher: Option<TeacherScores>,
    /// How lengths and counts are spread.
    pub histograms: Vec<Histogram>,
    /// The findings, the gravest first.
    pub findings: Vec<Finding>,
}

impl DataReport {
    /// Examines raw data, and its overlap with an evaluation set if there is one.
    #[must_use]
    pub fn new(raw: &RawData, evaluation: Option<&EvaluationSet>) -> Self {
        let evaluations = evaluation.map(|set| ("evaluation", set)).into_iter().collect();
        Self::examine(raw, &ReportOptions { evaluations, ..ReportOptions::default() })
    }

    /// Examines raw data with everything that the options give.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] with the tokenizer's own reason.
    pub fn with_options(raw: &RawData, options: &ReportOptions<'_>) -> Result<Self, DataError> {
        let mut report = Self::examine(raw, options);
        if let Some(limits) = &options.tokens {
            let tokens = tokens::examine(raw, limits, &mut report.findings)?;
            let lengths = |side: &SideTokens| side.lengths.iter().map(|&length| length as f64).collect();
            let spread = [
                Histogram::of(
                    "query_tokens",
                    "tokens per query",
                    lengths(&tokens.queries),
                    Some(limits.query_maxlen as f64),
                ),
                Histogram::of(
                    "document_tokens",
                    "tokens per document",
                    lengths(&tokens.documents),
                    Some(limits.doc_maxlen as f64),
                ),
            ];
            report.histograms.splice(0..0, spread.into_iter().flatten());
            report.tokens = Some(tokens);
            report.sort();
        }
        Ok(report)
    }

    fn examine(raw: &RawData, options: &ReportOptions<'_>) -> Self {
        let mut findings = findings::find(raw, &options.evaluations);
        false_negatives::examine(raw, &options.analysis, &mut findings);
        findings.extend(language_mismatch(&raw.queries, &raw.collection, options.analysis.code()));
        if let Some((train, negatives)) = options.training {
            findings.extend(foreseen(raw, train, negatives, &findings));
        }
        let (teacher, spreads) = teacher::examine(raw, &mut findings);
        let judged = |count: fn(&crate::raw::Group) -> usize| raw.groups.iter().map(move |group| count(group) as f64);
        let histograms = [
            Histogram::of("query_words", "words per query", words::lengths(&raw.queries), None),
            Histogram::of("document_words", "words per document", words::lengths(&raw.collection), None),
            Histogram::of("positives", "positives per query", judged(|group| group.positives.len()).collect(), None),
            Histogram::of(
                "negatives",
                "given negatives per query",
                judged(|group| group.negatives.len()).collect(),
                None,
            ),
            Histogram::of("teacher_spread", "best minus worst teacher score of an example", spreads, None),
        ];
        let mut report = Self {
            source: raw.announcement.clone(),
            rows: raw.counts,
            bad_rows: raw.bad_rows.clone(),
            queries: raw.queries.len(),
            documents: raw.collection.len(),
            positives: raw.groups.iter().map(|group| group.positives.len()).sum(),
            negatives: raw.groups.iter().map(|group| group.negatives.len()).sum(),
            query_words: WordLengths::of(&raw.queries),
            document_words: WordLengths::of(&raw.collection),
            tokens: None,
            teacher,
            histograms: histograms.into_iter().flatten().collect(),
            findings,
        };
        report.sort();
        report
    }

    fn sort(&mut self) {
        self.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    }

    /// Writes the report as JSON.
    ///
    /// # Errors
    /// [`DataError::Write`].
    pub fn write_json(&self, path: &Path) -> Result<(), DataError> {
        stage(path, |out| Ok(serde_json::to_writer_pretty(out, self)?))?.publish()
    }

    /// Severity of the gravest finding.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

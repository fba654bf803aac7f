//! What raw data is like and what is wrong with it, before any training costs time.

mod findings;
mod words;

use std::fmt;

use serde::Serialize;

use crate::counts::{BadRows, RowCounts};
use crate::evaluation_set::EvaluationSet;
use crate::raw::RawData;

pub use words::WordLengths;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Note,
    /// Likely to make the model worse or its measurement untrue.
    Warning,
    /// The data contradicts itself or cannot be read.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One thing worth saying about the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// Short name that never changes, for scripts.
    pub name: String,
    /// How many times.
    pub count: u64,
    /// What it is, in words.
    pub message: String,
    /// A few cases.
    pub examples: Vec<String>,
    /// The option or the step that mends it.
    pub mend: String,
}

/// What raw data is like and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataReport {
    /// What was read, in one line.
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
    /// What stands out, the gravest first.
    pub findings: Vec<Finding>,
}

impl DataReport {
    /// Examines raw data, and its overlap with an evaluation set if there is one.
    #[must_use]
    pub fn new(raw: &RawData, evaluation: Option<&EvaluationSet>) -> Self {
        let mut findings = findings::find(raw, evaluation);
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Self {
            source: raw.announcement.clone(),
            rows: raw.counts,
            bad_rows: raw.bad_rows.clone(),
            queries: raw.queries.len(),
            documents: raw.collection.len(),
            positives: raw.groups.iter().map(|group| group.positives.len()).sum(),
            negatives: raw.groups.iter().map(|group| group.negatives.len()).sum(),
            query_words: WordLengths::of(&raw.queries),
            document_words: WordLengths::of(&raw.collection),
            findings,
        }
    }

    /// Severity of the gravest finding.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

impl fmt::Display for DataReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.source)?;
        let rows = [
            ("pairs", self.rows.pairs),
            ("labelled pairs", self.rows.labelled_pairs),
            ("triplets", self.rows.triplets),
            ("ready-made examples", self.rows.ready_made),
            ("judgements", self.rows.judgements),
            ("further documents", self.rows.documents),
            ("rows left out", self.bad_rows.total()),
        ];
        for (name, count) in rows.into_iter().filter(|(_, count)| *count > 0) {
            writeln!(f, "  {name:<22}{count:>10}")?;
        }
        let distinct = [
            ("distinct queries", self.queries),
            ("distinct documents", self.documents),
            ("positives", self.positives),
            ("given negatives", self.negatives),
        ];
        for (name, count) in distinct {
            writeln!(f, "  {name:<22}{count:>10}")?;
        }
        writeln!(f, "\n  words          mean  median     90%     99%     max")?;
        for (name, words) in [("queries", &self.query_words), ("documents", &self.document_words)] {
            let WordLengths { mean, median, p90, p99, max } = words;
            writeln!(f, "  {name:<11}{mean:>8.1}{median:>8}{p90:>8}{p99:>8}{max:>8}")?;
        }
        if self.findings.is_empty() {
            return writeln!(f, "\nNothing stands out.");
        }
        writeln!(f)?;
        for finding in &self.findings {
            writeln!(f, "{:<9}{}", finding.severity, finding.message)?;
            for example in &finding.examples {
                writeln!(f, "           e.g. {example}")?;
            }
            writeln!(f, "         -> {}", finding.mend)?;
        }
        Ok(())
    }
}

//! A finding of the report, and the cases that make one.

use std::fmt;

use serde::Serialize;

/// Cases shown with a finding.
const EXAMPLES: usize = 3;
/// Characters of a text shown in a case.
const SHOWN: usize = 60;

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Note,
    /// Likely to make the model worse or its measurement wrong.
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

/// A finding of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its severity.
    pub severity: Severity,
    /// Short name that never changes, for scripts.
    pub name: String,
    /// Number of cases.
    pub count: u64,
    /// The finding in words.
    pub message: String,
    /// A few cases.
    pub examples: Vec<String>,
    /// The option or the step that fixes it.
    pub fix: String,
}

/// Counts cases and keeps the first few.
#[derive(Default)]
pub(super) struct Cases {
    count: u64,
    examples: Vec<String>,
}

impl Cases {
    pub(super) fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(example());
        }
    }

    /// A finding, if there was a case. `message` follows the count.
    pub(super) fn report(self, severity: Severity, name: &str, message: &str, fix: &str, findings: &mut Vec<Finding>) {
        if self.count > 0 {
            findings.push(Finding {
                severity,
                name: name.to_owned(),
                count: self.count,
                message: format!("{} {message}", self.count),
                examples: self.examples,
                fix: fix.to_owned(),
            });
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn of(count: u64) -> Self {
        Self { count, examples: Vec::new() }
    }
}

/// The start of a text, on one line.
pub(super) fn shown(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= SHOWN { text } else { format!("{}...", text.chars().take(SHOWN).collect::<String>()) }
}

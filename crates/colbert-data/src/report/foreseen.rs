//! Refusals of training that the data and the options together show.

use colbert_config::{ConfigError, NegativeOptions, TrainOptions};

use super::finding::{Finding, Severity};
use crate::error::DataError;
use crate::negatives::prepare::{PrepareOptions, prepare};
use crate::raw::RawData;

/// Queries and documents, at most, for which examples are made to count them.
const MOST: usize = 10_000;

/// Returns the refusal of training, in its own words: no example, an example with too few documents, or too few
/// examples for a batch. Negatives are drawn at random here, which gives as many as mining gives or more.
pub(super) fn foreseen(
    raw: &RawData,
    train: &TrainOptions,
    negatives: &NegativeOptions,
    findings: &[Finding],
) -> Option<Finding> {
    let is_known = findings.iter().any(|finding| finding.severity == Severity::Error);
    if is_known || raw.queries.len().max(raw.collection.len()) > MOST {
        return None;
    }
    let options = PrepareOptions {
        negatives: NegativeOptions { mine_hard_negatives: false, teacher: None, ..negatives.clone() },
        nway: train.nway,
        draw_negatives: train.draw_negatives,
        ..PrepareOptions::default()
    };
    let finding = |severity, name: &str, message, fix: String| {
        Some(Finding { severity, name: name.to_owned(), count: 1, message, examples: Vec::new(), fix })
    };
    match prepare(raw.clone(), &options, None) {
        Err(DataError::NoExamples { reason, advice }) => {
            let message = format!("no training example could be made: {reason}");
            finding(Severity::Error, "no_examples", message, advice)
        }
        Err(error @ DataError::ShortExample { documents, .. }) => {
            let fix = format!("set train.nway to {documents} or less");
            finding(Severity::Error, "short_example", error.to_string(), fix)
        }
        // Other refusals depend on options alone and are reported where these are read.
        Err(_) => None,
        Ok((set, _)) => {
            let (examples, epochs, batch_size) = (set.examples.len(), train.epochs, train.batch_size);
            let is_short = examples.saturating_mul(epochs) < batch_size;
            let message = ConfigError::TooFewExamples { examples, epochs, batch_size }.to_string();
            let fix = "the data are not at fault: a smaller batch trains on them".to_owned();
            // The data are sound, and the batch size is chosen when a run is.
            is_short.then(|| finding(Severity::Note, "too_few_examples", message, fix)).flatten()
        }
    }
}

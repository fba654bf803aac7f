//! Checks of the texts themselves: twins, lengths, placeholders, and ids in place of texts.

use std::collections::HashSet;

use super::finding::{Cases, Finding, Severity, shown};
use super::words::{WordLengths, words};
use crate::raw::RawData;
use crate::texts::Texts;
use crate::texts::ids::is_id_like;
use crate::texts::twins::Twins;

/// Ratio of medians from which other documents count as longer than the positives.
const LONGER: usize = 3;

pub(super) fn equal_texts(raw: &RawData, twins: &Twins, findings: &mut Vec<Finding>) {
    let (mut documents, mut queries) = (Cases::default(), Cases::default());
    for group in twins.groups() {
        documents.add(|| shown(raw.collection.text(group[0])));
    }
    for group in Twins::find(&raw.queries).groups() {
        queries.add(|| shown(raw.queries.text(group[0])));
    }
    documents.report(
        Severity::Note,
        "equal_documents",
        "groups of documents differ in case, white space and Unicode form only",
        "nothing to do: none becomes a negative where another is a positive",
        findings,
    );
    queries.report(
        Severity::Note,
        "equal_queries",
        "groups of queries differ in case, white space and Unicode form only",
        "nothing to do: the positives of one are never negatives of another",
        findings,
    );
}

/// Documents that are much longer than the positives can be told from them by length alone.
pub(super) fn long_documents(raw: &RawData, findings: &mut Vec<Finding>) {
    let positives: HashSet<u32> = raw.groups.iter().flat_map(|group| group.positives.iter().copied()).collect();
    let lengths = |of_positives: bool| {
        let pids = (0..raw.collection.len() as u32).filter(|pid| positives.contains(pid) == of_positives);
        WordLengths::of_lengths(pids.map(|pid| words(raw.collection.text(pid))).collect())
    };
    let (positive, other) = (lengths(true), lengths(false));
    if !positives.is_empty() && other.median >= LONGER * positive.median.max(1) {
        Cases::of((raw.collection.len() - positives.len()) as u64).report(
            Severity::Warning,
            "long_negatives",
            &format!(
                "documents that are no positive have a median of {} words, positives one of {}",
                other.median, positive.median
            ),
            "cut data.all_documents into passages as long as the positives",
            findings,
        );
    }
}

/// Placeholders of missing texts, as pandas and databases write them.
const PLACEHOLDERS: [&str; 18] = [
    "nan",
    "null",
    "none",
    "nil",
    "n/a",
    "#n/a",
    "na",
    "<na>",
    "nat",
    "undefined",
    "[deleted]",
    "[removed]",
    "-",
    "--",
    "?",
    "...",
    "todo",
    "tbd",
];

pub(super) fn placeholders(raw: &RawData, findings: &mut Vec<Finding>) {
    let mut cases = Cases::default();
    for text in raw.queries.iter().chain(raw.collection.iter()) {
        if text.len() <= 16 && PLACEHOLDERS.contains(&text.trim().to_lowercase().as_str()) {
            cases.add(|| shown(text));
        }
    }
    cases.report(
        Severity::Warning,
        "placeholder_texts",
        "texts stand for a missing one, and are trained on like others",
        "remove their rows, or fill them in",
        findings,
    );
}

/// Ids in place of texts, which may have been intended if the user assigned the roles of columns.
pub(super) fn ids(raw: &RawData, findings: &mut Vec<Finding>) {
    let sides = [("queries", sample_of_ids(&raw.queries)), ("documents", sample_of_ids(&raw.collection))];
    for (side, cases) in sides {
        cases.unwrap_or_default().report(
            Severity::Warning,
            "ids_as_texts",
            &format!("of the first {side} have the form of ids or numbers, not of texts"),
            "read the files in which these ids have their texts",
            findings,
        );
    }
}

/// Cases among the first texts, if nearly all of these are ids.
fn sample_of_ids<Kind>(texts: &Texts<Kind>) -> Option<Cases> {
    let mut cases = Cases::default();
    let looked_at = texts.len().min(200);
    for text in texts.iter().take(looked_at).filter(|text| is_id_like(text)) {
        cases.add(|| shown(text));
    }
    (looked_at > 1 && cases.count() * 10 >= 9 * looked_at as u64).then_some(cases)
}

//! The check for texts of evaluation sets in the training data.

use std::collections::HashSet;

use super::finding::{Cases, Finding, Severity, shown};
use crate::raw::RawData;
use crate::sets::evaluation_set::EvaluationSet;
use crate::texts::twins::normalised_hash;

/// Texts of evaluation sets that are also trained on.
pub(super) fn leakage(raw: &RawData, evaluations: &[(&str, &EvaluationSet)], findings: &mut Vec<Finding>) {
    if evaluations.is_empty() {
        return;
    }
    let trained_queries: HashSet<u64> = raw.queries.iter().map(normalised_hash).collect();
    let positives: HashSet<u32> = raw.groups.iter().flat_map(|group| group.positives.iter().copied()).collect();
    let trained_documents: HashSet<u64> =
        positives.iter().map(|&pid| normalised_hash(raw.collection.text(pid))).collect();
    for (name, evaluation) in evaluations {
        let (mut queries, mut documents) = (Cases::default(), Cases::default());
        for query in evaluation.queries.iter().filter(|query| trained_queries.contains(&normalised_hash(query))) {
            queries.add(|| shown(query));
        }
        let mut seen = HashSet::new();
        for pid in (0..evaluation.queries.len() as u32).flat_map(|qid| evaluation.judgements.positives(qid)) {
            let text = evaluation.collection.text(pid);
            if seen.insert(pid) && trained_documents.contains(&normalised_hash(text)) {
                documents.add(|| shown(text));
            }
        }
        queries.report(
            Severity::Warning,
            "leaked_queries",
            &format!("{name} queries are trained on, but for case, white space and Unicode form"),
            "remove them from one side; the measured quality is better than the true one",
            findings,
        );
        documents.report(
            Severity::Warning,
            "leaked_documents",
            &format!("documents relevant to {name} queries are positives in training"),
            "fine if real queries share documents with the training data; if not, split the data by document",
            findings,
        );
    }
}

//! The data report on a set with each defect planted once.

use std::sync::Arc;

use colbert_data::{Collection, DataReport, EvaluationSet, Judgements, Queries, RawData, Severity};

use crate::support::assert_parts;

#[test]
fn every_planted_defect_is_found_once() {
    let raw = RawData::from_triplets([
        ("what is a tor", vec!["A tor is a hill."], vec!["A moor is wet."]),
        ("what is a tor", vec!["A tor is a hill."], vec!["A moor is wet."]),
        ("contradiction", vec!["same text"], vec!["same text"]),
        ("near contradiction", vec!["Nearly the same"], vec!["nearly  the same"]),
        ("An Echo", vec!["an echo "], vec!["something else"]),
        ("two positives", vec!["one", "two"], vec!["three"]),
        ("no negative", vec!["alone"], vec![]),
    ])
    .unwrap();
    let (mut queries, mut collection, mut judgements) = (Queries::new(), Collection::new(), Judgements::new());
    queries.add("What is a TOR").unwrap();
    queries.add("unseen query").unwrap();
    collection.add("alone").unwrap();
    collection.add("unseen document").unwrap();
    judgements.insert(0, 1, 1);
    judgements.insert(1, 0, 1);
    let evaluation = EvaluationSet { queries, collection: Arc::new(collection), judgements };

    let report = DataReport::new(&raw, Some(&evaluation));
    let mut found: Vec<_> = report.findings.iter().map(|finding| (finding.name.as_str(), finding.count)).collect();
    found.sort_unstable();
    let expected = [
        ("duplicate_rows", 1),
        ("equal_documents", 1),
        ("leaked_documents", 1),
        ("leaked_queries", 1),
        ("nearly_positive_and_negative", 1),
        ("no_negative", 1),
        ("positive_and_negative", 1),
        ("query_equals_positive", 1),
        ("several_positives", 1),
    ];
    assert_eq!(found, expected);
    assert_eq!(report.findings[0].severity, Severity::Error, "the gravest comes first");
    assert!(report.findings.iter().all(|finding| !finding.mend.is_empty()));
    let text = report.to_string();
    assert_parts(
        &text,
        &["error    1 times the same text", "e.g. contradiction | same text", "distinct queries", "median"],
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["findings"][0]["severity"], "error");
    assert_eq!(json["rows"]["triplets"], 7);
}

#[test]
fn good_data_has_no_findings() {
    let raw = RawData::from_triplets([("q", ["p"], ["n"]), ("r", ["s"], ["t"])]).unwrap();
    let report = DataReport::new(&raw, None);
    assert_eq!(report.worst(), None);
    assert_parts(&report.to_string(), &["Nothing stands out."]);
}

#[test]
fn a_teacher_without_an_opinion_is_noticed() {
    let raw =
        RawData::from_scored([("q", vec!["a", "b"], vec![1.0, 1.0]), ("r", vec!["a", "b"], vec![1.0, 0.0])]).unwrap();
    let report = DataReport::new(&raw, None);
    assert_eq!(
        report.findings.iter().map(|finding| (finding.name.as_str(), finding.count)).collect::<Vec<_>>(),
        [("flat_scores", 1)]
    );
}

//! The checks of the data report in their order, and those of rows and judgements. Each looks for one problem and says
//! how to fix it.

use std::collections::HashSet;

use super::finding::{Cases, Finding, Severity, shown};
use super::leakage::leakage;
use super::odd_texts::{equal_texts, ids, long_documents, placeholders};
use crate::negatives::prepare::all_positive;
use crate::raw::{Group, RawData};
use crate::sets::evaluation_set::EvaluationSet;
use crate::texts::judgements::Judgements;
use crate::texts::normalise::is_same;
use crate::texts::pid_set::PidSet;
use crate::texts::twins::Twins;

pub(super) fn find(raw: &RawData, evaluations: &[(&str, &EvaluationSet)]) -> Vec<Finding> {
    let twins = Twins::find(&raw.collection);
    let known = raw.known_positives(&twins);
    let mut findings = Vec::new();
    bad_rows(raw, &mut findings);
    contradictions(raw, &known, &mut findings);
    echoes(raw, &mut findings);
    without_positives(raw, &mut findings);
    duplicate_rows(raw, &mut findings);
    equal_texts(raw, &twins, &mut findings);
    several_positives(raw, &mut findings);
    without_negatives(raw, &mut findings);
    passed_over(raw, &mut findings);
    long_documents(raw, &mut findings);
    repeated_examples(raw, &mut findings);
    not_one_example(raw, &mut findings);
    no_negatives(raw, &known, &mut findings);
    placeholders(raw, &mut findings);
    ids(raw, &mut findings);
    leakage(raw, evaluations, &mut findings);
    findings
}

fn groups(raw: &RawData) -> impl Iterator<Item = (u32, &Group)> {
    raw.groups.iter().enumerate().map(|(qid, group)| (qid as u32, group))
}

fn bad_rows(raw: &RawData, findings: &mut Vec<Finding>) {
    let bad = &raw.bad_rows;
    if bad.total() > 0 {
        findings.push(Finding {
            severity: Severity::Error,
            name: "bad_rows".to_owned(),
            count: bad.total(),
            message: bad.to_string(),
            examples: bad.first.iter().map(|row| row.message.clone()).collect(),
            fix: "fix the rows named here; data.columns says which column plays which role".to_owned(),
        });
    }
}

fn contradictions(raw: &RawData, known: &Judgements, findings: &mut Vec<Finding>) {
    let (mut same, mut nearly) = (Cases::default(), Cases::default());
    for (qid, group) in groups(raw) {
        let positives = PidSet::of(&group.positives);
        for &pid in &group.negatives {
            let case = || format!("{} | {}", shown(raw.queries.text(qid)), shown(raw.collection.text(pid)));
            if positives.contains(pid) {
                same.add(case);
            } else if known.is_positive(qid, pid) {
                nearly.add(case);
            }
        }
    }
    same.report(
        Severity::Error,
        "positive_and_negative",
        "times the same text is positive and negative for one query",
        "remove one of the two rows; as it is, the text counts as a positive",
        findings,
    );
    nearly.report(
        Severity::Warning,
        "nearly_positive_and_negative",
        "negatives equal a positive of their query but for case, white space and Unicode form",
        "remove those negatives; as it is, they are left out",
        findings,
    );
}

fn echoes(raw: &RawData, findings: &mut Vec<Finding>) {
    let mut cases = Cases::default();
    for (qid, group) in groups(raw) {
        let query = raw.queries.text(qid);
        if group.positives.iter().any(|&pid| is_same(raw.collection.text(pid), query)) {
            cases.add(|| shown(raw.queries.text(qid)));
        }
    }
    cases.report(
        Severity::Warning,
        "query_equals_positive",
        "queries are their own positive, but for case, white space and Unicode form",
        "check which column is the query; remove such rows, which teach nothing",
        findings,
    );
}

fn without_positives(raw: &RawData, findings: &mut Vec<Finding>) {
    let mut cases = Cases::default();
    for (qid, _) in groups(raw).filter(|(_, group)| group.positives.is_empty()) {
        cases.add(|| shown(raw.queries.text(qid)));
    }
    cases.report(
        Severity::Warning,
        "no_positive",
        "queries have no positive and give no example",
        "give each a positive; check data.positive_label",
        findings,
    );
}

fn duplicate_rows(raw: &RawData, findings: &mut Vec<Finding>) {
    Cases::of(raw.counts.duplicates).report(
        Severity::Note,
        "duplicate_rows",
        "rows say nothing that an earlier row did not",
        "nothing to do: each fact counts once",
        findings,
    );
}

fn several_positives(raw: &RawData, findings: &mut Vec<Finding>) {
    let mut cases = Cases::default();
    for (qid, _) in groups(raw).filter(|(_, group)| group.positives.len() > 1) {
        cases.add(|| shown(raw.queries.text(qid)));
    }
    cases.report(
        Severity::Note,
        "several_positives",
        "queries have several positives",
        "nothing to do: every positive gets its examples",
        findings,
    );
}

fn without_negatives(raw: &RawData, findings: &mut Vec<Finding>) {
    let lacks_some = |group: &Group| !group.positives.is_empty() && group.negatives.is_empty() && raw.ready.is_empty();
    Cases::of(groups(raw).filter(|(_, group)| lacks_some(group)).count() as u64).report(
        Severity::Note,
        "no_negative",
        "queries have no negative of their own",
        "negatives.num_new_negatives adds some (0 would leave these queries without an example)",
        findings,
    );
}

fn passed_over(raw: &RawData, findings: &mut Vec<Finding>) {
    Cases::of(raw.counts.empty_documents).report(
        Severity::Note,
        "empty_documents",
        "documents without text, which no judgement needs, were left out",
        "nothing to do",
        findings,
    );
    Cases::of(raw.counts.blank_lines).report(
        Severity::Note,
        "blank_lines",
        "blank lines were passed over",
        "nothing to do",
        findings,
    );
}

/// Ready-made examples that repeat an earlier one.
fn repeated_examples(raw: &RawData, findings: &mut Vec<Finding>) {
    let (mut seen, mut cases) = (HashSet::new(), Cases::default());
    for example in &raw.ready {
        let mut others = example.documents[1..].to_vec();
        others.sort_unstable();
        if !seen.insert((example.query, example.documents[0], others)) {
            cases.add(|| shown(raw.queries.text(example.query)));
        }
    }
    cases.report(
        Severity::Warning,
        "repeated_examples",
        "ready-made examples have the query and documents of an earlier one",
        "remove them, unless these are meant to count more",
        findings,
    );
}

fn not_one_example(raw: &RawData, findings: &mut Vec<Finding>) {
    if raw.ready.is_empty() && raw.groups.iter().all(|group| group.positives.is_empty()) {
        Cases::of(1).report(
            Severity::Error,
            "no_examples",
            "source gives not one training example: no query has a positive",
            "check data.format, data.columns and data.positive_label",
            findings,
        );
    }
}

/// Every document is a positive of every query; preparation would end with the same message.
fn no_negatives(raw: &RawData, known: &Judgements, findings: &mut Vec<Finding>) {
    let mut judged = groups(raw).filter(|(_, group)| !group.positives.is_empty()).peekable();
    if !raw.ready.is_empty() || judged.peek().is_none() {
        return;
    }
    let documents = raw.collection.len();
    let has_negative = |(qid, group): (u32, &Group)| {
        group.negatives.iter().any(|&pid| !known.is_positive(qid, pid)) || known.positives(qid).count() < documents
    };
    if !judged.any(has_negative) {
        let (message, fix) = all_positive(documents);
        let (severity, name, examples) = (Severity::Error, "no_negatives".to_owned(), Vec::new());
        findings.push(Finding { severity, name, count: 1, message, examples, fix: fix.to_owned() });
    }
}

//! The checks of the data report. Each looks for one problem and says how to fix it.

use std::collections::HashSet;

use super::words::{WordLengths, words};
use super::{Finding, Severity};
use crate::negatives::prepare::all_positive;
use crate::raw::{Group, RawData};
use crate::sets::evaluation_set::EvaluationSet;
use crate::texts::Texts;
use crate::texts::ids::is_id_like;
use crate::texts::judgements::Judgements;
use crate::texts::normalise::is_same;
use crate::texts::pid_set::PidSet;
use crate::texts::twins::{Twins, normalised_hash};

/// Cases shown with a finding.
const EXAMPLES: usize = 3;
/// Characters of a text shown in a case.
const SHOWN: usize = 60;
/// Ratio of medians from which other documents count as longer than the positives.
const LONGER: usize = 3;

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

    fn of(count: u64) -> Self {
        Self { count, examples: Vec::new() }
    }
}

/// The start of a text, on one line.
pub(super) fn shown(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= SHOWN { text } else { format!("{}...", text.chars().take(SHOWN).collect::<String>()) }
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

fn equal_texts(raw: &RawData, twins: &Twins, findings: &mut Vec<Finding>) {
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

/// Documents that are much longer than the positives can be told from them by length alone.
fn long_documents(raw: &RawData, findings: &mut Vec<Finding>) {
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

fn placeholders(raw: &RawData, findings: &mut Vec<Finding>) {
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
fn ids(raw: &RawData, findings: &mut Vec<Finding>) {
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
    (looked_at > 1 && cases.count * 10 >= 9 * looked_at as u64).then_some(cases)
}

/// Texts of evaluation sets that are also trained on.
fn leakage(raw: &RawData, evaluations: &[(&str, &EvaluationSet)], findings: &mut Vec<Finding>) {
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

//! Given negatives that are likely relevant: nearly the same words as a positive, or a better lexical match than it.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use super::finding::{Cases, Finding, Severity, shown};
use crate::raw::{Group, RawData};
use crate::texts::language::{Analyzer, TextAnalysis};
use crate::texts::normalise::normalised;

/// Share of common words from which two texts count as near duplicates (Jaccard index of their word sets).
const NEAR: f64 = 0.8;
/// Texts with fewer words are not compared.
const FEWEST_WORDS: usize = 5;
/// Maximum number of positives, and of given negatives, of one query that are compared, spread evenly: the time to
/// compare them grows with the product of both.
const COMPARED: usize = 200;
/// Queries compared by lexical match, spread evenly.
const QUERIES: usize = 2_000;
/// Documents that term statistics come from, spread evenly.
const DOCUMENTS: usize = 20_000;

pub(super) fn examine(raw: &RawData, analysis: &TextAnalysis, findings: &mut Vec<Finding>) {
    near_duplicates(raw, findings);
    better_matches(raw, analysis, findings);
}

fn case(raw: &RawData, qid: u32, pid: u32) -> String {
    format!("{} | {}", shown(raw.queries.text(qid)), shown(raw.collection.text(pid)))
}

fn near_duplicates(raw: &RawData, findings: &mut Vec<Finding>) {
    let found: Vec<(u32, u32)> = raw
        .groups
        .par_iter()
        .enumerate()
        .filter(|(_, group)| !group.positives.is_empty() && !group.negatives.is_empty())
        .flat_map_iter(|(qid, group)| {
            let positives: Vec<_> = spread(&group.positives).map(|pid| words(raw.collection.text(pid))).collect();
            let is_near = |pid: &u32| {
                let negative = words(raw.collection.text(*pid));
                positives.iter().any(|positive| is_near(positive, &negative))
            };
            let near: Vec<_> = spread(&group.negatives).filter(is_near).map(|pid| (qid as u32, pid)).collect();
            near
        })
        .collect();
    let mut cases = Cases::default();
    found.into_iter().for_each(|(qid, pid)| cases.add(|| case(raw, qid, pid)));
    cases.report(
        Severity::Warning,
        "near_duplicate_negatives",
        "given negatives have nearly the same words as a positive of their query: likely false negatives",
        "remove those negatives, or call them positives",
        findings,
    );
}

/// Returns all members of a short list, or members spread evenly over a long one.
fn spread(pids: &[u32]) -> impl Iterator<Item = u32> {
    let taken = pids.len().min(COMPARED);
    (0..taken).map(move |index| pids[index * pids.len() / taken])
}

fn words(text: &str) -> HashSet<String> {
    text.split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// Near, but not the same: equal texts are another finding.
fn is_near(a: &HashSet<String>, b: &HashSet<String>) -> bool {
    let shared = a.intersection(b).count();
    let all = a.len() + b.len() - shared;
    a.len().min(b.len()) >= FEWEST_WORDS && shared < all && shared as f64 >= NEAR * all as f64
}

fn better_matches(raw: &RawData, analysis: &TextAnalysis, findings: &mut Vec<Finding>) {
    let judged = |(qid, group): (usize, &Group)| {
        (!group.positives.is_empty() && !group.negatives.is_empty()).then_some(qid as u32)
    };
    let all: Vec<u32> = raw.groups.iter().enumerate().filter_map(judged).collect();
    if all.is_empty() {
        return;
    }
    let examined = all.len().min(QUERIES);
    let statistics = Statistics::of(raw, analysis);
    let found: Vec<(usize, Vec<(u32, u32)>)> = (0..examined)
        .into_par_iter()
        .map(|index| {
            let qid = all[index * all.len() / examined];
            let group = &raw.groups[qid as usize];
            let query = statistics.terms(raw.queries.text(qid));
            let score = |pid: &u32| statistics.score(&query, raw.collection.text(*pid));
            let positive = spread(&group.positives).map(|pid| score(&pid)).fold(0.0, f64::max);
            // Texts equal to a positive are another finding.
            let says = |pid: &u32| normalised(raw.collection.text(*pid));
            let positives: HashSet<String> = group.positives.iter().map(says).collect();
            let is_same = |pid: &u32| positives.contains(&says(pid));
            let better = group.negatives.iter().filter(|pid| positive > 0.0 && score(pid) >= positive && !is_same(pid));
            (group.negatives.len(), better.map(|&pid| (qid, pid)).collect())
        })
        .collect();
    let mut cases = Cases::default();
    for (qid, pid) in found.iter().flat_map(|(_, better)| better) {
        cases.add(|| case(raw, *qid, *pid));
    }
    let negatives: usize = found.iter().map(|(negatives, _)| negatives).sum();
    let message = format!(
        "of {negatives} given negatives looked at match their query's words at least as well as its positive does (BM25)"
    );
    cases.report(
        Severity::Note,
        "lexically_better_negatives",
        &message,
        "look at these: many are hard negatives, some are positives that nobody marked",
        findings,
    );
}

/// Document frequencies of terms, for BM25 with k1 = 1.2 and b = 0.75.
struct Statistics {
    analyzer: Analyzer,
    containing: HashMap<String, u32>,
    documents: f64,
    mean_length: f64,
}

impl Statistics {
    fn of(raw: &RawData, analysis: &TextAnalysis) -> Self {
        let analyzer = analysis.analyzer().expect("n-grams of 1 to 2 letters are a valid range");
        let count = raw.collection.len().min(DOCUMENTS);
        let mut statistics = Self { analyzer, containing: HashMap::new(), documents: count as f64, mean_length: 1.0 };
        let documents: Vec<Vec<String>> = (0..count)
            .into_par_iter()
            .map(|index| statistics.terms(raw.collection.text((index * raw.collection.len() / count) as u32)))
            .collect();
        let total: usize = documents.iter().map(Vec::len).sum();
        for document in documents {
            for term in document.into_iter().collect::<HashSet<_>>() {
                *statistics.containing.entry(term).or_insert(0) += 1;
            }
        }
        statistics.mean_length = (total as f64 / statistics.documents).max(1.0);
        statistics
    }

    fn terms(&self, text: &str) -> Vec<String> {
        self.analyzer.clone().tokens(text).into_iter().map(|token| token.text).collect()
    }

    fn score(&self, query: &[String], document: &str) -> f64 {
        let document = self.terms(document);
        let norm = 1.2 * (0.25 + 0.75 * document.len() as f64 / self.mean_length);
        let of_term = |term: &String| {
            let frequency = document.iter().filter(|word| *word == term).count() as f64;
            let containing = f64::from(self.containing.get(term).copied().unwrap_or(0));
            let idf = (1.0 + (self.documents - containing + 0.5).max(0.0) / (containing + 0.5)).ln();
            idf * frequency * 2.2 / (frequency + norm)
        };
        query.iter().map(of_term).sum()
    }
}

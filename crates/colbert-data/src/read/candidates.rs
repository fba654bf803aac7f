//! Files of candidates: the documents that a first stage found for each query, to be reranked by a model.

use std::path::Path;

use serde_json::Value;

use super::lines::Lines;
use crate::error::{DataError, Place};
use crate::sets::evaluation_set::EvaluationSet;

/// Names of the query's id in an object.
const QUERY_KEYS: [&str; 5] = ["query_id", "query-id", "qid", "_id", "id"];

/// Names of the list of documents in an object.
const DOCUMENT_KEYS: [&str; 7] = ["candidates", "document_ids", "documents", "doc_ids", "docids", "pids", "corpus_ids"];

/// The documents that each query of an evaluation set is ranked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// By query: documents in rising order, each once.
    documents: Vec<Vec<u32>>,
    /// Queries of the file that are not in the set.
    other_queries: usize,
}

impl Candidates {
    /// The candidates of the queries 0, 1 and so on, in any order.
    pub fn new(mut documents: Vec<Vec<u32>>) -> Self {
        for own in &mut documents {
            own.sort_unstable();
            own.dedup();
        }
        Self { documents, other_queries: 0 }
    }

    /// Reads the candidates of the queries of a set. A line is of a TREC run (query id, `Q0`, document id, rank, score,
    /// name), has a query id and a document id (and perhaps a rank or a score) in columns, or is JSON: an object with
    /// `query_id` and `candidates`, or `[query id, [document id, ...]]`. Order and scores do not matter. Queries that
    /// are not in the set are ignored.
    ///
    /// # Errors
    /// A line of another form, a document that is not in the corpus, or no candidates for any query of the set.
    pub fn read(path: &Path, set: &EvaluationSet) -> Result<Self, DataError> {
        let mut lines = Lines::open(path, "candidates: a TREC run, or JSON lines of query ids and document ids")?;
        let mut documents = vec![Vec::new(); set.queries.len()];
        let mut others = std::collections::HashSet::new();
        let mut known = None;
        while lines.advance()? {
            let is_json = lines.text()?.trim_start().starts_with(['{', '[']);
            let (query, found) = if is_json { of_json(&lines)? } else { of_columns(&lines)? };
            // The lines of a query follow each other, mostly.
            let qid = match &known {
                Some((id, qid)) if *id == query => *qid,
                _ => set.queries.qid_of_id(&query),
            };
            known = Some((query.clone(), qid));
            let Some(qid) = qid else {
                others.insert(query);
                continue;
            };
            for id in found {
                let Some(pid) = set.collection.pid_of_id(&id) else {
                    let (place, field, searched) = (lines.place(), "document id".to_owned(), "the corpus".to_owned());
                    return Err(DataError::UnknownId { place, field, id, searched });
                };
                documents[qid as usize].push(pid);
            }
        }
        if documents.iter().all(Vec::is_empty) {
            let expected = "candidates of the queries that are measured".to_owned();
            let found = format!("none of them, and {} other queries", others.len());
            return Err(DataError::WrongKind { path: path.to_owned(), expected, found });
        }
        Ok(Self { other_queries: others.len(), ..Self::new(documents) })
    }

    /// The candidates of a query, in rising order.
    pub fn of(&self, qid: u32) -> &[u32] {
        self.documents.get(qid as usize).map_or(&[], Vec::as_slice)
    }

    /// Whether a document is a candidate of a query.
    pub fn contains(&self, qid: u32, pid: u32) -> bool {
        self.of(qid).binary_search(&pid).is_ok()
    }

    /// Queries of the file that are not in the set.
    pub fn other_queries(&self) -> usize {
        self.other_queries
    }

    /// Queries of the set that have no candidate.
    pub fn without(&self) -> usize {
        self.documents.iter().filter(|own| own.is_empty()).count()
    }

    /// Candidates of a query on average, rounded.
    pub fn mean(&self) -> usize {
        let all: usize = self.documents.iter().map(Vec::len).sum();
        (all + self.documents.len() / 2) / self.documents.len().max(1)
    }

    /// Documents that are a candidate of some query.
    pub fn distinct(&self) -> usize {
        let mut all = self.documents.concat();
        all.sort_unstable();
        all.dedup();
        all.len()
    }
}

/// A line of columns, separated by tabs or spaces.
fn of_columns(lines: &Lines) -> Result<(String, Vec<String>), DataError> {
    let text = lines.text()?;
    let cells: Vec<&str> =
        if text.contains('\t') { text.split('\t').map(str::trim).collect() } else { text.split_whitespace().collect() };
    let is_number = |cell: &str| cell.parse::<f64>().is_ok();
    let (query, document) = match cells[..] {
        [query, document] => (query, document),
        [query, document, rank] if is_number(rank) => (query, document),
        [query, _, document, rank, score, _] if is_number(rank) && is_number(score) => (query, document),
        _ => {
            let found = format!("{} columns: {}", cells.len(), text.chars().take(80).collect::<String>());
            return Err(malformed(lines.place(), found));
        }
    };
    Ok((query.to_owned(), vec![document.to_owned()]))
}

/// A line of JSON.
fn of_json(lines: &Lines) -> Result<(String, Vec<String>), DataError> {
    let value = lines.json()?;
    let parts = match &value {
        Value::Object(object) => {
            let of = |keys: &[&str]| keys.iter().find_map(|key| object.get(*key));
            of(&QUERY_KEYS).zip(of(&DOCUMENT_KEYS))
        }
        Value::Array(cells) if cells.len() == 2 => Some((&cells[0], &cells[1])),
        _ => None,
    };
    let read = parts.and_then(|(query, documents)| {
        let documents = documents.as_array()?.iter().map(id).collect::<Option<Vec<_>>>()?;
        Some((id(query)?, documents))
    });
    read.ok_or_else(|| malformed(lines.place(), value.to_string().chars().take(80).collect()))
}

/// An id as a text; numbers are ids too.
fn id(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn malformed(place: Place, found: String) -> DataError {
    let expected = "a line of a TREC run (query id, Q0, document id, rank, score, name), a query id and a document id, or \
                    JSON such as {\"query_id\": \"q1\", \"candidates\": [\"d1\", \"d2\"]}";
    DataError::Malformed { place, expected: expected.to_owned(), found }
}

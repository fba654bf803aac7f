//! BEIR folders: `corpus.jsonl`, `queries.jsonl`, `qrels/{split}.tsv`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::brief::brief;
use super::document_text::with_title;
use super::lines::Lines;
use super::qrels;
use super::read_options::ReadOptions;
use crate::error::DataError;
use crate::raw::RawData;
use crate::raw::counts::BadRows;
use crate::sets::evaluation_set::EvaluationSet;
use crate::texts::judgements::Judgements;
use crate::texts::{Collection, Queries};

/// A BEIR folder, its texts read. Document and query ids are kept as external ids; ids with the same text share an
/// entry, so that a judgement of one is a judgement of both.
///
/// A document is its title, a space and its text, trimmed (BEIR's own rule). A document without any text is left out,
/// unless a judgement needs it: that is an error.
#[derive(Debug, Clone)]
pub struct BeirFolder {
    path: PathBuf,
    collection: Arc<Collection>,
    queries: Queries,
    empty: HashSet<String>,
    options: ReadOptions,
    bad_rows: BadRows,
}

/// One line of a judgement file.
struct Judged {
    /// As the file spells it: a query may have several ids.
    id: String,
    query: u32,
    pid: u32,
    grade: i32,
}

impl BeirFolder {
    /// Reads `corpus.jsonl` and `queries.jsonl`, which may be gzip (`.jsonl.gz`).
    ///
    /// # Errors
    /// [`DataError::Missing`], and what is wrong with a line.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        Self::open_with(path, &ReadOptions::default())
    }

    /// As [`BeirFolder::open`]; with [`ReadOptions::skip_bad_rows`] bad lines are left out, here and in judgements.
    ///
    /// # Errors
    /// As [`BeirFolder::open`].
    pub fn open_with(path: &Path, options: &ReadOptions) -> Result<Self, DataError> {
        if !path.is_dir() {
            let expected = "a BEIR folder with corpus.jsonl, queries.jsonl and qrels".to_owned();
            let path = path.to_owned();
            return Err(if path.exists() {
                DataError::WrongKind { path, expected, found: "a file".to_owned() }
            } else {
                DataError::Missing { path, expected }
            });
        }
        let mut collection = Collection::new();
        let mut empty = HashSet::new();
        let mut bad_rows = BadRows::default();
        read_texts(&file(path, "corpus"), "document", options, &mut bad_rows, |id, title, text| {
            let text = with_title(title, text);
            if text.trim().is_empty() {
                empty.insert(id.to_owned());
                return Ok(true);
            }
            Ok(collection.add_with_id(id, text.trim())?.is_some())
        })?;
        let mut queries = Queries::new();
        read_texts(&file(path, "queries"), "query", options, &mut bad_rows, |id, _, text| {
            if text.trim().is_empty() {
                empty.insert(id.to_owned());
                return Ok(true);
            }
            Ok(queries.add_with_id(id, text)?.is_some())
        })?;
        let options = options.clone();
        Ok(Self { path: path.to_owned(), collection: Arc::new(collection), queries, empty, options, bad_rows })
    }

    /// Whether a folder has a BEIR corpus.
    #[must_use]
    pub fn is_one(path: &Path) -> bool {
        file(path, "corpus").is_file()
    }

    /// Lines of the texts that were left out; those of judgements are in the [`RawData`] made of them.
    #[must_use]
    pub fn bad_rows(&self) -> &BadRows {
        &self.bad_rows
    }

    /// Names of the judgement files (`train`, `dev`, `test`), sorted.
    ///
    /// # Errors
    /// [`DataError::Read`] when the folder `qrels` cannot be listed.
    pub fn splits(&self) -> Result<Vec<String>, DataError> {
        qrels::splits(&self.path)
    }

    /// All documents.
    #[must_use]
    pub fn collection(&self) -> &Arc<Collection> {
        &self.collection
    }

    /// Training data of one split: a grade above 0 is a positive, any other a given negative. Queries come in the order
    /// of the judgements; the whole corpus is there to draw negatives from.
    ///
    /// # Errors
    /// [`DataError::Missing`] with the splits that exist, [`DataError::UnknownId`], [`DataError::Malformed`].
    pub fn into_raw(mut self, split: &str) -> Result<RawData, DataError> {
        let mut bad_rows = std::mem::take(&mut self.bad_rows);
        let judged = self.judged(split, &mut bad_rows)?;
        let announcement = format!(
            "{}: BEIR folder, {} judgements of split {split}{}, {} documents (title and text as one){}{}",
            self.path.display(),
            judged.len(),
            qrels::form(&self.path, split)?,
            self.collection.len(),
            merged(&self.collection),
            if self.empty.is_empty() { String::new() } else { format!(", {} without text left out", self.empty.len()) },
        );
        let mut raw = RawData { announcement, bad_rows, ..RawData::default() };
        for Judged { id, query, pid, grade } in judged {
            let qid = add_query(&mut raw.queries, &id, self.queries.text(query))?;
            raw.counts.judgements += 1;
            raw.counts.duplicates += u64::from(!raw.judge(qid, pid, grade > 0));
        }
        raw.counts.empty_documents = self.empty.len() as u64;
        raw.collection = Arc::unwrap_or_clone(self.collection);
        Ok(raw)
    }

    /// Queries and judgements of one split over all documents. Queries without a relevant document are left out.
    ///
    /// # Errors
    /// [`DataError::Missing`] with the splits that exist, [`DataError::UnknownId`], [`DataError::Malformed`].
    pub fn evaluation(&self, split: &str) -> Result<EvaluationSet, DataError> {
        self.evaluation_and_bad_rows(split).map(|(set, _)| set)
    }

    /// As [`BeirFolder::evaluation`], with the lines of judgements that were left out.
    ///
    /// # Errors
    /// As [`BeirFolder::evaluation`].
    pub fn evaluation_and_bad_rows(&self, split: &str) -> Result<(EvaluationSet, BadRows), DataError> {
        let mut bad_rows = BadRows::default();
        let judged = self.judged(split, &mut bad_rows)?;
        let relevant: HashSet<u32> = judged.iter().filter(|line| line.grade > 0).map(|line| line.query).collect();
        let all: HashSet<u32> = judged.iter().map(|line| line.query).collect();
        if relevant.len() < all.len() {
            let left_out = all.len() - relevant.len();
            tracing::warn!(split, left_out, "queries without a relevant document are not evaluated");
        }
        let (mut queries, mut judgements) = (Queries::new(), Judgements::new());
        for Judged { id, query, pid, grade } in judged.into_iter().filter(|line| relevant.contains(&line.query)) {
            judgements.insert(add_query(&mut queries, &id, self.queries.text(query))?, pid, grade);
        }
        Ok((EvaluationSet { queries, collection: Arc::clone(&self.collection), judgements }, bad_rows))
    }

    fn judged(&self, split: &str, bad_rows: &mut BadRows) -> Result<Vec<Judged>, DataError> {
        let Some(path) = qrels::file(&self.path, split) else {
            let splits = self.splits()?;
            let found = if splits.is_empty() { "none".to_owned() } else { splits.join(", ") };
            let expected = format!("judgements of split `{split}` (there: {found})");
            return Err(DataError::Missing { path: self.path.join("qrels").join(format!("{split}.tsv")), expected });
        };
        let mut lines = Lines::open(&path, "query id, document id and grade on every line")?;
        let (mut judged, mut form) = (Vec::new(), qrels::Form::default());
        while lines.advance()? {
            judged.extend(self.options.keep_going(self.judgement(&lines, &mut form), None, bad_rows)?);
        }
        if judged.is_empty() && bad_rows.total() == 0 {
            let expected = "query id, document id and grade on every line".to_owned();
            return Err(DataError::NoRows { origin: path.display().to_string(), expected });
        }
        Ok(judged)
    }

    /// One line; nothing for a header.
    fn judgement(&self, lines: &Lines, form: &mut qrels::Form) -> Result<Option<Judged>, DataError> {
        let Some(line) = qrels::line(lines, form)? else { return Ok(None) };
        let missing = |field: &str, id: &str, file: &str| {
            let place = lines.place();
            if self.empty.contains(id) {
                return DataError::EmptyText { place, field: format!("{field} `{id}`") };
            }
            let searched = self.path.join(file).display().to_string();
            DataError::UnknownId { place, field: field.to_owned(), id: id.to_owned(), searched }
        };
        let (query, document) = (line.query, line.document);
        Ok(Some(Judged {
            id: query.to_owned(),
            query: self.queries.find_id(query).ok_or_else(|| missing("query id", query, "queries.jsonl"))?,
            pid: self.collection.find_id(document).ok_or_else(|| missing("document id", document, "corpus.jsonl"))?,
            grade: line.grade,
        }))
    }
}

/// Reads the judgements of one split of a BEIR folder, for evaluation.
///
/// # Errors
/// As [`BeirFolder::open`] and [`BeirFolder::evaluation`].
pub fn read_evaluation_set(path: &Path, split: &str) -> Result<EvaluationSet, DataError> {
    BeirFolder::open(path)?.evaluation(split)
}

fn merged(collection: &Collection) -> String {
    match collection.merged_ids() {
        0 => String::new(),
        count => format!(", {count} ids merged as their text is another's"),
    }
}

fn add_query(queries: &mut Queries, id: &str, text: &str) -> Result<u32, DataError> {
    match queries.add_with_id(id, text)? {
        Some(qid) => Ok(qid),
        // Ids are unique within the folder, so this one can only name this text.
        None => queries.add(text),
    }
}

/// Calls `add` with id, title and text of every line; `add` says whether the id is still free.
fn read_texts(
    path: &Path,
    field: &str,
    options: &ReadOptions,
    bad_rows: &mut BadRows,
    mut add: impl FnMut(&str, &str, &str) -> Result<bool, DataError>,
) -> Result<(), DataError> {
    let mut lines = Lines::open(path, "one JSON object with `_id` and `text` a line")?;
    while lines.advance()? {
        options.keep_going(read_text(&lines, field, &mut add), (), bad_rows)?;
    }
    Ok(())
}

fn read_text(
    lines: &Lines,
    field: &str,
    add: &mut impl FnMut(&str, &str, &str) -> Result<bool, DataError>,
) -> Result<(), DataError> {
    let value = lines.json()?;
    let text_of = |name: &str| value.get(name).and_then(Value::as_str);
    let id = match value.get("_id") {
        Some(Value::String(id)) => Some(id.clone()),
        Some(Value::Number(id)) => Some(id.to_string()),
        _ => None,
    };
    let (Some(id), Some(text)) = (id, text_of("text")) else {
        return Err(DataError::Malformed {
            place: lines.place(),
            expected: format!("a {field}: an object with `_id` and `text`"),
            found: match value.as_object() {
                Some(fields) => {
                    format!("an object with {}", fields.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
                }
                None => brief(&value),
            },
        });
    };
    if add(&id, text_of("title").unwrap_or_default(), text)? {
        return Ok(());
    }
    Err(DataError::DuplicateId { place: lines.place(), field: "_id".to_owned(), id })
}

/// The file of texts, as it is or as gzip.
fn file(folder: &Path, name: &str) -> PathBuf {
    let packed = folder.join(format!("{name}.jsonl.gz"));
    let plain = folder.join(format!("{name}.jsonl"));
    if packed.is_file() && !plain.exists() { packed } else { plain }
}

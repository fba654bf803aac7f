//! Reading the reference's three training files. Their form: [`crate::sets::reference_files`].

use std::path::Path;

use serde_json::Value;

use super::brief::brief;
use super::lines::Lines;
use super::read_options::ReadOptions;
use crate::error::DataError;
use crate::raw::RawData;
use crate::raw::row::check_scores;
use crate::sets::reference_files::ReferenceFiles;
use crate::sets::training_set::Example;
use crate::texts::Texts;

/// Reads the three files; the examples are ready-made, in the order of the file.
///
/// A first line whose first column is `id` is a header. A document's third column is its title, and the text becomes
/// title, space, vertical bar, space, document. Ids may be any, in any order; they are kept as external ids.
///
/// # Errors
/// [`DataError::UnknownId`], [`DataError::DuplicateId`], [`DataError::Malformed`], [`DataError::MixedRows`] and the
/// others of a bad line, with file and line; [`DataError::Missing`].
pub fn import_reference(files: &ReferenceFiles, options: &ReadOptions) -> Result<RawData, DataError> {
    let mut raw = RawData::default();
    read_texts(&files.queries, "query", options, &mut raw, |raw| &mut raw.queries)?;
    read_texts(&files.collection, "document", options, &mut raw, |raw| &mut raw.collection)?;
    let mut lines = Lines::open(&files.triples, "one example a line")?;
    let mut scored: Option<bool> = None;
    while lines.advance()? {
        let outcome = read_example(&lines, files, &raw, &mut scored).map(|example| raw.push_ready(example));
        options.keep_going(outcome, (), &mut raw.bad_rows)?;
    }
    raw.counts.blank_lines += lines.blank();
    if raw.ready.is_empty() && raw.bad_rows.total() == 0 {
        return Err(DataError::NoRows {
            origin: files.triples.display().to_string(),
            expected: "[qid,pid,pid] on every line".to_owned(),
        });
    }
    raw.announcement = format!(
        "{}: the reference's training files, {} ready-made examples{}, {} queries, {} documents",
        files.triples.display(),
        raw.ready.len(),
        if scored == Some(true) { " with teacher scores" } else { "" },
        raw.queries.len(),
        raw.collection.len()
    );
    Ok(raw)
}

fn read_texts<Kind>(
    path: &Path,
    field: &str,
    options: &ReadOptions,
    raw: &mut RawData,
    texts: impl Fn(&mut RawData) -> &mut Texts<Kind>,
) -> Result<(), DataError> {
    let mut lines = Lines::open(path, "an id, a tab and a text on every line")?;
    while lines.advance()? {
        let mut read = || {
            let mut columns = lines.text()?.split('\t');
            let id = columns.next().unwrap_or_default().trim();
            if lines.number() == 1 && matches!(id, "id" | "qid" | "pid") {
                return Ok(());
            }
            let text = columns.next().ok_or_else(|| DataError::Malformed {
                place: lines.place(),
                expected: format!("an id, a tab and a {field}"),
                found: "no tab".to_owned(),
            })?;
            if text.trim().is_empty() {
                return Err(DataError::EmptyText { place: lines.place(), field: field.to_owned() });
            }
            let added = match columns.next().filter(|title| field == "document" && !title.is_empty()) {
                Some(title) => texts(raw).add_with_id(id, &format!("{title} | {text}"))?,
                None => texts(raw).add_with_id(id, text)?,
            };
            if added.is_none() {
                let (place, field) = (lines.place(), field.to_owned());
                return Err(DataError::DuplicateId { place, field, id: id.to_owned() });
            }
            Ok(())
        };
        let outcome = read();
        options.keep_going(outcome, (), &mut raw.bad_rows)?;
    }
    Ok(())
}

fn read_example(
    lines: &Lines,
    files: &ReferenceFiles,
    raw: &RawData,
    scored: &mut Option<bool>,
) -> Result<Example, DataError> {
    let malformed = |found: &str| DataError::Malformed {
        place: lines.place(),
        expected: "[qid,pid,pid,...] or [qid,[pid,score],...]".to_owned(),
        found: found.to_owned(),
    };
    let value = lines.json()?;
    let Some([query, documents @ ..]) = value.as_array().map(Vec::as_slice) else {
        return Err(malformed(&brief(&value)));
    };
    if documents.is_empty() {
        return Err(malformed("no documents"));
    }
    let unknown = |field: &str, id: String, path: &Path| DataError::UnknownId {
        place: lines.place(),
        field: field.to_owned(),
        id,
        searched: path.display().to_string(),
    };
    let qid = id_of(query).ok_or_else(|| malformed(&brief(query)))?;
    let query = raw.queries.find_id(&qid).ok_or_else(|| unknown("qid", qid, &files.queries))?;
    let has_scores = documents[0].is_array();
    if *scored.get_or_insert(has_scores) != has_scores {
        let name = |scores| if scores { "[qid,[pid,score],...]" } else { "[qid,pid,...]" }.to_owned();
        return Err(DataError::MixedRows {
            place: lines.place(),
            expected: name(!has_scores),
            found: name(has_scores),
        });
    }
    let mut example = Example { query, documents: Vec::with_capacity(documents.len()), scores: None };
    let mut scores = Vec::new();
    for document in documents {
        let id = match document.as_array().map(Vec::as_slice) {
            Some([id, score]) if has_scores => {
                // A number too large for f32 becomes infinite here and is refused below.
                scores.push(score.as_f64().ok_or_else(|| malformed(&brief(document)))? as f32);
                id_of(id)
            }
            None if !has_scores => id_of(document),
            _ => None,
        };
        let id = id.ok_or_else(|| malformed(&brief(document)))?;
        example.documents.push(raw.collection.find_id(&id).ok_or_else(|| unknown("pid", id, &files.collection))?);
    }
    if has_scores {
        check_scores(&scores, example.documents.len(), &lines.place())?;
        example.scores = Some(scores);
    }
    Ok(example)
}

fn id_of(value: &Value) -> Option<String> {
    match value {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) if id.is_u64() || id.is_i64() => Some(id.to_string()),
        _ => None,
    }
}

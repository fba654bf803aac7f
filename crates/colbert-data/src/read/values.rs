//! Turns a JSON value into a row: arrays by position, objects by name.

use serde_json::{Map, Value};

use super::brief::{brief, malformed};
use super::columns::Columns;
use super::document_text::{TEXT_FIELDS, document_text};
use super::facts::whole_number;
use super::kind::{Meaning, RowKind};
use super::names::is_label_name;
use super::written_list::written_list;
use crate::error::{DataError, Place};
use crate::raw::labels::{Labels, label_of, number_of};
use crate::raw::row::{Row, check_scores};
use crate::raw::unknown_label;

/// Reads one row of a known kind.
pub(crate) fn parse_value(value: &Value, kind: &RowKind, labels: &Labels, place: &Place) -> Result<Row, DataError> {
    let row = Reader { kind, labels, place };
    match (value, &kind.columns) {
        (Value::Array(members), None) => row.array(members),
        (Value::Object(fields), Some(columns)) => row.object(fields, columns),
        (other, _) => Err(row.mixed(shape_of(other))),
    }
}

/// Texts of a row that are or may be relevant.
#[derive(Default)]
struct Judged {
    positives: Vec<String>,
    irrelevant: Vec<String>,
    /// Whether documents had labels of their own.
    is_judged: bool,
}

struct Reader<'a> {
    kind: &'a RowKind,
    labels: &'a Labels,
    place: &'a Place,
}

impl Reader<'_> {
    fn array(&self, members: &[Value]) -> Result<Row, DataError> {
        match (self.kind.meaning, members) {
            (Meaning::Pairs, [query, positives]) => {
                Ok(Row::Pair { query: self.query(query)?, positives: self.texts(positives, "positive")? })
            }
            (Meaning::Labelled, [query, document, label]) => self.labelled(query, document, label),
            (Meaning::Triplets, [query, positives, negatives]) => Ok(Row::Triplet {
                query: self.query(query)?,
                positives: self.texts(positives, "positive")?,
                negatives: self.texts(negatives, "negative")?,
            }),
            (Meaning::ScoredPairs, [query, document, score]) => self.scored(query, document, score),
            (Meaning::Scored, [query, documents, scores]) => Ok(Row::Ready {
                query: self.query(query)?,
                documents: self.texts(documents, "documents")?,
                scores: self.scores(scores)?,
            }),
            _ => Err(self.mixed(format!("an array of {}", members.len()))),
        }
    }

    fn object(&self, fields: &Map<String, Value>, columns: &Columns) -> Result<Row, DataError> {
        if let Some(name) = fields.keys().find(|name| columns.is_new_role(name)) {
            return Err(self.mixed(format!("an object that also has `{name}`")));
        }
        let query = self.query(self.field(fields, &columns.query)?)?;
        let Judged { mut positives, irrelevant, is_judged } = self.judged(fields, columns)?;
        let scores = columns.scores.as_deref().unwrap_or_default();
        match self.kind.meaning {
            Meaning::Labelled => {
                let label = columns.label.as_deref().unwrap_or_default();
                let label = self.field(fields, label)?;
                if let Some(labels) = label.as_array() {
                    return self.labelled_each(query, positives, labels);
                }
                let positive = self.label(label)?;
                return Ok(Row::Labelled { query, document: self.one(positives, "label")?, positive });
            }
            Meaning::ScoredPairs => {
                let score = self.score(self.field(fields, scores)?)?;
                return Ok(Row::Scored { query, document: self.one(positives, "score")?, score });
            }
            Meaning::Pairs | Meaning::Triplets | Meaning::Scored => {}
        }
        let mut negatives = irrelevant;
        for column in &columns.negatives {
            let value = self.field(fields, column)?;
            let list = self.list(column, value)?;
            let value = list.as_ref().unwrap_or(value);
            let is_empty_cell = self.kind.has_cells && value.as_str().is_some_and(|cell| cell.trim().is_empty());
            if !is_empty_cell {
                negatives.extend(self.texts(value, "negative")?);
            }
        }
        if let Some([of_positives, of_negatives]) = &columns.split_scores {
            let mut scores = self.scores(self.field(fields, of_positives)?)?;
            check_scores(&scores, positives.len(), self.place)?;
            let negative_scores = self.scores(self.field(fields, of_negatives)?)?;
            check_scores(&negative_scores, negatives.len(), self.place)?;
            scores.extend(negative_scores);
            return Ok(Row::ReadyEach { query, positives, negatives, scores });
        }
        match self.kind.meaning {
            Meaning::Scored => {
                positives.append(&mut negatives);
                Ok(Row::Ready { query, documents: positives, scores: self.scores(self.field(fields, scores)?)? })
            }
            Meaning::Triplets => Ok(Row::Triplet { query, positives, negatives }),
            _ if is_judged => Ok(Row::Judged { query, positives, negatives }),
            Meaning::Pairs | Meaning::Labelled | Meaning::ScoredPairs => Ok(Row::Pair { query, positives }),
        }
    }

    /// The texts of the columns of positives and documents, told apart by labels of their own if they have any.
    fn judged(&self, fields: &Map<String, Value>, columns: &Columns) -> Result<Judged, DataError> {
        let mut judged = Judged::default();
        for (column, role) in [(&columns.positive, "positive"), (&columns.document, "document")] {
            let Some(column) = column else { continue };
            let value = self.field(fields, column)?;
            let list = self.list(column, value)?;
            let value = list.as_ref().unwrap_or(value);
            let unzipped = value.as_object().and_then(by_member);
            let value = unzipped.as_ref().unwrap_or(value);
            let Some(members) = value.as_array().filter(|members| members.iter().any(has_label)) else {
                judged.positives.extend(self.texts(value, role)?);
                continue;
            };
            judged.is_judged = true;
            for member in members {
                let text = document_text(member, role, self.place)?;
                if self.own_label(member)? { judged.positives.push(text) } else { judged.irrelevant.push(text) }
            }
        }
        Ok(judged)
    }

    /// A list that a cell holds as text, if those of its column do.
    fn list(&self, column: &String, value: &Value) -> Result<Option<Value>, DataError> {
        let lists = self.kind.columns.iter().flat_map(|columns| &columns.lists);
        let Some(text) =
            value.as_str().filter(|text| !text.trim().is_empty() && lists.into_iter().any(|l| l == column))
        else {
            return Ok(None);
        };
        let expected = format!("{column}: a list of texts, as in the rows before it");
        let members = written_list(text).flatten().ok_or_else(|| malformed(self.place, &expected, brief(value)))?;
        Ok(Some(Value::Array(members)))
    }

    /// Documents with a label each.
    fn labelled_each(&self, query: String, documents: Vec<String>, labels: &[Value]) -> Result<Row, DataError> {
        if labels.len() != documents.len() {
            let expected = format!("a label for each of the {} documents", documents.len());
            return Err(malformed(self.place, &expected, labels.len().to_string()));
        }
        let (mut positives, mut negatives) = (Vec::new(), Vec::new());
        for (document, label) in documents.into_iter().zip(labels) {
            if self.label(label)? { positives.push(document) } else { negatives.push(document) }
        }
        Ok(Row::Judged { query, positives, negatives })
    }

    /// The only document of a row, which has one label or score.
    fn one(&self, texts: Vec<String>, of: &str) -> Result<String, DataError> {
        let one = <[String; 1]>::try_from(texts);
        one.map(|[document]| document)
            .map_err(|texts| malformed(self.place, &format!("one document for one {of}"), texts.len().to_string()))
    }

    fn labelled(&self, query: &Value, document: &Value, label: &Value) -> Result<Row, DataError> {
        let positive = self.label(label)?;
        let document = self.one(self.texts(document, "document")?, "label")?;
        Ok(Row::Labelled { query: self.query(query)?, document, positive })
    }

    fn scored(&self, query: &Value, document: &Value, score: &Value) -> Result<Row, DataError> {
        let score = self.score(score)?;
        let document = self.one(self.texts(document, "document")?, "score")?;
        Ok(Row::Scored { query: self.query(query)?, document, score })
    }

    /// A number, or a cell that holds one.
    fn score(&self, value: &Value) -> Result<f32, DataError> {
        let number = match value {
            Value::String(text) => number_of(text),
            other => other.as_f64(),
        };
        // A number too large for f32 becomes infinite and is refused with the row.
        number.map(|number| number as f32).ok_or_else(|| DataError::NonFinite {
            place: self.place.clone(),
            field: "score".to_owned(),
            found: brief(value),
        })
    }

    fn field<'v>(&self, fields: &'v Map<String, Value>, name: &str) -> Result<&'v Value, DataError> {
        fields.get(name).ok_or_else(|| malformed(self.place, &format!("field `{name}`"), "none".to_owned()))
    }

    fn query(&self, value: &Value) -> Result<String, DataError> {
        match value {
            Value::String(text) => Ok(text.clone()),
            other => Err(malformed(self.place, "query: a text", brief(other))),
        }
    }

    /// A text, an object with a text, or a list of these; null is an empty list.
    fn texts(&self, value: &Value, field: &str) -> Result<Vec<String>, DataError> {
        match value {
            Value::Null => Ok(Vec::new()),
            Value::Array(members) => members.iter().map(|member| document_text(member, field, self.place)).collect(),
            one => Ok(vec![document_text(one, field, self.place)?]),
        }
    }

    fn label(&self, value: &Value) -> Result<bool, DataError> {
        if self.kind.columns.as_ref().is_some_and(|columns| columns.is_graded) {
            let grade = whole_number(value).map(|grade| grade > 0);
            return grade.ok_or_else(|| malformed(self.place, "label: a grade, a whole number", brief(value)));
        }
        let label = label_of(value).unwrap_or_else(|| brief(value));
        match self.labels.is_positive(&label) {
            Some(positive) => Ok(positive),
            None => Err(unknown_label(self.place.clone(), self.labels, label)),
        }
    }

    /// The label of a document that is an object, such as `is_selected`; a document without one is a positive.
    fn own_label(&self, document: &Value) -> Result<bool, DataError> {
        let mut labels = document.as_object().into_iter().flatten().filter(|(name, _)| is_label_name(name));
        labels.next().map_or(Ok(true), |(_, value)| self.label(value))
    }

    fn scores(&self, value: &Value) -> Result<Vec<f32>, DataError> {
        // A cell holds a list as text.
        let parsed = value.as_str().and_then(|text| serde_json::from_str(text).ok());
        let Value::Array(members) = parsed.as_ref().unwrap_or(value) else {
            let expected = "scores: a number for one document, or a list of numbers, one for each";
            return Err(malformed(self.place, expected, brief(value)));
        };
        members
            .iter()
            .map(|score| match score.as_f64() {
                // A number too large for f32 becomes infinite and is refused with the row.
                Some(score) => Ok(score as f32),
                // Some exporters of Python write NaN as null.
                None => Err(DataError::NonFinite {
                    place: self.place.clone(),
                    field: "scores".to_owned(),
                    found: brief(score),
                }),
            })
            .collect()
    }

    fn mixed(&self, found: String) -> DataError {
        DataError::MixedRows { place: self.place.clone(), expected: self.kind.shape(), found }
    }
}

/// Documents as one object of lists (MS MARCO on the hub: `passage_text`, `is_selected`, `url`), as a list of objects.
fn by_member(fields: &Map<String, Value>) -> Option<Value> {
    let texts = TEXT_FIELDS.iter().find_map(|name| fields.get(*name)?.as_array())?;
    let lists: Vec<(&String, &Vec<Value>)> =
        fields.iter().filter_map(|(name, list)| Some((name, list.as_array()?))).collect();
    if lists.iter().any(|(_, list)| list.len() != texts.len()) {
        return None;
    }
    let member = |index: usize| lists.iter().map(|(name, list)| ((*name).clone(), list[index].clone())).collect();
    Some((0..texts.len()).map(|index| Value::Object(member(index))).collect())
}

/// Whether a document is an object with its own label.
fn has_label(document: &Value) -> bool {
    document.as_object().is_some_and(|fields| fields.keys().any(|name| is_label_name(name)))
}

fn shape_of(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) => brief(value),
        other => format!("{} alone", brief(other)),
    }
}

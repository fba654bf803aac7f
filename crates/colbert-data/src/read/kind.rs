//! The kind of a source's rows, decided by the first one.

use colbert_config::DataFormat;
use serde_json::Value;

use super::brief::{brief, malformed};
use super::columns::{Columns, WHERE_TEXTS_ARE, in_ticks};
use super::facts::{Facts, Named, is_number};
use super::read_options::ReadOptions;
use crate::error::{DataError, Place};
use crate::raw::labels::Labels;

/// The kind of one source's rows; the first row decides, and every other row must agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowKind {
    pub(super) meaning: Meaning,
    /// Named columns; `None` for arrays.
    pub(super) columns: Option<Columns>,
    /// Rows come from cells, which can be empty but not absent.
    pub(super) has_cells: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Pairs,
    Labelled,
    Triplets,
    Scored,
    /// A score for one document a row.
    ScoredPairs,
}

impl RowKind {
    /// Decides by the first rows, within what the options allow. `header` has the names in their order, if there is
    /// one; `place` is where the names are.
    pub(crate) fn detect(
        rows: &[&Value],
        header: Option<&[String]>,
        options: &ReadOptions,
        place: &Place,
    ) -> Result<Self, DataError> {
        let (format, labels) = (options.format, &options.labels);
        let Some(first) = rows.first() else { return Err(malformed(place, EITHER, "nothing".to_owned())) };
        let kind = match first {
            Value::Array(_) if !options.roles.is_empty() => {
                let expected = "rows with named columns, as data.columns gives roles to columns";
                return Err(malformed(place, expected, brief(first)));
            }
            Value::Array(members) => {
                let meaning = array_meaning(members, rows, options, place)?;
                Self { meaning, columns: None, has_cells: false }
            }
            Value::Object(fields) => {
                let names: Vec<&str> = match header {
                    Some(header) => header.iter().map(String::as_str).collect(),
                    None => fields.keys().map(String::as_str).collect(),
                };
                let named = Named { names: &names, rows, labels, roles: &options.roles, has_header: header.is_some() };
                let mut columns = Columns::of(named, place)?;
                let meaning = object_meaning(&mut columns, named, format);
                Self { meaning, columns: Some(columns), has_cells: false }
            }
            other => return Err(malformed(place, EITHER, brief(other))),
        };
        let asked = match format {
            DataFormat::Pairs => Meaning::Pairs,
            DataFormat::LabeledPairs => Meaning::Labelled,
            DataFormat::Triplets => Meaning::Triplets,
            DataFormat::Scored if kind.meaning == Meaning::ScoredPairs => Meaning::ScoredPairs,
            DataFormat::Scored => Meaning::Scored,
            DataFormat::Tevatron if !kind.is_tevatron() => {
                let expected = "columns query and positive_passages (data.format = tevatron)";
                return Err(malformed(place, expected, kind.describe(labels)));
            }
            _ => kind.meaning,
        };
        if kind.meaning == asked {
            return Ok(kind);
        }
        let expected = Self { meaning: asked, columns: None, has_cells: false }.describe(labels);
        Err(malformed(place, &format!("{expected} (data.format)"), kind.describe(labels)))
    }

    /// The cells of the query and of the documents in some rows, unless the user has said that they are texts.
    pub(super) fn text_cells<'a>(&self, rows: &[&'a Value], options: &ReadOptions) -> Vec<Vec<&'a Value>> {
        match &self.columns {
            None if options.format != DataFormat::Auto => Vec::new(),
            None => (0..2).map(|index| rows.iter().filter_map(|row| row.get(index)).collect()).collect(),
            Some(columns) => {
                let names = [Some(&columns.query), columns.positive.as_ref(), columns.document.as_ref()];
                let open = names.into_iter().flatten().filter(|name| !options.roles.contains_key(*name));
                open.map(|name| rows.iter().filter_map(|row| row.get(name)).collect()).collect()
            }
        }
    }

    /// Whether rows are read from this column.
    pub(super) fn reads(&self, name: &str) -> bool {
        self.columns.as_ref().is_none_or(|columns| columns.reads(name))
    }

    /// Describes in words the kind of rows and the roles of columns.
    pub(crate) fn describe(&self, labels: &Labels) -> String {
        let what = match self.meaning {
            Meaning::Pairs => "pairs",
            Meaning::Labelled => "labelled pairs",
            Meaning::Triplets => "triplets",
            Meaning::Scored => "n-way examples with teacher scores",
            Meaning::ScoredPairs => "documents with a teacher score, one example for each query",
        };
        let columns = match (&self.columns, self.meaning) {
            (Some(columns), _) => columns.describe(),
            (None, Meaning::Pairs) => "[query, positive]".to_owned(),
            (None, Meaning::Labelled) => "[query, document, label]".to_owned(),
            (None, Meaning::Triplets) => "[query, positive, negative]".to_owned(),
            (None, Meaning::Scored) => "[query, documents, scores]".to_owned(),
            (None, Meaning::ScoredPairs) => "[query, document, score]".to_owned(),
        };
        match self.meaning {
            Meaning::Triplets | Meaning::Pairs if self.is_tevatron() => {
                format!("{what} in Tevatron's layout, {columns}")
            }
            Meaning::Labelled if self.columns.as_ref().is_some_and(|columns| columns.is_graded) => {
                format!("{what}, {columns}, grades above 0 positive")
            }
            Meaning::Labelled => {
                format!("{what}, {columns}, {} positive and {} negative", labels.positive, labels.negative)
            }
            _ => format!("{what}, {columns}"),
        }
    }

    /// Rows of the Tevatron toolkit: passages as objects with `docid`, `title` and `text`.
    fn is_tevatron(&self) -> bool {
        self.columns.as_ref().is_some_and(|columns| columns.positive.as_deref() == Some("positive_passages"))
    }

    pub(super) fn shape(&self) -> String {
        match (&self.columns, self.meaning) {
            (Some(_), _) => "an object".to_owned(),
            (None, Meaning::Pairs) => "an array of 2".to_owned(),
            (None, _) => "an array of 3".to_owned(),
        }
    }
}

const EITHER: &str =
    "an array [query, positive], [query, document, label], [query, positive, negative], or an object with named fields";

fn array_meaning(
    members: &[Value],
    rows: &[&Value],
    options: &ReadOptions,
    place: &Place,
) -> Result<Meaning, DataError> {
    let (format, labels) = (options.format, &options.labels);
    if members.len() > 1
        && members
            .iter()
            .all(|member| member.is_number() || member.as_array().is_some_and(|pair| pair.iter().all(Value::is_number)))
    {
        let expected = "texts; rows of ids are read with data.format = reference and the folder of all three files";
        return Err(malformed(place, expected, "numbers only".to_owned()));
    }
    let column = |index: usize| rows.iter().map(move |row| row.get(index));
    // A user who names the format has said that these are texts.
    if format == DataFormat::Auto {
        let facts = |index: usize| Facts::of(column(index), labels);
        let is_pair_of_ids = members.len() > 1 && facts(0).may_be_ids() && facts(1).may_be_ids();
        let is_ids = |index: usize| facts(index).is_ids() || (is_pair_of_ids && index < 2);
        let names = ["first", "second", "third", "fourth"];
        let ids: Vec<&str> =
            (0..members.len().min(4)).filter(|&index| is_ids(index)).map(|index| names[index]).collect();
        // The third column of pairs may be a label or a score.
        if is_ids(0) || (members.len() > 1 && is_ids(1)) {
            let expected = format!("texts; {WHERE_TEXTS_ARE}");
            return Err(malformed(place, &expected, format!("ids or numbers in the {} column", ids.join(" and "))));
        }
        let are_labels = || column(2).flatten().all(|third| is_label(third, labels));
        if members.len() == 3 && members[2].is_string() && !are_labels() {
            third_column(&facts(2), place)?;
        }
        if let Some(index) = (0..members.len().min(3)).find(|index| facts(*index).is_written()) {
            let expected = "texts; write the rows as JSONL, where lists are lists";
            return Err(malformed(place, expected, format!("lists or objects as text in the {} column", names[index])));
        }
    }
    match members {
        [_, _] => Ok(Meaning::Pairs),
        [_, _, Value::Array(scores)]
            if !scores.is_empty() && scores.iter().all(|score| score.is_number() || score.is_null()) =>
        {
            Ok(Meaning::Scored)
        }
        [_, _, third] => Ok(match format {
            DataFormat::Scored if is_number(third) => Meaning::ScoredPairs,
            DataFormat::LabeledPairs => Meaning::Labelled,
            DataFormat::Triplets => Meaning::Triplets,
            _ if column(2).flatten().all(|third| is_label(third, labels)) => Meaning::Labelled,
            _ => Meaning::Triplets,
        }),
        _ => Err(malformed(place, EITHER, format!("an array of {}", members.len()))),
    }
}

/// Refuses a third column of texts that are no documents, and so no negatives: ids, or a few words that say what the
/// second column is.
fn third_column(facts: &Facts, place: &Place) -> Result<(), DataError> {
    if facts.is_ids() {
        let expected = format!("texts; {WHERE_TEXTS_ARE}");
        return Err(malformed(place, &expected, "ids or numbers in the third column".to_owned()));
    }
    if (facts.is_labels() && facts.distinct() > 1) || facts.repeats_few() {
        let expected = "a document in the third column, or a label: data.positive_label and data.negative_label name the \
                        two labels (with data.format = \"triplets\", all texts are documents)";
        let words: Vec<&str> = facts.some_distinct().collect();
        return Err(malformed(
            place,
            expected,
            format!("the same few words in many rows, such as {}", in_ticks(&words)),
        ));
    }
    Ok(())
}

/// Whether a value is a label: any number is, even a wrong one; a text only if it is one of the two labels or reads as
/// a number.
fn is_label(value: &Value, labels: &Labels) -> bool {
    match value {
        Value::Number(_) | Value::Bool(_) => true,
        Value::String(text) => labels.is_positive(text).is_some() || text.trim().parse::<f64>().is_ok(),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

fn object_meaning(columns: &mut Columns, named: Named<'_>, format: DataFormat) -> Meaning {
    // A user who says that there are scores may have them in a column called label.
    if format == DataFormat::Scored && columns.scores.is_none() && columns.split_scores.is_none() {
        columns.scores = columns.label.take();
        columns.is_graded = false;
    }
    if let Some(scores) = &columns.scores {
        let first = named.rows.first().and_then(|row| row.get(scores));
        if columns.negatives.is_empty() && first.is_some_and(is_number) {
            // Distillation from 1 and 0 would give targets of 0.73 and 0.27.
            let is_label = format != DataFormat::Scored
                && columns.label.is_none()
                && !named.roles.contains_key(scores)
                && named.facts(scores).is_zeros_and_ones();
            if is_label {
                columns.label = columns.scores.take();
                return Meaning::Labelled;
            }
            return Meaning::ScoredPairs;
        }
        Meaning::Scored
    } else if columns.split_scores.is_some() {
        Meaning::Scored
    } else if columns.label.is_some() {
        Meaning::Labelled
    } else if columns.negatives.is_empty() {
        Meaning::Pairs
    } else {
        Meaning::Triplets
    }
}

//! The content of a column in the first rows: texts, ids, numbers or labels. Names may mislead; these facts do not.

use std::collections::{BTreeMap, BTreeSet};

use colbert_config::ColumnRole;
use serde_json::Value;

use super::document_text::TEXT_FIELDS;
use super::written_list::written_list;
use crate::raw::labels::{Labels, label_of, number_of};
use crate::texts::ids::is_id_like;

/// The columns of a source before roles are assigned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'a> {
    /// Names, in their order where the syntax has one.
    pub(super) names: &'a [&'a str],
    /// The first rows.
    pub(super) rows: &'a [&'a Value],
    pub(super) labels: &'a Labels,
    /// Roles that the user gave.
    pub(super) roles: &'a BTreeMap<String, ColumnRole>,
    /// Names are in a line of their own, not in every row.
    pub(super) has_header: bool,
}

impl Named<'_> {
    pub(super) fn facts(&self, name: &str) -> Facts {
        Facts::of(self.rows.iter().map(|row| row.get(name)), self.labels)
    }
}

/// Share of id-like cells from which a column counts as one of ids.
const NEARLY_ALL: f64 = 0.9;

/// Counts over the cells of one column.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    rows: usize,
    filled: usize,
    texts: usize,
    ids: usize,
    labels: usize,
    zeros_and_ones: usize,
    whole: usize,
    above_one: usize,
    numbers: usize,
    words: usize,
    questions: usize,
    /// Cells that hold a list or an object written as text, and those of them that can be read as a list.
    written: usize,
    lists: usize,
    distinct: BTreeSet<String>,
}

impl Facts {
    /// Counts over cells; `None` is a cell that is not there.
    pub(super) fn of<'a>(cells: impl Iterator<Item = Option<&'a Value>>, labels: &Labels) -> Self {
        let mut facts = Self::default();
        for cell in cells {
            facts.rows += 1;
            let Some(cell) = cell.filter(|cell| !is_empty(cell)) else { continue };
            facts.filled += 1;
            facts.distinct.insert(first_text(cell).map_or_else(|| cell.to_string(), str::to_owned));
            let written = cell.as_str().and_then(written_list);
            facts.written += usize::from(written.is_some());
            let list = written.flatten().map(Value::Array);
            facts.lists += usize::from(list.is_some());
            facts.labels += usize::from(may_be_label(cell, labels));
            facts.zeros_and_ones += usize::from(is_zero_or_one(cell));
            if let Some(grade) = whole_number(cell) {
                facts.whole += 1;
                facts.above_one += usize::from(grade > 1);
            }
            facts.numbers += usize::from(is_number(cell));
            let cell = list.as_ref().unwrap_or(cell);
            if let Some(text) = first_text(cell) {
                facts.texts += 1;
                facts.words += words(text);
                facts.questions += usize::from(text.trim_end().ends_with(['?', '？', '؟']));
                facts.ids += usize::from(is_id_like(text));
            } else if is_id(cell) {
                facts.ids += 1;
            }
        }
        facts
    }

    /// Whether every row has a text here that is neither an id nor a number.
    pub(super) fn is_text(&self) -> bool {
        self.filled > 0 && self.filled == self.rows && self.texts == self.filled && !self.is_ids() && !self.is_numbers()
    }

    /// Whether all cells hold lists or objects that are written as text.
    pub(super) fn is_written(&self) -> bool {
        self.filled > 0 && self.written == self.filled
    }

    /// Whether all cells hold lists of texts that are written as text.
    pub(super) fn is_written_lists(&self) -> bool {
        self.filled > 0 && self.lists == self.filled
    }

    /// Number of distinct cells.
    pub(super) fn distinct(&self) -> usize {
        self.distinct.len()
    }

    /// The distinct cells, at most some of them, for messages.
    pub(super) fn some_distinct(&self) -> impl Iterator<Item = &str> {
        self.distinct.iter().take(3).map(String::as_str)
    }

    /// Whether a few short texts are repeated in all rows, as those of a category are.
    pub(super) fn is_category(&self) -> bool {
        let is_constant = self.filled > 1 && self.distinct.len() == 1;
        let is_few = self.filled >= 6 && 3 * self.distinct.len() <= self.filled;
        (is_constant || is_few) && self.mean_words() <= 2.0
    }

    /// Whether most of the texts are of a few words and repeat another, as labels do and documents do not.
    pub(super) fn repeats_few(&self) -> bool {
        self.filled >= 4 && 2 * self.distinct.len() <= self.filled && self.mean_words() <= 3.0
    }

    /// Whether all cells are empty.
    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Whether nearly all cells look like ids. A single cell is not enough.
    pub(super) fn is_ids(&self) -> bool {
        self.filled > 1 && self.may_be_ids()
    }

    /// As [`Facts::is_ids`], but a single cell is enough.
    pub(super) fn may_be_ids(&self) -> bool {
        self.filled > 0 && self.ids as f64 >= NEARLY_ALL * self.filled as f64
    }

    pub(super) fn is_numbers(&self) -> bool {
        self.filled > 0 && self.numbers == self.filled
    }

    /// Whether there are two rows or more and nothing but words that mean yes or no.
    pub(super) fn is_labels(&self) -> bool {
        self.filled > 1 && self.labels == self.filled
    }

    /// As [`Facts::is_labels`], but a single row is enough.
    pub(super) fn holds_labels(&self) -> bool {
        self.labels == self.filled
    }

    /// Whether there are two rows or more, each with a 0 or a 1.
    pub(super) fn is_zeros_and_ones(&self) -> bool {
        self.rows > 1 && self.filled == self.rows && self.zeros_and_ones == self.filled
    }

    /// Whether all cells are whole numbers, and one of them is above 1.
    pub(super) fn is_grades(&self) -> bool {
        self.filled > 0 && self.filled == self.rows && self.whole == self.filled && self.above_one > 0
    }

    /// Whether half of the texts or more end with a question mark.
    pub(super) fn is_questions(&self) -> bool {
        self.questions > 0 && 2 * self.questions >= self.texts
    }

    /// Mean length in words; in a script without spaces two letters count as a word.
    pub(super) fn mean_words(&self) -> f64 {
        self.words as f64 / self.texts.max(1) as f64
    }
}

/// Words of a text; in a script without spaces two letters count as one.
pub(super) fn words(text: &str) -> usize {
    let unspaced = text.chars().filter(|letter| *letter as u32 >= 0x0e00 && letter.is_alphabetic()).count();
    text.split_whitespace().count().max(unspaced / 2)
}

fn is_empty(cell: &Value) -> bool {
    match cell {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(members) => members.is_empty(),
        _ => false,
    }
}

/// The text of a cell, or the first of several.
fn first_text(cell: &Value) -> Option<&str> {
    match cell {
        Value::String(text) => Some(text),
        Value::Array(members) => first_text(members.first()?).filter(|_| !members[0].is_array()),
        Value::Object(fields) => TEXT_FIELDS.iter().find_map(|name| match fields.get(*name)? {
            Value::Array(members) => members.first()?.as_str(),
            one => one.as_str(),
        }),
        _ => None,
    }
}

/// A whole number, or a list of whole numbers: a document never is one.
fn is_id(cell: &Value) -> bool {
    match cell {
        Value::Number(number) => number.is_u64() || number.is_i64(),
        Value::Array(members) => !members.is_empty() && members.iter().all(|member| member.is_u64()),
        _ => false,
    }
}

pub(super) fn is_number(cell: &Value) -> bool {
    cell.is_number() || cell.as_str().is_some_and(|text| number_of(text).is_some())
}

/// A whole number, written as a number or as a text, also as `2.0`.
pub(super) fn whole_number(cell: &Value) -> Option<i64> {
    let number = label_of(cell).filter(|_| !cell.is_boolean())?.trim().parse::<f64>().ok()?;
    (number.fract() == 0.0 && number.abs() < 1e9).then_some(number as i64)
}

pub(super) fn is_zero_or_one(cell: &Value) -> bool {
    match label_of(cell).map(|label| label.trim().parse::<f64>()) {
        Some(Ok(number)) => number == 0.0 || number == 1.0,
        _ => false,
    }
}

fn may_be_label(cell: &Value, labels: &Labels) -> bool {
    const WORDS: [&str; 14] = [
        "yes",
        "no",
        "true",
        "false",
        "y",
        "n",
        "t",
        "f",
        "pos",
        "neg",
        "positive",
        "negative",
        "relevant",
        "irrelevant",
    ];
    let Some(label) = label_of(cell) else { return false };
    let label = label.trim().to_lowercase();
    labels.is_positive(&label).is_some()
        || WORDS.contains(&label.as_str())
        || label == "not relevant"
        || matches!(label.parse::<f64>(), Ok(number) if [0.0, 1.0, -1.0].contains(&number))
}

//! Raw data and documents from Python objects.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use ragtrainer::data::{Labels, RawData};

use crate::error::{Kind, raise};

/// Texts of a list or tuple, called `what` in errors.
pub(crate) fn texts(what: &str, given: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    let items = sequence(given).ok_or_else(|| unexpected(what, "a list of texts", given))?;
    items.into_iter().enumerate().map(|(index, item)| text(&format!("{what}[{index}]"), &item)).collect()
}

/// Raw data as RAGatouille takes it: a list of tuples or lists, of which the first decides the layout.
pub(crate) fn raw_data(given: &Bound<'_, PyAny>, with_labels: bool, labels: &Labels) -> PyResult<RawData> {
    let expected = "a list of tuples or lists: (query, passage), (query, passage, label) with pairs_with_labels=True, or \
                    (query, positives, negatives)";
    let items = sequence(given).ok_or_else(|| unexpected("raw_data", expected, given))?;
    let mut width = None;
    let (mut pairs, mut labelled, mut triplets) = (Vec::new(), Vec::new(), Vec::new());
    for (index, item) in items.into_iter().enumerate() {
        let place = || format!("raw_data[{index}]");
        let row = sequence(&item).ok_or_else(|| unexpected(&place(), expected, &item))?;
        let first = *width.get_or_insert(row.len());
        if !(2..=3).contains(&row.len()) || row.len() != first {
            let expected = match first {
                _ if row.len() == first => "2 or 3 members".to_owned(),
                first => format!("{first} members, as the first row has"),
            };
            return Err(Kind::Data.raise(format!("{}: expected {expected}; found {}", place(), row.len())));
        }
        let query = text(&format!("{}: the query", place()), &row[0])?;
        let positives = passages(&format!("{}: the passage", place()), &row[1])?;
        match (first, with_labels) {
            (2, _) => pairs.extend(positives.into_iter().map(|positive| (query.clone(), positive))),
            (_, true) => {
                let label = label(&format!("{}: the label", place()), &row[2])?;
                labelled.extend(positives.into_iter().map(|document| (query.clone(), document, label.clone())));
            }
            (_, false) => triplets.push((query, positives, passages(&format!("{}: the negative", place()), &row[2])?)),
        }
    }
    let raw = given.py().detach(|| match (width, with_labels) {
        (Some(3), true) => RawData::from_labelled_pairs(labelled, labels),
        (Some(3), false) => RawData::from_triplets(triplets),
        _ => RawData::from_pairs(pairs),
    });
    raw.map_err(|error| raise(error.into()))
}

/// A label as text: Python's `True` equals 1.
pub(crate) fn label(place: &str, given: &Bound<'_, PyAny>) -> PyResult<String> {
    if let Ok(truth) = given.cast::<PyBool>() {
        return Ok(u8::from(truth.is_true()).to_string());
    }
    if let Ok(number) = given.cast::<PyFloat>() {
        return Ok(number.extract::<f64>()?.to_string());
    }
    if given.is_instance_of::<PyString>() {
        return text(place, given);
    }
    // Whole numbers of numpy are not an `int`, but convert to one.
    match given.call_method0("__index__") {
        Ok(number) if number.is_instance_of::<PyInt>() => Ok(number.str()?.to_string()),
        _ => Err(unexpected(place, "a text or a whole number", given)),
    }
}

/// One passage or several: a text, a dictionary with `content`, or a list of these.
fn passages(place: &str, given: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    match sequence(given) {
        Some(items) => items.iter().map(|item| passage(place, item)).collect(),
        None => Ok(vec![passage(place, given)?]),
    }
}

fn passage(place: &str, given: &Bound<'_, PyAny>) -> PyResult<String> {
    if let Ok(map) = given.cast::<PyDict>() {
        return match map.get_item("content")? {
            Some(content) => text(&format!("{place}[\"content\"]"), &content),
            None => {
                Err(Kind::Data.raise(format!("{place}: expected a dictionary with the key \"content\"; found none")))
            }
        };
    }
    text(place, given)
}

/// Returns the text of a `str`, which must be valid Unicode.
fn text(place: &str, given: &Bound<'_, PyAny>) -> PyResult<String> {
    let Ok(string) = given.cast::<PyString>() else {
        return Err(unexpected(place, "a text (str)", given));
    };
    string.to_str().map(str::to_owned).map_err(|_| {
        Kind::Data.raise(format!(
            "{place}: expected Unicode text; found half of a surrogate pair, which no file can hold; remove it with \
             text.encode(\"utf-8\", \"ignore\").decode()"
        ))
    })
}

/// Returns the members of a list or tuple; a text, a dictionary or a generator in its place is a mistake and refused.
fn sequence<'py>(given: &Bound<'py, PyAny>) -> Option<Vec<Bound<'py, PyAny>>> {
    if let Ok(list) = given.cast::<PyList>() {
        return Some(list.iter().collect());
    }
    given.cast::<PyTuple>().ok().map(|tuple| tuple.iter().collect())
}

fn unexpected(place: &str, expected: &str, found: &Bound<'_, PyAny>) -> PyErr {
    let class = found.get_type();
    let name = class.name().map_or_else(|_| "an object".to_owned(), |name| name.to_string());
    let advice = match name.as_str() {
        "DataFrame" => "; df.values.tolist() makes a list of rows",
        "ndarray" => "; array.tolist() makes a list",
        "generator" | "map" | "filter" | "zip" => "; list(...) makes a list",
        "NoneType" => "; leave the row out, or fill it in",
        "dict" => "; list(d.items()) makes pairs of keys and values",
        _ => "",
    };
    Kind::Data.raise(format!("{place}: expected {expected}; found {name}{advice}"))
}

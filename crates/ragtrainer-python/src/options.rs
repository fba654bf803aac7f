//! Options from Python's keywords, by the table of options.

use std::collections::BTreeSet;

use pyo3::prelude::*;
use ragtrainer::config::{Kind as Values, OPTIONS, OptionSources, Options, Section};
use serde_json::{Map, Value, json};

use crate::error::{Kind, raise};

/// Returns options as JSON, by their names with the section, and the names that were given.
pub(crate) fn parse(json: &str) -> PyResult<(Options, BTreeSet<String>)> {
    let given: Map<String, Value> = serde_json::from_str(json)
        .map_err(|error| Kind::Options.raise(format!("options that have no JSON form: {error}")))?;
    OptionSources::new().overrides(given).build_named().map_err(|error| raise(error.into()))
}

/// The table of options as JSON: a list of objects with `key`, `name`, `keyword`, `section`, `type`, `default`, `help`.
#[pyfunction]
pub(crate) fn option_table() -> String {
    let defaults = Options::default().entries();
    let rows = OPTIONS.iter().zip(defaults).map(|(row, (_, default))| {
        json!({
            "key": row.key,
            "name": row.name(),
            "keyword": row.flag().replace('-', "_"),
            "section": match row.section {
                Section::Run => "run",
                Section::Data => "data",
                Section::Negatives => "negatives",
                Section::Train | Section::Further => "train",
                Section::Evaluation => "evaluation",
            },
            "type": python_type(row.kind),
            "default": default,
            "help": row.help,
        })
    });
    Value::Array(rows.collect()).to_string()
}

/// The type in Python's notation. `None` means no value.
fn python_type(kind: Values) -> String {
    match kind {
        Values::Flag => "bool".to_owned(),
        Values::Whole => "int".to_owned(),
        Values::OptionalWhole(_) => "int | None".to_owned(),
        Values::Number => "float".to_owned(),
        Values::OptionalNumber(_) => "float | None".to_owned(),
        Values::Text | Values::Metric => "str".to_owned(),
        Values::OptionalText => "str | None".to_owned(),
        Values::Path => "str | os.PathLike[str]".to_owned(),
        Values::OptionalPath | Values::Paths => "str | os.PathLike[str] | None".to_owned(),
        Values::Sizes => "list[int] | str | None".to_owned(),
        Values::Numbers => "list[float] | str | None".to_owned(),
        Values::Label | Values::Steps | Values::Tokens => "int | str".to_owned(),
        Values::Size(_) => "int | str | None".to_owned(),
        Values::Warmup => "int | str | None".to_owned(),
        Values::Words(words) => {
            let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
            format!("Literal[{}]", quoted.join(", "))
        }
        Values::Columns | Values::Layers => "str".to_owned(),
    }
}

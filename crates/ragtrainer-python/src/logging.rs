//! The library's log records, for Python's `logging`.

use std::fmt::Write as _;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::error::Kind;

/// Sends records of level `info` and above to `logging` from now on, under names such as `ragtrainer.colbert_data`.
pub(crate) fn install() -> PyResult<()> {
    let records = tracing_subscriber::registry().with(LevelFilter::INFO).with(ToLogging);
    tracing::subscriber::set_global_default(records).map_err(|error| Kind::Training.raise(error.to_string()))
}

struct ToLogging;

impl<S: Subscriber> Layer<S> for ToLogging {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let about = event.metadata();
        let target = about.target().replace("::", ".");
        if !["colbert_", "ragtrainer"].iter().any(|own| target.starts_with(own)) {
            return;
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        let level = match *about.level() {
            Level::ERROR => 40,
            Level::WARN => 30,
            Level::INFO => 20,
            _ => 10,
        };
        Python::attach(|py| {
            let write = || -> PyResult<()> {
                let name =
                    if target.starts_with("ragtrainer") { target.clone() } else { format!("ragtrainer.{target}") };
                let logger = py.import("logging")?.call_method1("getLogger", (name,))?;
                // As an argument, so that a percent sign in the text is not a placeholder.
                logger.call_method("log", (level, "%s", text.0), Some(&PyDict::new(py)))?;
                Ok(())
            };
            if let Err(error) = write() {
                error.write_unraisable(py, None);
            }
        });
    }
}

/// Message and fields of a record, as `message key=value`.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
        written.expect("a string takes every text");
    }
}

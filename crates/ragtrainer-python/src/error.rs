//! One exception for each kind of error, with the library's own message.

use std::error::Error as _;

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use ragtrainer::Error;

create_exception!(ragtrainer, RagTrainerError, PyException, "An error of ragtrainer; the others derive from it.");

/// Adds the exceptions to the module. Those for wrong input are `ValueError`s too, the others `RuntimeError`s, as
/// programs written for RAGatouille catch these.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let base = py.get_type::<RagTrainerError>();
    let (value, runtime) = (py.get_type::<PyValueError>(), py.get_type::<PyRuntimeError>());
    module.add("RagTrainerError", &base)?;
    let make = py.import("builtins")?.getattr("type")?;
    for kind in Kind::ALL {
        let parent = if kind.is_value() { &value } else { &runtime };
        let about = pyo3::types::PyDict::new(py);
        about.set_item("__module__", "ragtrainer")?;
        about.set_item("__doc__", kind.about())?;
        module.add(kind.name(), make.call1((kind.name(), (&base, parent), about))?)?;
    }
    Ok(())
}

/// The kind of an error, by who can fix it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Options,
    Data,
    Model,
    Training,
    Hub,
    Document,
    Backend,
    Fork,
    Io,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Options,
        Self::Data,
        Self::Model,
        Self::Training,
        Self::Hub,
        Self::Document,
        Self::Backend,
        Self::Fork,
        Self::Io,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Options => "OptionsError",
            Self::Data => "DataError",
            Self::Model => "ModelError",
            Self::Training => "TrainingError",
            Self::Hub => "HubError",
            Self::Document => "DocumentError",
            Self::Backend => "BackendError",
            Self::Fork => "ForkError",
            Self::Io => "FileError",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Options => "An option that is unknown, out of range, or contradicts another.",
            Self::Data => "Data that cannot be used.",
            Self::Model => "A model that cannot be read, built or written.",
            Self::Training => "A run that stopped or cannot be resumed.",
            Self::Hub => "A model that the hub does not have or does not give.",
            Self::Document => "A document that is not in the index, or an index that cannot be used.",
            Self::Backend => "A backend that is not known, not built in, or not usable on this machine.",
            Self::Fork => "A call in a process that was forked after the library was used.",
            Self::Io => "A file that cannot be read or written.",
        }
    }

    fn is_value(self) -> bool {
        matches!(self, Self::Options | Self::Data | Self::Document)
    }

    /// The exception of this kind with a message.
    pub(crate) fn raise(self, message: String) -> PyErr {
        Python::attach(|py| {
            let class = py.import("ragtrainer._native").and_then(|module| module.getattr(self.name()));
            match class.and_then(|class| class.call1((message,))) {
                Ok(exception) => PyErr::from_value(exception),
                Err(error) => error,
            }
        })
    }
}

/// An error of the facade as an exception. The message includes its causes, as Python would not show them.
pub(crate) fn raise(error: Error) -> PyErr {
    let kind = match &error {
        Error::Config(_)
        | Error::NotSet { .. }
        | Error::Threads { .. }
        | Error::NoFloat16 { .. }
        | Error::NoTf32 { .. }
        | Error::LimitTooLow { .. }
        | Error::LimitChangesLoss { .. }
        | Error::NoMemoryReading
        | Error::NoSuchSize { .. }
        | Error::NoHits => Kind::Options,
        Error::Data(_) | Error::NotPrepared | Error::NoMinerModel { .. } | Error::EmptyText { .. } => Kind::Data,
        Error::Model(_) | Error::NoColbert { .. } => Kind::Model,
        Error::Hub { .. } | Error::HubUnreachable { .. } => Kind::Hub,
        Error::UnknownDocument { .. }
        | Error::DuplicateDocument { .. }
        | Error::DocumentFolder { .. }
        | Error::OtherModel { .. }
        | Error::OtherSize { .. } => Kind::Document,
        Error::UnknownBackend { .. } | Error::BackendNotBuilt { .. } | Error::BackendUnusable { .. } => Kind::Backend,
        Error::Io { .. } | Error::Json { .. } => Kind::Io,
        _ => Kind::Training,
    };
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(below) = cause {
        let text = below.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = below.source();
    }
    kind.raise(message)
}

//! The wheel's native half: classes and functions that the Python package `ragtrainer` wraps.
//!
//! The Python half has RAGatouille's signatures, defaults and result dictionaries; this half has what needs the facade.
//! Options, reports and events are passed as JSON texts, raw data and documents as Python objects.

mod convert;
mod error;
mod logging;
mod observer;
mod options;
mod pretrained;
mod process;
mod program;
mod trainer;

use pyo3::prelude::*;

/// The extension module `ragtrainer._native`.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("BACKENDS", ragtrainer::backend::available_backends())?;
    module.add_class::<trainer::Trainer>()?;
    module.add_class::<pretrained::Pretrained>()?;
    module.add_class::<pretrained::Encoded>()?;
    module.add_class::<pretrained::Folder>()?;
    module.add_function(wrap_pyfunction!(options::option_table, module)?)?;
    module.add_function(wrap_pyfunction!(program::run_program, module)?)?;
    error::add_to(module)
}

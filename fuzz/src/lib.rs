//! The fuzz targets: a function each, from the bytes of an input to nothing. `fuzz_targets` hands them to libFuzzer, and a test
//! of the crate `ragtrainer` compiles them with a stable compiler and runs them on their seeds.

pub mod panics;
mod scratch;
mod tiny_model;

pub mod config;
pub mod data;
pub mod model_files;
pub mod parquet;
pub mod run_files;
pub mod weights;

/// Runs a target on an input.
pub type Target = fn(&[u8]);

/// The targets by their names, which are those of their seeds' folders.
pub const TARGETS: [(&str, Target); 6] = [
    ("config", config::run),
    ("data", data::run),
    ("model_files", model_files::run),
    ("parquet", parquet::run),
    ("run_files", run_files::run),
    ("weights", weights::run),
];

//! The fuzz targets, one function each, which takes the bytes of an input. `fuzz_targets` passes them to libFuzzer; a
//! test of the crate `ragtrainer` compiles them with a stable compiler and runs them on their seeds.

pub mod panics;
mod scratch;
mod tiny_model;

pub mod config;
pub mod data;
#[cfg(feature = "hub")]
pub mod hub;
pub mod model_files;
pub mod parquet;
pub mod run_files;
pub mod training;
pub mod weights;

/// Runs a target on an input.
pub type Target = fn(&[u8]);

/// The targets by their names, which are those of their seeds' folders.
pub const TARGETS: &[(&str, Target)] = &[
    ("config", config::run),
    ("data", data::run),
    #[cfg(feature = "hub")]
    ("hub", hub::run),
    ("model_files", model_files::run),
    ("parquet", parquet::run),
    ("run_files", run_files::run),
    ("training", training::run),
    ("weights", weights::run),
];

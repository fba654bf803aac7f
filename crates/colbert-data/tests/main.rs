//! Tests of the public interface, without network; one binary.

mod bad_input;
mod candidates;
mod defects;
mod exports;
mod field;
mod files;
mod formats;
mod loading;
mod measured;
mod mixing;
#[cfg(feature = "parquet")]
mod parquet;
mod properties;
mod reports;
mod shapes;
mod support;
mod teacher;
mod twins;

//! Tests of the public interface, without network; one binary.

mod bad_input;
mod defects;
mod formats;
mod loading;
mod measured;
mod reports;
mod support;

//! Tests of the facade and of the command line, with a tiny model and texts of their own.

mod bad_input;
mod command_line;
mod device_memory;
mod facade;
mod hostile_bytes;
#[cfg(feature = "hub")]
mod hub;
mod report;
mod support;
mod survival;
mod trained;

//! Tests of the program, with a tiny model and texts of their own.

mod bad_input;
mod command_line;
mod data_commands;
mod device_memory;
mod find_commands;
mod folder_survival;
#[cfg(feature = "hub")]
mod hub;
mod processes;
mod program;
mod report;
mod sizes_and_candidates;
mod streams;
#[path = "../../ragtrainer/tests/support.rs"]
mod support;
mod survival;
mod teacher;
mod trained;

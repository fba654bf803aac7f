//! The command line of ragtrainer, for the program and for the wheel's command of the same name.

mod commands;
mod data;
mod flags;
mod interrupt;
mod logging;
mod mining;
mod model;
mod output;
mod program;
mod progress;
mod tables;

pub use program::run_program;

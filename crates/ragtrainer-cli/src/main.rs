//! The program ragtrainer.

use std::process::ExitCode;

fn main() -> ExitCode {
    ragtrainer_cli::run_program(std::env::args_os())
}

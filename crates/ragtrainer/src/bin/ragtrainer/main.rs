//! The command line of ragtrainer.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the program that talks to people")]

mod check;
mod data;
mod evaluate;
mod flags;
mod interrupt;
mod mining;
mod prepare;
mod progress;
mod tables;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Train late-interaction (ColBERT) retrieval models, without Python.
///
/// Start with `ragtrainer check` to see what is wrong with your data, then `ragtrainer train --dry-run` to see what would
/// happen, then `ragtrainer train`.
///
/// Every option can stand in a config file (TOML, YAML or JSON), in the environment (RAGTRAINER_TRAIN__BATCH_SIZE=16) or
/// on the command line; the later of these wins.
#[derive(Debug, Parser)]
#[command(name = "ragtrainer", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read data, add negatives, and train a model.
    Train(train::TrainCommand),
    /// Read data, add negatives, and write the three files that colbert-ai and RAGatouille train from.
    Prepare(prepare::PrepareCommand),
    /// Measure a model directory on the judged queries of a BEIR folder, beside BM25.
    Evaluate(evaluate::EvaluateCommand),
    /// Say what is wrong with training data, before it costs time.
    Check(check::CheckCommand),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Train(command) => command.run(),
        Command::Prepare(command) => command.run(),
        Command::Evaluate(command) => command.run(),
        Command::Check(command) => command.run(),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

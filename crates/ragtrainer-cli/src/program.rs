//! The arguments of the program, and its way from them to an exit code.

use std::ffi::OsString;
use std::process::{self, ExitCode};
use std::thread;
use std::time::Duration;

use anyhow::bail;
use clap::{Parser, Subcommand};
use ragtrainer::Launched;

use crate::commands;
use crate::logging;
use crate::output::{be_heard, be_silent, complain};

/// How long a process other than the first waits before it reports why it ends.
const REASON_OF_THE_FIRST: Duration = Duration::from_secs(2);

/// Train late-interaction (ColBERT) retrieval models and search with them, without Python.
///
/// Start with `ragtrainer check` to find problems in your data, then `ragtrainer train --dry-run` to see the plan, then
/// `ragtrainer train`; `encode`, `rerank` and `search` use the trained model.
///
/// Every option can stand in a config file (TOML, YAML or JSON), in the environment (RAGTRAINER_TRAIN__BATCH_SIZE=16)
/// or on the command line; later ones win. RAGTRAINER_LOG=debug prints the records of the libraries to standard error.
#[derive(Debug, Parser)]
#[command(name = "ragtrainer", version, max_term_width = 110)]
struct Cli {
    /// CPU threads, at most as many as the machine has [default: all; several processes share them].
    #[arg(long, value_name = "N", global = true, display_order = 1000)]
    threads: Option<usize>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read data, add negatives, and train a model.
    Train(commands::train::TrainCommand),
    /// Read data, add negatives, and write the three files that colbert-ai and RAGatouille train on.
    Prepare(commands::prepare::PrepareCommand),
    /// Score the candidates of every query with a teacher, and write them as rows for distillation.
    Score(commands::score::ScoreCommand),
    /// Evaluate a model on the judged queries of BEIR folders, next to BM25.
    Evaluate(commands::evaluate::EvaluateCommand),
    /// List the runs in a folder.
    Runs(commands::runs::RunsCommand),
    /// Regenerate a run's HTML report, or compare runs.
    Report(commands::runs::ReportCommand),
    /// Check training data for problems before they cost time.
    Check(commands::check::CheckCommand),
    /// Encode texts with a trained model, into a folder to search or a file of vectors.
    Encode(commands::encode::EncodeCommand),
    /// Build an index of a folder of encoded documents, for millions of them.
    Index(commands::index::IndexCommand),
    /// Rank the documents of a file for a query.
    Rerank(commands::rerank::RerankCommand),
    /// Search a folder of encoded documents.
    Search(commands::search::SearchCommand),
    /// Write an ONNX graph into a model directory, for next-plaid.
    Onnx(commands::onnx::OnnxCommand),
}

impl Command {
    /// Whether several processes share its work.
    fn is_shared(&self) -> bool {
        matches!(self, Self::Train(_) | Self::Prepare(_) | Self::Score(_) | Self::Evaluate(_) | Self::Encode(_))
    }
}

fn run(cli: Cli, launched: &Launched) -> anyhow::Result<ExitCode> {
    let processes = launched.processes();
    if !processes.is_first() {
        be_silent();
    }
    logging::install()?;
    match cli.threads {
        Some(threads) => ragtrainer::backend::set_threads(threads)?,
        None if processes.size() > 1 => ragtrainer::backend::set_threads(launched.threads())?,
        None => {}
    }
    if processes.size() > 1 && !cli.command.is_shared() {
        bail!(
            "a launcher started {} processes, but only train, prepare, score, evaluate and encode share their work",
            processes.size()
        );
    }
    match cli.command {
        Command::Train(command) => command.run(processes),
        Command::Prepare(command) => command.run(processes),
        Command::Score(command) => command.run(processes),
        Command::Evaluate(command) => command.run(&**processes),
        Command::Runs(command) => command.run(),
        Command::Report(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Encode(command) => command.run(processes),
        Command::Index(command) => command.run(),
        Command::Rerank(command) => command.run(),
        Command::Search(command) => command.run(),
        Command::Onnx(command) => command.run(),
    }
}

/// Runs the program with the arguments of a command line, the program's name first, and returns the exit code.
///
/// For a process of its own: it installs handlers of signals and of log records, and ends the process on wrong
/// arguments.
pub fn run_program(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    ragtrainer::backend::bound_caches();
    let (launched, joined) = match Launched::join() {
        Ok(launched) => (launched, Ok(())),
        Err(error) => (Launched::one(), Err(error)),
    };
    let cli = Cli::try_parse_from(arguments).unwrap_or_else(|error| {
        if launched.processes().is_first() {
            error.exit();
        }
        process::exit(error.exit_code())
    });
    match joined.map_err(Into::into).and_then(|()| run(cli, &launched)) {
        Ok(code) => code,
        Err(error) => failed(&error, launched),
    }
}

/// Reports why the program ends. Of several processes one does so, as most reasons are the same for all.
fn failed(error: &anyhow::Error, launched: Launched) -> ExitCode {
    let processes = launched.processes();
    if processes.size() == 1 {
        complain!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    let (rank, size) = (processes.rank(), processes.size());
    if !processes.is_first() {
        // The first process, if it has a reason of its own, ends this one meanwhile.
        thread::sleep(REASON_OF_THE_FIRST);
        be_heard();
    }
    complain!("error: {error:#} (process {rank} of {size})");
    launched.abort(1)
}

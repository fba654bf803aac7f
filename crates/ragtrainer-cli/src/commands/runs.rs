//! `ragtrainer runs` and `ragtrainer report`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ragtrainer::record::{RunRecord, RunSummary, differing_options, runs_in, write_comparison, write_report};

use crate::output::say;

/// List the runs in a folder: their progress, and their quality before and after training.
#[derive(Debug, Args)]
pub(crate) struct RunsCommand {
    /// Folder that contains the folders of runs.
    #[arg(value_name = "FOLDER", default_value = "runs")]
    folder: PathBuf,
}

impl RunsCommand {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let runs = runs_in(&self.folder)?;
        if runs.is_empty() {
            say!("no runs in {}", self.folder.display());
        } else {
            say!("{}", table_of(&runs));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Regenerate a run's HTML report, or compare several runs.
#[derive(Debug, Args)]
#[command(
    after_help = "For one run, RUN/report.html is written from the files in the folder. Several runs are printed \
    side by side, with the options that differ; --html writes the comparison as a page with curves."
)]
pub(crate) struct ReportCommand {
    /// Folders of runs.
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Write the comparison as one self-contained HTML page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl ReportCommand {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut runs = Vec::new();
        for path in &self.runs {
            runs.push(RunRecord::read(path)?);
        }
        say!("{}", table_of(&runs));
        if let [only] = self.runs.as_slice() {
            say!("report: {}", write_report(only)?.display());
        } else {
            let rows: Vec<Vec<String>> =
                differing_options(&runs).into_iter().map(|(name, values)| [vec![name], values].concat()).collect();
            let headings = std::iter::once("option".to_owned()).chain(runs.iter().map(|run| RunSummary::of(run).name));
            say!("\n{}", columns(&headings.collect::<Vec<_>>(), &rows));
        }
        if let Some(path) = &self.html {
            write_comparison(&runs, path)?;
            say!("report: {}", path.display());
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn table_of(runs: &[RunRecord]) -> String {
    let rows: Vec<Vec<String>> = runs.iter().map(|run| RunSummary::of(run).cells().to_vec()).collect();
    columns(&RunSummary::HEADINGS.map(str::to_owned), &rows)
}

/// Cells under headings, each column as wide as its widest cell.
fn columns(headings: &[String], rows: &[Vec<String>]) -> String {
    let all = || std::iter::once(headings).chain(rows.iter().map(Vec::as_slice));
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all().map(line).collect::<Vec<_>>().join("\n")
}

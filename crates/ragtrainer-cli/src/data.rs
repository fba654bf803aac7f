//! Reading and preparing data, with a report of what was found and the progress of mining.

use ragtrainer::RagTrainer;
use ragtrainer::data::{DataReport, Severity};

use crate::interrupt::Interrupt;
use crate::mining::MiningBar;
use crate::output::say;

/// Reads all data and adds negatives; prints a summary of both. From mining on, signals are handled; returns `None` if
/// one ended the mining.
pub(crate) fn prepare(trainer: &mut RagTrainer) -> anyhow::Result<Option<Interrupt>> {
    for line in trainer.read_data()? {
        say!("{line}");
    }
    let interrupt = Interrupt::install()?;
    let mining = MiningBar::new();
    let prepared = interrupt.ending(|interrupt| {
        let prepared = trainer.add_negatives(&|phase, done, total| {
            mining.tell(phase, done, total);
            interrupt.end_if_requested();
        });
        prepared.map(ToString::to_string).map_err(anyhow::Error::from)
    });
    let throughput = mining.finish();
    let Some(prepared) = prepared else {
        say!("stopped while negatives were mined; nothing was written");
        return Ok(None);
    };
    say!("{}", prepared?.trim_end());
    if let Some(throughput) = throughput {
        say!("  {throughput}");
    }
    if let Some(report) = trainer.data_report() {
        print_findings(report);
    }
    Ok(Some(interrupt))
}

/// A line for each finding, and the cases of those that are errors.
fn print_findings(report: &DataReport) {
    for finding in &report.findings {
        say!("{}: {}; {}", finding.severity, finding.message, finding.fix);
        if finding.severity == Severity::Error {
            finding.examples.iter().for_each(|example| say!("  {example}"));
        }
    }
}

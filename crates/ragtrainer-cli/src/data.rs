//! Reading and preparing data, with a report of what was found and the progress of mining.

use ragtrainer::RagTrainer;
use ragtrainer::data::{DataReport, Severity};

use crate::mining::MiningBar;
use crate::output::say;

/// Reads everything and adds negatives; prints what was found, and where the negatives came from.
pub(crate) fn prepare(trainer: &mut RagTrainer) -> anyhow::Result<()> {
    for line in trainer.read_data()? {
        say!("{line}");
    }
    let mining = MiningBar::new();
    let prepared = trainer.add_negatives(&|phase, done, total| mining.tell(phase, done, total));
    let throughput = mining.finish();
    say!("{}", prepared?.to_string().trim_end());
    if let Some(throughput) = throughput {
        say!("  {throughput}");
    }
    if let Some(report) = trainer.data_report() {
        print_findings(report);
    }
    Ok(())
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

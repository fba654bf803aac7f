//! Reading and preparing data, with word of what was found and how far mining is.

use ragtrainer::config::Options;
use ragtrainer::data::{DataReport, Severity};
use ragtrainer::{LoadedData, read_input};

use crate::mining::MiningBar;

/// Reads everything and adds negatives; prints what was found, and where the negatives came from.
pub(crate) fn load(options: &Options) -> anyhow::Result<LoadedData> {
    let input = read_input(options)?;
    for line in &input.announcements {
        println!("{line}");
    }
    let mining = MiningBar::new();
    let data = input.prepare(options, &|phase, done, total| mining.tell(phase, done, total));
    let throughput = mining.finish();
    let data = data?;
    println!("{}", data.prepared.to_string().trim_end());
    if let Some(throughput) = throughput {
        println!("  {throughput}");
    }
    Ok(data)
}

/// A line for each finding, and the cases of those that are errors.
pub(crate) fn print_findings(report: &DataReport) {
    for finding in &report.findings {
        println!("{}: {}; {}", finding.severity, finding.message, finding.fix);
        if finding.severity == Severity::Error {
            finding.examples.iter().for_each(|example| println!("  {example}"));
        }
    }
}

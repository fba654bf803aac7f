//! `ragtrainer check`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ragtrainer::data::Severity;
use ragtrainer::read_input;

use crate::flags::{Check, OptionFlags};

/// Say what is wrong with training data, before it costs time.
///
/// With --pretrained-model-name (or a config file that names one) texts are measured with that model's tokenizer: what is
/// cut off at --doc-maxlen, and what its vocabulary lacks.
///
/// Exit code: 0 if nothing is worse than a note, 1 for errors, 3 for warnings.
#[derive(Debug, Args)]
pub(crate) struct CheckCommand {
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Write the report as one self-contained HTML page, with histograms.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    flags: OptionFlags<Check>,
}

impl CheckCommand {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let input = read_input(&self.flags.inherited_options()?.0)?;
        if let Some(path) = &self.html {
            input.report.write_html(path)?;
        }
        if self.json {
            println!("{}", serde_json::to_string_pretty(&input.report)?);
        } else {
            // The report itself says what is trained on.
            input.announcements.iter().skip(1).for_each(|line| println!("{line}"));
            println!("{}", input.report);
        }
        Ok(ExitCode::from(match input.report.worst() {
            Some(Severity::Error) => 1,
            Some(Severity::Warning) => 3,
            _ => 0,
        }))
    }
}

//! `ragtrainer check`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ragtrainer::data::Severity;
use ragtrainer::record::write_data_page;

use crate::flags::{ABOUT_FLAGS, Check, OptionFlags};
use crate::output::{json_line, say};

/// Check training data for problems before they cost time.
#[derive(Debug, Args)]
#[command(after_help = format!("With --pretrained-model-name (or a config file that names one) texts are measured with that \
    model's tokenizer: how many exceed --doc-maxlen, and which words its vocabulary lacks.\n\nExit code: 0 if nothing \
    is worse than a note, 1 for errors, 3 for warnings.\n\n{ABOUT_FLAGS}"))]
pub(crate) struct CheckCommand {
    /// Training data (the same as --train-data).
    #[arg(value_name = "DATA", conflicts_with = "data.train")]
    data: Option<String>,
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
    pub(crate) fn run(mut self) -> anyhow::Result<ExitCode> {
        if let Some(data) = &self.data {
            self.flags.set("data.train", data);
        }
        let mut trainer = self.flags.trainer()?;
        // The report itself says what is trained on.
        let announcements = trainer.read_data()?[1..].to_vec();
        let report = trainer.data_report().expect("data that was read was examined");
        if let Some(path) = &self.html {
            write_data_page(report, path)?;
        }
        if self.json {
            json_line(&serde_json::to_string_pretty(report)?);
        } else {
            announcements.iter().for_each(|line| say!("{line}"));
            say!("{report}");
        }
        Ok(ExitCode::from(match report.worst() {
            Some(Severity::Error) => 1,
            Some(Severity::Warning) => 3,
            _ => 0,
        }))
    }
}

//! `ragtrainer onnx`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ragtrainer::config::ExportDtype;
use ragtrainer::model::write_onnx;

use crate::output::say;

/// Write model.onnx (float32) and onnx_config.json into a model directory; next-plaid loads them with tokenizer.json.
#[derive(Debug, Args)]
#[command(after_help = "`ragtrainer train --export-onnx` does this for the directories it writes.")]
pub(crate) struct OnnxCommand {
    /// Model directory, such as RUN/best, written by this program, PyLate, sentence-transformers or colbert-ai.
    #[arg(value_name = "MODEL_DIR")]
    directory: PathBuf,
}

impl OnnxCommand {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        write_onnx(&self.directory, ExportDtype::F32)?;
        for file in ["model.onnx", "onnx_config.json"] {
            say!("{}", self.directory.join(file).display());
        }
        Ok(ExitCode::SUCCESS)
    }
}

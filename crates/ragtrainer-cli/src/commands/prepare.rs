//! `ragtrainer prepare`

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use ragtrainer::data::ReferenceFiles;
use ragtrainer::train::Processes;

use crate::data::prepare;
use crate::flags::{ABOUT_FLAGS, OptionFlags, Prepare};
use crate::interrupt::INTERRUPTED;
use crate::output::say;

/// Read data, add negatives, and write the three files that colbert-ai and RAGatouille train on.
#[derive(Debug, Args)]
#[command(after_help = format!("Needs --train-data. Writes queries.train.colbert.tsv, corpus.train.colbert.tsv and triples.train.colbert.jsonl. \
    The same data, options and seed give the same bytes. An earlier export in the folder is replaced only with \
    --overwrite. Tabs and line breaks inside texts become spaces, as the format cannot hold them.\n\n{ABOUT_FLAGS}"))]
pub(crate) struct PrepareCommand {
    /// Folder the files are written to.
    #[arg(long, alias = "output", value_name = "DIR", default_value = "./data/")]
    data_out_path: PathBuf,
    #[command(flatten)]
    flags: OptionFlags<Prepare>,
}

impl PrepareCommand {
    pub(crate) fn run(self, processes: &Arc<dyn Processes>) -> anyhow::Result<ExitCode> {
        let mut trainer = self.flags.trainer()?.with_processes(Arc::clone(processes));
        // Process 0 writes the files, perhaps before another process looks.
        if processes.is_first() && !trainer.options().overwrite {
            ReferenceFiles::refuse_earlier(&self.data_out_path)?;
        }
        if prepare(&mut trainer)?.is_none() {
            return Ok(ExitCode::from(INTERRUPTED));
        }
        if !processes.is_first() {
            return Ok(ExitCode::SUCCESS);
        }
        let files = trainer.export_training_data(&self.data_out_path)?;
        for path in [&files.queries, &files.collection, &files.triples] {
            say!("wrote {}", path.display());
        }
        Ok(ExitCode::SUCCESS)
    }
}

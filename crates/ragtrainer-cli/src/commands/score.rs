//! `ragtrainer score`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use ragtrainer::data::export_scored;
use ragtrainer::train::Processes;

use crate::data::prepare;
use crate::flags::{ABOUT_FLAGS, OptionFlags, Prepare};
use crate::interrupt::INTERRUPTED;
use crate::output::say;

/// Score the candidates of every query with a teacher, and write them as rows for distillation.
#[derive(Debug, Args)]
#[command(after_help = format!("Needs --teacher (a cross-encoder or another ColBERT) and --train-data. Candidates are those of the data and new \
    negatives as `ragtrainer prepare` adds them; --num-new-negatives 0 adds none. Each line of the output has a query, \
    --nway documents with the positive first, and the teacher's scores; `ragtrainer train` reads it as training data. \
    Scores are cached by the content of the texts, so an interrupted run, or a later one with the same texts, computes \
    only what is missing. Dev and test data are only searched for training texts. Started by a launcher of MPI, the \
    processes share the scoring.\n\n{ABOUT_FLAGS}"))]
pub(crate) struct ScoreCommand {
    /// Output file (JSONL); one that is there is replaced only with --overwrite.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    flags: OptionFlags<Prepare>,
}

impl ScoreCommand {
    pub(crate) fn run(self, processes: &Arc<dyn Processes>) -> anyhow::Result<ExitCode> {
        let mut trainer = self.flags.trainer()?.with_processes(Arc::clone(processes));
        if trainer.options().negatives.teacher.is_none() {
            bail!(
                "negatives.teacher is not set: name a cross-encoder or a ColBERT, a directory or a name on the hub, \
                 with --teacher"
            );
        }
        // Process 0 writes the file, perhaps before another process looks.
        if processes.is_first() && self.out.exists() && !trainer.options().overwrite {
            bail!("{} is there already; name another file, or pass --overwrite to replace it", self.out.display());
        }
        if self.out.is_dir() {
            bail!("{} is a directory; name a file", self.out.display());
        }
        let data = &trainer.options().data;
        if let Some(input) = data.train.0.iter().chain(&data.all_documents).find(|input| holds(input, &self.out)) {
            bail!("{} is part of the input {}; name another file", self.out.display(), input.display());
        }
        if prepare(&mut trainer)?.is_none() {
            return Ok(ExitCode::from(INTERRUPTED));
        }
        let Some(set) = trainer.training_set() else { bail!("no examples were prepared") };
        if processes.is_first() {
            export_scored(set, &self.out)?;
        }
        say!("wrote {}: {} rows", self.out.display(), set.examples.len());
        Ok(ExitCode::SUCCESS)
    }
}

/// Whether an existing file is this input, or lies in it.
fn holds(input: &Path, file: &Path) -> bool {
    matches!((input.canonicalize(), file.canonicalize()), (Ok(input), Ok(file)) if file.starts_with(&input))
}

//! `ragtrainer train`

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use ragtrainer::config::{Bytes, OptionSources, Options};
use ragtrainer::train::{Begin, Processes};
use ragtrainer::{Backend, Outcome, RagTrainer};

use crate::data::prepare;
use crate::flags::{ABOUT_FLAGS, OptionFlags, Train};
use crate::interrupt::INTERRUPTED;
use crate::output::{outlive_reader, say};
use crate::progress::{Progress, clock};
use crate::tables::evaluation_table;

/// Read data, add negatives, and train a model.
#[derive(Debug, Args)]
#[command(after_help = format!("A run needs --train-data, --pretrained-model-name and --output:\n\n  \
    ragtrainer train --train-data pairs.jsonl --output runs/first --dev-split 200 \\\n      \
    --pretrained-model-name sentence-transformers/all-MiniLM-L6-v2\n\n\
    Prints a summary of the data and the plan, then trains. The best model by the dev metric is written to \
    OUTPUT/best, the last one to OUTPUT/last; without dev queries both are the last. OUTPUT/report.html shows the \
    run. Ctrl-C, SIGTERM and SIGHUP end the run after the current step, with a checkpoint and both models written \
    and exit code 130; a second signal ends it at once. --resume continues such a run, or one that was killed; the \
    result is the same to the last bit.\n\n{ABOUT_FLAGS}"))]
pub(crate) struct TrainCommand {
    /// Print the data summary and the plan, and stop before anything is written.
    #[arg(long)]
    dry_run: bool,
    /// Continue the run in this folder from its newest complete checkpoint, with the options it was started with.
    /// Options given here are applied too, but a change that affects the result is refused without --accept-changes.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["output", "overwrite"])]
    resume: Option<PathBuf>,
    /// With --resume: continue even if options or data have changed, and list the differences.
    #[arg(long, requires = "resume")]
    accept_changes: bool,
    #[command(flatten)]
    flags: OptionFlags<Train>,
}

impl TrainCommand {
    pub(crate) fn run(self, processes: &Arc<dyn Processes>) -> anyhow::Result<ExitCode> {
        outlive_reader();
        let mut trainer = self.trainer()?.with_processes(Arc::clone(processes));
        if self.dry_run {
            let options = trainer.options();
            Backend::from_name(&options.backend)?.precision(options.train.precision)?;
        } else {
            trainer.check(&self.flags.config_files())?;
        }
        let start = Instant::now();
        let Some(interrupt) = prepare(&mut trainer)? else { return Ok(ExitCode::from(INTERRUPTED)) };
        say!("[data ready after {}]\n", clock(start.elapsed()));
        let inheritance = trainer.inheritance()?;
        if !inheritance.settings.is_empty() {
            say!("{inheritance}\n");
        }
        let train = trainer.options().train.clone();
        let preview = trainer.plan(&train)?;
        say!("{preview}\n");
        if self.dry_run {
            say!("dry run: nothing was written");
            return Ok(ExitCode::SUCCESS);
        }
        let mut progress = Progress::new(interrupt);
        let trainer = trainer.with_plan(preview.plan);
        let outcome = trainer.train_observed(&train, &mut progress)?;
        print_outcome(&outcome, trainer.options());
        Ok(if outcome.stopped { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
    }

    fn trainer(&self) -> anyhow::Result<RagTrainer> {
        let Some(folder) = &self.resume else { return self.flags.trainer() };
        let run = OptionSources::new().file(RagTrainer::options_file(folder)?)?;
        let begin = Begin::Resume { accept_changes: self.accept_changes };
        // The folder may have been moved since.
        Ok(self.flags.trainer_above(run)?.with_output(folder, false).with_begin(begin))
    }
}

fn print_outcome(outcome: &Outcome, options: &Options) {
    say!();
    if outcome.stopped {
        say!(
            "stopped after {} steps; resume with: ragtrainer train --resume {}",
            outcome.steps,
            options.output.display()
        );
    }
    if outcome.skipped > 0 {
        say!("{} steps were skipped: their loss or gradient was not finite", outcome.skipped);
    }
    if outcome.overflowed > 0 {
        say!("{} steps were skipped: their gradient overflowed float16", outcome.overflowed);
    }
    if let Some(dev) = &outcome.dev {
        let best = match outcome.best_step {
            _ if outcome.best_made_of.is_some() => "best model (averaged)".to_owned(),
            Some(step) if step > 0 => format!("best model (step {step})"),
            _ => "best model (the start)".to_owned(),
        };
        say!("{}\n", evaluation_table("dev", &[("before training", &dev.start), (&best, &dev.best)]));
    }
    if let Some(test) = &outcome.test {
        let rows = [("BM25", &test.bm25), ("before training", &test.start), ("best model", &test.best)];
        say!("{}\n", evaluation_table("test", &rows));
    }
    match outcome.best_step {
        Some(0) if outcome.best_made_of.is_none() => say!(
            "No checkpoint beat the start on dev {}: the best model is the one that training started from. \
             Try another learning_rate than {}, more steps, or harder negatives.",
            outcome.metric,
            options.train.learning_rate.map_or_else(|| "auto".to_owned(), |rate| format!("{rate:e}"))
        ),
        Some(_) => {
            if let Some(parts) = &outcome.best_made_of {
                say!("The best model is the {parts}.");
            }
            if let Some(comparison) = &outcome.dev_comparison {
                say!("{}", comparison.verdict("dev", outcome.metric));
            }
        }
        None if outcome.stopped => {}
        None => say!("There were no dev queries, so the best model is simply the last one."),
    }
    let memory = outcome.peak_memory.map_or_else(String::new, |bytes| format!("; peak memory {}", Bytes(bytes)));
    if let Some(comparison) = outcome.test.as_ref().and_then(|test| test.comparison.as_ref()) {
        say!("{}", comparison.verdict("test", outcome.metric));
    }
    say!("training took {}{memory}", clock(Duration::from_secs_f64(outcome.training_seconds)));
    // What is so by default is in the model card.
    for difference in &outcome.not_honoured {
        say!("note: {difference}");
    }
    say!("report: {}", options.output.join("report.html").display());
    say!("best model: {}", outcome.best.display());
}

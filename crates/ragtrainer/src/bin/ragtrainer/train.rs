//! `ragtrainer train`

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use ragtrainer::config::{Bytes, Options};
use ragtrainer::{Outcome, RunData, preview, train_with};

use crate::data::{load, print_findings};
use crate::flags::OptionFlags;
use crate::interrupt::{INTERRUPTED, Interrupt};
use crate::progress::{Progress, clock};
use crate::tables::evaluation_table;

/// Read data, add negatives, and train a model.
///
/// Prints what the data is like and what is going to happen, then trains. The best model by the dev metric is written to
/// OUTPUT/best, the last one to OUTPUT/last. Ctrl-C ends the run after the current step, with a checkpoint and both models
/// written; a second Ctrl-C ends it at once.
#[derive(Debug, Args)]
pub(crate) struct TrainCommand {
    /// Print the data summary and the plan, and stop before anything is written.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    flags: OptionFlags,
}

impl TrainCommand {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let (options, inheritance) = self.flags.inherited_options()?;
        let start = Instant::now();
        let data = load(&options)?;
        print_findings(&data.report);
        println!("[data ready after {}]\n", clock(start.elapsed()));
        if !inheritance.settings.is_empty() {
            println!("{inheritance}\n");
        }
        println!("{}\n", preview(&options, &data.set)?);
        if self.dry_run {
            println!("dry run: nothing was written");
            return Ok(ExitCode::SUCCESS);
        }
        let interrupt = Interrupt::install()?;
        let mut progress = Progress::new(interrupt);
        let run = RunData {
            set: &data.set,
            dev: data.dev.as_ref(),
            test: data.test.as_ref(),
            language_code: &options.language_code,
            report: Some(&data.report),
            prepared: Some(&data.prepared),
            remining: data.remining.as_ref(),
        };
        let outcome = train_with(&options, run, &mut progress)?;
        print_outcome(&outcome, &options);
        Ok(if outcome.stopped { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
    }
}

fn print_outcome(outcome: &Outcome, options: &Options) {
    println!();
    if outcome.stopped {
        println!("stopped after {} steps", outcome.steps);
    }
    if let Some([before, after]) = &outcome.dev {
        let best = match outcome.best_step {
            Some(step) if step > 0 => format!("best model (step {step})"),
            _ => "best model (the start)".to_owned(),
        };
        println!("{}\n", evaluation_table("dev", &[("before training", before), (&best, after)]));
    }
    if let Some(test) = &outcome.test {
        let rows = [("BM25", &test.bm25), ("before training", &test.start), ("best model", &test.best)];
        println!("{}\n", evaluation_table("test", &rows));
    }
    match outcome.best_step {
        Some(0) => println!(
            "No checkpoint beat the start on dev {}: the best model is the one that training started from. \
             Try another learning_rate than {:e}, more steps, or harder negatives.",
            outcome.metric, options.train.learning_rate
        ),
        Some(_) => {}
        None => println!("There were no dev queries, so the best model is simply the last one."),
    }
    let memory = outcome.peak_memory.map_or_else(String::new, |bytes| format!("; peak memory {}", Bytes(bytes)));
    println!("training took {}{memory}", clock(Duration::from_secs_f64(outcome.training_seconds)));
    println!("best model: {}", outcome.best.display());
}

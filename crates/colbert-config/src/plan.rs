//! The plan of a run: every "auto" turned into a number, in JSON and in words.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::options::memory::Bytes;
use crate::options::precision::Precision;
use crate::options::schedule::Schedule;
use crate::options::train::IbScope;

/// Share of the peak learning rate at the end of a run above which it "hardly falls".
const HARDLY_FALLS: f64 = 0.9;

/// The plan that the loop reads: no "auto" left.
///
/// Made by [`resolve`](crate::resolve()). Its `Display` is the plan in words, one sentence a line, the first of which
/// says it all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Training examples.
    pub examples: usize,
    /// Passes over the examples, as asked for; `steps` may end the run before they are over.
    pub epochs: usize,
    /// Optimizer steps.
    pub steps: usize,
    /// Queries per optimizer step.
    pub batch_size: usize,
    /// Processes that share every batch. (Plans of before there were several have none, which is 1.)
    #[serde(default = "one")]
    pub processes: usize,
    /// Micro-batches per optimizer step, of each process.
    pub accumsteps: usize,
    /// Queries per micro-batch: `batch_size / (processes * accumsteps)`.
    pub micro_batch_size: usize,
    /// Documents per query, the positive included.
    pub nway: usize,
    /// Whether the in-batch loss is added.
    pub use_ib_negatives: bool,
    /// How far in-batch negatives reach.
    pub ib_scope: IbScope,
    /// In-batch documents each query is compared with, besides its own; 0 without in-batch negatives.
    pub ib_documents: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// The choice of the learning rate in words, where it was automatic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate_reason: Option<String>,
    /// The course of the learning rate after its warm-up. (Plans of before there was a choice have none, which is
    /// linear.)
    #[serde(default)]
    pub schedule: Schedule,
    /// Steps of the fall at the end of [`Schedule::WarmupStableDecay`].
    #[serde(default)]
    pub decay_steps: usize,
    /// Warm-up steps; none means a constant learning rate.
    pub warmup_steps: Option<usize>,
    /// Step at which the learning rate reaches 0; without meaning if it is constant.
    pub schedule_horizon: usize,
    /// Steps between checkpoints and evaluations.
    pub save_every: usize,
    /// Dropout probability in place of the encoder's own, if any.
    pub dropout: Option<f64>,
    /// Format of the factors of the encoder's matrix products: float32, TF32, bfloat16 or float16.
    pub precision: Precision,
    /// Bytes of memory that training takes at most, where it is known: every text counted at its longest.
    pub memory: Option<u64>,
    /// Sentences about options of loss, optimizer and mixing that are not at their defaults.
    #[serde(default)]
    pub recipe: Vec<String>,
}

fn one() -> usize {
    1
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let against = if self.batch_size == 1 { "against" } else { "each against" };
        write!(
            f,
            "{} of {}, {against} its {}",
            count(self.steps, "step", "steps"),
            count(self.batch_size, "query", "queries"),
            count(self.nway.saturating_sub(1), "negative", "negatives"),
        )?;
        if self.ib_documents > 0 {
            write!(f, " and {}", count(self.ib_documents, "in-batch document", "in-batch documents"))?;
        }
        write!(f, "; {}; {}.", self.learning_rate_in_words(), self.checkpoints_in_words())?;
        for line in self.remarks() {
            write!(f, "\n{line}")?;
        }
        Ok(())
    }
}

impl Plan {
    /// Micro-batches per optimizer step, of all processes together. The bits of a run depend on this number and not on
    /// how many processes share it.
    pub fn pieces(&self) -> usize {
        self.processes * self.accumsteps
    }

    fn learning_rate_in_words(&self) -> String {
        let peak = scientific(self.learning_rate);
        let (steps, horizon) = (self.steps, self.schedule_horizon);
        let Some(warmup) = self.warmup_steps else {
            return format!("learning rate stays at {peak}");
        };
        if warmup > steps {
            return format!("learning rate rises towards {peak}, which it would reach at step {warmup}");
        }
        if self.schedule == Schedule::Constant {
            return match warmup {
                0 => format!("learning rate stays at {peak}"),
                _ => format!("learning rate rises to {peak} at step {warmup} and stays there"),
            };
        }
        let (start, step) = match warmup {
            0 => (format!("learning rate starts at {peak}"), "step "),
            _ => (format!("learning rate rises to {peak} at step {warmup}"), ""),
        };
        let (falls, step) = match self.schedule {
            Schedule::Linear | Schedule::Constant => ("falls".to_owned(), step),
            Schedule::Cosine => ("falls along a cosine".to_owned(), step),
            Schedule::WarmupStableDecay => {
                (format!("stays until step {}, falls", horizon.saturating_sub(self.decay_steps)), "")
            }
        };
        if horizon <= steps {
            return format!("{start}, {falls} to 0 at {step}{horizon}");
        }
        let share = self.schedule.share(steps, warmup, horizon, self.decay_steps);
        let end = match share {
            share if share >= HARDLY_FALLS => "hardly falls".to_owned(),
            share => format!("ends at {}", scientific(two_digits(self.learning_rate * share))),
        };
        format!("{start}, {falls} towards 0 at step {horizon}, so it {end}")
    }

    fn checkpoints_in_words(&self) -> String {
        match self.save_every {
            every if every >= self.steps => "a checkpoint at the end".to_owned(),
            0 | 1 => "a checkpoint after every step".to_owned(),
            every => format!("a checkpoint every {every} steps"),
        }
    }

    /// Returns the differences from the plainest run, a sentence each.
    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let seen = self.steps.saturating_mul(self.batch_size);
        let offered = self.examples.saturating_mul(self.epochs);
        let examples = count(self.examples, "example", "examples");
        if self.epochs > 1 {
            remarks.push(format!("{} over {examples}.", count(self.epochs, "epoch", "epochs")));
        }
        match offered.saturating_sub(seen) {
            0 => {}
            unseen if unseen < self.batch_size && self.epochs > 1 => {
                remarks.push(format!("The last {unseen} of the last epoch {} unused: {DROPPED}", be(unseen)));
            }
            unseen if unseen < self.batch_size => {
                remarks.push(format!("{unseen} of {examples} {} unused: {DROPPED}", be(unseen)));
            }
            _ => remarks.push(format!("The run ends at maxsteps, after {seen} of {offered} examples.")),
        }
        if self.processes > 1 {
            let each = self.batch_size / self.processes;
            remarks.push(format!("{} processes, {} each.", self.processes, count(each, "query", "queries")));
        }
        if self.pieces() > 1 {
            let size = count(self.micro_batch_size, "query", "queries");
            let pool = match (self.ib_documents > 0, self.ib_scope) {
                (false, _) => "",
                (true, IbScope::Batch) => "; in-batch documents come from the whole batch",
                (true, IbScope::MicroBatch) => "; in-batch documents come from the micro-batch alone",
            };
            remarks.push(format!("Each batch is computed in {} micro-batches of {size}{pool}.", self.pieces()));
        }
        if self.use_ib_negatives && self.ib_documents == 0 {
            remarks.push("There are no in-batch documents, as there is only one query to take them from.".to_owned());
        }
        if let Some(reason) = &self.learning_rate_reason {
            remarks.push(format!("The learning rate is automatic: {reason}."));
        }
        remarks.extend(self.recipe.iter().cloned());
        if let Some(dropout) = self.dropout {
            remarks.push(format!("Dropout is {dropout} in place of the encoder's own."));
        }
        if self.precision == Precision::Bf16 {
            remarks.push(
                "The encoder's matmuls take bfloat16 factors; weights, sums, normalisation and loss are float32."
                    .to_owned(),
            );
        }
        if self.precision == Precision::Tf32 {
            remarks.push("The encoder's matmuls may round their float32 factors to TF32.".to_owned());
        }
        if self.precision == Precision::F16 {
            remarks.push(
                "The encoder's matmuls take float16 factors, and the loss is scaled for them; all else is float32."
                    .to_owned(),
            );
        }
        if let Some(memory) = self.memory {
            let each = if self.processes > 1 { " in each process" } else { "" };
            remarks.push(format!("Takes at most about {} of memory{each}.", Bytes(memory)));
        }
        remarks
    }
}

const DROPPED: &str = "an incomplete last batch is dropped.";

fn be(number: usize) -> &'static str {
    if number == 1 { "is" } else { "are" }
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn scientific(number: f64) -> String {
    format!("{number:e}")
}

/// Rounded to two significant digits.
fn two_digits(number: f64) -> f64 {
    format!("{number:.1e}").parse().unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use crate::{AutoSteps, IbScope, Plan, Schedule, TrainOptions, Warmup, resolve};

    fn words(options: TrainOptions, examples: usize) -> String {
        resolve(&options, examples).unwrap().to_string()
    }

    fn options() -> TrainOptions {
        TrainOptions::default()
    }

    #[test]
    fn the_plain_run_is_one_sentence() {
        assert_eq!(
            words(options(), 312 * 32),
            "312 steps of 32 queries, each against its 1 negative and 62 in-batch documents; learning rate rises to \
             5e-6 at step 31, falls to 0 at 312; a checkpoint every 31 steps."
        );
    }

    #[test]
    fn one_of_everything_is_singular() {
        let single = TrainOptions { batch_size: 1, nway: 3, ..options() };
        assert_eq!(
            words(single, 1),
            "1 step of 1 query, against its 2 negatives; learning rate starts at 5e-6, falls to 0 at step 1; a \
             checkpoint at the end.\n\
             There are no in-batch documents, as there is only one query to take them from."
        );
    }

    #[test]
    fn schedules_in_words() {
        let schedule = |warmup_steps, horizon| {
            let options = TrainOptions {
                warmup_steps,
                schedule_horizon: horizon,
                learning_rate: Some(2e-5),
                use_ib_negatives: false,
                ..options()
            };
            let words = words(options, 3_200);
            words.strip_prefix("100 steps of 32 queries, each against its 1 negative; ").unwrap().to_owned()
        };
        let (auto, long) = (AutoSteps::Auto, AutoSteps::Steps(500_000));
        let end = "; a checkpoint every 10 steps.";
        for (warmup, horizon, expected) in [
            (Warmup::Constant, auto, "learning rate stays at 2e-5"),
            (Warmup::Steps(0), auto, "learning rate starts at 2e-5, falls to 0 at step 100"),
            (
                Warmup::Auto,
                long,
                "learning rate rises to 2e-5 at step 10, falls towards 0 at step 500000, so it hardly falls",
            ),
            // (210 - 100) / (210 - 10) of the peak is left.
            (
                Warmup::Auto,
                AutoSteps::Steps(210),
                "learning rate rises to 2e-5 at step 10, falls towards 0 at step 210, so it ends at 1.1e-5",
            ),
            (
                Warmup::Steps(0),
                AutoSteps::Steps(200),
                "learning rate starts at 2e-5, falls towards 0 at step 200, so it ends at 1e-5",
            ),
            (Warmup::Steps(101), long, "learning rate rises towards 2e-5, which it would reach at step 101"),
        ] {
            assert_eq!(schedule(warmup, horizon), format!("{expected}{end}"));
        }
    }

    #[test]
    fn other_schedules_in_words() {
        for (schedule, warmup_steps, expected) in [
            (Schedule::Cosine, 10, "rises to 5e-6 at step 10, falls along a cosine to 0 at 100"),
            (Schedule::WarmupStableDecay, 10, "rises to 5e-6 at step 10, stays until step 90, falls to 0 at 100"),
            (Schedule::WarmupStableDecay, 0, "starts at 5e-6, stays until step 90, falls to 0 at 100"),
            (Schedule::Constant, 10, "rises to 5e-6 at step 10 and stays there"),
            (Schedule::Constant, 0, "stays at 5e-6"),
        ] {
            let words = words(TrainOptions { schedule, warmup_steps: Warmup::Steps(warmup_steps), ..options() }, 3_200);
            assert!(words.contains(&format!("; learning rate {expected};")), "{words}");
        }
    }

    #[test]
    fn a_plan_of_before_there_were_recipes_is_read() {
        let plan = resolve(&options(), 1_000).unwrap();
        let mut json = serde_json::to_value(&plan).unwrap();
        for name in ["schedule", "decay_steps", "recipe"] {
            json.as_object_mut().unwrap().remove(name).unwrap();
        }
        let read: Plan = serde_json::from_value(json).unwrap();
        assert_eq!(Plan { decay_steps: plan.decay_steps, ..read }, plan);
    }

    #[test]
    fn checkpoints_in_words() {
        for (every, expected) in [
            (1, "; a checkpoint after every step."),
            (2, "; a checkpoint every 2 steps."),
            (99, "; a checkpoint every 99 steps."),
            (100, "; a checkpoint at the end."),
            (101, "; a checkpoint at the end."),
        ] {
            let words = words(TrainOptions { save_every: AutoSteps::Steps(every), ..options() }, 3_200);
            assert!(words.ends_with(expected), "{words}");
        }
    }

    fn remarks(options: TrainOptions, examples: usize) -> String {
        words(options, examples).split_once('\n').unwrap_or_default().1.to_owned()
    }

    #[test]
    fn unused_examples_are_counted() {
        let dropped = "unused: an incomplete last batch is dropped.";
        assert_eq!(remarks(options(), 1_000), format!("8 of 1000 examples are {dropped}"));
        assert_eq!(remarks(options(), 993), format!("1 of 993 examples is {dropped}"));
        assert_eq!(remarks(options(), 992), "");
        assert_eq!(
            remarks(TrainOptions { maxsteps: 10, ..options() }, 1_000),
            "The run ends at maxsteps, after 320 of 1000 examples."
        );
        assert_eq!(
            remarks(TrainOptions { epochs: 3, ..options() }, 1_000),
            format!("3 epochs over 1000 examples.\nThe last 24 of the last epoch are {dropped}")
        );
        assert_eq!(
            remarks(TrainOptions { epochs: 3, maxsteps: 40, ..options() }, 1_000),
            "3 epochs over 1000 examples.\nThe run ends at maxsteps, after 1280 of 3000 examples."
        );
    }

    #[test]
    fn accumulation_and_dropout_are_remarked_on() {
        let accumulated = TrainOptions { accumsteps: 4, ..options() };
        assert_eq!(
            remarks(accumulated.clone(), 320),
            "Each batch is computed in 4 micro-batches of 8 queries; in-batch documents come from the whole batch."
        );
        let alone = TrainOptions { ib_scope: IbScope::MicroBatch, ..accumulated.clone() };
        let text = words(alone.clone(), 320);
        assert!(text.contains("and 14 in-batch documents"), "{text}");
        assert!(text.ends_with("8 queries; in-batch documents come from the micro-batch alone."), "{text}");
        assert_eq!(
            remarks(TrainOptions { use_ib_negatives: false, dropout: Some(0.1), ..alone }, 320),
            "Each batch is computed in 4 micro-batches of 8 queries.\nDropout is 0.1 in place of the encoder's own."
        );
        let ones = TrainOptions { accumsteps: 32, ib_scope: IbScope::MicroBatch, ..accumulated };
        assert_eq!(
            remarks(ones, 320),
            "Each batch is computed in 32 micro-batches of 1 query.\n\
             There are no in-batch documents, as there is only one query to take them from."
        );
    }

    #[test]
    fn the_plan_survives_json() {
        let plan = resolve(&TrainOptions { learning_rate: Some(0.1 + 0.2), ..options() }, 1_000).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&serde_json::to_string(&plan).unwrap()).unwrap(), plan);
    }
}

//! Turns options and the size of the data into a plan: the only place where "auto" becomes a number.

use crate::error::ConfigError;
use crate::options::auto::{AutoSteps, Warmup};
use crate::options::precision::Precision;
use crate::options::schedule::{REFERENCE_LEARNING_RATE, Schedule};
use crate::options::train::{IbScope, TrainOptions};
use crate::plan::Plan;
use crate::recipe::recipe;

/// Divisor of the steps that gives warm-up and the distance between checkpoints (RAGatouille `RAGTrainer.train`).
const TENTH: usize = 10;

/// Derives the plan of a run over `examples` training examples.
///
/// Steps are `examples * epochs / batch_size`, rounded down, and at most `maxsteps`. An "auto" warm-up is a tenth of
/// them (rounded down), an "auto" horizon all of them, and an "auto" distance between checkpoints a tenth (at least 1).
/// If `maxsteps` shortens the run, the reference still takes a tenth of the full run; here a tenth is always a tenth of
/// the steps that are made. Otherwise the numbers are the same.
///
/// The speed of the device, the memory of the model and the dev queries are not known here: an "auto" precision becomes
/// float32, a memory limit is ignored, an "auto" learning rate becomes the reference's, and evaluations may take most of
/// the time. A caller that knows better replaces these options first, or the plan's numbers, as the facade does.
///
/// # Errors
///
/// If an option is out of range, the examples do not fill one batch, the schedule ends before the run does, or the
/// warm-up fills the whole schedule.
///
/// # Examples
///
/// ```
/// use colbert_config::{TrainOptions, resolve};
///
/// let plan = resolve(&TrainOptions::default(), 10_000)?;
/// assert_eq!((plan.steps, plan.warmup_steps, plan.save_every), (312, Some(31), 31));
/// # Ok::<(), colbert_config::ConfigError>(())
/// ```
pub fn resolve(options: &TrainOptions, examples: usize) -> Result<Plan, ConfigError> {
    resolve_for_processes(options, examples, 1)
}

/// As [`resolve`], for a run whose batches are shared by several processes: each has `batch_size / processes` queries
/// of a batch, in `accumsteps` micro-batches. Steps, schedule and order do not depend on their number.
///
/// # Errors
///
/// As [`resolve`], or if the processes cannot share a batch equally.
pub fn resolve_for_processes(options: &TrainOptions, examples: usize, processes: usize) -> Result<Plan, ConfigError> {
    options.validate()?;
    let (batch_size, epochs) = (options.batch_size, options.epochs);
    let pieces = processes.saturating_mul(options.accumsteps);
    if !batch_size.is_multiple_of(pieces) {
        return Err(ConfigError::UnequalShares { batch_size, processes, accumsteps: options.accumsteps });
    }

    let steps = options.maxsteps.min(examples.saturating_mul(epochs) / batch_size);
    if steps == 0 {
        return Err(ConfigError::TooFewExamples { examples, epochs, batch_size });
    }

    let course = Course::of(options, steps)?;
    let save_every = or_a_tenth(options.save_every, steps);
    let micro_batch_size = batch_size / pieces;
    let pool_queries = match options.ib_scope {
        IbScope::Batch => batch_size,
        IbScope::MicroBatch => micro_batch_size,
    };
    let ib_documents = if options.use_ib_negatives { (pool_queries - 1) * options.nway } else { 0 };

    Ok(Plan {
        examples,
        epochs,
        steps,
        batch_size,
        processes,
        accumsteps: options.accumsteps,
        micro_batch_size,
        nway: options.nway,
        use_ib_negatives: options.use_ib_negatives,
        ib_scope: options.ib_scope,
        ib_documents,
        learning_rate: options.learning_rate.unwrap_or(REFERENCE_LEARNING_RATE),
        learning_rate_reason: None,
        schedule: options.schedule,
        decay_steps: course.decay_steps,
        warmup_steps: course.warmup_steps,
        schedule_horizon: course.schedule_horizon,
        save_every,
        dropout: options.dropout,
        precision: match options.precision {
            Precision::Auto => Precision::F32,
            precision => precision,
        },
        memory: None,
        recipe: recipe(options, steps),
    })
}

/// The steps at which the learning rate changes direction.
struct Course {
    /// Steps of rising learning rate; `None` for a constant one.
    warmup_steps: Option<usize>,
    /// Step at which the learning rate is back at 0.
    schedule_horizon: usize,
    /// Steps of falling learning rate, where the schedule has a stable part.
    decay_steps: usize,
}

impl Course {
    /// The course of a run of `steps` steps.
    ///
    /// # Errors
    ///
    /// If the learning rate would be 0 before the run ends, or its parts do not fit into the run.
    fn of(options: &TrainOptions, steps: usize) -> Result<Self, ConfigError> {
        let decay_steps = or_a_tenth(options.decay_steps, steps);
        let schedule_horizon = match options.schedule_horizon {
            AutoSteps::Auto => steps,
            AutoSteps::Steps(horizon) => horizon,
        };
        let warmup_steps = match options.warmup_steps {
            Warmup::Auto => Some(steps / TENTH),
            Warmup::Steps(warmup) => Some(warmup),
            Warmup::Constant => None,
        };
        let course = Self { warmup_steps, schedule_horizon, decay_steps };
        if let Some(warmup_steps) = warmup_steps.filter(|_| options.schedule != Schedule::Constant) {
            course.check(warmup_steps, steps, options.schedule)?;
        }
        Ok(course)
    }

    fn check(&self, warmup_steps: usize, steps: usize, schedule: Schedule) -> Result<(), ConfigError> {
        let Self { schedule_horizon, decay_steps, .. } = *self;
        if schedule_horizon < steps {
            return Err(ConfigError::OutOfRange {
                field: "train.schedule_horizon",
                found: schedule_horizon.to_string(),
                expected: format!("{steps} or more, the steps of this run"),
                advice: "a learning rate of 0 trains nothing; use \"auto\", or lower train.maxsteps".to_owned(),
            });
        }
        if warmup_steps >= schedule_horizon {
            return Err(ConfigError::WarmupTooLong { warmup_steps, schedule_horizon });
        }
        let room = schedule_horizon - warmup_steps;
        if schedule == Schedule::WarmupStableDecay && decay_steps > room {
            return Err(ConfigError::OutOfRange {
                field: "train.decay_steps",
                found: decay_steps.to_string(),
                expected: format!("{room} or less, the steps between warm-up and horizon"),
                advice: "use \"auto\", or a shorter warm-up".to_owned(),
            });
        }
        Ok(())
    }
}

/// The number that was given, or a tenth of the run, at least 1.
fn or_a_tenth(given: AutoSteps, steps: usize) -> usize {
    match given {
        AutoSteps::Auto => (steps / TENTH).max(1),
        AutoSteps::Steps(steps) => steps,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> TrainOptions {
        TrainOptions::default()
    }

    #[test]
    fn derived_numbers_follow_the_table() {
        // examples, batch, epochs, maxsteps -> steps, warm-up, save_every
        for (examples, batch_size, epochs, maxsteps, expected) in [
            (160, 32, 1, 500_000, (5, 0, 1)),
            (1_000, 32, 1, 500_000, (31, 3, 3)),
            (312 * 32, 32, 1, 500_000, (312, 31, 31)),
            (312 * 32 + 31, 32, 1, 500_000, (312, 31, 31)),
            (32, 32, 1, 500_000, (1, 0, 1)),
            (1_000, 32, 3, 500_000, (93, 9, 9)),
            (16, 32, 2, 500_000, (1, 0, 1)),
            (1_000_000, 32, 1, 40, (40, 4, 4)),
            (1_000, 1, 1, 500_000, (1_000, 100, 100)),
            (usize::MAX, 32, 2, 500_000, (500_000, 50_000, 50_000)),
        ] {
            let plan = resolve(&TrainOptions { batch_size, epochs, maxsteps, ..options() }, examples).unwrap();
            let (steps, warmup, save_every) = expected;
            assert_eq!(
                (plan.steps, plan.warmup_steps, plan.save_every),
                (steps, Some(warmup), save_every),
                "{examples}"
            );
            assert_eq!(plan.schedule_horizon, steps, "{examples}");
        }
    }

    /// The reference's own expression, in floating point as it has it.
    #[test]
    fn automatic_warmup_is_the_references_where_maxsteps_does_not_bind() {
        for examples in (32..40_000).step_by(7) {
            let reference = ((examples / 32) as f64 * 0.1) as usize;
            assert_eq!(resolve(&options(), examples).unwrap().warmup_steps, Some(reference), "{examples}");
        }
    }

    #[test]
    fn explicit_numbers_are_taken_as_they_are() {
        let explicit = TrainOptions {
            warmup_steps: Warmup::Steps(7),
            schedule_horizon: AutoSteps::Steps(500_000),
            save_every: AutoSteps::Steps(11),
            ..options()
        };
        let plan = resolve(&explicit, 1_000).unwrap();
        assert_eq!((plan.warmup_steps, plan.schedule_horizon, plan.save_every), (Some(7), 500_000, 11));
        let constant = TrainOptions { warmup_steps: Warmup::Constant, ..options() };
        assert_eq!(resolve(&constant, 1_000).unwrap().warmup_steps, None);
    }

    #[test]
    fn in_batch_documents_are_those_of_the_other_queries() {
        for (use_ib_negatives, batch_size, accumsteps, ib_scope, nway, expected) in [
            (true, 32, 1, IbScope::Batch, 2, 62),
            (true, 32, 4, IbScope::Batch, 2, 62),
            (true, 32, 4, IbScope::MicroBatch, 2, 14),
            (true, 32, 32, IbScope::MicroBatch, 2, 0),
            (true, 8, 1, IbScope::Batch, 4, 28),
            (true, 1, 1, IbScope::Batch, 2, 0),
            (false, 32, 1, IbScope::Batch, 2, 0),
        ] {
            let options = TrainOptions { use_ib_negatives, batch_size, accumsteps, ib_scope, nway, ..options() };
            let plan = resolve(&options, 64).unwrap();
            assert_eq!(plan.ib_documents, expected, "{options:?}");
            assert_eq!(plan.micro_batch_size * plan.accumsteps, batch_size);
        }
    }

    #[test]
    fn processes_share_a_batch_and_change_nothing_else() {
        let accumulated = TrainOptions { accumsteps: 4, ..options() };
        let alone = resolve(&accumulated, 1_000).unwrap();
        for (processes, accumsteps) in [(2, 2), (4, 1)] {
            let options = TrainOptions { accumsteps, ..options() };
            let shared = resolve_for_processes(&options, 1_000, processes).unwrap();
            assert_eq!((shared.processes, shared.accumsteps, shared.pieces()), (processes, accumsteps, 4));
            assert_eq!(Plan { processes: 1, accumsteps: 4, ..shared }, alone);
        }
        let text = resolve_for_processes(&options(), 320, 4).unwrap().to_string();
        assert!(text.contains("\n4 processes, 8 queries each.\n"), "{text}");
        let micro = TrainOptions { ib_scope: IbScope::MicroBatch, ..options() };
        assert_eq!(resolve_for_processes(&micro, 320, 4).unwrap().ib_documents, 14, "of a process's own queries");
    }

    #[test]
    fn a_batch_that_does_not_divide_is_told_the_next_sizes() {
        let message = |batch_size, accumsteps, processes| {
            let options = TrainOptions { batch_size, accumsteps, ..options() };
            resolve_for_processes(&options, 1_000, processes).unwrap_err().to_string()
        };
        assert_eq!(
            message(32, 1, 3),
            "train.batch_size is 32, which 3 processes cannot share equally: use train.batch_size = 30 or 33"
        );
        assert_eq!(
            message(32, 2, 12),
            "train.batch_size is 32, which 12 processes with 2 micro-batches each cannot share equally: use \
             train.batch_size = 24 or 48"
        );
        assert_eq!(
            message(2, 1, 4),
            "train.batch_size is 2, which 4 processes cannot share equally: use train.batch_size = 4"
        );
    }

    #[test]
    fn too_few_examples_are_told_a_batch_size_that_works() {
        let message = |examples, epochs| {
            let options = TrainOptions { epochs, ..options() };
            resolve(&options, examples).unwrap_err().to_string()
        };
        assert_eq!(
            message(31, 1),
            "31 training examples cannot fill one batch of 32 queries: use train.batch_size = 31 or less, or add examples"
        );
        assert_eq!(
            message(1, 3),
            "1 training example over 3 epochs cannot fill one batch of 32 queries: use train.batch_size = 3 or less, or \
             add examples"
        );
        assert_eq!(message(0, 1), "there are no training examples: check data.train and data.format");
        resolve(&TrainOptions { batch_size: 31, ..options() }, 31).unwrap();
    }

    #[test]
    fn schedules_that_train_nothing_are_refused() {
        let warmup = |steps| TrainOptions { warmup_steps: Warmup::Steps(steps), ..options() };
        assert_eq!(
            resolve(&warmup(31), 1_000).unwrap_err().to_string(),
            "train.warmup_steps is 31, but the learning rate has to be back at 0 at step 31: use a number below 31, or \
             \"auto\""
        );
        resolve(&warmup(30), 1_000).unwrap();
        let horizon =
            |steps, warmup_steps| TrainOptions { schedule_horizon: AutoSteps::Steps(steps), warmup_steps, ..options() };
        assert_eq!(
            resolve(&horizon(30, Warmup::Auto), 1_000).unwrap_err().to_string(),
            "train.schedule_horizon is 30, expected 31 or more, the steps of this run: a learning rate of 0 trains \
             nothing; use \"auto\", or lower train.maxsteps"
        );
        resolve(&horizon(31, Warmup::Auto), 1_000).unwrap();
        resolve(&horizon(30, Warmup::Constant), 1_000).unwrap();
    }

    #[test]
    fn a_fall_that_does_not_fit_is_refused() {
        let stable = |decay_steps| TrainOptions {
            schedule: Schedule::WarmupStableDecay,
            decay_steps,
            warmup_steps: Warmup::Steps(10),
            ..options()
        };
        assert_eq!(resolve(&stable(AutoSteps::Auto), 1_000).unwrap().decay_steps, 3);
        resolve(&stable(AutoSteps::Steps(21)), 1_000).unwrap();
        assert_eq!(
            resolve(&stable(AutoSteps::Steps(22)), 1_000).unwrap_err().to_string(),
            "train.decay_steps is 22, expected 21 or less, the steps between warm-up and horizon: use \"auto\", or a \
             shorter warm-up"
        );
        let constant = TrainOptions { schedule: Schedule::Constant, warmup_steps: Warmup::Steps(31), ..options() };
        resolve(&constant, 1_000).unwrap();
    }

    #[test]
    fn ranges_are_checked_first() {
        let broken = TrainOptions { nway: 1, ..options() };
        assert!(matches!(resolve(&broken, 0), Err(ConfigError::OutOfRange { field: "train.nway", .. })));
    }
}

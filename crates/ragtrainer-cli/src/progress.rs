//! The progress of a run: bars on a terminal, plain lines elsewhere.

use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
#[cfg(feature = "hub")]
use ragtrainer::hub::HubEvent;
use ragtrainer::train::{Change, Event, Flow, Observer, Skipped, StepRecord};

use crate::interrupt::Interrupt;
#[cfg(feature = "hub")]
use crate::output::complain;
use crate::output::{has_terminal, say, shown};

/// Shortest time between two progress lines without a terminal.
pub(crate) const QUIET: Duration = Duration::from_secs(5);

/// Shows the events of a run, and ends the run on request.
#[derive(Debug)]
pub(crate) struct Progress {
    interrupt: Interrupt,
    terminal: bool,
    steps: Option<ProgressBar>,
    documents: Option<ProgressBar>,
    total: usize,
    started: Instant,
    last_line: Option<Instant>,
    recent: Option<f64>,
    told: bool,
}

impl Progress {
    pub(crate) fn new(interrupt: Interrupt) -> Self {
        Self {
            interrupt,
            terminal: has_terminal(),
            steps: None,
            documents: None,
            total: 0,
            started: Instant::now(),
            last_line: None,
            recent: None,
            told: false,
        }
    }

    fn line(&self, text: &str) {
        match &self.steps {
            Some(bar) if self.terminal => bar.println(shown(text)),
            _ => say!("{text}"),
        }
    }

    fn flow(&mut self) -> Flow {
        if !self.interrupt.requested() {
            return Flow::Continue;
        }
        if !self.told {
            self.told = true;
            self.line("stopping after this step; press Ctrl-C again to stop at once");
        }
        Flow::Stop
    }

    fn resumed(&self, step: usize, checkpoint: Option<&Path>, skipped: &[Skipped], changes: &[Change]) {
        for damaged in skipped {
            self.line(&format!("skipped {}: {}", damaged.path.display(), damaged.reason));
        }
        for change in changes {
            self.line(&format!("accepted: {change}"));
        }
        match checkpoint {
            Some(path) => self.line(&format!("resuming after step {step}, from {}\n", path.display())),
            None => self.line("no whole checkpoint: starting again from the first step\n"),
        }
    }

    /// Shows how many documents of an evaluation are encoded.
    fn encoded(&mut self, done: usize, total: usize) {
        let bar = self.documents.get_or_insert_with(|| {
            let bar = ProgressBar::new(total as u64);
            bar.set_style(style("{bar:30} {pos}/{len} documents encoded"));
            bar
        });
        bar.set_position(done as u64);
        if done >= total {
            bar.finish_and_clear();
            self.documents = None;
        }
    }

    fn step(&mut self, record: &StepRecord) {
        // A running mean of the step time, so that one slow step does not move the forecast.
        let recent = self.recent.map_or(record.seconds, |mean| 0.8 * mean + 0.2 * record.seconds);
        self.recent = Some(recent);
        let speed = record.examples as f64 / recent;
        let left = Duration::from_secs_f64((self.total - record.step) as f64 * recent);
        let numbers = format!(
            "loss {:.4}  lr {:.2e}  {speed:.1} triples/s  {} left",
            record.loss,
            record.learning_rate,
            clock(left)
        );
        if let Some(bar) = &self.steps {
            bar.set_position(record.step as u64);
            bar.set_message(numbers);
        } else if self.last_line.is_none_or(|last| last.elapsed() >= QUIET) || record.step == self.total {
            self.last_line = Some(Instant::now());
            say!("step {}/{}  {numbers}", record.step, self.total);
        }
    }
}

impl Observer for Progress {
    fn observe(&mut self, event: &Event) -> Flow {
        match event {
            Event::Resumed { step, checkpoint, skipped, changes } => {
                self.resumed(*step, checkpoint.as_deref(), skipped, changes);
            }
            Event::Started { plan, done } => {
                self.total = plan.steps;
                self.started = Instant::now();
                if self.terminal {
                    let bar = ProgressBar::new(plan.steps as u64).with_position(*done as u64);
                    bar.set_style(style("{bar:30} step {pos}/{len}  {msg}"));
                    self.steps = Some(bar);
                }
            }
            Event::Step(record) => self.step(record),
            Event::Evaluating { done, total } if self.terminal => self.encoded(*done, *total),
            Event::Evaluated { step, metric, evaluation, best, seconds } => {
                let value = evaluation.value(*metric).unwrap_or(f64::NAN);
                let when = if *step == 0 { "before training".to_owned() } else { format!("after step {step}") };
                let mark = if *best && *step > 0 { "  (best so far)" } else { "" };
                self.line(&format!("{when}: dev {metric} {value:.4}{mark}  [{seconds:.1} s]"));
            }
            Event::Refreshed { epoch, read, seconds, .. } => {
                let how = if *read { "read back" } else { "chosen again" };
                self.line(&format!("epoch {epoch}: negatives {how}  [{seconds:.1} s]"));
            }
            Event::Skipped { step, what, queries, dump, .. } => {
                let at = dump.as_ref().map_or_else(String::new, |path| format!("; written to {}", path.display()));
                self.line(&format!("skipped step {step}: its {what} is not finite (queries {queries}){at}"));
            }
            Event::Overflowed { step, loss_scale, .. } => {
                self.line(&format!(
                    "skipped step {step}: its gradient overflows float16; the loss scale is {loss_scale} now"
                ));
            }
            Event::Spike { step, loss, mean } => {
                self.line(&format!("step {step}: loss {loss:.4} is far above the {mean:.4} of the steps before"));
            }
            Event::Tried(candidate) => {
                let Some((metric, value)) = candidate.evaluation.metrics.first() else { return self.flow() };
                let mark = if candidate.adopted { "  (adopted: better than the best)" } else { "" };
                self.line(&format!("{}: dev {metric} {value:.4}{mark}", candidate.name));
            }
            Event::OutOfPatience { step, evaluations } => {
                self.line(&format!(
                    "ending after step {step}: the last {evaluations} evaluations did not beat the best"
                ));
            }
            Event::Finished { .. } => {
                if let Some(bar) = self.steps.take() {
                    bar.finish_and_clear();
                }
            }
            _ => {}
        }
        self.flow()
    }
}

/// Runs work that reports how much of `total` is done; a terminal shows it as a bar.
pub(crate) fn counted<T>(
    total: usize,
    what: &str,
    work: impl FnOnce(&mut dyn FnMut(usize)) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let bar = if has_terminal() { ProgressBar::new(total as u64) } else { ProgressBar::hidden() };
    bar.set_style(style(&format!("{{bar:30}} {{pos}}/{{len}} {what}, {{eta}} left")));
    let done = work(&mut |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    done
}

/// Downloads a model if it is not here. Each file is shown as a bar on a terminal, else as a line.
pub(crate) fn fetched(name: &Path) -> anyhow::Result<()> {
    #[cfg(feature = "hub")]
    {
        let terminal = has_terminal();
        let mut current: Option<(String, ProgressBar)> = None;
        ragtrainer::hub::model_directory(name, &mut |event| match event {
            HubEvent::Downloading { file, done, total } => {
                if current.as_ref().is_none_or(|(shown, _)| shown != file) {
                    if !terminal {
                        complain!("downloading {file} of {}", name.display());
                    }
                    let bar = if terminal { ProgressBar::new(total.unwrap_or(0)) } else { ProgressBar::hidden() };
                    bar.set_style(style("{bar:30} {bytes}/{total_bytes} {msg}, {eta} left"));
                    bar.set_message(shown(file));
                    // The bar of the file before goes when it is dropped.
                    current = Some((file.to_owned(), bar));
                }
                if let Some((_, bar)) = &current {
                    bar.set_position(done);
                }
            }
            HubEvent::UsingCache { problem, folder } => {
                complain!("warning: {problem}\nwarning: using what was downloaded before: {}", folder.display());
            }
            _ => {}
        })?;
        if let Some((_, bar)) = current {
            bar.finish_and_clear();
        }
    }
    #[cfg(not(feature = "hub"))]
    let _ = name;
    Ok(())
}

pub(crate) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// `4 s`, `3 min 20 s`, `2 h 5 min`.
pub(crate) fn clock(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_a_person_says_them() {
        for (seconds, text) in [(4.4, "4 s"), (59.6, "1 min 0 s"), (200.0, "3 min 20 s"), (7500.0, "2 h 5 min")] {
            assert_eq!(clock(Duration::from_secs_f64(seconds)), text);
        }
    }
}

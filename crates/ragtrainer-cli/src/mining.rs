//! The progress of mining: a bar on a terminal, plain lines elsewhere; at the end, its speed.

use std::sync::Mutex;
use std::time::Instant;

use indicatif::ProgressBar;
use ragtrainer::data::MiningPhase;

use crate::output::{has_terminal, say};
use crate::progress::{QUIET, style};

/// The phases of mining, one after the other, such as reading documents and ranking queries.
#[derive(Debug)]
pub(crate) struct MiningBar {
    terminal: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When mining began: a first event that is the last of its phase tells of the time since.
    begun: Instant,
    current: Option<Phase>,
    /// Finished phases: kind, count, seconds.
    over: Vec<(&'static str, usize, f64)>,
}

#[derive(Debug)]
struct Phase {
    phase: MiningPhase,
    start: Instant,
    done: usize,
    bar: Option<ProgressBar>,
    last_line: Instant,
}

impl Phase {
    fn new(phase: MiningPhase, total: usize, start: Instant, terminal: bool) -> Self {
        let bar = terminal.then(|| {
            let bar = ProgressBar::new(total as u64);
            bar.set_style(style(&format!("{{bar:30}} {{pos}}/{{len}} {} for mining  {{per_sec}}", what(phase))));
            bar
        });
        Self { phase, start, done: 0, bar, last_line: Instant::now() }
    }
}

fn what(phase: MiningPhase) -> &'static str {
    match phase {
        MiningPhase::Indexing => "texts",
        MiningPhase::Rescoring => "documents rescored",
        MiningPhase::Teaching => "pairs scored by the teacher",
        _ => "queries",
    }
}

impl MiningBar {
    pub(crate) fn new() -> Self {
        let state = State { begun: Instant::now(), current: None, over: Vec::new() };
        Self { terminal: has_terminal(), state: Mutex::new(state) }
    }

    /// Threads report in no fixed order, so a number smaller than the last one is ignored.
    pub(crate) fn tell(&self, phase: MiningPhase, done: usize, total: usize) {
        let Ok(mut state) = self.state.lock() else { return };
        if state.current.as_ref().is_none_or(|current| current.phase != phase) {
            // Miners that do not tell how they rank are reported as done at the end.
            let is_word = phase == MiningPhase::Ranking && done == total;
            if !is_word || state.current.is_none() {
                let start = if state.current.is_none() && done == total { state.begun } else { Instant::now() };
                state.end();
                state.current = Some(Phase::new(phase, total, start, self.terminal));
            }
        }
        let Some(current) = state.current.as_mut().filter(|current| current.phase == phase) else { return };
        current.done = current.done.max(done);
        if let Some(bar) = &current.bar {
            bar.set_position(current.done as u64);
        } else if current.last_line.elapsed() >= QUIET {
            current.last_line = Instant::now();
            let rate = current.done as f64 / current.start.elapsed().as_secs_f64();
            say!("mining: {}/{total} {}, {rate:.0} a second", current.done, what(phase));
        }
    }

    /// Removes the bar and returns the speed, if there was anything to mine.
    pub(crate) fn finish(self) -> Option<String> {
        let mut state = self.state.into_inner().ok()?;
        state.end();
        let parts: Vec<_> = state
            .over
            .iter()
            .map(|(what, done, seconds)| {
                format!("{done} {what} in {seconds:.1} s ({:.0} a second)", *done as f64 / seconds.max(1e-9))
            })
            .collect();
        (!parts.is_empty()).then(|| format!("mining: {}", parts.join(", ")))
    }
}

impl State {
    fn end(&mut self) {
        let Some(current) = self.current.take() else { return };
        if let Some(bar) = &current.bar {
            bar.finish_and_clear();
        }
        if current.done > 0 {
            self.over.push((what(current.phase), current.done, current.start.elapsed().as_secs_f64()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_each_other_and_are_summed_up() {
        let bar = MiningBar::new();
        bar.tell(MiningPhase::Indexing, 0, 50);
        bar.tell(MiningPhase::Indexing, 20, 50);
        bar.tell(MiningPhase::Indexing, 50, 50);
        bar.tell(MiningPhase::Ranking, 0, 30);
        bar.tell(MiningPhase::Ranking, 20, 30);
        bar.tell(MiningPhase::Ranking, 10, 30);
        bar.tell(MiningPhase::Ranking, 30, 30);
        let said = bar.finish().unwrap();
        assert!(said.starts_with("mining: 50 texts in ") && said.contains(", 30 queries in "), "{said}");
        assert_eq!(MiningBar::new().finish(), None);
    }

    #[test]
    fn a_last_word_about_ranking_begins_no_phase() {
        let silent = MiningBar::new();
        silent.tell(MiningPhase::Ranking, 30, 30);
        assert!(silent.finish().unwrap().starts_with("mining: 30 queries in "));
        let dense = MiningBar::new();
        dense.tell(MiningPhase::Indexing, 0, 50);
        dense.tell(MiningPhase::Indexing, 50, 50);
        dense.tell(MiningPhase::Ranking, 30, 30);
        let said = dense.finish().unwrap();
        assert!(said.starts_with("mining: 50 texts in ") && !said.contains("queries"), "{said}");
    }
}

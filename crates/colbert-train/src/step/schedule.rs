//! The learning rate of every step.

use colbert_config::{Plan, Schedule as Course, TrainOptions};

/// A schedule of the learning rate: a linear rise, then the course of the options; or constant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Schedule {
    peak: f64,
    course: Course,
    warmup: Option<usize>,
    horizon: usize,
    decay: usize,
    from_zero: bool,
}

impl Schedule {
    /// Makes the schedule of a plan.
    pub(crate) fn new(plan: &Plan, options: &TrainOptions) -> Self {
        Self {
            peak: plan.learning_rate,
            course: plan.schedule,
            warmup: plan.warmup_steps,
            horizon: plan.schedule_horizon,
            decay: plan.decay_steps,
            from_zero: options.warmup_from_zero,
        }
    }

    /// Makes a schedule with a constant learning rate.
    pub(crate) fn constant(learning_rate: f64) -> Self {
        let course = Course::Constant;
        Self { peak: learning_rate, course, warmup: None, horizon: 0, decay: 0, from_zero: false }
    }

    /// Returns the learning rate of the update after `done` updates.
    ///
    /// With w warm-up steps: `peak * (done + 1) / w` while done < w (`done / w` from zero, as in the reference), then
    /// the share of the peak by the course.
    pub(crate) fn at(&self, done: usize) -> f64 {
        let Some(warmup) = self.warmup else { return self.peak };
        if done < warmup {
            let risen = if self.from_zero { done } else { done + 1 };
            return self.peak * (risen as f64 / warmup.max(1) as f64);
        }
        self.peak * self.course.share(done, warmup, self.horizon, self.decay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(warmup: Option<usize>, horizon: usize, from_zero: bool) -> Schedule {
        Schedule { peak: 1.0, course: Course::Linear, warmup, horizon, decay: 0, from_zero }
    }

    /// REFERENCE: w = 3, T = 10 gives 0, .33, .67, 1, .86 ...
    #[test]
    fn from_zero_is_the_references_curve() {
        let s = schedule(Some(3), 10, true);
        let expected = [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0, 6.0 / 7.0, 5.0 / 7.0];
        for (done, value) in expected.into_iter().enumerate() {
            assert!((s.at(done) - value).abs() < 1e-12, "after {done}: {} instead of {value}", s.at(done));
        }
        assert_eq!(s.at(10), 0.0);
        assert_eq!(s.at(11), 0.0);
    }

    #[test]
    fn no_step_is_wasted_by_default_and_the_peak_is_reached_at_the_end_of_the_warm_up() {
        let s = schedule(Some(3), 10, false);
        assert!((s.at(0) - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(s.at(2), 1.0);
        assert!(s.at(9) > 0.0);
    }

    #[test]
    fn without_warm_up_it_falls_from_the_start_and_constant_never_moves() {
        assert_eq!(schedule(Some(0), 4, false).at(0), 1.0);
        assert_eq!(schedule(Some(0), 4, false).at(2), 0.5);
        assert_eq!(schedule(None, 4, false).at(1000), 1.0);
    }

    #[test]
    fn other_courses_follow_the_warm_up() {
        let s = Schedule { course: Course::Cosine, ..schedule(Some(2), 10, false) };
        assert_eq!((s.at(0), s.at(1)), (0.5, 1.0));
        assert!((s.at(6) - 0.5).abs() < 1e-12 && s.at(10).abs() < 1e-12);
        let s = Schedule { course: Course::WarmupStableDecay, decay: 4, ..schedule(Some(2), 10, false) };
        assert_eq!(
            (0..11).map(|done| s.at(done)).collect::<Vec<_>>(),
            [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
        );
        let s = Schedule { course: Course::Constant, ..schedule(Some(2), 0, true) };
        assert_eq!((s.at(0), s.at(1), s.at(2), s.at(1000)), (0.0, 0.5, 1.0, 1.0));
    }
}

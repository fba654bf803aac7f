//! The distribution of a number, as a few bars.

use serde::Serialize;

/// Maximum number of bars.
const BARS: usize = 24;

/// The distribution of values. The last bar also counts everything beyond it, up to [`Histogram::max`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Histogram {
    /// Short name that never changes.
    pub name: String,
    /// Title: the thing that is counted.
    pub title: String,
    /// Lower end of the first bar.
    pub start: f64,
    /// Width of a bar.
    pub width: f64,
    /// Number of values in each bar; a bar includes its lower end and excludes its upper one.
    pub counts: Vec<u64>,
    /// The largest value.
    pub max: f64,
    /// A limit worth marking, such as the length at which texts are cut.
    pub limit: Option<f64>,
}

impl Histogram {
    /// Returns a histogram; `None` if there are no values.
    pub(super) fn of(name: &str, title: &str, mut values: Vec<f64>, limit: Option<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let is_whole = values.iter().all(|value| value.fract() == 0.0);
        // A few outliers would otherwise press all others into the first bar.
        let most = values[(values.len() * 995).div_ceil(1000) - 1];
        let width = step((most - min) / (BARS - 1) as f64, is_whole);
        let start = (min / width).floor() * width;
        let bars = (((most - start) / width).floor() as usize + 1).min(BARS + 1);
        let mut counts = vec![0; bars];
        for value in &values {
            counts[(((value - start) / width).floor() as usize).min(bars - 1)] += 1;
        }
        Some(Self { name: name.to_owned(), title: title.to_owned(), start, width, counts, max, limit })
    }
}

/// The next width of 1, 2 or 5 times a power of ten; at least 1 for whole numbers.
fn step(least: f64, is_whole: bool) -> f64 {
    if least <= 0.0 || !least.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= least * 0.999);
    let step = step.unwrap_or(10.0 * power);
    if is_whole { step.max(1.0) } else { step }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_counted_once_and_bars_are_few() {
        for values in [
            vec![3.0],
            vec![1.0, 1.0, 2.0, 50.0],
            (0..100_000).map(|number| f64::from(number % 977)).collect::<Vec<_>>(),
            (0..1000).map(|number| f64::from(number) * 1e-3 - 0.7).collect(),
            vec![0.0, 1e9],
            vec![-5.0, -5.0],
        ] {
            let histogram = Histogram::of("n", "t", values.clone(), None).unwrap();
            assert_eq!(histogram.counts.iter().sum::<u64>(), values.len() as u64);
            assert!(histogram.counts.len() <= BARS + 1 && histogram.counts[0] > 0, "{histogram:?}");
        }
        assert!(Histogram::of("n", "t", Vec::new(), None).is_none());
    }
}

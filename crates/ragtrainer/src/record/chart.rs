//! Curves as inline SVG.

use maud::{Markup, html};

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 26.0;

/// Points drawn of a curve at most; more cannot be told apart.
const MOST_POINTS: usize = 400;

/// A curve.
pub(super) struct Curve {
    /// Name for the legend; empty where there is only one.
    pub(super) name: String,
    /// Number of its colour, from 0.
    pub(super) colour: usize,
    /// x and y.
    pub(super) points: Vec<(f64, f64)>,
    /// Whether its points are marked.
    pub(super) marked: bool,
}

/// A figure with curves over steps. Values that are not finite are left out; nothing if no value is left.
pub(super) fn figure(title: &str, curves: &[Curve]) -> Markup {
    let drawn: Vec<(&Curve, Vec<(f64, f64)>)> = curves
        .iter()
        .map(|curve| (curve, thinned(curve.points.iter().copied().filter(|(_, y)| y.is_finite()).collect())))
        .filter(|(_, points)| !points.is_empty())
        .collect();
    let all = || drawn.iter().flat_map(|(_, points)| points.iter().copied());
    let Some((first_x, first_y)) = all().next() else { return Markup::default() };
    let low_high = |start: f64, of: fn((f64, f64)) -> f64| {
        all().map(of).fold((start, start), |(low, high), value| (low.min(value), high.max(value)))
    };
    let (x_low, x_high) = low_high(first_x, |point| point.0);
    let (y_low, y_high) = low_high(first_y, |point| point.1);
    let y_ticks = ticks(y_low, y_high);
    let (y_low, y_high) = (y_low.min(y_ticks[0]), y_high.max(y_ticks[y_ticks.len() - 1]));
    let span = |low: f64, high: f64| if high > low { high - low } else { 1.0 };
    let x = |value: f64| LEFT + (value - x_low) / span(x_low, x_high) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - (value - y_low) / span(y_low, y_high) * (HEIGHT - TOP - BOTTOM);

    let one = |value: f64| format!("{value:.1}");
    let ends = [(x_low, "start"), (x_high, "end")];
    let named = drawn.iter().any(|(curve, _)| !curve.name.is_empty());
    html! {
        figure {
            figcaption { (title) }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(title) {
                @for tick in &y_ticks {
                    line x1=(LEFT) x2=(WIDTH - RIGHT) y1=(one(y(*tick))) y2=(one(y(*tick))) {}
                    text x=(LEFT - 6.0) y=(one(y(*tick) + 4.0)) text-anchor="end" { (number(*tick)) }
                }
                @for (value, anchor) in ends.into_iter().take(if x_high > x_low { 2 } else { 1 }) {
                    text x=(one(x(value))) y=(one(HEIGHT - 6.0)) text-anchor=(anchor) { (number(value)) }
                }
                @for (curve, points) in &drawn {
                    @let path: Vec<String> = points.iter().map(|(px, py)| format!("{:.1},{:.1}", x(*px), y(*py))).collect();
                    polyline class={ "c" (curve.colour) } points=(path.join(" ")) {}
                    @if curve.marked || points.len() == 1 {
                        @for (px, py) in points {
                            circle class={ "c" (curve.colour) } cx=(one(x(*px))) cy=(one(y(*py))) r="3" {}
                        }
                    }
                }
            }
            @if named {
                p .legend {
                    @for (curve, _) in drawn.iter().filter(|(curve, _)| !curve.name.is_empty()) {
                        span { i class={ "c" (curve.colour) } {} (curve.name) }
                    }
                }
            }
        }
    }
}

/// Means of neighbours, so that few enough points are left.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(MOST_POINTS).max(1);
    let mean = |chunk: &[(f64, f64)]| {
        let count = chunk.len() as f64;
        (chunk.iter().map(|point| point.0).sum::<f64>() / count, chunk.iter().map(|point| point.1).sum::<f64>() / count)
    };
    points.chunks(size).map(mean).collect()
}

/// Three to six round numbers around a range.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let span = if high > low { high - low } else { low.abs().max(1.0) };
    let rough = span / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|f| f * power).find(|step| *step >= rough).unwrap_or(rough);
    let first = (low / step).floor() as i64;
    let last = ((high / step).ceil() as i64).max(first + 1);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// `0.85`, `1200`, `5e-6`.
fn number(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e6).contains(&size) {
        let text = format!("{value:.2e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{exponent}", mantissa.trim_end_matches('0').trim_end_matches('.'));
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_enclose_the_range() {
        for (low, high) in [(0.0, 1.0), (0.61, 0.87), (1e-6, 5e-6), (-3.0, 40.0), (7.0, 7.0), (0.0, 0.0), (-2.0, -2.0)]
        {
            let ticks = ticks(low, high);
            assert!((2..=7).contains(&ticks.len()), "{low} {high}: {ticks:?}");
            assert!(ticks[0] <= low + 1e-12 && ticks[ticks.len() - 1] >= high - 1e-12, "{low} {high}: {ticks:?}");
        }
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in
            [(0.85, "0.85"), (1200.0, "1200"), (5e-6, "5e-6"), (0.0, "0"), (-0.5, "-0.5"), (2.5e9, "2.5e9")]
        {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn long_curves_are_thinned_and_values_that_are_none_left_out() {
        let curve = |points| [Curve { name: String::new(), colour: 0, points, marked: false }];
        let long = figure("loss", &curve((0..5000).map(|i| (f64::from(i), f64::from(i % 7))).collect())).into_string();
        assert!(long.matches(',').count() <= MOST_POINTS, "{}", long.len());
        assert_eq!(figure("loss", &curve(vec![(1.0, f64::NAN)])).into_string(), "");
        assert!(figure("a <b>", &curve(vec![(1.0, 2.0)])).into_string().contains("a &lt;b&gt;"));
    }
}

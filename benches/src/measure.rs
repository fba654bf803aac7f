//! Running a bench and its output: the setting once, then a rate for each unit of the work.
#![expect(clippy::print_stdout, reason = "criterion prints one rate of a bench; the others are printed beside it")]

use std::time::{Duration, Instant};

use burn::tensor::Element;
use burn::tensor::backend::{Backend, BackendTypes};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput};

use crate::work::Work;

/// Samples of a bench; criterion takes no fewer.
const SAMPLES: usize = 10;

/// Whether everything should be tiny (`COLBERT_BENCH_QUICK` is set).
pub fn quick() -> bool {
    std::env::var_os("COLBERT_BENCH_QUICK").is_some()
}

/// The backend that `COLBERT_BENCH_BACKEND` names, else the default one.
///
/// # Panics
/// The name is unknown, or its backend was not compiled in.
pub fn backend() -> ragtrainer::Backend {
    let name = std::env::var("COLBERT_BENCH_BACKEND").unwrap_or_else(|_| "auto".to_owned());
    ragtrainer::Backend::from_name(&name).unwrap_or_else(|error| panic!("COLBERT_BENCH_BACKEND: {error}"))
}

/// Prints backend, float type, threads and the title of the bench.
pub fn describe<B: Backend>(bench: &str, device: &B::Device, shapes: &str) {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let dtype = <B as BackendTypes>::FloatElem::dtype();
    println!("\n{bench}: {} on {device:?}, {dtype:?}, {threads} threads; {shapes}", B::name(device));
}

/// A group of benches with few samples: one call may take seconds.
pub fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let (warm_up, measurement) = if quick() { (1, 10) } else { (1_000, 5_000) };
    // Criterion compares a run with the previous one; a tiny one must not be compared with a full one.
    let mut group = criterion.benchmark_group(if quick() { format!("quick_{name}") } else { name.to_owned() });
    group
        .sample_size(SAMPLES)
        .sampling_mode(SamplingMode::Flat)
        .warm_up_time(Duration::from_millis(warm_up))
        .measurement_time(Duration::from_millis(measurement));
    group
}

/// Measures `work`, which must wait for the device before it returns. `units` says what one call does, such as 32
/// triples and 8,123 tokens; criterion reports the first, and a line with the median of all follows. Returns that
/// median in seconds, unless the command line excluded this bench.
pub fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: &str,
    units: &[(&str, usize)],
    mut work: impl FnMut(),
) -> Option<f64> {
    let mut seconds = Vec::new();
    group.throughput(Throughput::Elements(units[0].1 as u64));
    group.bench_function(id, |bencher| {
        bencher.iter_custom(|calls| {
            let start = Instant::now();
            for _ in 0..calls {
                work();
            }
            let elapsed = start.elapsed();
            seconds.push(elapsed.as_secs_f64() / calls as f64);
            elapsed
        });
    });
    // Warm-up comes first; empty if a filter on the command line excluded this bench.
    let mut measured = seconds.split_off(seconds.len().saturating_sub(SAMPLES));
    if measured.is_empty() {
        return None;
    }
    measured.sort_by(f64::total_cmp);
    let median = measured[measured.len() / 2];
    let rates: Vec<String> =
        units.iter().map(|(unit, count)| format!("{} {unit}/s", rate(*count as f64 / median))).collect();
    println!("{id}: {}", rates.join(", "));
    Some(median)
}

/// Prints the share of the rate of matmuls alone that a bench reaches.
pub fn print_share(id: &str, work: Work, seconds: f64, peak: f64) {
    let rate = work.operations / seconds;
    println!(
        "{id}: {:.0} GFLOP/s of useful products, {:.0} % of {:.0} GFLOP/s for the products of the linear maps alone",
        rate / 1e9,
        100.0 * rate / peak,
        peak / 1e9
    );
}

/// Three digits, in thousands or millions where it is long.
fn rate(value: f64) -> String {
    let (value, suffix) = match value {
        v if v >= 1e9 => (v / 1e9, " G"),
        v if v >= 1e6 => (v / 1e6, " M"),
        v if v >= 1e4 => (v / 1e3, " k"),
        v => (v, ""),
    };
    let digits = match value {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}{suffix}")
}

//! The backends side by side: the same optimizer step on each, in each precision, for three encoders.
//!
//! Writes a table, `target/backends/results.json`, and a plot of it. Every line is measured in its own process, so that
//! none profits from another's memory, and a failing device loses one line only.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a table")]

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use plotters::prelude::*;
use ragtrainer::Backend;
use ragtrainer::backend::Job;
use ragtrainer::config::Precision;
use ragtrainer::model::EncodeOptions;
use ragtrainer::model::kernels::KernelAutodiffBackend;
use ragtrainer_benches::{Size, StepBatch, Stepper, product_rate, quick};
use serde::{Deserialize, Serialize};

/// Variable that tells a process which line of the table to measure.
const LINE: &str = "COLBERT_BENCH_LINE";

/// Every name that some build may know.
const NAMES: &str = "flex,cuda,libtorch,libtorch:cuda";

/// A line of the table, measured in one process.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    backend: String,
    precision: Precision,
    encoder: Size,
    batch_size: usize,
    doc_maxlen: usize,
    /// Warm-up steps, not counted: memory is allocated, kernels are compiled and chosen.
    warm_up_steps: usize,
    /// Measured steps; their median is reported.
    steps: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Measured {
    #[serde(flatten)]
    line: Line,
    /// Device, in the backend's words.
    device: String,
    /// Real tokens of a step.
    tokens: usize,
    warm_up_seconds: f64,
    seconds_per_step: f64,
    triples_per_second: f64,
    tokens_per_second: f64,
    /// Useful matmul operations of a step, as a share of the rate of the linear maps' matmuls alone.
    share_of_products: f64,
    products_gflops: f64,
    peak_resident_bytes: Option<u64>,
    /// In use on the GPU by all processes, after the steps.
    device_bytes: Option<u64>,
}

struct Measure<'a>(&'a Line);

impl Job for Measure<'_> {
    type Output = Measured;

    fn run<B: KernelAutodiffBackend>(self, device: &B::Device) -> Measured {
        let line = self.0;
        let precision = EncodeOptions::in_precision(line.precision).precision;
        let batch = StepBatch::new(line.encoder, line.batch_size, line.doc_maxlen);
        let mut stepper = Stepper::<B>::new(&batch, true, precision, device);
        let start = Instant::now();
        (0..line.warm_up_steps).for_each(|_| stepper.step());
        let warm_up_seconds = start.elapsed().as_secs_f64();
        let mut seconds: Vec<f64> = (0..line.steps)
            .map(|_| {
                let start = Instant::now();
                stepper.step();
                start.elapsed().as_secs_f64()
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        let (median, tokens) = (seconds[seconds.len() / 2], batch.tokens());
        let peak_resident_bytes = ragtrainer::train::memory::peak();
        let device_bytes = device_bytes(&line.backend);
        let products = product_rate::<B::InnerBackend>(tokens, &line.encoder.sizes(), precision, device);
        Measured {
            line: line.clone(),
            device: B::name(device),
            tokens,
            warm_up_seconds,
            seconds_per_step: median,
            triples_per_second: line.batch_size as f64 / median,
            tokens_per_second: tokens as f64 / median,
            share_of_products: batch.work().operations / median / products,
            products_gflops: products / 1e9,
            peak_resident_bytes,
            device_bytes,
        }
    }
}

/// Memory in use according to NVIDIA's tool.
fn device_bytes(backend: &str) -> Option<u64> {
    let (_, device) = backend.split_once("cuda")?;
    let index = device.trim_start_matches(':');
    let index = if index.is_empty() { "0" } else { index };
    let arguments = ["--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", index];
    let output = Command::new("nvidia-smi").args(arguments).output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().parse::<u64>().ok()? << 20)
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(format!("COLBERT_BENCH_{name}")).unwrap_or_else(|_| default.to_owned())
}

fn number(name: &str, default: usize) -> usize {
    let text = setting(name, &default.to_string());
    text.parse().unwrap_or_else(|_| panic!("COLBERT_BENCH_{name}={text}: a number is expected"))
}

/// Requested precisions that the backend has. float16 on a CPU is for testing, not for speed.
fn precisions(name: &str, backend: Backend) -> impl Iterator<Item = Precision> {
    let all = if name.contains("cuda") { "f32,tf32,bf16,f16" } else { "f32,bf16" };
    let parse = |name: &str| {
        let precision = serde_json::from_value(name.into());
        precision.unwrap_or_else(|_| panic!("COLBERT_BENCH_PRECISION: {name} is none of f32, tf32, bf16, f16"))
    };
    let asked: Vec<Precision> = setting("PRECISION", all).split(',').map(parse).collect();
    asked.into_iter().filter(move |asked| backend.precision(*asked).is_ok_and(|had| had == *asked))
}

/// The lines, in the order of the table.
fn lines() -> Vec<Line> {
    let mut lines = Vec::new();
    for name in setting("BACKEND", NAMES).split(',') {
        let backend = match Backend::from_name(name) {
            Ok(backend) => backend,
            Err(error) => {
                let reason = error.source().map_or_else(String::new, |source| format!(": {source}"));
                eprintln!("left out: {error}{reason}");
                continue;
            }
        };
        let sizes: &[(Size, usize)] =
            if quick() { &[(Size::Tiny, 4)] } else { &[(Size::L6, 32), (Size::Base, 8), (Size::Modern, 8)] };
        let asked = setting("ENCODER", "Tiny,L6,Base,Modern");
        let is_asked = |encoder: Size| asked.split(',').any(|name| name == format!("{encoder:?}"));
        for (encoder, batch_size) in sizes.iter().copied().filter(|(encoder, _)| is_asked(*encoder)) {
            lines.extend(precisions(name, backend).map(|precision| Line {
                backend: name.to_owned(),
                precision,
                encoder,
                batch_size: number("BATCH", batch_size),
                doc_maxlen: number("DOC_MAXLEN", if quick() { 32 } else { 256 }),
                warm_up_steps: number("WARM_UP", if quick() { 1 } else { 2 }),
                steps: number("STEPS", if quick() { 1 } else { 5 }),
            }));
        }
    }
    lines
}

/// Measures a line in its own process.
fn measure(line: &Line) -> Result<Measured, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let line = serde_json::to_string(line).expect("text and numbers");
    let output = Command::new(this).env(LINE, line).output().map_err(|error| error.to_string())?;
    let last = String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned();
    serde_json::from_str(&last).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).take(4).collect();
        format!("{}: {}", output.status, said.join(" | "))
    })
}

fn megabytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{:.0}", bytes as f64 / 1e6))
}

/// `target/backends`, wherever the target folder is.
fn output_folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"));
    std::env::var_os("COLBERT_BENCH_OUTPUT").map_or_else(|| target.join("backends"), PathBuf::from)
}

/// Bars of triples per second, one group for each encoder, on a logarithmic axis.
fn plot(all: &[Measured], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let bar = 34;
    let height = 90 + bar * all.len() as u32;
    let root = SVGBackend::new(path, (900, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let (title, small) = (("sans-serif", 18), ("sans-serif", 14).into_font());
    root.draw(&Text::new("A training step by backend: triples per second (logarithmic)", (20, 16), title))?;
    let most = all.iter().map(|m| m.triples_per_second).fold(f64::MIN, f64::max);
    let least = all.iter().map(|m| m.triples_per_second).fold(f64::MAX, f64::min);
    let (left, width) = (330, 440.0);
    let decades = (most / least).log10() + 0.5;
    for (i, m) in all.iter().enumerate() {
        let top = 56 + (bar as i32) * i as i32;
        let length = ((m.triples_per_second / least).log10() + 0.5) / decades * width;
        let color = match m.line.precision {
            Precision::Bf16 => RGBColor(0xd5, 0x5e, 0x00),
            Precision::F16 => RGBColor(0xcc, 0x79, 0xa7),
            Precision::Tf32 => RGBColor(0x00, 0x9e, 0x73),
            Precision::F32 | Precision::Auto => RGBColor(0x00, 0x72, 0xb2),
        };
        let right = left + length as i32;
        root.draw(&Rectangle::new([(left, top), (right, top + 22)], color.filled()))?;
        let Line { backend, precision, encoder, batch_size, .. } = &m.line;
        let label = format!("{backend} {precision}, {encoder:?}, batch {batch_size}");
        root.draw(&Text::new(label, (20, top + 4), small.clone()))?;
        root.draw(&Text::new(format!("{:.2}", m.triples_per_second), (right + 8, top + 4), small.clone()))?;
    }
    root.present()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Ok(line) = std::env::var(LINE) {
        let line: Line = serde_json::from_str(&line)?;
        let measured = Backend::from_name(&line.backend)?.run(Measure(&line));
        println!("{}", serde_json::to_string(&measured)?);
        return Ok(());
    }
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!(
        "A training step with dropout; {threads} threads. The first steps are not counted: memory, kernels, autotune."
    );
    println!(
        "{:<18} {:<5} {:<5} {:>5} {:>7} {:>10} {:>10} {:>9} {:>7} {:>9} {:>9}",
        "backend", "", "size", "batch", "maxlen", "triples/s", "tokens/s", "s/step", "share", "MB", "GPU MB"
    );
    let folder = output_folder();
    std::fs::create_dir_all(&folder)?;
    let mut all = Vec::new();
    for line in lines() {
        let Line { backend, precision, encoder, batch_size, doc_maxlen, .. } = &line;
        let head = format!(
            "{backend:<18} {:<5} {:<5} {batch_size:>5} {doc_maxlen:>7}",
            precision.to_string(),
            format!("{encoder:?}")
        );
        match measure(&line) {
            Ok(m) => {
                println!(
                    "{head} {:>10.2} {:>10.0} {:>9.3} {:>5.0} % {:>9} {:>9}",
                    m.triples_per_second,
                    m.tokens_per_second,
                    m.seconds_per_step,
                    100.0 * m.share_of_products,
                    megabytes(m.peak_resident_bytes),
                    megabytes(m.device_bytes)
                );
                all.push(m);
                // Written after every line, so that an interrupted run keeps its measurements.
                std::fs::write(folder.join("results.json"), serde_json::to_string_pretty(&all)?)?;
            }
            Err(error) => println!("{head} failed: {error}"),
        }
    }
    if all.is_empty() {
        return Err("nothing could be measured".into());
    }
    plot(&all, &folder.join("triples_per_second.svg"))?;
    println!("share: useful products of a step, of the rate of the linear maps' products alone. {}", folder.display());
    Ok(())
}

//! float16: gradients near float32's through a scaled loss, overflows that are skipped, and resumed runs that keep
//! their scale. On a backend without float16 the matmuls are float32, and the scaling is the same.

use std::fs;

use burn::tensor::Tensor;
use colbert_config::{AutoSteps, IbScope, OnNonFinite, Precision, TrainOptions};
use colbert_kernels::{KernelBackend, Kernels};
use colbert_model::Embeddings;
use colbert_train::{Begin, ColbertObjective, Event, Flow, Loss, Objective, RunFolder, Targets, TrainError};
use tempfile::TempDir;

use crate::accumulation;
use crate::run::{RESUME, Setup, ignore, options, run_folder};
use crate::support::{Inner, device, edit_state, lines, parameters, state_of, tiny, training_set};

/// The first scale of a run.
const SCALE: f64 = 65_536.0;

fn has_f16() -> bool {
    Inner::has_f16(&device())
}

fn in_float16(further: TrainOptions) -> TrainOptions {
    TrainOptions { precision: Precision::F16, ..further }
}

/// Distance of a gradient from float32's as a share of its norm. Measured on libtorch's CPU: 0.034, as some of MaxSim's
/// winners change. A gradient that stays scaled is off by 65,535.
const SHARE: f64 = 0.08;

#[test]
fn float16_gives_nearly_the_gradient_of_float32() {
    let whole = accumulation::options(1, IbScope::Batch);
    let (model, _) = tiny(&whole, None);
    let single = accumulation::gradients_in(&model, &whole, Precision::F32, 1.0);
    let share = |accumsteps, loss_scale| {
        let options = accumulation::options(accumsteps, IbScope::Batch);
        let found = accumulation::gradients_in(&model, &options, Precision::F16, loss_scale);
        assert!((found.0.total - single.0.total).abs() < 2e-3 * single.0.total, "{} {}", found.0.total, single.0.total);
        accumulation::distance(&found, &single)
    };
    for accumsteps in [1, 4] {
        let share = share(accumsteps, SCALE);
        assert!(share < SHARE, "{accumsteps} pieces: {share}");
        assert!(share > 0.0 || !has_f16(), "rounded where there is float16");
    }
    // Gradients as small as those of a long average are 0 in float16.
    let small = share(1, 2.0_f64.powi(-20));
    assert_eq!(small > SHARE, has_f16(), "unscaled: {small}");
}

/// Loss of each step, and how it was scaled.
fn losses(setup: &Setup) -> Vec<(f64, Option<f64>)> {
    let mut losses = Vec::new();
    let mut listen = |event: &Event| {
        if let Event::Step(record) = event {
            losses.push((record.loss, record.loss_scale));
        }
        Flow::Continue
    };
    setup.run(None, &mut listen, Begin::New).unwrap();
    losses
}

/// Share of the first loss that each of 20 losses may be off by. Measured on libtorch's CPU: 0.0009.
const OF_LOSS: f64 = 0.005;

#[test]
fn a_short_run_learns_as_one_in_float32() {
    for accumsteps in [1, 2] {
        let of = |precision| {
            let options = TrainOptions { precision, accumsteps, epochs: 20, dropout: None, ..options() };
            losses(&Setup { set: training_set(&lines("triples.jsonl")[..4]), ..Setup::new(options) })
        };
        let (single, half) = (of(Precision::F32), of(Precision::F16));
        assert_eq!((single.len(), half.len()), (20, 20), "no step was left out");
        assert!(single[19].0 < 0.1 * single[0].0, "it learns");
        for ((exact, none), (found, scale)) in single.iter().zip(&half) {
            assert_eq!((*none, *scale), (None, Some(SCALE)));
            assert!((exact - found).abs() < OF_LOSS * single[0].0, "{accumsteps}: {found}, not {exact}");
        }
    }
}

/// Gradients of this model times this overflow the format of the products.
fn too_large() -> f64 {
    2.0_f64.powi(if has_f16() { 24 } else { 127 })
}

/// Stops a run, with a checkpoint.
fn at_first_update(event: &Event) -> Flow {
    if matches!(event, Event::Step(_)) { Flow::Stop } else { Flow::Continue }
}

/// Puts another scale into the newest checkpoint of a run.
fn rescale(run: &RunFolder, scale: f64) {
    edit_state(run, |state| state["loss_scale"]["scale"] = scale.into());
}

#[test]
fn an_overflow_halves_the_scale_and_skips_the_step() {
    let first = too_large();
    for accumsteps in [1, 2] {
        let folder = TempDir::new().unwrap();
        let setup = Setup::new(in_float16(TrainOptions { epochs: 6, accumsteps, ..options() }));
        let run = run_folder(&folder, "run");
        let done = setup.run(Some(&run), &mut at_first_update, Begin::New).unwrap().steps;
        rescale(&run, first * 2.0);
        // What was left out before the first update.
        let before = done - 1;
        let (mut overflows, mut steps) = (Vec::new(), Vec::new());
        let mut listen = |event: &Event| {
            match event {
                Event::Overflowed { step, loss_scale, count } => overflows.push((*step, *loss_scale, *count)),
                Event::Step(record) => steps.push((record.step, record.loss_scale.unwrap(), record.loss)),
                Event::Skipped { .. } => panic!("an overflow is no fault"),
                _ => {}
            }
            Flow::Continue
        };
        let trained = setup.run(Some(&run), &mut listen, RESUME).unwrap();
        assert_eq!((trained.steps, trained.skipped), (51, 0));
        assert!(!overflows.is_empty(), "{accumsteps} pieces: nothing overflowed from {first}");
        for (i, (_, scale, count)) in overflows.iter().enumerate() {
            assert_eq!((*scale, *count), (first * 0.5_f64.powi(i as i32), before + i + 1));
        }
        assert_eq!(trained.overflowed, before + overflows.len());
        assert_eq!(overflows[0].0, done + 1, "at once");
        assert_eq!(overflows.len() + steps.len(), 51 - done, "every step is one or the other");
        let last = overflows.last().unwrap().1;
        assert!(steps.len() > 20 && steps.iter().all(|(_, _, loss)| loss.is_finite()));
        assert_eq!(steps.last().unwrap().1, last, "and it trains on with what is left");
        let state = state_of(&run);
        let held = &state["loss_scale"];
        assert_eq!((held["scale"].as_f64(), state["skipped"].as_u64()), (Some(last), Some(0)));
        assert_eq!(held["overflows"], before + overflows.len());
    }
}

#[test]
fn a_resumed_run_in_float16_ends_with_the_same_bits_and_scale() {
    let folder = TempDir::new().unwrap();
    let setup = Setup::new(in_float16(TrainOptions { save_every: AutoSteps::Steps(2), ..options() }));
    let begin = |name: &str| {
        let run = run_folder(&folder, name);
        setup.run(Some(&run), &mut at_first_update, Begin::New).unwrap();
        rescale(&run, too_large() * 2.0);
        run
    };
    let straight = begin("straight");
    let expected = setup.run(Some(&straight), &mut ignore, RESUME).unwrap();
    let stopped = begin("stopped");
    let mut overflows = 0;
    let mut stop = |event: &Event| match event {
        Event::Overflowed { .. } => {
            overflows += 1;
            Flow::Stop
        }
        _ => Flow::Continue,
    };
    while setup.run(Some(&stopped), &mut stop, RESUME).unwrap().stopped {}
    let found = setup.run(Some(&stopped), &mut ignore, RESUME).unwrap();
    assert!(overflows > 1, "stopped after {overflows} overflows");
    let (a, b) = (parameters(&expected.model), parameters(&found.model));
    for (name, values) in &a {
        assert!(values.iter().zip(&b[name]).all(|(x, y)| x.to_bits() == y.to_bits()), "{name} differs");
    }
    assert_eq!(state_of(&straight)["loss_scale"], state_of(&stopped)["loss_scale"]);
    assert!(state_of(&straight)["loss_scale"]["scale"].as_f64().unwrap() > 1.0);
}

/// The same record as before there was float16, so that such checkpoints are resumed, and older programs resume ours.
#[test]
fn checkpoints_of_other_precisions_know_of_no_scale() {
    let folder = TempDir::new().unwrap();
    let states = [(Precision::F32, false), (Precision::F16, true)].map(|(precision, scaled)| {
        let run = run_folder(&folder, &precision.to_string());
        Setup::new(TrainOptions { precision, maxsteps: 4, ..options() })
            .run(Some(&run), &mut ignore, Begin::New)
            .unwrap();
        let path = run.newest_checkpoint().unwrap().0.unwrap();
        (fs::read_to_string(path.join("state.json")).unwrap().contains("loss_scale"), scaled)
    });
    assert!(states.iter().all(|(found, expected)| found == expected), "{states:?}");
}

/// A loss that is finite and has no gradient.
struct Broken(ColbertObjective);

impl Objective for Broken {
    fn loss<B: KernelBackend>(&self, queries: &Embeddings<B>, documents: &Embeddings<B>, targets: &Targets) -> Loss<B> {
        let loss = self.0.loss(queries, documents, targets);
        let nothing: Tensor<B, 1> = loss.total.clone().mul_scalar(0.0).sqrt();
        Loss { total: loss.total + nothing, ..loss }
    }

    fn couples_queries(&self) -> bool {
        false
    }
}

#[test]
fn a_gradient_that_is_never_finite_is_a_fault_once_the_scale_is_at_its_least() {
    for (on_nonfinite, last) in [(OnNonFinite::Stop, 17), (OnNonFinite::Skip, 27)] {
        let setup = Setup::new(in_float16(TrainOptions { epochs: 6, on_nonfinite, ..options() }));
        let objective = Broken(ColbertObjective::from(&setup.options));
        let mut scales = Vec::new();
        let mut listen = |event: &Event| {
            if let Event::Overflowed { loss_scale, .. } = event {
                scales.push(*loss_scale);
            }
            Flow::Continue
        };
        let error = setup.run_with(&objective, None, &mut listen, Begin::New).unwrap_err();
        let TrainError::NonFinite { what, step, .. } = error else { panic!("{error}") };
        assert_eq!((what, step), ("gradient norm", last));
        assert_eq!(scales, (0..16).rev().map(|power| 2.0_f64.powi(power)).collect::<Vec<_>>());
    }
}

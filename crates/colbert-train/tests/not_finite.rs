//! Losses, weights and vectors that are not finite.

use std::fs;

use colbert_config::{AutoSteps, OnNonFinite, TrainOptions, Warmup, resolve};
use colbert_data::{Collection, Example, Judgements, Queries, TrainingSet};
use colbert_model::{Weights, replace_parameters};
use colbert_train::{Begin, ColbertObjective, Event, FaultyBatch, Flow, Step, TrainError};
use tempfile::TempDir;

use crate::evaluation::{dev_set, filled};
use crate::run::{RESUME, Setup, ignore, options, run_folder};
use crate::support::{B, Model, device, parameters, tiny};

/// The dump is computed again, to the same kind of number.
#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_is_written_so_that_it_can_be_replayed() {
    let mut setup = Setup::new(TrainOptions {
        learning_rate: Some(1e30),
        warmup_steps: Warmup::Constant,
        dropout: None,
        ..options()
    });
    setup.options.clip_norm = 0.0;
    let folder = TempDir::new().unwrap();
    let run = run_folder(&folder, "run");
    let error = setup.run(Some(&run), &mut ignore, Begin::New).unwrap_err();
    let message = error.to_string();
    let TrainError::NonFinite { step, queries, dump, what, .. } = error else { panic!("{message}") };
    assert!((2..=8).contains(&step), "step {step}");
    assert_eq!(queries.split(", ").count(), 4, "{queries}");
    assert!(!run.best().exists() && !run.last().exists());

    let dump = dump.unwrap();
    assert!(message.contains(dump.to_str().unwrap()), "{message}");
    let faulty: FaultyBatch = serde_json::from_slice(&fs::read(dump.join("batch.json")).unwrap()).unwrap();
    assert_eq!((faulty.step, faulty.what.as_str(), faulty.examples.len()), (step, what, 4));
    let (mut queries, mut collection) = (Queries::new(), Collection::new());
    let examples = faulty.examples.iter().map(|example| Example {
        query: queries.add(&example.query).unwrap(),
        documents: example.documents.iter().map(|text| collection.add(text).unwrap()).collect(),
        scores: example.scores.clone(),
    });
    let examples = examples.collect();
    let set = TrainingSet { queries, collection, examples, positives: Judgements::new(), sources: Vec::new() };
    let again = TrainOptions { shuffle: false, seed: faulty.seed, ..setup.options.clone() };
    let plan = resolve(&again, 4).unwrap();
    let (model, tokenizer) = tiny(&again, None);
    let mut weights = Weights::read(&dump.join("model.safetensors")).unwrap();
    let model = replace_parameters::<B, Model>(model, &mut weights).unwrap();
    let device = device();
    let step = Step::<B, _>::new(&again, &plan, ColbertObjective::from(&again), &device);
    let mut batch = step.batch(&set, &tokenizer, 0).unwrap();
    batch.step = faulty.step - 1;
    let gradient = step.gradient(&model, &batch);
    let found = if what == "loss" { gradient.loss.total } else { gradient.norm };
    assert_eq!(found.to_string(), faulty.value);
}

#[test]
fn batches_that_are_not_finite_can_be_skipped_but_not_for_ever() {
    let folder = TempDir::new().unwrap();
    let mut setup = Setup::new(TrainOptions { on_nonfinite: OnNonFinite::Skip, ..options() });
    // A teacher score that no softmax survives, in one example.
    let poison = |setup: &mut Setup, places: &[usize]| {
        for (place, example) in setup.set.examples.iter_mut().enumerate() {
            let bad = places.contains(&place);
            example.scores = Some(vec![if bad { f32::NAN } else { 2.0 }, 1.0]);
        }
    };
    poison(&mut setup, &[5]);
    let run = run_folder(&folder, "run");
    let (mut skipped, mut steps) = (Vec::new(), Vec::new());
    let mut listen = |event: &Event| {
        match event {
            Event::Skipped { step, count, dump, .. } => skipped.push((*step, *count, dump.is_some())),
            Event::Step(record) => {
                steps.push(record.step);
                return if steps.len() == 5 { Flow::Stop } else { Flow::Continue };
            }
            _ => {}
        }
        Flow::Continue
    };
    let half = setup.run(Some(&run), &mut listen, Begin::New).unwrap();
    let whole = setup.run(Some(&run), &mut listen, RESUME).unwrap();
    assert_eq!((skipped.len(), steps.len(), whole.skipped), (1, 7, 1), "{skipped:?} {steps:?}");
    assert!(half.stopped && skipped[0].2 && !steps.contains(&skipped[0].0));
    let straight = setup.run(None, &mut ignore, Begin::New).unwrap();
    assert_eq!(parameters(&straight.model), parameters(&whole.model), "AdamW counts updates, not steps");

    setup.options.epochs = 4;
    poison(&mut setup, &(0..34).collect::<Vec<_>>());
    let error = setup.run(None, &mut ignore, Begin::New).unwrap_err();
    let TrainError::NonFinite { step, skipped, .. } = error else { panic!("{error}") };
    assert_eq!((step, skipped), (11, 10));
}

/// The update that breaks the weights is the last: nothing of it is saved, measured or written.
#[test]
fn weights_that_are_not_finite_end_the_run_and_are_kept_nowhere() {
    for on_nonfinite in [OnNonFinite::Stop, OnNonFinite::Skip] {
        let folder = TempDir::new().unwrap();
        let broken =
            TrainOptions { learning_rate: Some(1e300), on_nonfinite, save_every: AutoSteps::Steps(1), ..options() };
        let warmup_steps = Warmup::Steps(2);
        let mut setup = Setup::new(TrainOptions { warmup_steps, warmup_from_zero: true, ..broken });
        setup.dev = Some(dev_set(8));
        let run = run_folder(&folder, "run");
        let mut best = Vec::new();
        let mut observer = |event: &Event| {
            if let Event::Evaluated { step, best: true, .. } = event {
                best.push(*step);
            }
            Flow::Continue
        };
        let error = setup.run(Some(&run), &mut observer, Begin::New).unwrap_err();
        assert!(matches!(error, TrainError::NonFiniteWeights { step: 2, .. }), "{error}");
        assert_eq!(best, [0], "the first step moves nothing, at a learning rate of 0");
        let kept = run.list_checkpoints().unwrap();
        assert_eq!(kept, [run.checkpoints().join("step-000001")]);
        // The sound checkpoint is resumed with options that learn.
        setup.options.learning_rate = Some(1e-4);
        let resumed = setup.run(Some(&run), &mut ignore, Begin::Resume { accept_changes: true }).unwrap();
        assert_eq!((resumed.steps, resumed.skipped), (8, 0));
    }
}

/// Weights so large that vectors overflow, though the loss and the weights are finite.
#[test]
fn a_model_whose_vectors_are_not_finite_is_never_the_best() {
    for (on_nonfinite, ends) in [(OnNonFinite::Stop, true), (OnNonFinite::Skip, false)] {
        let mut setup = Setup::new(TrainOptions {
            learning_rate: Some(1e20),
            on_nonfinite,
            maxsteps: 2,
            warmup_steps: Warmup::Constant,
            save_every: AutoSteps::Steps(1),
            ..options()
        });
        setup.dev = Some(dev_set(8));
        let folder = TempDir::new().unwrap();
        let run = run_folder(&folder, "run");
        let mut values = Vec::new();
        let mut observer = |event: &Event| {
            if let Event::Evaluated { step, metric, evaluation, best, .. } = event {
                values.push((*step, evaluation.value(*metric).is_some(), *best));
            }
            Flow::Continue
        };
        let ran = setup.run(Some(&run), &mut observer, Begin::New);
        assert_eq!(values[0], (0, true, true));
        assert!(values[1..].iter().all(|(_, has_value, best)| !has_value && !best), "{values:?}");
        match ran {
            Err(TrainError::NonFiniteVectors { what: "query", .. }) => assert!(ends),
            Err(error) => panic!("{error}"),
            Ok(trained) => {
                assert!(!ends && trained.skipped == 1, "{}", trained.skipped);
                assert_eq!(trained.best.unwrap().step, 0);
            }
        }
    }
}

/// A model that cannot be measured is not trained, whatever batches are skipped.
#[test]
fn a_start_whose_vectors_are_not_finite_is_refused() {
    let mut setup = Setup::new(TrainOptions { on_nonfinite: OnNonFinite::Skip, ..options() });
    setup.dev = Some(dev_set(8));
    let error = setup.run_from(|model| filled(model, f32::NAN), &mut ignore).unwrap_err();
    assert!(matches!(error, TrainError::NonFiniteVectors { what: "query", .. }), "{error}");
}

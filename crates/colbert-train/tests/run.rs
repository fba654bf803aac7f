//! Whole runs: what is written, what is chosen, what stops them, and that nothing but the seed matters.

use std::fs;
use std::path::Path;

use colbert_config::{AutoSteps, Metric, TrainOptions, Warmup, resolve};
use colbert_data::{EvaluationSet, TrainingSet};
use colbert_model::{HostTensor, safetensors_bytes};
use colbert_train::{
    ColbertObjective, Dev, Event, Flow, Observer, RunFolder, TrainError, Trained, Training, checkpoints,
    read_checkpoint,
};
use tempfile::TempDir;

use crate::evaluation::dev_set;
use crate::support::{Model, device, json, lines, parameters, reference_options, tiny, training_set};

/// Stands in for the facade's export: the tensors alone.
fn write_model(tensors: &[(String, HostTensor)], path: &Path) -> Result<(), TrainError> {
    fs::create_dir_all(path).unwrap();
    fs::write(path.join("model.safetensors"), safetensors_bytes(tensors).unwrap()).unwrap();
    Ok(())
}

fn options() -> TrainOptions {
    TrainOptions {
        batch_size: 4,
        dim: 16,
        query_maxlen: 20,
        doc_maxlen: 32,
        learning_rate: 1e-3,
        warmup_steps: Warmup::Steps(2),
        save_every: AutoSteps::Steps(3),
        dropout: Some(0.1),
        ..TrainOptions::default()
    }
}

struct Setup {
    set: TrainingSet,
    dev: Option<EvaluationSet>,
    options: TrainOptions,
}

impl Setup {
    fn new(options: TrainOptions) -> Self {
        Self { set: training_set(&lines("triples.jsonl")[..34]), dev: None, options }
    }

    fn run(
        &self,
        folder: Option<&RunFolder>,
        observer: &mut dyn Observer,
        resume: Option<&Path>,
    ) -> Result<Trained<Model>, TrainError> {
        let plan = resolve(&self.options, self.set.examples.len()).unwrap();
        let (model, tokenizer) = tiny(&self.options, self.options.dropout);
        let (model, resume) = match resume {
            None => (model, None),
            Some(path) => {
                let (model, optimizer, state) =
                    read_checkpoint(path, model, self.options.weight_decay, &device()).unwrap();
                (model, Some((optimizer, state)))
            }
        };
        let training = Training {
            set: &self.set,
            dev: self.dev.as_ref().map(|set| Dev { set, metric: Metric::default() }),
            tokenizer: &tokenizer,
            options: &self.options,
            plan: &plan,
            objective: &ColbertObjective::from(&self.options),
            folder,
            write_model: &write_model,
            observers: vec![observer],
            device: &device(),
        };
        training.run(model, resume)
    }
}

fn ignore(_: &Event) -> Flow {
    Flow::Continue
}

fn run_folder(folder: &TempDir, name: &str) -> RunFolder {
    RunFolder::create(&folder.path().join(name), false).unwrap()
}

#[test]
fn the_loop_follows_the_recorded_trajectory() {
    let recorded = json("trajectories/base.json");
    let mut setup = Setup::new(reference_options(&recorded["config"]));
    setup.set = training_set(&lines("trajectories/base.triples.jsonl"));
    let mut losses = Vec::new();
    let mut observer = |event: &Event| {
        if let Event::Step(record) = event {
            losses.push((record.loss, record.gradient_norm, record.learning_rate));
        }
        Flow::Continue
    };
    let trained = setup.run(None, &mut observer, None).unwrap();
    assert_eq!((trained.steps, losses.len()), (20, 20));
    for (found, expected) in losses.iter().zip(recorded["steps"].as_array().unwrap()) {
        assert!((found.0 - expected["loss"].as_f64().unwrap()).abs() < 1e-4);
        let norm = expected["grad_norm"].as_f64().unwrap();
        assert!((found.1 - norm).abs() < 1e-4 * norm);
        assert!((found.2 - expected["lr"].as_f64().unwrap()).abs() < 1e-12);
    }
}

#[test]
fn the_same_seed_writes_the_same_bytes_and_another_does_not() {
    let folder = TempDir::new().unwrap();
    let bytes = |name: &str, seed| {
        let setup = Setup::new(TrainOptions { seed, ..options() });
        let trained = setup.run(Some(&run_folder(&folder, name)), &mut ignore, None).unwrap();
        fs::read(trained.best_path.unwrap().join("model.safetensors")).unwrap()
    };
    assert_eq!(bytes("a", 1), bytes("b", 1));
    assert_ne!(bytes("c", 1), bytes("d", 2));
}

/// Four steps, a checkpoint, four more: the same bits as eight, dropout and order included.
#[test]
fn a_resumed_run_ends_with_the_same_bits() {
    let folder = TempDir::new().unwrap();
    let setup = Setup::new(TrainOptions { save_every: AutoSteps::Steps(4), ..options() });
    let straight = setup.run(None, &mut ignore, None).unwrap();
    assert_eq!(straight.steps, 8);
    let mut stop = |event: &Event| match event {
        Event::Step(record) if record.step == 4 => Flow::Stop,
        _ => Flow::Continue,
    };
    let run = run_folder(&folder, "run");
    let half = setup.run(Some(&run), &mut stop, None).unwrap();
    assert!(half.stopped && half.steps == 4);
    let checkpoint = checkpoints(&run.checkpoints()).unwrap().pop().unwrap();
    let resumed = setup.run(None, &mut ignore, Some(&checkpoint)).unwrap();
    let (a, b) = (parameters(&straight.model), parameters(&resumed.model));
    for (name, values) in &a {
        assert!(values.iter().zip(&b[name]).all(|(x, y)| x.to_bits() == y.to_bits()), "{name} differs");
    }
}

#[test]
fn a_stopped_run_leaves_a_checkpoint_and_a_model() {
    let folder = TempDir::new().unwrap();
    let run = run_folder(&folder, "run");
    let mut stop = |event: &Event| match event {
        Event::Step(record) if record.step == 5 => Flow::Stop,
        _ => Flow::Continue,
    };
    let trained = Setup::new(options()).run(Some(&run), &mut stop, None).unwrap();
    assert!(trained.stopped && trained.steps == 5);
    let newest = checkpoints(&run.checkpoints()).unwrap().pop().unwrap();
    assert!(newest.ends_with("step-000005"), "{}", newest.display());
    assert!(run.last().join("model.safetensors").exists());
}

#[test]
fn checkpoints_are_written_every_save_every_steps_and_only_the_newest_kept() {
    let folder = TempDir::new().unwrap();
    let run = run_folder(&folder, "run");
    let mut saved = Vec::new();
    let mut observer = |event: &Event| {
        if let Event::Saved { step, .. } = event {
            saved.push(*step);
        }
        Flow::Continue
    };
    Setup::new(options()).run(Some(&run), &mut observer, None).unwrap();
    assert_eq!(saved, [3, 6, 8]);
    let names: Vec<String> = checkpoints(&run.checkpoints())
        .unwrap()
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names, ["step-000006", "step-000008"]);
}

/// Defect 21: in the reference the "best" checkpoint is the last.
#[test]
fn defect_21_the_best_model_is_the_best_on_held_out_queries() {
    let folder = TempDir::new().unwrap();
    let run = run_folder(&folder, "run");
    // A learning rate that ruins the model: the start stays the best.
    let mut setup = Setup::new(TrainOptions { learning_rate: 0.3, clip_norm: 0.0, ..options() });
    setup.dev = Some(dev_set(20));
    let mut values = Vec::new();
    let mut observer = |event: &Event| {
        if let Event::Evaluated { step, evaluation, best, .. } = event {
            values.push((*step, evaluation.value(Metric::default()).unwrap(), *best));
        }
        Flow::Continue
    };
    let trained = setup.run(Some(&run), &mut observer, None).unwrap();
    assert_eq!(values.iter().map(|v| v.0).collect::<Vec<_>>(), [0, 3, 6, 8]);
    let highest = values.iter().map(|v| v.1).fold(0.0, f64::max);
    let (step, evaluation) = trained.best.unwrap();
    assert_eq!(evaluation.value(Metric::default()), Some(highest));
    assert_eq!(values.iter().find(|v| v.1 == highest).unwrap().0, step);
    assert_ne!(step, 8, "the last model is not the best in this run");
    assert_eq!(trained.baseline.unwrap().value(Metric::default()), Some(values[0].1));
    let read = |path: std::path::PathBuf| fs::read(path.join("model.safetensors")).unwrap();
    assert_ne!(read(run.best()), read(run.last()));
    let (start, _) = tiny(&setup.options, None);
    if step == 0 {
        let tensors: Vec<_> = colbert_model::named_parameters::<crate::support::B, Model>(&start)
            .into_iter()
            .map(|(name, tensor)| (start.tensor_name(&name), tensor))
            .collect();
        assert_eq!(read(run.best()), safetensors_bytes(&tensors).unwrap());
    }
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_names_the_batch() {
    let mut setup =
        Setup::new(TrainOptions { learning_rate: 1e30, warmup_steps: Warmup::Constant, dropout: None, ..options() });
    setup.options.clip_norm = 0.0;
    let folder = TempDir::new().unwrap();
    let run = run_folder(&folder, "run");
    let error = setup.run(Some(&run), &mut ignore, None).unwrap_err();
    let TrainError::NonFinite { step, ref queries, .. } = error else { panic!("{error}") };
    assert!((2..=8).contains(&step), "step {step}");
    assert_eq!(queries.split(", ").count(), 4, "{queries}");
    assert!(!run.best().exists() && !run.last().exists());
}

#[test]
fn an_occupied_folder_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run");
    let run = RunFolder::create(&path, false).unwrap();
    run.write_plan(&resolve(&options(), 40).unwrap()).unwrap();
    let error = RunFolder::create(&path, false).unwrap_err();
    assert!(matches!(error, TrainError::RunExists { .. }) && error.to_string().contains("--overwrite"), "{error}");
    RunFolder::create(&path, true).unwrap();
    assert!(!path.join("plan.json").exists());

    let foreign = folder.path().join("home");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.tex"), "x").unwrap();
    let error = RunFolder::create(&foreign, true).unwrap_err();
    assert!(matches!(error, TrainError::NotARun { .. }), "{error}");
    assert!(foreign.join("thesis.tex").exists(), "a folder that is no run is never deleted");
}

#[test]
fn examples_that_do_not_fit_are_named() {
    let mut setup = Setup::new(options());
    setup.set.examples[7].documents.push(0);
    assert!(matches!(setup.run(None, &mut ignore, None), Err(TrainError::WrongWidth { example: 7, found: 3, .. })));
    let mut setup = Setup::new(options());
    setup.set.examples[2].documents[1] = 1_000_000;
    let error = setup.run(None, &mut ignore, None).unwrap_err();
    assert!(error.to_string().contains("document 1000000"), "{error}");
    let mut setup = Setup::new(options());
    setup.set.examples[3].scores = Some(vec![1.0, 0.5]);
    assert!(matches!(setup.run(None, &mut ignore, None), Err(TrainError::MixedScores { example: 0, .. })));
}

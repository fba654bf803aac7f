//! Whole runs: their files, the chosen model, the reasons to stop, and that only the seed matters.

use std::fs;
use std::path::Path;

use colbert_config::{AutoSteps, EvaluationOptions, Metric, TrainOptions, Warmup, resolve};
use colbert_data::{EvaluationSet, TrainingSet};
use colbert_model::{HostTensor, safetensors_bytes};
use colbert_train::{
    Begin, ColbertObjective, Dev, Event, Flow, Objective, Observer, RunFolder, TrainError, Trained, Training,
};
use tempfile::TempDir;

use crate::evaluation::dev_set;
use crate::support::{Model, device, json, lines, reference_options, tiny, training_set};

/// In place of the facade's export: the tensors alone.
pub(crate) fn write_model(tensors: &[(String, HostTensor)], path: &Path) -> Result<(), TrainError> {
    fs::create_dir_all(path).unwrap();
    fs::write(path.join("model.safetensors"), safetensors_bytes(tensors).unwrap()).unwrap();
    Ok(())
}

pub(crate) fn options() -> TrainOptions {
    TrainOptions {
        batch_size: 4,
        dim: 16,
        query_maxlen: 20,
        doc_maxlen: 32,
        learning_rate: Some(1e-3),
        warmup_steps: Warmup::Steps(2),
        save_every: AutoSteps::Steps(3),
        dropout: Some(0.1),
        ..TrainOptions::default()
    }
}

pub(crate) struct Setup {
    pub(crate) set: TrainingSet,
    pub(crate) dev: Option<EvaluationSet>,
    pub(crate) evaluation: EvaluationOptions,
    pub(crate) options: TrainOptions,
}

impl Setup {
    pub(crate) fn new(options: TrainOptions) -> Self {
        Self {
            set: training_set(&lines("triples.jsonl")[..34]),
            dev: None,
            evaluation: EvaluationOptions::default(),
            options,
        }
    }

    pub(crate) fn run(
        &self,
        folder: Option<&RunFolder>,
        observer: &mut dyn Observer,
        begin: Begin,
    ) -> Result<Trained<Model>, TrainError> {
        self.run_with(&ColbertObjective::from(&self.options), folder, observer, begin)
    }

    /// A run without a folder from another model than the fixture's.
    pub(crate) fn run_from(
        &self,
        change: impl FnOnce(Model) -> Model,
        observer: &mut dyn Observer,
    ) -> Result<Trained<Model>, TrainError> {
        let plan = resolve(&self.options, self.set.examples.len()).unwrap();
        let (model, tokenizer) = tiny(&self.options, self.options.dropout);
        Training::new(&self.set, &tokenizer, &self.options, &plan, &device())
            .with_dev(self.dev.as_ref().map(|set| Dev { set, options: &self.evaluation }))
            .with_observer(observer)
            .run(change(model), Begin::New)
    }

    pub(crate) fn run_with(
        &self,
        objective: &impl Objective,
        folder: Option<&RunFolder>,
        observer: &mut dyn Observer,
        begin: Begin,
    ) -> Result<Trained<Model>, TrainError> {
        let plan = resolve(&self.options, self.set.examples.len()).unwrap();
        let (model, tokenizer) = tiny(&self.options, self.options.dropout);
        Training::new(&self.set, &tokenizer, &self.options, &plan, &device())
            .with_objective(objective)
            .with_dev(self.dev.as_ref().map(|set| Dev { set, options: &self.evaluation }))
            .with_folder(folder)
            .with_model_writer(&write_model)
            .with_observer(observer)
            .run(model, begin)
    }
}

pub(crate) const RESUME: Begin = Begin::Resume { accept_changes: false };

pub(crate) fn ignore(_: &Event) -> Flow {
    Flow::Continue
}

pub(crate) fn run_folder(folder: &TempDir, name: &str) -> RunFolder {
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
    let trained = setup.run(None, &mut observer, Begin::New).unwrap();
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
        let trained = setup.run(Some(&run_folder(&folder, name)), &mut ignore, Begin::New).unwrap();
        fs::read(trained.best_path.unwrap().join("model.safetensors")).unwrap()
    };
    assert_eq!(bytes("a", 1), bytes("b", 1));
    assert_ne!(bytes("c", 1), bytes("d", 2));
}

#[test]
fn a_stopped_run_leaves_a_checkpoint_and_a_model() {
    let folder = TempDir::new().unwrap();
    let run = run_folder(&folder, "run");
    let mut stop = |event: &Event| match event {
        Event::Step(record) if record.step == 5 => Flow::Stop,
        _ => Flow::Continue,
    };
    let trained = Setup::new(options()).run(Some(&run), &mut stop, Begin::New).unwrap();
    assert!(trained.stopped && trained.steps == 5);
    let newest = run.list_checkpoints().unwrap().pop().unwrap();
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
    Setup::new(options()).run(Some(&run), &mut observer, Begin::New).unwrap();
    assert_eq!(saved, [3, 6, 8]);
    let names: Vec<String> = run
        .list_checkpoints()
        .unwrap()
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names, ["step-000006", "step-000008"]);
}

/// The newest N checkpoints, and besides them those that were best on dev queries.
#[test]
fn checkpoints_are_kept_by_age_and_by_metric() {
    for (newest, best, expected) in [(1, 0, 1), (2, 0, 2), (1, 1, 2), (1, 2, 3)] {
        let folder = TempDir::new().unwrap();
        let run = run_folder(&folder, "run");
        // A learning rate that ruins the model, so that the last is not the best.
        let mut setup = Setup::new(TrainOptions {
            learning_rate: Some(0.3),
            clip_norm: 0.0,
            save_every: AutoSteps::Steps(2),
            keep_checkpoints: newest,
            keep_best_checkpoints: best,
            ..options()
        });
        setup.dev = Some(dev_set(20));
        let mut values = Vec::new();
        let mut observer = |event: &Event| {
            if let Event::Evaluated { step, evaluation, .. } = event
                && *step > 0
            {
                values.push((*step, evaluation.value(Metric::default()).unwrap()));
            }
            Flow::Continue
        };
        setup.run(Some(&run), &mut observer, Begin::New).unwrap();
        let mut steps: Vec<usize> = values.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, [2, 4, 6, 8]);
        let last = steps.split_off(4 - newest);
        // Stable: of equals the older.
        values.sort_by(|one, other| other.1.total_cmp(&one.1));
        let mut kept: Vec<usize> = values.iter().take(best).map(|(step, _)| *step).chain(last).collect();
        kept.sort_unstable();
        kept.dedup();
        let names: Vec<String> = kept.iter().map(|step| format!("step-{step:06}")).collect();
        let found = run.list_checkpoints().unwrap();
        let found: Vec<_> = found.iter().map(|path| path.file_name().unwrap().to_string_lossy()).collect();
        assert_eq!(found, names, "{values:?}");
        assert!(found.len() <= expected);
    }
}

/// Defect 21: in the reference the "best" checkpoint is the last.
#[test]
fn defect_21_the_best_model_is_the_best_on_held_out_queries() {
    let folder = TempDir::new().unwrap();
    let run = run_folder(&folder, "run");
    // A learning rate that ruins the model: the start stays the best.
    let mut setup = Setup::new(TrainOptions { learning_rate: Some(0.3), clip_norm: 0.0, ..options() });
    setup.dev = Some(dev_set(20));
    let mut values = Vec::new();
    let mut observer = |event: &Event| {
        if let Event::Evaluated { step, evaluation, best, .. } = event {
            values.push((*step, evaluation.value(Metric::default()).unwrap(), *best));
        }
        Flow::Continue
    };
    let trained = setup.run(Some(&run), &mut observer, Begin::New).unwrap();
    assert_eq!(values.iter().map(|v| v.0).collect::<Vec<_>>(), [0, 3, 6, 8]);
    let highest = values.iter().map(|v| v.1).fold(0.0, f64::max);
    let best = trained.best.unwrap();
    let (step, evaluation) = (best.step, best.measured.evaluation);
    assert_eq!(evaluation.value(Metric::default()), Some(highest));
    assert_eq!(values.iter().find(|v| v.1 == highest).unwrap().0, step);
    assert_ne!(step, 8, "the last model is not the best in this run");
    assert_eq!(trained.baseline.unwrap().evaluation.value(Metric::default()), Some(values[0].1));
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
fn an_occupied_folder_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run");
    let run = RunFolder::create(&path, false).unwrap();
    run.write_plan(&resolve(&options(), 40).unwrap()).unwrap();
    let error = RunFolder::create(&path, false).unwrap_err();
    assert!(matches!(error, TrainError::RunExists { .. }) && error.to_string().contains("--overwrite"), "{error}");
    drop(run);
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
    assert!(matches!(
        setup.run(None, &mut ignore, Begin::New),
        Err(TrainError::WrongWidth { example: 7, found: 3, .. })
    ));
    let mut setup = Setup::new(options());
    setup.set.examples[2].documents[1] = 1_000_000;
    let error = setup.run(None, &mut ignore, Begin::New).unwrap_err();
    assert!(error.to_string().contains("document 1000000"), "{error}");
    let mut setup = Setup::new(options());
    setup.set.examples[3].scores = Some(vec![1.0, 0.5, 0.2]);
    assert!(matches!(setup.run(None, &mut ignore, Begin::New), Err(TrainError::MixedScores { example: 3, .. })));
    let mut setup = Setup::new(options());
    setup.set.examples[5].documents.truncate(1);
    assert!(matches!(
        setup.run(None, &mut ignore, Begin::New),
        Err(TrainError::WrongWidth { example: 5, found: 1, .. })
    ));
}

/// A run with a learning rate that ruins the model ends as soon as its patience is over, and was not stopped.
#[test]
fn a_run_out_of_patience_ends_early() {
    let folder = TempDir::new().unwrap();
    let run = run_folder(&folder, "run");
    let mut setup = Setup::new(TrainOptions {
        learning_rate: Some(0.3),
        clip_norm: 0.0,
        save_every: AutoSteps::Steps(1),
        ..options()
    });
    setup.dev = Some(dev_set(20));
    setup.evaluation.patience = Some(2);
    let mut told = None;
    let mut listen = |event: &Event| {
        if let Event::OutOfPatience { step, evaluations } = event {
            told = Some((*step, *evaluations));
        }
        Flow::Continue
    };
    let trained = setup.run(Some(&run), &mut listen, Begin::New).unwrap();
    let best = trained.best.unwrap();
    assert_eq!(told, Some((best.step + 2, 2)));
    assert_eq!((trained.steps, trained.stopped), (best.step + 2, false));
    assert!(trained.steps < 8);
    // Nor does it continue when it is resumed.
    assert_eq!(setup.run(Some(&run), &mut ignore, RESUME).unwrap().steps, trained.steps);
}

/// Averages and mixtures are tried at the end; the best model is never worse than any of them, and one that is adopted
/// is what is in `best/`.
#[test]
fn averages_and_mixtures_are_adopted_only_if_they_are_better() {
    let folder = TempDir::new().unwrap();
    let mut adopted = 0;
    for (number, learning_rate) in [1e-3, 1e-2, 3e-2].into_iter().enumerate() {
        let mut setup = Setup::new(TrainOptions {
            learning_rate: Some(learning_rate),
            save_every: AutoSteps::Steps(2),
            epochs: 2,
            ema_decay: Some(0.5),
            dropout: None,
            ..options()
        });
        // Other queries than those that are measured: a model that is trained too far gets worse on them.
        setup.set = training_set(&lines("triples.jsonl")[30..64]);
        setup.dev = Some(dev_set(30));
        setup.evaluation = EvaluationOptions {
            metric: Metric::Loss,
            average_best: 3,
            interpolate: true,
            ..EvaluationOptions::default()
        };
        let run = run_folder(&folder, &number.to_string());
        let trained = setup.run(Some(&run), &mut ignore, Begin::New).unwrap();
        let best = trained.best.unwrap();
        let value = best.measured.evaluation.value(Metric::Loss).unwrap();
        assert!(trained.candidates.len() >= 2, "{:?}", trained.candidates);
        for candidate in &trained.candidates {
            assert!(value <= candidate.evaluation.value(Metric::Loss).unwrap(), "{candidate:?}");
        }
        let taken: Vec<_> = trained.candidates.iter().filter(|candidate| candidate.adopted).collect();
        adopted += taken.len();
        assert_eq!(best.made_of.as_ref(), taken.last().map(|candidate| &candidate.name));
        // A run that is resumed at its end makes the same choice again.
        let file = run.best().join("model.safetensors");
        let bytes = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        let again = setup.run(Some(&run), &mut ignore, RESUME).unwrap();
        assert_eq!((again.candidates, fs::read(&file).unwrap()), (trained.candidates, bytes));
    }
    assert!(adopted > 0, "none of the averages was better in any of three runs");
}

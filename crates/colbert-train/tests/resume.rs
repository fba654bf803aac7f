//! Resuming a run: from which checkpoint, and with which options and data.

use std::fs;
use std::path::{Path, PathBuf};

use colbert_config::{AutoSteps, TrainOptions};
use colbert_model::{Weights, safetensors_bytes};
use colbert_train::{Begin, Event, Flow, RunFolder, TrainError};
use tempfile::TempDir;

use crate::evaluation::dev_set;
use crate::run::{RESUME, Setup, ignore, options, run_folder};
use crate::support::{parameters, replace_in_checkpoint};

/// A run with dev queries that was stopped after 6 of 8 steps, with checkpoints after 3 and 6. The checkpoint after 6
/// has a best model of an earlier step.
fn stopped(folder: &TempDir) -> (Setup, RunFolder) {
    let mut setup = Setup::new(options());
    setup.dev = Some(dev_set(20));
    let run = run_folder(folder, "run");
    let mut stop = |event: &Event| match event {
        Event::Step(record) if record.step == 6 => Flow::Stop,
        _ => Flow::Continue,
    };
    setup.run(Some(&run), &mut stop, Begin::New).unwrap();
    assert_eq!(run.list_checkpoints().unwrap().len(), 2);
    (setup, run)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Four steps, a checkpoint, four more: the same bits as eight, dropout and order included.
#[test]
fn a_resumed_run_ends_with_the_same_bits() {
    let folder = TempDir::new().unwrap();
    let setup = Setup::new(TrainOptions { save_every: AutoSteps::Steps(4), ..options() });
    let straight = setup.run(None, &mut ignore, Begin::New).unwrap();
    assert_eq!(straight.steps, 8);
    let mut stop = |event: &Event| match event {
        Event::Step(record) if record.step == 4 => Flow::Stop,
        _ => Flow::Continue,
    };
    let run = run_folder(&folder, "run");
    let half = setup.run(Some(&run), &mut stop, Begin::New).unwrap();
    assert!(half.stopped && half.steps == 4);
    let resumed = setup.run(Some(&run), &mut ignore, RESUME).unwrap();
    let (a, b) = (parameters(&straight.model), parameters(&resumed.model));
    for (name, values) in &a {
        assert!(values.iter().zip(&b[name]).all(|(x, y)| x.to_bits() == y.to_bits()), "{name} differs");
    }
}

/// The choice of the best model, too, is that of a run that was never stopped, and so is its record.
#[test]
fn a_resumed_run_chooses_the_same_model_and_has_the_same_record() {
    let folder = TempDir::new().unwrap();
    let (setup, run) = stopped(&folder);
    // As after a kill of the process: later lines, an incomplete one, and a best model of a later step than the
    // checkpoint.
    fs::remove_dir_all(run.checkpoints().join("step-000006")).unwrap();
    fs::write(run.best().join("model.safetensors"), "of a later step").unwrap();
    let mut evaluations = Vec::new();
    let mut record = |event: &Event| {
        if let Event::Evaluated { step, evaluation, best, .. } = event {
            evaluations.push((*step, evaluation.clone(), *best));
        }
        Flow::Continue
    };
    let resumed = setup.run(Some(&run), &mut record, RESUME).unwrap();
    let mut expected = Vec::new();
    let mut record = |event: &Event| {
        if let Event::Evaluated { step, evaluation, best, .. } = event {
            expected.push((*step, evaluation.clone(), *best));
        }
        Flow::Continue
    };
    let other = run_folder(&folder, "other");
    let straight = setup.run(Some(&other), &mut record, Begin::New).unwrap();
    assert_eq!(evaluations, expected[2..], "the evaluations after steps 6 and 8");
    assert_eq!((resumed.best, resumed.baseline), (straight.best, straight.baseline));
    let read = |path: PathBuf| fs::read(path.join("model.safetensors")).unwrap();
    assert_eq!(read(run.best()), read(other.best()));
    assert_eq!(read(run.last()), read(other.last()));
}

/// Every file of the newest checkpoint: truncated, emptied, missing, and with one bit flipped in many places.
#[test]
fn a_damaged_checkpoint_is_skipped_for_the_one_before() {
    let folder = TempDir::new().unwrap();
    let (setup, run) = stopped(&folder);
    let (older, newest) = (run.checkpoints().join("step-000003"), run.checkpoints().join("step-000006"));
    assert_eq!(run.newest_checkpoint().unwrap(), (Some(newest.clone()), Vec::new()));
    let all = files(&newest);
    assert!(all.iter().any(|file| file.to_string_lossy().contains("best-")), "{all:?}");
    for file in &all {
        let name = file.file_name().unwrap().to_str().unwrap();
        let whole = fs::read(file).unwrap();
        let mut damaged = vec![Vec::new(), whole[..1].to_vec(), whole[..whole.len() - 1].to_vec()];
        let places = if whole.len() < 20_000 { whole.len() } else { 40 };
        for i in 0..places {
            let mut flipped = whole.clone();
            flipped[i * whole.len() / places] ^= 1 << (i % 8);
            damaged.push(flipped);
        }
        damaged.push([&whole[..], b"more"].concat());
        for (case, bytes) in damaged.iter().enumerate() {
            fs::write(file, bytes).unwrap();
            let (found, skipped) = run.newest_checkpoint().unwrap();
            // A flipped bit in the white space of the manifest may leave it as it was; then nothing is damaged.
            if found.as_ref() == Some(&newest) && name == "manifest.json" {
                let value = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
                assert_eq!(value(bytes), value(&whole), "{name}, case {case}");
                continue;
            }
            assert_eq!(found.as_ref(), Some(&older), "{name}, case {case}");
            assert_eq!(skipped.len(), 1);
            assert!(skipped[0].path == newest && !skipped[0].reason.is_empty());
        }
        fs::remove_file(file).unwrap();
        let (found, skipped) = run.newest_checkpoint().unwrap();
        assert_eq!(found.as_ref(), Some(&older), "{name} is gone");
        assert!(skipped[0].reason.contains(name), "{}", skipped[0].reason);
        fs::write(file, whole).unwrap();
    }

    // The run continues from there, reports it, and ends as if nothing had happened.
    fs::write(&all[0], "x").unwrap();
    let mut resumed_at = None;
    let mut listen = |event: &Event| {
        if let Event::Resumed { step, skipped, .. } = event {
            resumed_at = Some((*step, skipped.len()));
        }
        Flow::Continue
    };
    let resumed = setup.run(Some(&run), &mut listen, RESUME).unwrap();
    assert_eq!(resumed_at, Some((3, 1)));
    let straight = setup.run(None, &mut ignore, Begin::New).unwrap();
    assert_eq!(parameters(&resumed.model), parameters(&straight.model));
    assert_eq!(run.newest_checkpoint().unwrap().1, []);
}

/// Files of another model under checksums that agree: the tensor is named, and nothing of it is used.
#[test]
fn moments_and_best_models_of_another_size_are_refused() {
    let folder = TempDir::new().unwrap();
    let (setup, run) = stopped(&folder);
    let newest = run.checkpoints().join("step-000006");
    let best = files(&newest).into_iter().find(|path| path.to_string_lossy().contains("best-")).unwrap();
    for (file, name) in [(newest.join("optimizer.safetensors"), "exp_avg.linear.weight"), (best, "linear.weight")] {
        let whole = fs::read(&file).unwrap();
        let mut weights = Weights::read(&file).unwrap();
        let names: Vec<String> = weights.names().map(str::to_owned).collect();
        let mut tensors = Vec::new();
        for own in names {
            let shape = weights.shape(&own).unwrap().to_vec();
            tensors.push((own.clone(), weights.take(&own, &shape).unwrap()));
        }
        let (_, tensor) = tensors.iter_mut().find(|(own, _)| own == name).unwrap();
        tensor.values.truncate(3);
        tensor.shape = vec![3];
        let file_name = file.file_name().unwrap().to_str().unwrap();
        replace_in_checkpoint(&newest, file_name, &safetensors_bytes(&tensors).unwrap());
        let error = setup.run(Some(&run), &mut ignore, RESUME).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("[3]"), "{error}");
        replace_in_checkpoint(&newest, file_name, &whole);
    }
}

/// A checkpoint from before weights were checked after every update: damage like any other.
#[test]
fn a_checkpoint_that_is_not_finite_is_passed_over() {
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let folder = TempDir::new().unwrap();
        let (setup, run) = stopped(&folder);
        let newest = run.checkpoints().join("step-000006");
        let before = run.newest_checkpoint().unwrap().0.unwrap();
        assert_eq!(before, newest);
        let mut bytes = fs::read(newest.join(file)).unwrap();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
        replace_in_checkpoint(&newest, file, &bytes);
        let (sound, skipped) = run.newest_checkpoint().unwrap();
        assert_eq!(sound.unwrap(), run.checkpoints().join("step-000003"));
        assert!(skipped[0].path == newest && skipped[0].reason.contains("not finite"), "{skipped:?}");
        assert!(setup.run(Some(&run), &mut ignore, RESUME).is_ok());
    }
}

/// A folder that cannot be written ends the run with the reason; its content is unchanged, and the run continues from
/// it.
#[test]
fn a_folder_that_refuses_writing_costs_nothing_that_was_written() {
    let folder = TempDir::new().unwrap();
    let mut setup = Setup::new(options());
    setup.dev = Some(dev_set(20));
    let run = run_folder(&folder, "run");
    let (there, aside) = (run.checkpoints(), run.path().join("aside"));
    // Permissions do not bind every user who runs tests; a file in the place of the folder does.
    let mut refuse = |event: &Event| {
        if matches!(event, Event::Saved { step: 3, .. }) {
            fs::rename(&there, &aside).unwrap();
            fs::write(&there, "no folder").unwrap();
        }
        Flow::Continue
    };
    let error = setup.run(Some(&run), &mut refuse, Begin::New).unwrap_err();
    assert!(matches!(&error, TrainError::Io { path, .. } if path.starts_with(&there)), "{error}");
    fs::remove_file(&there).unwrap();
    fs::rename(&aside, &there).unwrap();
    let mut resumed_at = None;
    let mut listen = |event: &Event| {
        if let Event::Resumed { step, skipped, .. } = event {
            resumed_at = Some((*step, skipped.len()));
        }
        Flow::Continue
    };
    let resumed = setup.run(Some(&run), &mut listen, RESUME).unwrap();
    assert_eq!(resumed_at, Some((3, 0)));
    let straight = setup.run(None, &mut ignore, Begin::New).unwrap();
    assert_eq!(parameters(&resumed.model), parameters(&straight.model));
}

#[test]
fn without_a_whole_checkpoint_the_run_begins_anew() {
    let folder = TempDir::new().unwrap();
    let (setup, run) = stopped(&folder);
    for checkpoint in run.list_checkpoints().unwrap() {
        fs::remove_file(checkpoint.join("manifest.json")).unwrap();
    }
    let mut steps = Vec::new();
    let mut listen = |event: &Event| {
        match event {
            Event::Resumed { step, checkpoint, skipped, .. } => {
                assert_eq!((*step, checkpoint, skipped.len()), (0, &None, 2));
            }
            Event::Step(record) => steps.push(record.step),
            _ => {}
        }
        Flow::Continue
    };
    setup.run(Some(&run), &mut listen, RESUME).unwrap();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_checkpoint_of_other_options_or_data_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let (mut setup, run) = stopped(&folder);
    let refused = |setup: &Setup| match setup.run(Some(&run), &mut ignore, RESUME) {
        Err(TrainError::Changed { changes, .. }) => changes,
        other => panic!("{:?}", other.map(|trained| trained.steps)),
    };
    setup.options.learning_rate = Some(2e-3);
    assert_eq!(refused(&setup), "train.learning_rate was 0.001, is 0.002");
    setup.options.learning_rate = Some(1e-3);
    setup.set.examples.swap(0, 1);
    let changes = refused(&setup);
    assert!(changes.starts_with("training data was 34 examples of "), "{changes}");
    setup.set.examples.swap(0, 1);
    setup.dev = Some(dev_set(19));
    assert!(refused(&setup).starts_with("dev data was 20 queries"));
    setup.dev = Some(dev_set(20));

    setup.options.maxsteps = 5;
    let begin = Begin::Resume { accept_changes: true };
    let error = setup.run(Some(&run), &mut ignore, begin).unwrap_err().to_string();
    assert!(error.contains("after 6 steps, but the run has only 5"), "{error}");
    setup.options.maxsteps = 7;
    let mut accepted = Vec::new();
    let mut listen = |event: &Event| {
        if let Event::Resumed { changes, .. } = event {
            accepted.extend(changes.iter().map(ToString::to_string));
        }
        Flow::Continue
    };
    assert_eq!(setup.run(Some(&run), &mut listen, begin).unwrap().steps, 7);
    assert_eq!(accepted, ["train.maxsteps was 500000, is 7"]);
    // The next checkpoint is tied to what was accepted.
    assert_eq!(setup.run(Some(&run), &mut ignore, RESUME).unwrap().steps, 7);
}

#[test]
fn two_cannot_be_at_work_in_one_folder() {
    let folder = TempDir::new().unwrap();
    let (_setup, run) = stopped(&folder);
    run.write("plan.json", b"{}").unwrap();
    for second in [RunFolder::open(run.path()), RunFolder::create(run.path(), true)] {
        assert!(matches!(second, Err(TrainError::RunInUse { .. })), "{second:?}");
    }
    assert!(run.best().exists(), "an overwrite that is refused removes nothing");
    let path = run.path().to_owned();
    drop(run);
    RunFolder::open(&path).unwrap();
    assert!(matches!(RunFolder::open(folder.path()), Err(TrainError::NoRun { .. })));
}

/// An interrupted evaluation is repeated: the first one, one in between, and the last.
#[test]
fn a_run_that_is_stopped_in_an_evaluation_makes_up_for_it() {
    let folder = TempDir::new().unwrap();
    let mut setup = Setup::new(options());
    setup.dev = Some(dev_set(20));
    let evaluations = |seen: &mut Vec<(usize, Option<f64>)>, event: &Event| {
        if let Event::Evaluated { step, evaluation, metric, .. } = event {
            seen.push((*step, evaluation.value(*metric)));
        }
    };
    let straight_folder = run_folder(&folder, "straight");
    let mut expected = Vec::new();
    let mut listen = |event: &Event| {
        evaluations(&mut expected, event);
        Flow::Continue
    };
    let straight = setup.run(Some(&straight_folder), &mut listen, Begin::New).unwrap();
    assert_eq!(expected.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 3, 6, 8]);
    let file = |run: &RunFolder| fs::read(run.best().join("model.safetensors")).unwrap();
    for breaks_off_after in [0, 3, 8] {
        let run = run_folder(&folder, &breaks_off_after.to_string());
        let (mut seen, mut steps) = (Vec::new(), 0);
        let mut stop = |event: &Event| {
            evaluations(&mut seen, event);
            match event {
                Event::Step(record) => steps = record.step,
                Event::Evaluating { .. } if steps == breaks_off_after => return Flow::Stop,
                _ => {}
            }
            Flow::Continue
        };
        let stopped = setup.run(Some(&run), &mut stop, Begin::New).unwrap();
        assert_eq!((stopped.stopped, stopped.steps), (true, breaks_off_after));
        assert!(run.best().join("model.safetensors").exists());
        let mut listen = |event: &Event| {
            evaluations(&mut seen, event);
            Flow::Continue
        };
        let resumed = setup.run(Some(&run), &mut listen, RESUME).unwrap();
        assert_eq!(seen, expected, "broken off after step {breaks_off_after}");
        assert_eq!(
            (resumed.stopped, resumed.best, resumed.baseline),
            (false, straight.best.clone(), straight.baseline.clone())
        );
        assert_eq!(file(&run), file(&straight_folder));
    }
}

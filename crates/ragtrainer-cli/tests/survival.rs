//! Runs of the real program that are killed, refused by the disk, or stopped, and resumed: they end with the bytes of
//! a run that nothing happened to.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Ran, pairs_file, ragtrainer, train, train_arguments};
use crate::support::{beir_folder, folder};

/// A run of 60 steps with dropout, dev and test queries, and a checkpoint after every second step.
const LONG: [&str; 8] = ["--epochs", "20", "--save-every", "2", "--dropout", "0.1", "--learning-rate", "1e-3"];

fn start(here: &Path, arguments: &[String]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ragtrainer"));
    command.args(arguments).current_dir(here).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// What must be equal: the weights of both models, and the numbers of every step and evaluation.
pub(crate) fn result(run: &Path) -> (Vec<Vec<u8>>, Vec<String>) {
    let weights = ["best", "last"].map(|model| fs::read(run.join(model).join("model.safetensors")).unwrap());
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let numbers = text.lines().filter_map(|line| {
        let mut event: Value = serde_json::from_str(line).unwrap();
        // Times and memory differ from run to run.
        for measured in ["seconds", "examples_per_second", "tokens_per_second", "memory"] {
            event.as_object_mut().unwrap().remove(measured);
        }
        ["step", "evaluated"].contains(&event["event"].as_str().unwrap()).then(|| event.to_string())
    });
    (weights.into(), numbers.collect())
}

/// A generator of our own (xorshift): the moments need no quality, and no dependency.
struct Moments(u64);

impl Moments {
    fn below(&mut self, limit: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        limit.mul_f64((self.0 >> 11) as f64 / (1u64 << 53) as f64)
    }
}

/// Waits for the end at most so long; None if it has not ended.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if start.elapsed() >= limit {
            return None;
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// How often runs are killed: SURVIVAL_TEST_KILLS, or `default`.
fn kills(default: usize) -> usize {
    std::env::var("SURVIVAL_TEST_KILLS").map_or(default, |text| text.parse().unwrap())
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_with_the_same_bytes() {
    let here = folder();
    let data = beir_folder(here.path());
    survives(&here, &train_arguments(&data, &LONG), 60 + 31, kills(5));
}

/// The same with everything that a run may do: negatives that are chosen again for every epoch, averages and mixtures
/// of weights at the end, and evaluations of 150 queries against more than 250 documents.
#[test]
#[ignore = "takes minutes"]
fn a_run_with_refresh_mixtures_and_large_evaluations_survives_kills() {
    let here = folder();
    let data = beir_folder(here.path());
    add_dev_queries(&data, 150, 250);
    let everything = [
        ["--epochs", "20"],
        ["--save-every", "15"],
        ["--dropout", "0.1"],
        ["--learning-rate", "1e-3"],
        ["--refresh", "epoch"],
        ["--ema-decay", "0.9"],
        ["--average-best", "2"],
        ["--interpolate=true", "--shuffle=true"],
    ];
    survives(&here, &train_arguments(&data, &everything.concat()), 60 + 5, kills(100));
}

/// Replaces the dev queries of a BEIR folder by as many others as `queries` says, each with one relevant document, and
/// adds `documents` to the corpus.
fn add_dev_queries(folder: &Path, queries: usize, documents: usize) {
    let append = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, fs::read_to_string(&path).unwrap() + &text).unwrap();
    };
    let row = |id: String, text: String| serde_json::json!({"_id": id, "title": "", "text": text}).to_string() + "\n";
    let words = ["river", "stone", "water", "hill", "bridge", "forest", "road", "field", "winter", "market", "garden"];
    let word = |i: usize| words[i % words.len()];
    let text = |i: usize| format!("{} {} {} {i}", word(i), word(i / 11), word(i / 121 + 3 * i));
    append("corpus.jsonl", (0..documents).map(|i| row(format!("more{i}"), format!("about {} .", text(i)))).collect());
    append("queries.jsonl", (0..queries).map(|i| row(format!("ask{i}"), format!("{} ?", text(i)))).collect());
    let judged: String = (0..queries).map(|i| format!("ask{i}\tmore{i}\t1\n")).collect();
    fs::write(folder.join("qrels/dev.tsv"), "query-id\tcorpus-id\tscore\n".to_owned() + &judged).unwrap();
}

/// Kills a run with SIGKILL at random moments and resumes it each time, and compares what comes out with a run that was
/// left alone. A run that reaches its end is begun again.
#[expect(clippy::print_stderr, reason = "what was hit is worth knowing")]
fn survives(here: &TempDir, fresh: &[String], lines: usize, kills: usize) {
    let run = here.path().join("run");
    let begun = Instant::now();
    assert!(start(here.path(), fresh).wait().unwrap().success());
    let whole = begun.elapsed();
    let expected = result(&run);
    assert_eq!(expected.1.len(), lines, "steps and evaluations");
    fs::rename(&run, here.path().join("straight")).unwrap();

    let resume = ["train", "--resume", "run"].map(str::to_owned);
    let mut moments = Moments(0x9e37_79b9_7f4a_7c15);
    let (mut killed, mut finished, mut while_writing, mut during) = (0, 0, 0, [0; 4]);
    while killed < kills || finished == 0 {
        let arguments = if run.join("options.json").exists() { &resume[..] } else { fresh };
        let mut child = start(here.path(), arguments);
        let limit = if killed < kills { moments.below(whole.mul_f64(0.7)) } else { Duration::from_secs(300) };
        if let Some(status) = wait(&mut child, limit) {
            assert!(status.success(), "{status} after {killed} kills");
            assert_eq!(result(&run), expected, "after {killed} kills");
            finished += 1;
            fs::remove_dir_all(&run).unwrap();
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
        let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
        let last = text.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
        match last.as_ref().and_then(|event| event["event"].as_str()) {
            None | Some("started" | "resumed") => during[0] += 1,
            Some("step") => during[1] += 1,
            Some("evaluated") => during[2] += 1,
            _ => during[3] += 1,
        }
        let partial = |folder: &Path| {
            let entries = fs::read_dir(folder).into_iter().flatten();
            entries.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains(".partial-")).count()
        };
        while_writing += usize::from(partial(&run) + partial(&run.join("checkpoints")) > 0);
    }
    eprintln!(
        "{killed} kills over {finished} runs of {whole:.1?}; last event: none {}, step {}, evaluation {}, checkpoint or end {}; \
         a half-written folder or file was there {while_writing} times",
        during[0], during[1], during[2], during[3]
    );
}

/// A file-size limit stands in for a disk that fills up: the larger the limit, the later a file is refused. Whatever is
/// refused, the newest checkpoint stays whole, and without the limit the run goes on to the same bytes.
#[test]
fn a_disk_that_fills_up_costs_nothing_that_was_written() {
    let here = folder();
    let data = beir_folder(here.path());
    let fresh = train_arguments(&data, &["--epochs", "2", "--save-every", "2", "--learning-rate", "1e-3"]);
    assert!(start(here.path(), &fresh).wait().unwrap().success());
    let run = here.path().join("run");
    let expected = result(&run);
    let largest = largest_file(&run);
    let mut refused = 0;
    for part in 0..12u8 {
        fs::remove_dir_all(&run).unwrap();
        // In blocks of 512 bytes, from almost nothing to the largest file.
        let blocks = (largest as f64 / 512.0).powf(f64::from(part + 1) / 12.0).max(1.0) as u64;
        let limited = |arguments: &[String]| {
            let script = format!("ulimit -f {blocks}; trap '' XFSZ; exec \"$@\"");
            let mut command = Command::new("sh");
            command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_ragtrainer")]).args(arguments);
            command.current_dir(here.path()).output().unwrap()
        };
        let output = limited(&fresh);
        if output.status.success() {
            continue;
        }
        refused += 1;
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.starts_with("error: ") && message.contains("run/"), "{blocks} blocks: {message}");
        finish_and_compare(here.path(), &fresh, &run, &expected);
    }
    assert!(refused >= 6, "{refused} runs were refused something");
}

fn largest_file(folder: &Path) -> u64 {
    let sizes = fs::read_dir(folder).unwrap().map(|entry| {
        let entry = entry.unwrap();
        if entry.path().is_dir() { largest_file(&entry.path()) } else { entry.metadata().unwrap().len() }
    });
    sizes.max().unwrap_or(0)
}

fn finish_and_compare(here: &Path, fresh: &[String], run: &Path, expected: &(Vec<Vec<u8>>, Vec<String>)) {
    let resume = ["train", "--resume", "run"].map(str::to_owned);
    let arguments = if run.join("options.json").exists() { &resume[..] } else { fresh };
    let status = start(here, arguments).wait().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(&result(run), expected);
}

/// A real file system that is full, a little larger each time: every write of a run is refused once. Needs the right to
/// mount: `cargo test -p ragtrainer --test tests -- --ignored full_file_system`.
#[test]
#[ignore = "needs the right to mount a tmpfs"]
#[expect(clippy::print_stderr, reason = "what was hit is worth knowing")]
fn a_full_file_system_at_every_write() {
    let here = folder();
    let data = beir_folder(here.path());
    let fresh = train_arguments(&data, &["--epochs", "2", "--save-every", "2", "--learning-rate", "1e-3"]);
    assert!(start(here.path(), &fresh).wait().unwrap().success());
    let run = here.path().join("run");
    let expected = result(&run);
    fs::remove_dir_all(&run).unwrap();
    fs::create_dir(&run).unwrap();
    let mount = |options: &str| {
        let run = run.to_str().unwrap();
        assert!(Command::new("mount").args(["-t", "tmpfs", "-o", options, "none", run]).status().unwrap().success());
    };
    let (mut refused, mut resumed, mut size) = (0, 0, 4);
    loop {
        mount(&format!("size={size}k"));
        let status = start(here.path(), &fresh).wait().unwrap();
        if !status.success() {
            refused += 1;
            let found = run.join("options.json").exists();
            resumed += usize::from(found);
            assert!(
                Command::new("mount")
                    .args(["-o", "remount,size=64m", run.to_str().unwrap()])
                    .status()
                    .unwrap()
                    .success()
            );
            finish_and_compare(here.path(), &fresh, &run, &expected);
        }
        assert!(Command::new("umount").arg(&run).status().unwrap().success());
        if status.success() {
            break;
        }
        size += size.max(16) / 16 * 4;
    }
    eprintln!(
        "{refused} sizes up to {size} KiB were too small; {resumed} of these runs were resumed, the others started"
    );
    assert!(refused >= 10 && resumed > 0);
}

/// A file system that is read-only for a while: the run says so and changes nothing, and goes on once it may. Needs the
/// right to mount.
#[test]
#[ignore = "needs the right to mount a tmpfs"]
fn a_read_only_file_system() {
    let here = folder();
    let data = beir_folder(here.path());
    let run = here.path().join("run");
    let of = |steps: &str| {
        let further = ["--save-every", "2", "--epochs", "9", "--maxsteps", steps, "--schedule-horizon", "6"];
        train_arguments(&data, &[&further[..], &["--learning-rate", "1e-3"]].concat())
    };
    assert!(start(here.path(), &of("6")).wait().unwrap().success());
    let expected = result(&run);
    fs::remove_dir_all(&run).unwrap();
    fs::create_dir(&run).unwrap();
    let mounted = |arguments: &[&str]| {
        assert!(Command::new("mount").args(arguments).arg(&run).status().unwrap().success());
    };
    mounted(&["-t", "tmpfs", "-o", "size=64m", "none"]);
    let ran = ragtrainer(here.path(), &of("4").iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    let before = result(&run);
    let longer = ["--maxsteps", "6", "--accept-changes"];
    mounted(&["-o", "remount,ro"]);
    let ran = resume(here.path(), &longer);
    assert_eq!(ran.code, Some(1), "{}", ran.output);
    assert!(ran.errors.contains("Read-only file system") && ran.errors.contains("run/"), "{}", ran.errors);
    assert_eq!(result(&run), before);
    mounted(&["-o", "remount,rw"]);
    let ran = resume(here.path(), &longer);
    let found = result(&run);
    assert!(Command::new("umount").arg(&run).status().unwrap().success());
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    assert_eq!(found, expected);
}

/// A run of the pairs that was stopped by a signal after at least 3 steps.
fn stopped_by(signal: &str) -> (TempDir, PathBuf) {
    let here = folder();
    let data = pairs_file(here.path());
    let arguments = train_arguments(&data, &["--epochs", "400", "--save-every", "1000"]);
    let mut child = start(here.path(), &arguments);
    let metrics = here.path().join("run/metrics.jsonl");
    let steps = || fs::read_to_string(&metrics).map_or(0, |text| text.matches("\"event\":\"step\"").count());
    let patience = Instant::now();
    while steps() < 3 {
        assert!(patience.elapsed().as_secs() < 60, "no step after a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
    let told = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    (here, data)
}

#[test]
fn sigterm_is_as_ctrl_c() {
    let (here, _) = stopped_by("-TERM");
    let run = here.path().join("run");
    assert_eq!(fs::read_dir(run.join("checkpoints")).unwrap().count(), 1);
    assert!(run.join("best/model.safetensors").exists() && run.join("last/model.safetensors").exists());
}

fn resume(here: &Path, further: &[&str]) -> Ran {
    ragtrainer(here, &[&["train", "--resume", "run"], further].concat())
}

#[test]
fn a_stopped_run_goes_on_and_changes_are_refused_or_said() {
    let (here, data) = stopped_by("-INT");
    let ran = resume(here.path(), &["--learning-rate", "2e-3"]);
    assert_eq!(ran.code, Some(1), "{}", ran.output);
    for expected in ["train.learning_rate was 5e-6, is 0.002", "--accept-changes"] {
        assert!(ran.errors.contains(expected), "{}", ran.errors);
    }
    let original = fs::read_to_string(&data).unwrap();
    fs::write(&data, original.replace("rope", "string")).unwrap();
    let ran = resume(here.path(), &[]);
    assert_eq!(ran.code, Some(1), "{}", ran.output);
    assert!(ran.errors.contains("training data was 12 examples"), "{}", ran.errors);
    fs::write(&data, original).unwrap();

    // A damaged newest checkpoint is skipped with a line; here it is the only one.
    let run = here.path().join("run");
    let checkpoint = fs::read_dir(run.join("checkpoints")).unwrap().next().unwrap().unwrap().path();
    let state = fs::read(checkpoint.join("state.json")).unwrap();
    fs::write(checkpoint.join("state.json"), &state[1..]).unwrap();
    let ran = resume(here.path(), &["--maxsteps", "2", "--accept-changes"]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    assert!(ran.output.contains("skipped run/checkpoints/step-"), "{}", ran.output);
    assert!(ran.output.contains("starting again from the first step"), "{}", ran.output);
    let ran = resume(here.path(), &["--maxsteps", "4", "--accept-changes"]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    for expected in ["accepted: train.maxsteps was 2, is 4", "resuming after step 2"] {
        assert!(ran.output.contains(expected), "{}", ran.output);
    }
    let ran = ragtrainer(here.path(), &["train", "--resume", "nowhere"]);
    assert!(ran.code == Some(1) && ran.errors.contains("nowhere holds no run"), "{}", ran.errors);
}

#[test]
fn a_folder_with_a_process_at_work_in_it_is_refused() {
    let here = folder();
    let data = pairs_file(here.path());
    let mut child = start(here.path(), &train_arguments(&data, &["--epochs", "4000", "--save-every", "100000"]));
    let metrics = here.path().join("run/metrics.jsonl");
    let patience = Instant::now();
    while !metrics.exists() {
        assert!(patience.elapsed().as_secs() < 60, "no run after a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = train(here.path(), &data, &["--overwrite"]);
    let third = resume(here.path(), &[]);
    child.kill().unwrap();
    child.wait().unwrap();
    for ran in [second, third] {
        assert_eq!(ran.code, Some(1), "{}", ran.output);
        assert!(ran.errors.contains("another process is at work in run"), "{}", ran.errors);
    }
    assert!(metrics.exists(), "nothing of the first run was removed");
}

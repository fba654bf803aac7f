//! `mpirun` on this machine: the same bits as one process, and no process outlives another.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::program::{Ran, pairs_file, ragtrainer, train_arguments};
use crate::support::{backend, beir_folder, folder, tiny_model};
use crate::survival::result;

/// Twelve steps with dropout.
const TWELVE: [&str; 8] = ["--maxsteps", "12", "--epochs", "20", "--dropout", "0.1", "--learning-rate", "1e-3"];

/// Longest time until all processes have ended after one has died.
const SECONDS: u64 = 30;

fn mpirun(folder: &Path, processes: usize, arguments: &[String]) -> Child {
    mpirun_with(folder, processes, arguments, &[])
}

/// Starts processes with these variables.
pub(super) fn mpirun_with(
    folder: &Path,
    processes: usize,
    arguments: &[String],
    environment: &[(&str, &str)],
) -> Child {
    let mut command = Command::new("mpirun");
    // Containers run as root, and a machine may have fewer cores than processes; other launchers ignore these.
    for name in ["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_rmaps_base_oversubscribe"] {
        command.env(name, "1");
    }
    command.envs(environment.iter().copied());
    command.args(["-n", &processes.to_string(), env!("CARGO_BIN_EXE_ragtrainer")]).args(arguments).args(threads());
    command.current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("mpirun starts")
}

/// Runs one process alone, as [`mpirun`] runs several.
pub(super) fn alone(folder: &Path, arguments: &[String]) -> Ran {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(threads().iter().copied()).collect();
    ragtrainer(folder, &arguments)
}

/// Threads of every process: libtorch's sums, unlike those of flex, depend on their number.
fn threads() -> &'static [&'static str] {
    if backend().starts_with("libtorch") { &["--threads", "1"] } else { &[] }
}

pub(super) fn ended(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code(), output: text(&output.stdout), errors: text(&output.stderr) }
}

fn strings(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|&argument| argument.to_owned()).collect()
}

/// Rows with a teacher's scores, of unlike width.
fn scored_file(folder: &Path) -> std::path::PathBuf {
    let pairs = crate::support::pairs();
    let row = |place: usize| {
        let (query, document) = &pairs[place];
        let other = |step: usize| pairs[(place + step) % pairs.len()].1.clone();
        let mut documents = vec![document.to_string(), other(1).to_string(), other(2).to_string()];
        documents.truncate(2 + place % 2);
        let scores: Vec<f64> = (0..documents.len()).map(|i| 3.0 - i as f64 * 1.5).collect();
        serde_json::json!({"query": query, "documents": documents, "scores": scores}).to_string() + "\n"
    };
    let path = folder.join("scored.jsonl");
    fs::write(&path, (0..pairs.len()).map(row).collect::<String>()).unwrap();
    path
}

/// Contrastive with accumulation and dev queries, and distillation: as one process with as many micro-batches.
#[test]
fn any_number_of_processes_writes_the_bytes_of_one() {
    let here = folder();
    let (pairs, scored) = (pairs_file(here.path()), scored_file(here.path()));
    let contrastive = [&TWELVE[..], &["--batch-size", "8", "--dev-split", "3"]].concat();
    let distilled =
        [&TWELVE[..], &["--batch-size", "8", "--nway", "3", "--min-negatives", "1", "--use-ib-negatives=false"]]
            .concat();
    for (data, options) in [(&pairs, contrastive), (&scored, distilled)] {
        let run = |accumsteps: &str| {
            let _ = fs::remove_dir_all(here.path().join("run"));
            train_arguments(data, &[&options[..], &["--accumsteps", accumsteps]].concat())
        };
        let one = alone(here.path(), &run("4"));
        assert_eq!(one.code, Some(0), "{}", one.errors);
        let expected = result(&here.path().join("run"));
        for (processes, accumsteps) in [(1, "4"), (2, "2"), (4, "1")] {
            let ran = ended(mpirun(here.path(), processes, &run(accumsteps)));
            assert_eq!(ran.code, Some(0), "{processes}: {}{}", ran.output, ran.errors);
            assert!(result(&here.path().join("run")) == expected, "{processes} processes");
            assert_eq!(ran.output.matches("best model: ").count(), 1, "one process prints: {}", ran.output);
        }
    }
}

/// What is wrong is told once, and every process ends.
#[test]
fn wrong_input_is_told_once() {
    let here = folder();
    let data = pairs_file(here.path());
    let arguments = train_arguments(&data, &["--batch-size", "6"]);
    let ran = ended(mpirun(here.path(), 4, &arguments));
    assert_ne!(ran.code, Some(0));
    let told = "train.batch_size is 6, which 4 processes cannot share equally: use train.batch_size = 4 or 8";
    assert_eq!(ran.errors.matches(told).count(), 1, "{}", ran.errors);
    assert!(!here.path().join("run").exists());
    let ran = ended(mpirun(here.path(), 2, &strings(&["check", data.to_str().unwrap()])));
    assert_eq!(
        ran.errors.matches("only train, prepare, score, evaluate and encode share").count(),
        1,
        "{}",
        ran.errors
    );
}

/// Rows that three processes scored are those of one; the teacher's scores are kept once.
#[test]
fn processes_share_a_teacher() {
    let here = folder();
    let row = |number| format!("[\"what is thing {number}\", \"thing {number} is a hill\"]\n");
    std::fs::write(here.path().join("pairs.jsonl"), (0..80).map(row).collect::<String>()).unwrap();
    let tiny = tiny_model();
    let score = |name: &str| {
        let scored = ["score", "--train-data", "pairs.jsonl", "--teacher", tiny.to_str().unwrap(), "--nway", "4"];
        let written = [format!("--out={name}.jsonl"), format!("--teacher-cache={name}")];
        [strings(&scored), written.to_vec()].concat()
    };
    let one = alone(here.path(), &score("one"));
    assert_eq!(one.code, Some(0), "{}", one.errors);
    let ran = ended(mpirun(here.path(), 3, &score("three")));
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    assert_eq!(ran.output.matches("wrote three.jsonl").count(), 1, "{}", ran.output);
    let read = |name: &str| std::fs::read_to_string(here.path().join(name)).unwrap();
    assert!(!read("one.jsonl").is_empty());
    assert_eq!(read("three.jsonl"), read("one.jsonl"));
    let kept = |name: &str| {
        let files = std::fs::read_dir(here.path().join(name)).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).collect::<Vec<_>>()
    };
    // Records of 20 bytes: three processes have more than a call of 256 pairs each.
    assert!(kept("one")[0] > 20 * 3 * 256, "{:?}", kept("one"));
    assert_eq!(kept("three"), kept("one"));
}

/// Bytes of the files in a folder, by name.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.is_file());
    let mut files: Vec<_> = files
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Folders and files of vectors by two and four processes are those of one, to the byte, where each has several blocks
/// of 64 texts and where most have none.
#[test]
fn processes_share_encoding() {
    let here = folder();
    let text = |number: usize| format!("Thing {number} is a hill. {}", "It rains there. ".repeat(number % 7));
    for (name, count) in [("many", 600), ("few", 3)] {
        let lines: String =
            (0..count).map(|number| serde_json::json!({"text": text(number)}).to_string() + "\n").collect();
        fs::write(here.path().join(format!("{name}.jsonl")), lines).unwrap();
    }
    let model = tiny_model().to_str().unwrap().to_owned();
    let options: [&[&str]; 6] = [
        &["--input=many.jsonl", "--folder=OUT/folder"],
        &["--input=few.jsonl", "--folder=OUT/folder", "--delete=7"],
        &["--input=few.jsonl", "--folder=OUT/split", "--split=sentences", "--passage-tokens=8", "--vectors=int8"],
        &["--input=many.jsonl", "--output=OUT/vectors.npy", "--pool-factor=2"],
        &["--input=many.jsonl", "--output=OUT/vectors.safetensors"],
        &["--input=many.jsonl", "--output=OUT/queries.npy", "--queries"],
    ];
    let encoded = |name: &str, run: &dyn Fn(&[String]) -> Ran| {
        let out = here.path().join(name);
        fs::create_dir(&out).unwrap();
        let arguments = |own: &&[&str]| [&["encode", "--model", &model], *own].concat().join("\n").replace("OUT", name);
        let heard: Vec<String> = options
            .iter()
            .map(|own| {
                let ran = run(&arguments(own).lines().map(str::to_owned).collect::<Vec<_>>());
                assert_eq!(ran.code, Some(0), "{name}: {own:?}: {}{}", ran.output, ran.errors);
                ran.output.replace(name, "OUT")
            })
            .collect();
        (heard, [files(&out), files(&out.join("folder")), files(&out.join("split"))])
    };
    let one = encoded("one", &|arguments| alone(here.path(), arguments));
    assert_eq!(one.1.each_ref().map(|files| files.is_empty()), [false; 3]);
    for (name, processes) in [("two", 2), ("four", 4)] {
        let several = encoded(name, &|arguments| ended(mpirun(here.path(), processes, arguments)));
        assert_eq!(several.0, one.0, "{name}");
        assert!(several.1 == one.1, "{name}");
    }
    // The one that has the folder says what is wrong, and the others do not wait for it.
    let again = strings(&["encode", "--model", &model, "--input=ids.jsonl", "--folder=one/folder"]);
    fs::write(here.path().join("ids.jsonl"), r#"{"_id": "9", "text": "A hill."}"#).unwrap();
    let ran = ended(mpirun(here.path(), 2, &again));
    assert_ne!(ran.code, Some(0));
    assert_eq!(ran.errors.matches("error: ").count(), 1, "{}", ran.errors);
    assert!(files(&here.path().join("one/folder")) == one.1[1], "nothing was added");
}

/// Files that three processes prepared together are those of one.
#[test]
fn processes_share_the_preparation_of_data() {
    let here = folder();
    let pairs = pairs_file(here.path());
    let prepare = |to: &str| strings(&["prepare", "--train-data", pairs.to_str().unwrap(), "--data-out-path", to]);
    let one = alone(here.path(), &prepare("one"));
    assert_eq!(one.code, Some(0), "{}", one.errors);
    let ran = ended(mpirun(here.path(), 3, &prepare("three")));
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    assert_eq!(ran.output.matches("wrote ").count(), 3, "{}", ran.output);
    let (one, three) = (files(&here.path().join("one")), files(&here.path().join("three")));
    assert!(one.len() == 3 && one == three);
}

/// An evaluation by three processes prints the numbers of one, once.
#[test]
fn processes_share_an_evaluation() {
    let here = folder();
    let data = beir_folder(here.path());
    let (model, data) = (tiny_model(), data.to_str().unwrap().to_owned());
    let arguments = ["evaluate", "--model", model.to_str().unwrap(), "--data", &data, "--json", "--metric", "map@5"];
    let one = alone(here.path(), &strings(&arguments));
    assert_eq!(one.code, Some(0), "{}", one.errors);
    let three = [&arguments[..], &["--per-query", "queries.jsonl"]].concat();
    let ran = ended(mpirun(here.path(), 3, &strings(&three)));
    assert_eq!((ran.code, ran.output), (Some(0), one.output), "{}", ran.errors);
    assert!(here.path().join("queries.jsonl").exists());
}

/// The processes of a run.
fn members(run: &Path) -> Vec<String> {
    let found = Command::new("pgrep").args(["-f", "^[^ ]*ragtrainer train"]).output().unwrap();
    let of_run = |pid: &&str| {
        let there = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| Some(cwd.as_path()) == run.parent());
        there && fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("ragtrainer"))
    };
    String::from_utf8(found.stdout).unwrap().lines().filter(of_run).map(str::to_owned).collect()
}

/// Waits for the first checkpoint, then sends a signal to the last process.
fn signal_one(child: &mut Child, run: &Path, signal: &str) {
    let start = Instant::now();
    let saved = || fs::read_dir(run.join("checkpoints")).is_ok_and(|entries| entries.count() > 0);
    while !saved() {
        assert!(child.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_secs(120), "no checkpoint");
        thread::sleep(Duration::from_millis(20));
    }
    let members = members(run);
    assert_eq!(members.len(), 4, "{members:?}");
    Command::new("kill").args([&format!("-{signal}"), &members[3]]).status().unwrap();
}

/// One of four processes dies, or is asked to end; two resume, and end with the bytes of a run that nothing happened
/// to.
#[test]
fn two_processes_resume_what_four_had_begun() {
    let here = folder();
    let data = pairs_file(here.path());
    let run = here.path().canonicalize().unwrap().join("run");
    let further = ["--batch-size", "8", "--epochs", "80", "--save-every", "2", "--dropout", "0.1"];
    let further = [&further[..], &["--maxsteps", "120", "--keep-checkpoints", "3", "--learning-rate", "1e-3"]].concat();
    let one = train_arguments(&data, &[&further[..], &["--accumsteps", "4"]].concat());
    let one = alone(here.path(), &one);
    assert_eq!(one.code, Some(0), "{}", one.errors);
    let expected = result(&run);
    for signal in ["KILL", "TERM"] {
        fs::remove_dir_all(&run).unwrap();
        let mut child = mpirun(here.path(), 4, &train_arguments(&data, &further));
        signal_one(&mut child, &run, signal);
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(SECONDS), "the others go on after SIG{signal}");
            thread::sleep(Duration::from_millis(20));
        }
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert!(members(&run).is_empty(), "{errors}");
        let resume = strings(&["train", "--resume", "run"]);
        let ran = ended(mpirun(here.path(), 2, &resume));
        assert_eq!(ran.code, Some(0), "{signal}: {}{}", ran.output, ran.errors);
        assert!(result(&run) == expected, "after SIG{signal}");
    }
    // Three processes cannot share four micro-batches.
    let ran = ended(mpirun(here.path(), 3, &strings(&["train", "--resume", "run"])));
    assert!(ran.errors.contains("4 micro-batches, which 3 processes cannot share"), "{}", ran.errors);
}

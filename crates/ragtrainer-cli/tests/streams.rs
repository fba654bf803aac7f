//! Standard output that closes or fills up, closed terminals, control characters in texts, and the log.
#![cfg(unix)]

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::program::{pairs_file, ragtrainer, ragtrainer_with, train, train_arguments};
use crate::support::{folder, tiny_model};

fn program(here: &Path, arguments: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ragtrainer"));
    command.args(arguments).current_dir(here).env("HF_HUB_OFFLINE", "1");
    command
}

fn code(mut child: Child) -> Option<i32> {
    child.wait().unwrap().code()
}

#[test]
fn a_training_run_outlives_the_reader_of_its_output() {
    let here = folder();
    let data = pairs_file(here.path());
    let mut child = program(here.path(), &train_arguments(&data, &["--epochs", "6", "--save-every", "1"]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The pipe is closed once the plan is printed, before the first step.
    let mut output = child.stdout.take().unwrap();
    let mut seen = String::new();
    while !seen.contains("steps of") {
        let mut byte = [0];
        output.read_exact(&mut byte).unwrap();
        seen.push(char::from(byte[0]));
    }
    drop(output);
    drop(child.stderr.take());
    assert_eq!(code(child), Some(0));
    assert!(here.path().join("run/best/model.safetensors").exists() && here.path().join("run/outcome.json").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_training_run_outlives_a_full_disk_under_its_output() {
    let here = folder();
    let data = pairs_file(here.path());
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = program(here.path(), &train_arguments(&data, &["--epochs", "2"]));
    let status = command.stdout(full.try_clone().unwrap()).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(here.path().join("run/outcome.json").exists());
}

#[test]
fn a_short_command_ends_quietly_on_a_closed_pipe_and_with_an_error_on_a_full_disk() {
    let here = folder();
    let arguments = ["runs".to_owned(), ".".to_owned()];
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = program(here.path(), &arguments).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!((code(child), errors.as_str()), (Some(141), ""));
    if cfg!(target_os = "linux") {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let ran = program(here.path(), &arguments).stdout(full).output().unwrap();
        let errors = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(1));
        assert!(errors.contains("standard output"), "{errors}");
    }
}

#[test]
fn a_closed_terminal_ends_a_run_as_ctrl_c_does() {
    let here = folder();
    let data = pairs_file(here.path());
    let arguments = train_arguments(&data, &["--epochs", "2000", "--save-every", "100000"]);
    let mut child = program(here.path(), &arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let metrics = here.path().join("run/metrics.jsonl");
    while !fs::read_to_string(&metrics).is_ok_and(|lines| lines.contains("\"step\"")) {
        assert!(child.try_wait().unwrap().is_none(), "the run ended by itself");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(code(child), Some(130));
    assert!(fs::read_dir(here.path().join("run/checkpoints")).unwrap().count() > 0);
}

/// A signal ends mining as well, and the temporary files of the miner go with it.
#[test]
fn a_signal_ends_mining_and_leaves_nothing() {
    let here = folder();
    let lines: String = (0..40_000)
        .map(|i| {
            serde_json::json!([format!("query {i}"), format!("document {i} of many words {}", "word ".repeat(20))])
        })
        .map(|row| row.to_string() + "\n")
        .collect();
    fs::write(here.path().join("many.jsonl"), lines).unwrap();
    fs::create_dir(here.path().join("tmp")).unwrap();
    let model = tiny_model();
    let arguments = ["prepare", "--train-data", "many.jsonl", "--miner", "late_interaction"];
    let arguments = [&arguments[..], &["--pretrained-model-name", model.to_str().unwrap()]].concat();
    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    let mut command = program(here.path(), &arguments);
    let mut child =
        command.env("TMPDIR", here.path().join("tmp")).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    // The data are read once they are announced; handlers are there from the start of mining on.
    let mut output = child.stdout.take().unwrap();
    let mut byte = [0];
    while byte != *b"\n" {
        output.read_exact(&mut byte).unwrap();
    }
    std::thread::sleep(Duration::from_millis(500));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(code(child), Some(130), "{rest}");
    assert!(rest.contains("stopped while negatives were mined"), "{rest}");
    assert_eq!(fs::read_dir(here.path().join("tmp")).unwrap().count(), 0);
    assert!(!here.path().join("data").exists());
}

#[test]
fn control_characters_of_texts_and_names_are_spelled_out() {
    let here = folder();
    let attack = "a tor \u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m is a hill \u{202e}llih";
    let lines = [attack, "a fen is wet"].map(|text| serde_json::json!({"id": text, "text": text}).to_string());
    fs::write(here.path().join("texts.jsonl"), lines.join("\n")).unwrap();
    let model = tiny_model();
    let rerank =
        ["rerank", "--model", model.to_str().unwrap(), "--documents", "texts.jsonl", "--query", "\u{1b}[31m hill"];
    for further in [&[][..], &["--json"]] {
        let ran = ragtrainer(here.path(), &[&rerank[..], further].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.errors);
        assert!(!ran.output.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']), "{:?}", ran.output);
    }
    let json = ragtrainer(here.path(), &[&rerank[..], &["--json"]].concat()).output;
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(value["hits"].as_array().unwrap().iter().any(|hit| hit["text"] == attack), "JSON has the text as it is");
    let ran = ragtrainer(here.path(), &["check", "--train-data", "\u{1b}[2J"]);
    assert_eq!(ran.code, Some(1));
    assert!(!ran.errors.contains('\u{1b}') && ran.errors.contains("u{1b}"), "{:?}", ran.errors);
}

#[test]
fn the_log_variable_is_read() {
    let here = folder();
    let data = pairs_file(here.path());
    let check = |value| {
        let arguments = ["check", "--train-data", data.to_str().unwrap()];
        ragtrainer_with(here.path(), &arguments, &[("RAGTRAINER_LOG", value)])
    };
    assert!(check("info").errors.contains("INFO"), "{}", check("info").errors);
    assert_eq!(check("off").errors, "");
    let wrong = check("=loud=");
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.errors.contains("RAGTRAINER_LOG"), "{}", wrong.errors);
}

#[test]
fn absurd_numbers_are_errors_of_their_option() {
    let here = folder();
    let data = pairs_file(here.path());
    for flag in ["--epochs", "--nway", "--doc-maxlen", "--query-maxlen"] {
        let ran = train(here.path(), &data, &[flag, "18446744073709551615"]);
        assert_eq!(ran.code, Some(1), "{flag}: {}", ran.errors);
        assert!(ran.errors.contains(&format!("train.{}", flag[2..].replace('-', "_"))), "{}", ran.errors);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_path_that_is_not_unicode_is_an_error() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let here = folder();
    let data = pairs_file(here.path());
    assert_eq!(train(here.path(), &data, &["--maxsteps", "1"]).code, Some(0));
    let odd = OsStr::from_bytes(b"run\xff");
    fs::rename(here.path().join("run"), here.path().join(odd)).unwrap();
    let ran = program(here.path(), &["train".to_owned(), "--resume".to_owned()]).arg(odd).output().unwrap();
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{errors}");
    assert!(errors.contains("output") && errors.contains("not Unicode"), "{errors}");
}

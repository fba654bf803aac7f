//! The command line from end to end.

use std::fs;
use std::path::Path;

use ragtrainer::Backend;
use ragtrainer::config::Precision;

use crate::program::{pairs_file, ragtrainer, train, train_arguments};
use crate::support::{backend, beir_folder, folder, tiny_model};

#[test]
fn help_names_every_command_and_every_flag_of_the_reference() {
    let here = folder();
    let help = ragtrainer(here.path(), &["--help"]);
    assert_eq!(help.code, Some(0));
    for command in ["train", "prepare", "evaluate", "check"] {
        assert!(help.output.contains(command), "{}", help.output);
        assert_eq!(ragtrainer(here.path(), &[command, "--help"]).code, Some(0), "{command}");
    }
    assert!(ragtrainer(here.path(), &["check", "--help"]).output.contains("Exit code: 0 if nothing"));
    let help = ragtrainer(here.path(), &["train", "--help"]).output;
    assert!(help.contains("A run needs --train-data") && help.contains("\"The reference\" is RAGatouille"), "{help}");
    for flag in [
        "batch-size",
        "nbits",
        "maxsteps",
        "use-ib-negatives",
        "learning-rate",
        "dim",
        "doc-maxlen",
        "use-relu",
        "warmup-steps",
        "accumsteps",
    ] {
        assert!(help.contains(&format!("--{flag}")), "{flag}");
    }
}

#[test]
fn trains_on_a_beir_folder_and_says_what_came_out() {
    let here = folder();
    let data = beir_folder(here.path());
    let ran = train(here.path(), &data, &["--learning-rate", "1e-3"]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    for expected in ["3 steps of 4 queries", "before training", "BM25", "best model: run/best", "triples/s"] {
        assert!(ran.output.contains(expected), "{expected} is not in\n{}", ran.output);
    }
    let run = here.path().join("run");
    for file in
        ["plan.json", "plan.txt", "metrics.jsonl", "outcome.json", "best/model.safetensors", "last/artifact.metadata"]
    {
        assert!(run.join(file).exists(), "{file}");
    }
    let card = fs::read_to_string(run.join("best/README.md")).unwrap();
    for part in [
        "# run",
        "3 steps of 4 queries",
        "examples of 12 queries",
        "| BM25 |",
        "| before training |",
        "| this model |",
        "None was stated for this model",
        "language: \"en\"",
    ] {
        assert!(card.contains(part), "{part} is not in\n{card}");
    }
    assert!(!card.contains("base_model"), "no name on the hub: {card}");
    let last = fs::read_to_string(run.join("last/README.md")).unwrap();
    assert!(last.contains("the last model of its run") && !last.contains("| this model |"), "{last}");
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let events: Vec<serde_json::Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.iter().filter(|event| event["event"] == "step").count(), 3);
    for event in events.iter().filter(|event| event["event"] == "step") {
        for field in ["loss", "learning_rate", "gradient_norm", "positive_score", "tokens", "seconds"] {
            assert!(event[field].is_number(), "{field}");
        }
    }

    let (model, data) = (run.join("best"), data.to_str().unwrap().to_owned());
    let measured =
        ragtrainer(here.path(), &["evaluate", "--model", model.to_str().unwrap(), "--data", &data, "--json"]);
    assert_eq!(measured.code, Some(0), "{}", measured.errors);
    let measured: serde_json::Value = serde_json::from_str(&measured.output).unwrap();
    let outcome: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(run.join("outcome.json")).unwrap()).unwrap();
    assert_eq!(measured["model"], outcome["test"]["best"], "evaluate measures what train measured");
    assert_eq!(measured["bm25"], outcome["test"]["bm25"]);
}

#[test]
fn a_dry_run_writes_nothing() {
    let here = folder();
    let data = pairs_file(here.path());
    let ran = train(here.path(), &data, &["--dry-run"]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    assert!(
        ran.output.contains("3 steps of 4 queries, each against its 1 negative and 6 in-batch documents"),
        "{}",
        ran.output
    );
    assert!(ran.output.contains("dry run"));
    assert!(!here.path().join("run").exists());
}

#[test]
fn file_environment_and_flags_are_layered() {
    let here = folder();
    let data = pairs_file(here.path());
    let model = tiny_model();
    let config = format!(
        "pretrained_model_name = {model:?}\noutput = \"run\"\n[data]\ntrain = {data:?}\n[negatives]\nnum_new_negatives = 1\n\
         hard_negative_minimum_rank = 0\n[train]\nbatch_size = 2\ndim = 16\n"
    );
    fs::write(here.path().join("run.toml"), config).unwrap();
    let steps = |further: &[&str]| {
        let mut arguments = vec!["train", "--config", "run.toml", "--dry-run"];
        arguments.extend(further);
        let ran = ragtrainer(here.path(), &arguments);
        assert_eq!(ran.code, Some(0), "{}", ran.errors);
        ran.output
    };
    assert!(steps(&[]).contains("6 steps of 2 queries"));
    assert!(steps(&["--batch-size", "3"]).contains("4 steps of 3 queries"));
}

#[test]
fn the_same_seed_writes_the_same_bytes() {
    let here = folder();
    let data = pairs_file(here.path());
    let bytes = |run: &str| {
        let ran = train(here.path(), &data, &["--dropout", "0.1", "--output", run]);
        assert_eq!(ran.code, Some(0), "{}", ran.errors);
        fs::read(here.path().join(run).join("best/model.safetensors")).unwrap()
    };
    assert_eq!(bytes("a"), bytes("b"));
}

/// The first signal ends the run after its step, with a checkpoint and both models; the exit code says so.
#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_a_checkpoint_and_models() {
    use std::process::{Command, Stdio};
    let here = folder();
    let data = pairs_file(here.path());
    let arguments = train_arguments(&data, &["--epochs", "5000"]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_ragtrainer"))
        .args(arguments)
        .current_dir(here.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let metrics = here.path().join("run/metrics.jsonl");
    let steps = || fs::read_to_string(&metrics).map_or(0, |text| text.matches("\"event\":\"step\"").count());
    let patience = std::time::Instant::now();
    while steps() < 3 {
        assert!(patience.elapsed().as_secs() < 60, "no step after a minute");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let told = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(told.success());
    let code = child.wait().unwrap().code();
    assert_eq!(code, Some(130));
    let run = here.path().join("run");
    assert_eq!(fs::read_dir(run.join("checkpoints")).unwrap().count(), 1);
    assert!(run.join("best/model.safetensors").exists() && run.join("last/model.safetensors").exists());
}

/// Defect 26 of the list in `docs/parity.md`: a trained model hands its settings down, except those a person sets.
#[test]
fn defect_26_a_run_inherits_the_settings_of_the_model_it_starts_from() {
    let here = folder();
    let data = pairs_file(here.path());
    let ran = train(here.path(), &data, &["--query-maxlen", "24", "--attend-to-mask-tokens"]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    let again = |further: &[&str]| {
        let arguments = [
            "train",
            "--pretrained-model-name",
            "run/best",
            "--train-data",
            data.to_str().unwrap(),
            "--output",
            "again",
            "--batch-size",
            "4",
            "--num-new-negatives",
            "1",
            "--hard-negative-minimum-rank",
            "0",
            "--overwrite",
        ];
        let ran = ragtrainer(here.path(), &[&arguments[..], further].concat());
        assert_eq!(ran.code, Some(0), "{}{}", ran.output, ran.errors);
        let metadata = fs::read_to_string(here.path().join("again/best/artifact.metadata")).unwrap();
        let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
        let of = |key: &str| metadata[key].as_u64().unwrap();
        assert_eq!(metadata["attend_to_mask_tokens"], further.first() != Some(&"--inherit-settings=false"));
        (of("dim"), of("query_maxlen"), of("doc_maxlen"), ran.output)
    };
    let (dim, query, doc, said) = again(&[]);
    assert_eq!((dim, query, doc), (16, 24, 32));
    for line in ["train.dim = 16, taken over; the default is 128", "train.doc_maxlen = 32, taken over"] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }
    let (_, query, doc, said) = again(&["--query-maxlen", "32", "--doc-maxlen=40"]);
    assert_eq!((query, doc), (32, 40));
    assert!(said.contains("train.query_maxlen = 32, as set; the model has 24"), "{said}");
    let (_, query, doc, said) = again(&["--inherit-settings=false", "--dim", "16"]);
    assert_eq!((query, doc), (32, 256));
    assert!(!said.contains("taken over"), "{said}");
}

#[test]
fn a_model_is_exported_in_half_precision() {
    let here = folder();
    let data = pairs_file(here.path());
    let ran = train(here.path(), &data, &["--maxsteps", "1", "--export-dtype", "f16"]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    for folder in ["best", "last"] {
        let folder = here.path().join("run").join(folder);
        let header = fs::read(folder.join("model.safetensors")).unwrap();
        assert!(String::from_utf8_lossy(&header[..400]).contains(r#""dtype":"F16""#));
        let config = fs::read_to_string(folder.join("config.json")).unwrap();
        assert!(config.contains(r#""torch_dtype": "float16""#), "{config}");
        assert!(fs::read_to_string(folder.join("README.md")).unwrap().contains("stored as float16"));
    }
    let refused = train(here.path(), &data, &["--overwrite", "--export-dtype", "int8"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.errors.contains("export_dtype") && refused.errors.contains("bf16"), "{}", refused.errors);
}

#[test]
fn what_other_programs_do_not_honour_is_told_and_written_into_the_card() {
    let here = folder();
    let data = pairs_file(here.path());
    let ran = train(here.path(), &data, &["--maxsteps", "1", "--use-relu", "--query-expansion=false"]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    let card = fs::read_to_string(here.path().join("run/best/README.md")).unwrap();
    for line in [
        "colbert-ai and RAGatouille: leave the ReLU after the projection out",
        "colbert-ai and RAGatouille: fill queries up",
        "pylate-rs: leaves the ReLU after the projection out",
        "pylate-rs: fills queries up",
    ] {
        assert!(ran.output.contains(&format!("note: {line}")), "{line} is not in\n{}", ran.output);
        assert!(card.contains(&format!("\n- {line}")), "{line} is not in\n{card}");
    }
    assert!(card.contains("\n- pylate-rs: scores the punctuation"), "{card}");
    assert!(!ran.output.contains("punctuation"), "{}", ran.output);
    assert!(card.ends_with(".\n") && !card.ends_with("\n\n"), "{card:?}");
}

/// Neither a CPU nor Vulkan has it.
#[test]
fn tf32_is_for_nvidia_gpus() {
    let here = folder();
    for backend in ["flex".to_owned(), backend()].iter().filter(|name| !name.contains("cuda")) {
        let arguments = ["--backend", backend, "--precision", "tf32"];
        let ran = train(here.path(), &here.path().join("nothing.jsonl"), &arguments);
        assert_eq!(ran.code, Some(1), "{}", ran.errors);
        for words in ["NVIDIA GPUs", "train.precision = \"f32\"", "does not support"] {
            assert!(ran.errors.contains(words), "{words}: {}", ran.errors);
        }
        assert!(!ran.errors.contains("nothing.jsonl"), "{}", ran.errors);
    }
}

/// Scaled losses where the backend has float16, else a refusal before data are read.
#[test]
fn float16_is_had_or_refused_before_data_are_read() {
    let here = folder();
    let missing = here.path().join("nothing.jsonl");
    let ran = train(here.path(), &missing, &["--backend", "flex", "--precision", "f16"]);
    assert_eq!(ran.code, Some(1), "{}", ran.errors);
    let nearest = if Backend::Flex.has_bf16() { "bf16" } else { "f32" };
    assert!(ran.errors.contains("no float16 matmul"), "{}", ran.errors);
    assert!(ran.errors.contains(&format!("train.precision = \"{nearest}\"")), "{}", ran.errors);
    assert!(!ran.errors.contains("nothing.jsonl"), "{}", ran.errors);

    let had = Backend::from_name(&backend()).unwrap().precision(Precision::F16).is_ok();
    let data = pairs_file(here.path());
    let ran = train(here.path(), &data, &["--epochs", "4", "--precision", "f16"]);
    assert_eq!(ran.code == Some(0), had, "{}", ran.errors);
    if had {
        assert!(ran.output.contains("float16 factors, and the loss is scaled"), "{}", ran.output);
        let metrics = fs::read_to_string(here.path().join("run/metrics.jsonl")).unwrap();
        let steps = metrics.lines().filter(|line| line.contains(r#""event":"step""#));
        assert!(steps.count() > 0 && metrics.contains(r#""loss_scale":"#), "{metrics}");
        let overflowed = metrics.lines().filter(|line| line.contains(r#""event":"overflowed""#)).count();
        let outcome = fs::read_to_string(here.path().join("run/outcome.json")).unwrap();
        assert!(outcome.contains(&format!("\"overflowed\": {overflowed},")), "{overflowed}: {outcome}");
        let report = fs::read_to_string(here.path().join("run/report.html")).unwrap();
        for text in [&ran.output, &report] {
            assert_eq!(text.contains("their gradient overflowed float16"), overflowed > 0, "{overflowed}: {text}");
        }
    }
}

/// Folders count alike in the mean, whatever their sizes, and every query is in the file.
#[test]
fn several_folders_are_evaluated_with_their_mean_and_a_file_of_queries() {
    let here = folder();
    let model = tiny_model();
    let beir = |name: &str, rows: std::ops::Range<usize>| {
        let pairs = &crate::support::pairs()[rows];
        let folder = here.path().join(name);
        fs::create_dir_all(folder.join("qrels")).unwrap();
        let line = |id: String, text: &str| serde_json::json!({"_id": id, "text": text}).to_string() + "\n";
        let each = |letter: &str, text: fn(&(String, String)) -> &str| -> String {
            pairs.iter().enumerate().map(|(place, pair)| line(format!("{letter}{place}"), text(pair))).collect()
        };
        fs::write(folder.join("queries.jsonl"), each("q", |pair| &pair.0)).unwrap();
        fs::write(folder.join("corpus.jsonl"), each("d", |pair| &pair.1)).unwrap();
        let judged: String = (0..pairs.len()).map(|place| format!("q{place}\td{place}\t1\n")).collect();
        fs::write(folder.join("qrels/test.tsv"), "query-id\tcorpus-id\tscore\n".to_owned() + &judged).unwrap();
    };
    beir("three", 0..3);
    beir("nine", 3..12);
    let evaluate = |further: &[&str]| {
        let arguments = ["evaluate", "--model", model.to_str().unwrap(), "--metric", "map@5"];
        ragtrainer(here.path(), &[&arguments[..], further].concat())
    };
    let ran = evaluate(&["--data", "three", "--data", "nine", "--json", "--per-query", "queries.jsonl"]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    let json: serde_json::Value = serde_json::from_str(&ran.output).unwrap();
    let alone = |name: &str| -> serde_json::Value {
        let ran = evaluate(&["--data", name, "--json"]);
        serde_json::from_str(&ran.output).unwrap()
    };
    let [three, nine] = ["three", "nine"].map(alone);
    for system in ["bm25", "model"] {
        assert_eq!(json["folders"][0][system], three[system]);
        assert_eq!(json["folders"][1][system], nine[system]);
        for (place, mean) in json["mean"][system]["metrics"].as_array().unwrap().iter().enumerate() {
            let value = |one: &serde_json::Value| one[system]["metrics"][place][1].as_f64().unwrap();
            assert!((mean[1].as_f64().unwrap() - (value(&three) + value(&nine)) / 2.0).abs() < 1e-12, "{mean}");
        }
        assert_eq!(json["mean"][system]["metrics"][0][0], "map@5");
        assert_eq!(json["mean"][system]["queries"], 12);
    }
    let text = fs::read_to_string(here.path().join("queries.jsonl")).unwrap();
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 12);
    for (system, name, of) in [("model", "three", &rows[..3]), ("bm25", "nine", &rows[3..])] {
        let values = of.iter().map(|row| row[system]["value"].as_f64().unwrap());
        let mean = values.sum::<f64>() / of.len() as f64;
        let shown = alone(name)[system]["metrics"][0][1].as_f64().unwrap();
        assert!((mean - shown).abs() < 1e-12, "{system} {name}: {mean} {shown}");
    }
    assert_eq!(rows[3]["query_id"], "q0");
    assert_eq!(rows[3]["relevant"], serde_json::json!(["d0"]));
    assert_eq!(rows[3]["data"], "nine");
    assert!(rows.iter().all(|row| row["model"]["first"].as_array().unwrap().len() == 3));

    let ran = evaluate(&["--data", "three", "--data", "nine"]);
    assert!(ran.output.contains("mean of 2 folders"), "{}", ran.output);
    let ran = evaluate(&["--data", "three", "--per-query", "queries.jsonl"]);
    assert!(ran.code == Some(1) && ran.errors.contains("queries.jsonl is there already"), "{}", ran.errors);
    let ran = evaluate(&["--data", "three", "--data", "nowhere"]);
    assert!(ran.code == Some(1) && ran.errors.contains("nowhere"), "{}", ran.errors);
}

/// BM25 beside a model is that of the language of the texts, as in training.
#[test]
fn evaluate_takes_the_language_of_the_texts() {
    let here = folder();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../colbert-data/tests/field/evaluate-bm25-language");
    let (data, model) = (data.to_str().unwrap(), tiny_model());
    let bm25 = |further: &[&str]| {
        let evaluate = ["evaluate", "--model", model.to_str().unwrap(), "--data", data, "--json"];
        let ran = ragtrainer(here.path(), &[&evaluate[..], further].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.errors);
        let json: serde_json::Value = serde_json::from_str(&ran.output).unwrap();
        let warned = ran.errors.contains("texts are Japanese") && ran.errors.contains("language_code = \"ja\"");
        (json["bm25"]["metrics"][0][1].as_f64().unwrap(), warned)
    };
    let (value, warned) = bm25(&["--language-code", "ja"]);
    assert!(value > 0.9 && !warned, "{value}");
    // English, which has no words in these texts: any model beats such a BM25, and that is told.
    let (value, warned) = bm25(&[]);
    assert!(value < 0.5 && warned, "{value}");
    let arguments = ["evaluate", "--model", model.to_str().unwrap(), "--data", data, "--language-code", "jp"];
    let ran = ragtrainer(here.path(), &arguments);
    assert!(ran.code == Some(1) && ran.errors.contains("ja"), "{}", ran.errors);
}

//! Wrong input gets a message that says what to do, an exit code other than 0, and leaves nothing half-written.

use std::fs;
use std::path::{Path, PathBuf};

use crate::program::{Ran, pairs_file, ragtrainer, train, train_arguments};
use crate::support::{backend, folder, tiny_model};

fn refused(ran: &Ran, parts: &[&str]) {
    assert_eq!(ran.code, Some(1), "{}{}", ran.output, ran.errors);
    for part in parts {
        assert!(ran.errors.contains(part), "\"{part}\" is not in: {}", ran.errors);
    }
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn missing_files_and_folders() {
    let here = folder();
    let data = pairs_file(here.path());
    refused(&train(here.path(), &here.path().join("nowhere.jsonl"), &[]), &["nowhere.jsonl"]);
    refused(
        &train(here.path(), &data, &["--pretrained-model-name", "nobody/home"]),
        &["nobody/home", "HF_HUB_OFFLINE"],
    );
    refused(&train(here.path(), &data, &["--config", "no.toml"]), &["no.toml"]);
    refused(&train(here.path(), &data, &["--dev-data", "no-such-folder"]), &["no-such-folder"]);
    refused(&ragtrainer(here.path(), &["train"]), &["output", "--output"]);
    let model = tiny_model();
    let named = ["train", "--output", "run", "--pretrained-model-name", model.to_str().unwrap()];
    refused(&ragtrainer(here.path(), &named), &["data.train", "--train-data"]);
    refused(&ragtrainer(here.path(), &["evaluate", "--model", "x", "--data", "y"]), &["y"]);
    assert!(!here.path().join("run").exists());
}

#[test]
fn options_out_of_range() {
    let here = folder();
    let data = pairs_file(here.path());
    for (arguments, parts) in [
        (vec!["--accumsteps", "3"], vec!["batch_size", "accumsteps"]),
        (vec!["--learning-rate", "-1"], vec!["train.learning_rate", "-1"]),
        (vec!["--dropout", "1.5"], vec!["train.dropout", "1.5"]),
        (vec!["--batch-size", "many"], vec!["train.batch_size", "many"]),
        (vec!["--doc-maxlen", "600"], vec!["doc_maxlen = 600", "512"]),
        (vec!["--batch-size", "64"], vec!["12", "64"]),
        (vec!["--backend", "tpu"], vec!["tpu", "flex"]),
        (vec!["--metric", "ndcg"], vec!["ndcg"]),
        (vec!["--license", "mit: or so"], vec!["license", "mit: or so", "apache-2.0"]),
        (vec!["--dim", "128"], vec!["linear.weight", "dim = 16"]),
        (vec!["--warmup-steps", "sometimes"], vec!["train.warmup_steps", "sometimes"]),
    ] {
        refused(&train(here.path(), &data, &arguments), &parts);
        assert!(!here.path().join("run").exists(), "{arguments:?} left a folder");
    }
}

#[test]
fn a_backend_that_is_not_there_is_refused_before_data_are_read() {
    let here = folder();
    refused(&train(here.path(), &here.path().join("no-such-data"), &["--backend", "tpu"]), &["tpu", "flex"]);
}

#[test]
fn unknown_options_are_named_with_the_one_that_was_meant() {
    let here = folder();
    write(here.path(), "run.toml", "[train]\nbatch_sise = 4\n");
    refused(&ragtrainer(here.path(), &["train", "--config", "run.toml"]), &["batch_sise", "batch_size", "run.toml"]);
    let ran = ragtrainer(here.path(), &["train", "--bacth-size", "4"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.errors.contains("--batch-size"), "{}", ran.errors);
}

#[test]
fn malformed_data_names_file_and_line() {
    let here = folder();
    for (name, text, parts) in [
        ("cut.jsonl", "[\"a\", \"b\"]\n[\"c\", \n", vec!["cut.jsonl", "2"]),
        ("empty.jsonl", "[\"a\", \"b\"]\n[\"\", \"d\"]\n", vec!["empty.jsonl", "2", "empty"]),
        ("label.jsonl", "[\"a\", \"b\", 1]\n[\"a\", \"c\", 7]\n", vec!["label.jsonl", "2", "7"]),
        ("nothing.jsonl", "", vec!["nothing.jsonl"]),
    ] {
        let data = write(here.path(), name, text);
        let format = if name.starts_with("label") { "labeled_pairs" } else { "auto" };
        refused(&train(here.path(), &data, &["--format", format, "--batch-size", "1"]), &parts);
    }
    let beir = crate::support::beir_folder(here.path());
    fs::write(beir.join("qrels/train.tsv"), "query-id\tcorpus-id\tscore\nq0\tnobody\t1\n").unwrap();
    refused(&train(here.path(), &beir, &[]), &["nobody", "train.tsv"]);
    assert!(!here.path().join("run").exists());
}

#[test]
fn broken_models_are_refused_before_anything_is_written() {
    let here = folder();
    let data = pairs_file(here.path());
    let copy = here.path().join("model");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(tiny_model()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let model = copy.to_str().unwrap().to_owned();
    let weights = fs::read(copy.join("model.safetensors")).unwrap();
    let config = fs::read_to_string(copy.join("config.json")).unwrap();
    fs::write(copy.join("model.safetensors"), &weights[..weights.len() - 100]).unwrap();
    refused(&train(here.path(), &data, &["--pretrained-model-name", &model]), &["model.safetensors", "whole"]);
    fs::write(copy.join("model.safetensors"), &weights).unwrap();
    fs::write(copy.join("config.json"), config.replace("\"bert\"", "\"mamba\"")).unwrap();
    refused(&train(here.path(), &data, &["--pretrained-model-name", &model]), &["mamba", "supported: bert"]);
    assert!(!here.path().join("run").exists());
}

/// Whether a model can be saved is seen before hours of training, and before an earlier run is replaced.
#[test]
fn a_start_that_cannot_be_written_ends_the_run_before_its_first_step() {
    let here = folder();
    let data = pairs_file(here.path());
    let copy = |name: &str| {
        let to = here.path().join(name);
        fs::create_dir(&to).unwrap();
        for entry in fs::read_dir(tiny_model()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        to
    };
    // The texts of the training data need no [UNK]; those of a self-check do.
    let without_unk = copy("without-unk");
    let path = without_unk.join("tokenizer.json");
    let renamed = fs::read_to_string(&path).unwrap().replace("\"[UNK]\"", "\"[GONE]\"");
    fs::write(&path, renamed.replace("\"unk_token\": \"[GONE]\"", "\"unk_token\": \"[UNK]\"")).unwrap();
    // Its list of added tokens would say that [UNK] is there.
    fs::write(without_unk.join("tokenizer_config.json"), "{}").unwrap();
    // Finite, and more than float16 holds.
    let large = copy("large");
    let path = large.join("model.safetensors");
    let mut weights = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    weights[8 + header..][..4].copy_from_slice(&100_000f32.to_le_bytes());
    fs::write(&path, weights).unwrap();

    let small = ["--maxsteps", "1"];
    assert_eq!(train(here.path(), &data, &small).code, Some(0));
    let record = fs::read(here.path().join("run/metrics.jsonl")).unwrap();
    for (model, further, parts) in [
        (&without_unk, &[][..], ["tokenizer.json", "Missing [UNK]"]),
        (&large, &["--export-dtype", "f16"], ["cannot be written", "100000"]),
    ] {
        for output in ["new", "run"] {
            let named = ["--pretrained-model-name", model.to_str().unwrap(), "--output", output, "--overwrite"];
            let ran = train(here.path(), &data, &[&named[..], further, &small].concat());
            refused(&ran, &parts);
            assert!(!ran.output.contains("step 1/1"), "{}", ran.output);
        }
        assert!(!here.path().join("new").exists());
        assert_eq!(fs::read(here.path().join("run/metrics.jsonl")).unwrap(), record);
    }
    // Written in float32 it begins to train. Its gradient overflows, except on the software driver for Vulkan.
    let ran = train(here.path(), &data, &["--pretrained-model-name", large.to_str().unwrap(), "--overwrite"]);
    if backend().starts_with("wgpu") && ran.code == Some(0) {
        assert!(ran.output.contains("step 1/"), "{}", ran.output);
    } else {
        refused(&ran, &["at step 1"]);
    }
}

/// A run is never replaced unasked, nor lost to a new one that cannot start.
#[test]
fn an_earlier_run_is_kept() {
    let here = folder();
    let data = pairs_file(here.path());
    assert_eq!(train(here.path(), &data, &[]).code, Some(0));
    let best = here.path().join("run/best/model.safetensors");
    let before = fs::read(&best).unwrap();
    refused(&train(here.path(), &data, &["--seed", "2"]), &["run", "--overwrite"]);
    refused(&train(here.path(), &data, &["--overwrite", "--dim", "32"]), &["dim = 16"]);
    assert_eq!(fs::read(&best).unwrap(), before);
    assert_eq!(train(here.path(), &data, &["--seed", "2", "--overwrite"]).code, Some(0));
    assert_ne!(fs::read(&best).unwrap(), before);

    let foreign = here.path().join("thesis");
    fs::create_dir(&foreign).unwrap();
    write(&foreign, "chapter1.tex", "words");
    refused(
        &train(here.path(), &data, &["--overwrite", "--output", "thesis"]),
        &["thesis", "not a run of this program"],
    );
    assert!(foreign.join("chapter1.tex").exists());

    // Files of the names that a run has do not make a folder a run.
    for (name, text) in [("options.json", "{\"hello\": 1}"), ("options.json", "{}"), ("plan.json", "my plan")] {
        write(&foreign, name, text);
        refused(&train(here.path(), &data, &["--overwrite", "--output", "thesis"]), &["not a run of this program"]);
        fs::remove_file(foreign.join(name)).unwrap();
    }
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1);
}

/// What a person put into the folder of a run is not removed with it.
#[test]
fn foreign_files_in_the_folder_of_a_run_are_kept() {
    let here = folder();
    let data = pairs_file(here.path());
    assert_eq!(train(here.path(), &data, &["--maxsteps", "2", "--save-every", "1"]).code, Some(0));
    let run = here.path().join("run");
    for name in ["notes.txt", "checkpoints/notes.txt", "tensorboard/mine", "negatives/mine.jsonl", "nonfinite-mine"] {
        fs::create_dir_all(run.join(name).parent().unwrap()).unwrap();
        write(&run, name, "precious");
        refused(&train(here.path(), &data, &["--overwrite", "--seed", "3"]), &[name, "not a file of a run"]);
        assert!(run.join("best/model.safetensors").exists() && run.join(name).exists(), "{name}");
        fs::remove_file(run.join(name)).unwrap();
    }
    assert_eq!(train(here.path(), &data, &["--overwrite", "--seed", "3"]).code, Some(0));
}

/// A run never replaces what it is made of.
#[test]
fn inputs_inside_the_output_folder_are_refused_before_anything_is_read() {
    let here = folder();
    let data = pairs_file(here.path());
    assert_eq!(train(here.path(), &data, &["--maxsteps", "1"]).code, Some(0));
    let run = here.path().join("run");
    let before = fs::read(run.join("best/model.safetensors")).unwrap();
    refused(
        &train(here.path(), &data, &["--overwrite", "--pretrained-model-name", "run/best"]),
        &["model that training starts from", "run/best"],
    );
    write(&run, "more.toml", "[train]\nseed = 3\n");
    fs::copy(&data, run.join("data.jsonl")).unwrap();
    for (flags, part) in
        [(["--config", "run/more.toml"], "option file"), (["--all-documents", "run/data.jsonl"], "documents")]
    {
        let ran = train(here.path(), &data, &[&["--overwrite"], &flags[..]].concat());
        refused(&ran, &[part, "output folder"]);
        assert!(!ran.output.contains("examples"), "nothing was read: {}", ran.output);
    }
    refused(&train(here.path(), &run.join("data.jsonl"), &["--overwrite"]), &["training data", "output folder"]);
    for file in ["more.toml", "data.jsonl"] {
        fs::remove_file(run.join(file)).unwrap();
    }
    let ran = train(&run, &data, &["--overwrite", "--output", "."]);
    refused(&ran, &["current directory"]);
    assert_eq!(fs::read(run.join("best/model.safetensors")).unwrap(), before);
}

/// An occupied folder is reported before data that cannot be read, a missing model before data that takes hours.
#[test]
fn checks_that_cost_nothing_come_first() {
    let here = folder();
    let data = pairs_file(here.path());
    assert_eq!(train(here.path(), &data, &["--maxsteps", "1"]).code, Some(0));
    let nowhere = here.path().join("nowhere.jsonl");
    refused(&train(here.path(), &nowhere, &[]), &["already holds a run"]);
    refused(&train(here.path(), &nowhere, &["--output", "b", "--pretrained-model-name", "no-model"]), &["no-model"]);
    refused(&train(here.path(), &nowhere, &["--output", "b", "--backend", "warp"]), &["warp"]);
    assert!(!here.path().join("b").exists());
}

/// Linux's device that is always full stands in for a full disk.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_refuses_ends_the_run_with_the_reason() {
    let here = folder();
    let data = pairs_file(here.path());
    write(here.path(), "file", "not a folder");
    let ran = train(here.path(), &data, &["--output", "file/run"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.errors.contains("file/run"), "{}", ran.errors);

    fs::create_dir_all(here.path().join("out")).unwrap();
    let ran =
        ragtrainer(here.path(), &["prepare", "--train-data", data.to_str().unwrap(), "--data-out-path", "/dev/full/x"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.errors.contains("/dev/full"), "{}", ran.errors);
}

#[test]
fn miners_without_a_model_or_with_a_wrong_one() {
    let here = folder();
    let data = pairs_file(here.path());
    let empty = here.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let empty = empty.to_str().unwrap();
    write(here.path(), "size.toml", "[negatives]\nhard_negative_model_size = \"large\"\n");
    let nway = ["--num-new-negatives", "0", "--refresh", "epoch"];
    let cases: [(&[&str], &[&str]); 8] = [
        (&["--miner", "dense"], &["negatives.miner_model", "--miner-model", "BAAI/bge-small-en-v1.5"]),
        (
            &["--miner", "dense", "--language-code", "de", "--config", "size.toml"],
            &["intfloat/multilingual-e5-large", "language de"],
        ),
        (
            &["--miner", "dense", "--miner-model", "BAAI/bge-small-en-v1.5"],
            &["BAAI/bge-small-en-v1.5: no folder of that name", "HF_HUB_OFFLINE"],
        ),
        (&["--miner", "dense", "--miner-model", empty], &["config.json", "missing"]),
        (&["--miner", "dense", "--miner-model", data.to_str().unwrap()], &["no model directory"]),
        (&["--miner", "densest"], &["negatives.miner", "densest", "late_interaction"]),
        (&["--refresh", "always"], &["negatives.refresh", "never or epoch"]),
        (&nway, &["negatives.refresh", "negatives.num_new_negatives"]),
    ];
    for (arguments, parts) in cases {
        refused(&train(here.path(), &data, arguments), parts);
        assert!(!here.path().join("run").exists(), "{arguments:?} left a folder");
    }
    let data = data.to_str().unwrap();
    let arguments = ["prepare", "--train-data", data, "--miner", "late_interaction", "--data-out-path", "out"];
    refused(&ragtrainer(here.path(), &arguments), &["pretrained_model_name", "late_interaction"]);
    assert!(!here.path().join("out").exists());
}

/// Threads are counted before anything else is done.
#[test]
fn threads_that_cannot_be_had_are_refused() {
    let here = folder();
    let model = tiny_model();
    write(here.path(), "texts.jsonl", "\"a text\"\n");
    let encode =
        ["encode", "--model", model.to_str().unwrap(), "--input", "texts.jsonl", "--output", "v.npy", "--threads"];
    let with = |threads| ragtrainer(here.path(), &[&encode[..], &[threads]].concat());
    let most = std::thread::available_parallelism().unwrap().get();
    refused(&with("0"), &["threads = 0: the fewest are 1"]);
    refused(&with("100000"), &["threads = 100000: ", &format!("at once are {most}")]);
    assert!(!here.path().join("v.npy").exists());
    let ran = with("1");
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
}

#[test]
fn settings_that_two_files_of_a_model_give_differently_are_told() {
    let here = folder();
    let data = pairs_file(here.path());
    let arguments = train_arguments(&data, &["--maxsteps", "1"]);
    let ran = ragtrainer(here.path(), &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    fs::write(here.path().join("texts.txt"), "a first text\n").unwrap();
    let encode = ["encode", "--model", "run/best", "--input", "texts.txt", "--output", "vectors.npy"];
    let agree = ragtrainer(here.path(), &encode);
    assert!(agree.code == Some(0) && !agree.errors.contains("disagree"), "{}", agree.errors);
    let path = here.path().join("run/best/config_sentence_transformers.json");
    let mut config: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config["document_length"] = serde_json::json!(24);
    fs::write(&path, config.to_string()).unwrap();
    let ran = ragtrainer(here.path(), &[&encode[..6], &["others.npy"]].concat());
    assert!(ran.errors.contains("disagree: doc_maxlen is 24 there and 32 here"), "{}", ran.errors);
}

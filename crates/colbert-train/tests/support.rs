//! The recorded fixtures as training sets and options.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use colbert_config::{AutoSteps, IbScope, TrainOptions, Warmup};
use colbert_data::{Collection, Example, Judgements, Queries, TrainingSet};
use colbert_model::{Colbert, ColbertSettings, ColbertTokenizer, Pretrained, PretrainedEncoder, named_parameters};
use colbert_train::RunFolder;
use serde_json::{Value, json};
pub(crate) use test_backend::device;
use test_backend::{TestAutodiff, TestBackend, crate_folder};

pub(crate) type B = TestAutodiff;
pub(crate) type Inner = TestBackend;
pub(crate) type Model = Colbert<B, PretrainedEncoder<B>>;

pub(crate) fn parity(file: &str) -> PathBuf {
    crate_folder().join("../colbert-model/tests/parity").join(file)
}

pub(crate) fn json(file: &str) -> Value {
    let path = parity(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

pub(crate) fn lines(file: &str) -> Vec<Value> {
    let text = fs::read_to_string(parity(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn tsv(file: &str) -> Vec<String> {
    let text = fs::read_to_string(parity(file)).unwrap();
    text.lines().map(|line| line.split_once('\t').unwrap().1.trim().to_owned()).collect()
}

/// A training set of the fixture's texts with these rows: `[qid, pid...]` or `[qid, [pid, score]...]`.
pub(crate) fn training_set(rows: &[Value]) -> TrainingSet {
    let (mut queries, mut collection, mut positives) = (Queries::new(), Collection::new(), Judgements::new());
    let qids: Vec<u32> = tsv("queries.tsv").iter().map(|text| queries.add(text).unwrap()).collect();
    let pids: Vec<u32> = tsv("collection.tsv").iter().map(|text| collection.add(text).unwrap()).collect();
    let mut examples = Vec::new();
    for row in rows {
        let row = row.as_array().unwrap();
        let query = qids[row[0].as_u64().unwrap() as usize];
        let pid = |item: &Value| pids[item.as_u64().unwrap() as usize];
        let (documents, scores): (Vec<u32>, Option<Vec<f32>>) = if row[1].is_array() {
            let scores = row[1..].iter().map(|item| item[1].as_f64().unwrap() as f32).collect();
            (row[1..].iter().map(|item| pid(&item[0])).collect(), Some(scores))
        } else {
            (row[1..].iter().map(pid).collect(), None)
        };
        positives.insert(query, documents[0], 1);
        examples.push(Example { query, documents, scores });
    }
    TrainingSet { queries, collection, examples, positives, sources: Vec::new() }
}

/// The options that reproduce the reference's behaviour, with the numbers of a fixture's `config`.
pub(crate) fn reference_options(config: &Value) -> TrainOptions {
    let number = |name: &str| config[name].as_u64().unwrap() as usize;
    TrainOptions {
        batch_size: number("bsize"),
        accumsteps: number("accumsteps"),
        learning_rate: Some(config["lr"].as_f64().unwrap()),
        maxsteps: number("maxsteps"),
        nway: number("nway"),
        dim: number("dim"),
        query_maxlen: number("query_maxlen"),
        doc_maxlen: number("doc_maxlen"),
        warmup_steps: config["warmup"].as_u64().map_or(Warmup::Constant, |steps| Warmup::Steps(steps as usize)),
        warmup_from_zero: true,
        schedule_horizon: AutoSteps::Steps(number("maxsteps")),
        use_ib_negatives: config["use_ib_negatives"].as_bool().unwrap(),
        ib_scope: IbScope::MicroBatch,
        ib_skip_known_positives: false,
        distillation_alpha: config["distillation_alpha"].as_f64().unwrap(),
        ignore_scores: config["ignore_scores"].as_bool().unwrap(),
        attend_to_mask_tokens: config["attend_to_mask_tokens"].as_bool().unwrap(),
        mask_punctuation: config["mask_punctuation"].as_bool().unwrap(),
        shuffle: false,
        ..TrainOptions::default()
    }
}

/// The tiny model and its tokenizer. `dropout` replaces its 0.
pub(crate) fn tiny(options: &TrainOptions, dropout: Option<f64>) -> (Model, ColbertTokenizer) {
    let settings = ColbertSettings::from(options);
    let pretrained = Pretrained::read(&parity("tiny")).unwrap();
    let (model, _) = pretrained.model::<B>(&settings, dropout, 0, &device()).unwrap();
    (model, pretrained.tokenizer(&settings).unwrap())
}

/// Every parameter under its name in a weight file.
pub(crate) fn parameters(model: &Model) -> HashMap<String, Vec<f32>> {
    let named = named_parameters::<B, Model>(model);
    named.into_iter().map(|(name, tensor)| (model.tensor_name(&name), tensor.values)).collect()
}

/// Sum and L2 norm in f64.
pub(crate) fn sum_and_l2(values: &[f32]) -> (f64, f64) {
    let sum = values.iter().map(|v| f64::from(*v)).sum();
    let squares: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
    (sum, squares.sqrt())
}

/// The state that the newest checkpoint of a run keeps.
pub(crate) fn state_of(run: &RunFolder) -> Value {
    let path = run.newest_checkpoint().unwrap().0.unwrap();
    serde_json::from_slice(&fs::read(path.join("state.json")).unwrap()).unwrap()
}

/// Changes the state in the newest checkpoint of a run, and its length and checksum in the manifest.
pub(crate) fn edit_state(run: &RunFolder, edit: impl FnOnce(&mut Value)) {
    let path = run.newest_checkpoint().unwrap().0.unwrap();
    let mut state = state_of(run);
    edit(&mut state);
    replace_in_checkpoint(&path, "state.json", &serde_json::to_vec(&state).unwrap());
}

/// Replaces a file of a checkpoint, so that its manifest agrees.
pub(crate) fn replace_in_checkpoint(path: &Path, name: &str, bytes: &[u8]) {
    fs::write(path.join(name), bytes).unwrap();
    let mut manifest: Value = serde_json::from_slice(&fs::read(path.join("manifest.json")).unwrap()).unwrap();
    manifest["files"][name] = json!({ "bytes": bytes.len(), "crc32": format!("{:08x}", crc32fast::hash(bytes)) });
    fs::write(path.join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
}

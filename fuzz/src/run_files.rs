//! Our own files: checkpoints, the run folder, the folder of encoded documents.

use std::cell::OnceCell;

use burn::backend::Autodiff;
use burn_flex::{Flex, FlexDevice};
use colbert_config::{TrainOptions, resolve};
use colbert_data::{Collection, Example, Judgements, Queries, TrainingSet};
use colbert_model::{Colbert, ColbertSettings, ColbertTokenizer, Pretrained, PretrainedEncoder};
use colbert_train::{Begin, RunFolder, TrainError, Training};
use ragtrainer::DocumentFolder;
use ragtrainer::record::{RunRecord, RunSummary, differing_options, runs_in, write_report};
use ragtrainer::search::EncodedSource;
use serde_json::{Value, json};

use super::scratch::{Scratch, choice, parts, with_scratch};
use super::tiny_model::write_tiny_model;

type B = Autodiff<Flex>;
type Model = Colbert<B, PretrainedEncoder<B>>;

const CHECKPOINT: [&str; 5] =
    ["manifest.json", "state.json", "model.safetensors", "optimizer.safetensors", "best-000001.safetensors"];
const CHECKPOINT_FOLDER: &str = "trained/checkpoints/step-000002";
/// Files of a run's folder that are read, in the order of an input.
pub const RUN: [&str; 6] =
    ["options.json", "plan.json", "metrics.jsonl", "outcome.json", "queries.json", "explanations.json"];
const DOCUMENTS: [&str; 4] = ["state.json", "documents-0.jsonl", "vectors-0.f32", "entries-0.bin"];

thread_local! {
    static MODEL: OnceCell<(Model, ColbertTokenizer)> = const { OnceCell::new() };
}

/// A run of two steps on one example, or what is left of it.
fn train(scratch: &Scratch, begin: Begin) -> Result<(), TrainError> {
    let (mut queries, mut collection) = (Queries::new(), Collection::new());
    let query = queries.add("tor ?").expect("a text");
    let documents = ["a tor", "tors ."].map(|text| collection.add(text).expect("a text")).to_vec();
    let examples = vec![Example { query, documents, scores: None }];
    let set = TrainingSet { queries, collection, examples, positives: Judgements::new(), sources: Vec::new() };
    let options =
        TrainOptions { dim: 2, batch_size: 1, epochs: 2, query_maxlen: 8, doc_maxlen: 8, ..Default::default() };
    let plan = resolve(&options, 1)?;
    let (model, tokenizer) = MODEL.with(|kept| {
        let kept = kept.get_or_init(|| {
            let pretrained = Pretrained::read(&scratch.path().join("model")).expect("it is whole");
            let settings = ColbertSettings::from(&options);
            let model = pretrained.model::<B>(&settings, None, 0, &FlexDevice).expect("it is whole").0;
            (model, pretrained.tokenizer(&settings).expect("it is whole"))
        });
        kept.clone()
    });
    let path = scratch.path().join("trained");
    let folder = match begin {
        Begin::Resume { .. } => RunFolder::open(&path)?,
        Begin::New => {
            let folder = RunFolder::create(&path, false)?;
            folder.write_plan(&plan)?;
            folder
        }
    };
    let training = Training::new(&set, &tokenizer, &options, &plan, &FlexDevice);
    training.with_folder(Some(&folder)).run(model, begin).map(|_| ())
}

fn prepare(scratch: &Scratch) {
    write_tiny_model(scratch, "model");
    train(scratch, Begin::New).expect("a short run");
    let weights = std::fs::read(scratch.path().join(CHECKPOINT_FOLDER).join("model.safetensors")).expect("it is there");
    scratch.write(&format!("{CHECKPOINT_FOLDER}/best-000001.safetensors"), &weights);
}

/// Resumes the run with a file of its checkpoint replaced, as if its checksum agreed: checksums guard against
/// accidents, and these bytes are none.
fn resume_with(scratch: &Scratch, name: &str, content: &[u8]) {
    let file = |name: &str| format!("{CHECKPOINT_FOLDER}/{name}");
    let kept: Vec<_> = CHECKPOINT.iter().map(|name| std::fs::read(scratch.path().join(file(name)))).collect();
    scratch.write(&file(name), content);
    if name != "manifest.json" {
        let path = scratch.path().join(file("manifest.json"));
        let mut manifest: Value =
            serde_json::from_slice(&std::fs::read(path).expect("it is there")).expect("it is whole");
        let crc32 = format!("{:08x}", crc32fast::hash(content));
        manifest["files"][name] = json!({ "bytes": content.len(), "crc32": crc32 });
        scratch.write(&file("manifest.json"), manifest.to_string().as_bytes());
    }
    drop(train(scratch, Begin::Resume { accept_changes: true }));
    drop(std::fs::remove_dir_all(scratch.path().join("trained/checkpoints")));
    for (name, bytes) in CHECKPOINT.iter().zip(kept) {
        scratch.write(&file(name), &bytes.expect("it was there"));
    }
}

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    let Some((kind, content)) = choice(bytes, CHECKPOINT.len() + 2) else { return };
    with_scratch("run_files", prepare, |scratch| {
        if let Some(name) = CHECKPOINT.get(kind) {
            resume_with(scratch, name, content);
            return;
        }
        let contents = parts(content, b"\n==\n");
        if kind == CHECKPOINT.len() {
            for name in RUN {
                scratch.remove(&format!("runs/run/{name}"));
            }
            for (name, content) in RUN.iter().zip(&contents).filter(|(_, content)| !content.is_empty()) {
                scratch.write(&format!("runs/run/{name}"), content);
            }
            if let Ok(record) = RunRecord::read(&scratch.path().join("runs/run")) {
                drop((RunSummary::of(&record).cells(), record.best(), record.start()));
                drop(differing_options(&[record.clone(), record]));
                write_report(&scratch.path().join("runs/run")).expect("a record that was read becomes a page");
                runs_in(&scratch.path().join("runs")).expect("the folder is there");
            }
            return;
        }
        for (at, name) in DOCUMENTS.iter().enumerate() {
            scratch.write(&format!("documents/{name}"), contents.get(at).map_or(&[], Vec::as_slice));
        }
        if let Ok(folder) = DocumentFolder::open(scratch.path().join("documents")) {
            drop((folder.ids(), folder.contains("a"), folder.len()));
            for place in 0..folder.places().min(100) {
                if let Ok(block) = folder.block(place..place + 1, &mut Vec::new()) {
                    assert_eq!(block.places.len() + 1, block.offsets.len());
                }
                drop(folder.passage(place));
            }
        }
    });
}

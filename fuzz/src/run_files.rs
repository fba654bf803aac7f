//! What is read back of our own: checkpoints, the folder of a run, the folder of encoded documents.

use std::cell::OnceCell;

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn_flex::{Flex, FlexDevice};
use colbert_model::{Colbert, ColbertSettings, Pretrained, PretrainedEncoder, named_parameters, safetensors_bytes};
use colbert_train::{AdamW, RunState, newest_checkpoint, read_checkpoint, write_checkpoint};
use ragtrainer::{DocumentFolder, EncodedSource, RunRecord, differing_options, runs_in, summary, write_report};

use super::scratch::{Scratch, choice, parts, with_scratch};
use super::tiny_model::write_tiny_model;

type B = Autodiff<Flex>;
type Model = Colbert<B, PretrainedEncoder<B>>;

const CHECKPOINT: [&str; 5] =
    ["manifest.json", "state.json", "model.safetensors", "optimizer.safetensors", "best-000001.safetensors"];
const RUN: [&str; 5] = ["options.json", "plan.json", "metrics.jsonl", "outcome.json", "queries.json"];
const DOCUMENTS: [&str; 3] = ["state.json", "documents-0.jsonl", "vectors-0.f32"];

thread_local! {
    static MODEL: OnceCell<Model> = const { OnceCell::new() };
}

fn model(scratch: &Scratch) -> Model {
    MODEL.with(|kept| {
        let model = kept.get_or_init(|| {
            let pretrained = Pretrained::read(&scratch.path().join("model")).expect("it is whole");
            let settings = ColbertSettings { dim: 2, ..ColbertSettings::default() };
            pretrained.model::<B>(&settings, None, 0, &FlexDevice).expect("it is whole").0
        });
        model.clone()
    })
}

fn prepare(scratch: &Scratch) {
    write_tiny_model(scratch, "model");
    let state = RunState { step: 2, ..RunState::default() };
    let optimizer = AdamW::<Flex>::new(0.01);
    let model = model(scratch);
    write_checkpoint::<B, _>(&scratch.path().join("checkpoints"), &model, &optimizer, &state).expect("room for it");
    let tensors = named_parameters::<B, _>(&model);
    scratch.write("checkpoints/step-000002/best-000001.safetensors", &safetensors_bytes(&tensors).expect("whole"));
    let moments: Vec<_> = tensors
        .into_iter()
        .flat_map(|(name, mut tensor)| {
            tensor.shape = vec![tensor.values.len()];
            [(format!("exp_avg.{name}"), tensor.clone()), (format!("exp_avg_sq.{name}"), tensor)]
        })
        .collect();
    scratch.write("checkpoints/step-000002/optimizer.safetensors", &safetensors_bytes(&moments).expect("whole"));
}

fn read_the_checkpoint(scratch: &Scratch) {
    drop(newest_checkpoint(&scratch.path().join("checkpoints")));
    let folder = scratch.path().join("checkpoints/step-000002");
    // As if the checksums agreed: they guard against accidents, and these bytes are none.
    if let Ok((model, optimizer, state)) = read_checkpoint::<B, _>(&folder, model(scratch), 0.01, &FlexDevice) {
        let again = scratch.path().join("again");
        drop(write_checkpoint::<B, Model>(&again, &model, &optimizer, &state));
        drop(model.valid());
        drop(std::fs::remove_dir_all(&again));
    }
}

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    let Some((kind, content)) = choice(bytes, CHECKPOINT.len() + 2) else { return };
    with_scratch("run_files", prepare, |scratch| {
        if let Some(name) = CHECKPOINT.get(kind) {
            let name = format!("checkpoints/step-000002/{name}");
            let kept = std::fs::read(scratch.path().join(&name)).expect("it is there");
            scratch.write(&name, content);
            read_the_checkpoint(scratch);
            scratch.write(&name, &kept);
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
                drop((summary(&record), record.best(), record.start()));
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
            assert_eq!((folder.len(), folder.is_empty()), (folder.ids().count(), folder.ids().next().is_none()));
            let mut places = Vec::new();
            drop(folder.for_each_block(&mut |block, _| places.extend_from_slice(block)));
            for place in places {
                drop(folder.document(place));
            }
        }
    });
}

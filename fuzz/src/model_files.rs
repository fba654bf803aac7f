//! The JSON files of a model directory: config, tokenizer, those of PyLate and sentence-transformers, the index of
//! weights.

use burn_flex::{Flex, FlexDevice};
use colbert_config::ExportDtype;
use colbert_model::sentence::SentenceEncoder;
use colbert_model::{Pretrained, SelfCheck, write_onnx};
use ragtrainer::RagPretrainedModel;

use super::scratch::{Scratch, choice, with_scratch};
use super::tiny_model::{tiny_tensors, write_tiny_model};

const FILES: [&str; 10] = [
    "tokenizer.json",
    "config.json",
    "config_sentence_transformers.json",
    "1_Dense/config.json",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "model.safetensors.index.json",
    "selfcheck.json",
    "tokenizer_config.json",
];

const TEXTS: [&str; 3] = ["a tor?", "", "Tors \u{6771}\u{4eac} [MASK] a.a a a a a a a a a a a a a"];

fn prepare(scratch: &Scratch) {
    write_tiny_model(scratch, "model");
    let weights = colbert_model::safetensors_bytes(&tiny_tensors()).expect("whole tensors");
    scratch.write("model/part.safetensors", &weights);
    // Without it no configuration of a head's layer is read.
    let (_, matrix) = tiny_tensors().pop().expect("the projection is the last");
    let layer = [("linear.weight".to_owned(), matrix)];
    scratch
        .write("model/1_Dense/model.safetensors", &colbert_model::safetensors_bytes(&layer).expect("a whole tensor"));
}

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    let Some((kind, content)) = choice(bytes, FILES.len()) else { return };
    with_scratch("model_files", prepare, |scratch| {
        let name = format!("model/{}", FILES[kind]);
        let kept = std::fs::read(scratch.path().join(&name)).ok();
        scratch.write(&name, content);
        let directory = scratch.path().join("model");
        let weights = directory.join("model.safetensors");
        let aside = directory.join("aside");
        if FILES[kind] == "model.safetensors.index.json" {
            std::fs::rename(&weights, &aside).expect("it is there");
        }
        if let Ok(model) = RagPretrainedModel::from_pretrained(&directory)
            && let Ok(encoded) = model.encode(&TEXTS[..1])
        {
            drop(model.search(TEXTS[2], &encoded, 1));
            drop(model.rerank(TEXTS[2], &TEXTS, 2));
        }
        if let Ok(pretrained) = Pretrained::read(&directory)
            && let Some(settings) = pretrained.declared_settings()
            && let Ok(tokenizer) = pretrained.tokenizer(&settings)
        {
            drop((tokenizer.query_lengths(&TEXTS), tokenizer.document_lengths(&TEXTS), tokenizer.skiplist()));
        }
        if write_onnx(&directory, ExportDtype::F16).is_ok() {
            for written in ["model/model.onnx", "model/onnx_config.json"] {
                scratch.remove(written);
            }
        }
        if let Ok(encoder) = SentenceEncoder::<Flex>::read(&directory, &FlexDevice) {
            drop(encoder.queries(&TEXTS, &FlexDevice));
        }
        if FILES[kind] == "selfcheck.json" {
            drop(SelfCheck::replay::<Flex>(&directory, &FlexDevice));
        }
        if aside.exists() {
            std::fs::rename(&aside, &weights).expect("it is there");
        }
        match kept {
            Some(kept) => drop(scratch.write(&name, &kept)),
            None => scratch.remove(&name),
        }
        drop(std::fs::remove_dir(scratch.path().join("model/1_Pooling")));
    });
}

//! Every encoder family, trained for two steps from its tiny fixture: numbers stay finite, every tensor moves, and what
//! is exported gives its own vectors back.

use std::path::{Path, PathBuf};

use burn_flex::{Flex, FlexDevice};
use ragtrainer::config::{Options, Precision, Warmup};
use ragtrainer::model::{Pretrained, SelfCheck, named_parameters};
use ragtrainer::prelude::*;

use crate::support::{backend, folder, pairs};

const FAMILIES: [&str; 14] = [
    "distilbert",
    "electra",
    "roberta",
    "xlm-roberta",
    "modernbert",
    "mmbert",
    "nomic_bert",
    "nomic_bert-5",
    "gte",
    "eurobert",
    "qwen3",
    "qwen3-both",
    "mpnet",
    "deberta-v2",
];

/// Half of a step of AdamW with the learning rate below; weight decay alone moves a number by less.
const MOVED: f32 = 5e-4;

fn fixture(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../colbert-model/tests/families").join(family)
}

/// Parameters of a directory, with a head of 16 numbers.
fn parameters(directory: &Path) -> Vec<(String, Vec<f32>)> {
    let pretrained = Pretrained::read(directory).unwrap();
    let train = TrainOptions { dim: 16, doc_maxlen: 40, ..TrainOptions::default() };
    let settings = pretrained.declared_settings().unwrap_or_else(|| pretrained.settings(&train));
    let (model, _) = pretrained.model::<Flex>(&settings, None, 0, &FlexDevice).unwrap();
    named_parameters(&model).into_iter().map(|(name, tensor)| (name, tensor.values)).collect()
}

#[test]
fn every_family_is_trained_exported_and_replayed() {
    let plain = TrainOptions {
        batch_size: 4,
        dim: 16,
        query_maxlen: 20,
        doc_maxlen: 40,
        maxsteps: 2,
        learning_rate: Some(1e-3),
        warmup_steps: Warmup::Constant,
        ..TrainOptions::default()
    };
    let micro = TrainOptions { accumsteps: 2, precision: Precision::Bf16, dropout: Some(0.1), ..plain.clone() };
    for (family, options) in FAMILIES.into_iter().flat_map(|family| [(family, &plain), (family, &micro)]) {
        let here = folder();
        let mut trainer = RagTrainer::from_options(Options {
            pretrained_model_name: fixture(family).to_str().unwrap().to_owned(),
            backend: backend(),
            output: here.path().join("run"),
            train: options.clone(),
            ..Options::default()
        });
        trainer.set_data(RawData::from_pairs(pairs()).unwrap()).unwrap();
        trainer.add_negatives(&|_, _, _| ()).unwrap();
        let mut losses = Vec::new();
        let mut watch = |event: &Event| {
            if let Event::Step(record) = event {
                losses.push(record.loss);
            }
            Flow::Continue
        };
        let outcome = trainer.train_observed(options, &mut watch).unwrap();
        assert!(losses.len() == 2 && losses.iter().all(|loss| loss.is_finite()), "{family}: {losses:?}");
        // The head is drawn, and a pooler is carried along. A key's bias adds the same to all products of a query, so
        // that its gradient is noise.
        let of_encoder = |(name, _): &(String, Vec<f32>)| {
            name.starts_with("encoder.") && !name.contains("pooler") && !name.ends_with("key.bias")
        };
        let (before, after) = (parameters(&fixture(family)), parameters(&outcome.best));
        let pairs: Vec<_> = before.into_iter().zip(after).filter(|(before, _)| of_encoder(before)).collect();
        assert!(pairs.len() > 10, "{family}");
        for ((name, before), (other, after)) in pairs {
            assert_eq!(name, other, "{family}");
            let moved = before.iter().zip(&after).map(|(before, after)| (before - after).abs()).fold(0.0, f32::max);
            assert!(moved > MOVED && moved < 0.1, "{family}: {name} by {moved}");
        }
        let difference = SelfCheck::replay::<Flex>(&outcome.best, &FlexDevice).unwrap();
        assert!(difference < 1e-5, "{family}: {difference}");
    }
}

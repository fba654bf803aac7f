//! Models that are no plain encoder with one matrix: heads of several layers, and an encoder of another crate.

use std::fs;
use std::path::Path;

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::prelude::*;
use burn_flex::{Flex, FlexDevice};
use ragtrainer::Error;
use ragtrainer::config::{HeadInit, MemoryLimit, Miner, Refresh};
use ragtrainer::model::{ColbertSettings, SelfCheck, Weights, load_parameters};
use ragtrainer::prelude::*;
use ragtrainer::train::{Begin, Event, Flow};

use crate::facade::{options, resumed, trainer};
use crate::support::{backend, beir_folder, folder, pairs, pretrained, tiny_model};

/// A head of several layers on a plain encoder: planned, trained, written, and reported to those who cannot read it.
#[test]
fn options_give_a_run_a_head_of_several_layers() {
    let here = folder();
    let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/quickstart/model");
    let mut trainer = RagTrainer::new("towns", plain.to_str().unwrap())
        .with_backend(backend())
        .with_output(here.path().join("run"), false);
    trainer.prepare_training_data(RawData::from_pairs(pairs()).unwrap(), &PrepareOptions::default()).unwrap();
    let train = TrainOptions { head: "48 gelu residual, dim".parse().unwrap(), ..options() };
    let preview = trainer.plan(&train).unwrap().to_string();
    assert!(preview.contains("-> 48 (GELU, residual) -> 16"), "{preview}");
    assert!(preview.contains("The new head has the layers 48 gelu residual, dim (dim is 16)."), "{preview}");
    let outcome = trainer.train(&train).unwrap();
    let layers = ["1_Dense", "2_Dense"].map(|layer| outcome.best.join(layer).join("model.safetensors"));
    assert!(layers.iter().all(|layer| layer.is_file()), "{layers:?}");
    let card = fs::read_to_string(outcome.best.join("README.md")).unwrap();
    assert!(card.contains("- Head: ") && card.contains("-> 48 (GELU, residual) -> 16.\n"), "{card}");
    assert!(card.contains("colbert-ai and RAGatouille: take the head's matrices multiplied into one"), "{card}");
    assert!(outcome.not_honoured.iter().any(|one| one.to_string().contains("multiplied into one")));
    // The model has its head now: another one is refused before anything is written.
    let mut next = RagTrainer::new("towns", outcome.best.to_str().unwrap())
        .with_backend(backend())
        .with_output(here.path().join("next"), false);
    next.prepare_training_data(RawData::from_pairs(pairs()).unwrap(), &PrepareOptions::default()).unwrap();
    let error = next.train(&TrainOptions { head: "dim gelu".parse().unwrap(), ..options() }).unwrap_err().to_string();
    assert!(error.contains("has its head") && !here.path().join("next").exists(), "{error}");
    next.plan(&train).unwrap();
}

/// A head of several layers goes through training, a checkpoint and the exported directory, and is used with all of it.
#[test]
fn a_head_of_several_layers_is_trained_resumed_and_used() {
    let here = folder();
    let source = tiny_model().join("../../families/stacked");
    let run = |name: &str| {
        let mut trainer = RagTrainer::new("towns", source.to_str().unwrap())
            .with_backend(backend())
            .with_output(here.path().join(name), false);
        trainer.prepare_training_data(RawData::from_pairs(pairs()).unwrap(), &PrepareOptions::default()).unwrap();
        trainer
    };
    let options =
        TrainOptions { batch_size: 4, maxsteps: 4, epochs: 2, learning_rate: Some(1e-3), ..TrainOptions::default() };
    let trainer = run("a");
    let preview = trainer.plan(&options).unwrap();
    let head = "32 -> 48 (bias, GELU, residual) -> 48 (Tanh, residual) -> 40 (bias, SiLU) -> 40 (ReLU) -> 32 (bias, Sigmoid) -> 24";
    assert!(preview.to_string().contains(&format!("head: {head}\n")), "{preview}");
    assert!(preview.loaded.initialised.is_empty() && preview.loaded.ignored.is_empty(), "{:?}", preview.loaded);
    let mut stop = |event: &Event| match event {
        Event::Step(record) if record.step == 2 => Flow::Stop,
        _ => Flow::Continue,
    };
    assert!(trainer.train_observed(&options, &mut stop).unwrap().stopped);
    let resumed = resumed(&trainer).train(&options).unwrap();
    let straight = run("b").train(&options).unwrap();
    for file in ["model.safetensors", "1_Dense/model.safetensors", "5_Dense/model.safetensors"] {
        let bytes = |folder: &std::path::Path| std::fs::read(folder.join(file)).unwrap();
        assert_eq!(bytes(&resumed.best), bytes(&straight.best), "{file}");
        assert_ne!(bytes(&resumed.best), bytes(&source), "{file} is trained");
    }
    assert_eq!(
        resumed.not_honoured.iter().filter(|line| line.contains("head")).count(),
        3,
        "{:?}",
        resumed.not_honoured
    );
    let card = std::fs::read_to_string(resumed.best.join("README.md")).unwrap();
    assert!(card.contains(&format!("- Head: {head}.")), "{card}");

    let model = pretrained(&resumed.best);
    assert_eq!((model.settings().dim, model.settings().query_maxlen), (24, 14));
    let text = "Garth made glass.";
    let hits = model.rerank("what was made in Garth", &["A fen is wet land.", text], 2).unwrap();
    assert_eq!(hits.len(), 2);
    let other = pretrained(&source);
    assert_ne!(model.fingerprint(), other.fingerprint());
    assert_ne!(model.document_vectors(&[text]).unwrap().values(), other.document_vectors(&[text]).unwrap().values());
}

/// Principal components depend on encoder and texts alone: no seed changes them.
#[test]
fn a_head_can_start_from_principal_components() {
    let here = folder();
    let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/quickstart/model");
    let run = |name: &str, start: &Path| {
        let mut trainer = RagTrainer::new("towns", start.to_str().unwrap())
            .with_backend(backend())
            .with_output(here.path().join(name), false);
        trainer.prepare_training_data(RawData::from_pairs(pairs()).unwrap(), &PrepareOptions::default()).unwrap();
        trainer
    };
    // A rate that changes no weight in float32, so that the trained head is the first one.
    let train = TrainOptions { head_init: HeadInit::Pca, learning_rate: Some(1e-30), maxsteps: 2, ..options() };
    let preview = run("first", &plain).plan(&train).unwrap().to_string();
    assert!(preview.contains("principal components: linear.weight") && !preview.contains("drawn"), "{preview}");
    let head = |best: &Path| Weights::read(&best.join("model.safetensors")).unwrap().take("linear.weight", &[16, 384]);
    let first = run("first", &plain).train(&train).unwrap();
    let matrix = head(&first.best).unwrap();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let rows: Vec<&[f32]> = matrix.values.chunks(384).collect();
    for (place, row) in rows.iter().enumerate() {
        let products: Vec<f64> = rows.iter().map(|other| dot(row, other)).collect();
        let fine = products.iter().enumerate().all(|(other, product)| {
            let expected = if other == place { 1.0 } else { 0.0 };
            (product - expected).abs() < 1e-5
        });
        assert!(fine, "row {place}: {products:?}");
    }
    let other_seed = run("seed", &plain).train(&TrainOptions { seed: 2, ..train.clone() }).unwrap();
    assert_eq!(head(&other_seed.best).unwrap(), matrix);
    let drawn = run("drawn", &plain).train(&TrainOptions { head_init: HeadInit::Random, ..train.clone() }).unwrap();
    assert_ne!(head(&drawn.best).unwrap(), matrix);

    let wide = TrainOptions { dim: 400, ..train.clone() };
    let error = run("wide", &plain).train(&wide).unwrap_err().to_string();
    assert!(error.contains("at most 384 numbers") && error.contains("train.dim is 400"), "{error}");
    let error = run("next", &first.best).train(&train).unwrap_err().to_string();
    assert!(error.contains("has its head") && error.contains("leave train.head_init out"), "{error}");
    assert!(!here.path().join("next").exists());
}

/// Word vectors, each with a layer of its own on top.
#[derive(Module, Debug)]
struct Words<B: Backend> {
    table: Embedding<B>,
    layer: Linear<B>,
}

impl<B: KernelBackend> Encoder<B> for Words<B> {
    fn forward(&self, input: &EncoderInput, device: &B::Device) -> Tensor<B, 2> {
        let (ids, attended) = input.padded::<B>(device);
        let words = self.table.forward(ids) * attended.float().unsqueeze_dim(2);
        input.pack(words.clone() + self.layer.forward(words))
    }

    fn hidden_size(&self) -> usize {
        24
    }
}

#[derive(Clone)]
struct WordsBuilder;

impl EncoderBuilder for WordsBuilder {
    type Encoder<B: KernelAutodiffBackend> = Words<B>;

    fn build<B: KernelAutodiffBackend>(&self, start: &Pretrained, device: &B::Device) -> Result<Words<B>, ModelError> {
        let table = EmbeddingConfig::new(start.config.vocab_size(), 24).init(device);
        Ok(Words { table, layer: LinearConfig::new(24, 24).init(device) })
    }

    fn hidden_size(&self, _: &Pretrained) -> usize {
        24
    }
}

/// An encoder of another crate has all of a run: plan and memory fit, mining with the model that is trained, dev and
/// test queries, report, card, a checkpoint to resume from, and a directory that reads back.
#[test]
fn an_encoder_of_another_crate_goes_the_whole_way() {
    let here = folder();
    let beir = BeirFolder::open(&beir_folder(here.path())).unwrap();
    let run = |name: &str| {
        let choice = EvaluationOptions { max_queries: Some(5), ..EvaluationOptions::default() };
        let mut trainer = trainer(&here.path().join(name))
            .with_encoder(WordsBuilder)
            .with_dev(beir.evaluation("dev").unwrap(), choice)
            .with_test(beir.evaluation("test").unwrap());
        let negatives = NegativeOptions {
            miner: Miner::LateInteraction,
            refresh: Refresh::Epoch,
            num_new_negatives: 2,
            hard_negative_minimum_rank: 0,
            hard_negative_maximum_rank: 10,
            ..NegativeOptions::default()
        };
        let raw = RawData::from_pairs(pairs()).unwrap();
        trainer.prepare_training_data(raw, &PrepareOptions { negatives, ..PrepareOptions::default() }).unwrap();
        trainer
    };
    let options = TrainOptions { epochs: 2, maxsteps: 6, learning_rate: Some(1e-2), ..options() };
    let trainer = run("a");
    let limited = |limit| TrainOptions { memory_limit: Some(MemoryLimit::Bytes(limit)), ..options.clone() };
    let preview = trainer.plan(&limited(1 << 40)).unwrap();
    assert!(preview.plan.memory.is_some_and(|bytes| bytes > 0));
    assert_eq!((preview.loaded.taken, preview.head.layers[0].in_features), (0, 24));
    assert!(preview.loaded.initialised.contains(&"encoder.table.weight".to_owned()), "{:?}", preview.loaded);
    assert!(matches!(trainer.plan(&limited(1)), Err(Error::LimitTooLow { .. })));
    let error = trainer.plan(&TrainOptions { dropout: Some(0.1), ..options.clone() }).unwrap_err().to_string();
    assert!(error.contains("train.dropout") && error.contains("\"WordsBuilder\""), "{error}");

    let mut stop = |event: &Event| match event {
        Event::Step(record) if record.step == 4 => Flow::Stop,
        _ => Flow::Continue,
    };
    assert!(trainer.train_observed(&options, &mut stop).unwrap().stopped);
    let resumed = trainer.with_begin(Begin::Resume { accept_changes: false }).train(&options).unwrap();
    let straight = run("b").train(&options).unwrap();
    let read = |folder: &Path, file: &str| fs::read_to_string(folder.join(file)).unwrap();
    for outcome in [&resumed, &straight] {
        assert_eq!(outcome.not_honoured.len(), 1, "{:?}", outcome.not_honoured);
        assert!(outcome.test.is_some() && outcome.to_string().contains("on dev queries"));
        let config: serde_json::Value = serde_json::from_str(&read(&outcome.best, "config.json")).unwrap();
        assert_eq!(config["model_type"], "WordsBuilder");
        assert!(read(&outcome.best, "README.md").contains("load_parameters"));
        assert!(here.path().join("a/report.html").is_file());
    }
    let bytes = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
    assert_eq!(bytes(&resumed.last), bytes(&straight.last));
    let error = Pretrained::read(&straight.best).unwrap_err().to_string();
    assert!(error.contains("WordsBuilder"), "{error}");

    let start = Pretrained::read(&tiny_model()).unwrap();
    let settings = ColbertSettings::from(&options);
    let encoder = WordsBuilder.build::<Autodiff<Flex>>(&start, &FlexDevice).unwrap();
    let model = start.model_with::<Autodiff<Flex>, _>(encoder, &settings, 0, &FlexDevice).unwrap().valid();
    let model = load_parameters(model, &straight.last).unwrap();
    let tokenizer = start.tokenizer(&settings).unwrap();
    let found = SelfCheck::of(&model, &tokenizer, &straight.last, &FlexDevice).unwrap();
    let recorded: SelfCheck = serde_json::from_str(&read(&straight.last, "selfcheck.json")).unwrap();
    let scores = |check: &SelfCheck| check.scores.concat();
    assert!(scores(&found).iter().zip(scores(&recorded)).all(|(a, b)| (a - b).abs() < 1e-3));
}

//! Markers, prompts and expansion as options of training a plain encoder, in both layouts that are written.

use std::fs;
use std::path::{Path, PathBuf};

use colbert_config::{ArtifactMetadata, ExportDtype, ExportLayout, TrainOptions, resolve};
use colbert_model::{
    ColbertSettings, Export, ModelError, Pretrained, SelfCheck, Weights, named_parameters, write_onnx,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokenizers::Tokenizer;

use crate::support::{B, device, fixture, largest_difference, parity, plain_encoder};

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn base() -> TrainOptions {
    TrainOptions { dim: 16, query_maxlen: 16, doc_maxlen: 24, ..TrainOptions::default() }
}

/// The ways in which people distinguish queries and documents, and none.
fn choices() -> Vec<(&'static str, TrainOptions)> {
    let none = TrainOptions { query_token_id: text(""), doc_token_id: text(""), ..base() };
    vec![
        ("as the reference", base()),
        ("nothing", none.clone()),
        ("nothing, no expansion", TrainOptions { query_expansion: false, ..none.clone() }),
        (
            "prompts of several tokens, min",
            TrainOptions {
                query_prompt: text("search_query: "),
                document_prompt: text("search_document: "),
                query_expansion_length: Some(12),
                attend_to_mask_tokens: true,
                ..none.clone()
            },
        ),
        ("one side alone", TrainOptions { query_prompt: text("query: "), doc_token_id: None, ..none }),
        (
            "markers that the vocabulary lacks, and a prompt",
            TrainOptions {
                query_token_id: text("[Q]"),
                doc_token_id: text("[D]"),
                query_prompt: text("find "),
                ..base()
            },
        ),
    ]
}

fn written(source: &Path, options: &TrainOptions, layout: ExportLayout, path: &Path) -> ColbertSettings {
    let pretrained = Pretrained::read_for(source, options).unwrap();
    let settings = pretrained.settings(options);
    pretrained.check_layout(&settings, layout).unwrap();
    let (model, _) = pretrained.model::<B>(&settings, None, 3, &device()).unwrap();
    let tensors: Vec<_> =
        named_parameters(&model).into_iter().map(|(name, tensor)| (model.tensor_name(&name), tensor)).collect();
    let metadata = ArtifactMetadata {
        query_token_id: settings.query_token_id.clone(),
        doc_token_id: settings.doc_token_id.clone(),
        ..ArtifactMetadata::from_training(options, &resolve(options, 320).unwrap(), "tiny")
    };
    let all = Export {
        tensors: &tensors,
        settings: &settings,
        files: &pretrained.files,
        metadata: &metadata,
        layout,
        dtype: ExportDtype::F32,
        onnx: false,
        own_encoder: None,
        extra: &[],
    };
    all.write::<B>(path, false, &device()).unwrap();
    settings
}

fn read(path: PathBuf) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Ids of a text as the options describe them, by the tokenizers library alone.
fn described(tokenizer: &Tokenizer, marker: &str, prompt: &str, text: &str, longest: usize) -> Vec<u32> {
    let id = |token: &str| tokenizer.token_to_id(token).unwrap();
    let inner = tokenizer.encode(format!("{prompt}{text}"), false).unwrap().get_ids().to_vec();
    let front: Vec<u32> = [vec![id("[CLS]")], if marker.is_empty() { vec![] } else { vec![id(marker)] }].concat();
    let room = longest - front.len() - 1;
    [front, inner.into_iter().take(room).collect(), vec![id("[SEP]")]].concat()
}

#[test]
fn texts_are_set_apart_as_the_options_say() {
    let folder = TempDir::new().unwrap();
    let source = plain_encoder(&folder);
    let texts = ["a tor", "how long does a walk across the open moor take in winter when the becks are in flood"];
    for (name, options) in choices() {
        let pretrained = Pretrained::read_for(&source, &options).unwrap();
        let settings = pretrained.settings(&options);
        let tokenizer = pretrained.tokenizer(&settings).unwrap();
        let plain = Tokenizer::from_bytes(pretrained.files.tokenizer.to_string()).unwrap();
        let mask = plain.token_to_id("[MASK]").unwrap();
        for (i, query) in tokenizer.queries(&texts).unwrap().iter().enumerate() {
            let mut ids = described(&plain, &settings.query_token_id, &settings.query_prompt, texts[i], 16);
            let real = ids.len();
            let full = if options.query_expansion { options.query_expansion_length.unwrap_or(16) } else { 0 };
            ids.resize(real.max(full), mask);
            assert_eq!(query.ids, ids, "{name}: {}", texts[i]);
            assert_eq!(query.attended, if options.attend_to_mask_tokens { ids.len() } else { real }, "{name}");
        }
        for (i, document) in tokenizer.documents(&texts).unwrap().iter().enumerate() {
            let ids = described(&plain, &settings.doc_token_id, &settings.document_prompt, texts[i], 24);
            assert_eq!(document.ids, ids, "{name}: {}", texts[i]);
        }
        let counted = tokenizer.query_lengths(&texts).unwrap()[0].0;
        assert_eq!(
            counted,
            tokenizer.queries(&texts).unwrap()[0].ids.iter().filter(|id| **id != mask).count(),
            "{name}"
        );
    }
}

#[test]
fn both_layouts_give_the_vectors_of_training() {
    let folder = TempDir::new().unwrap();
    let source = plain_encoder(&folder);
    for (i, (name, options)) in choices().into_iter().enumerate() {
        let [all, native] = ["all", "native"].map(|layout| folder.path().join(format!("{layout}-{i}")));
        let settings = written(&source, &options, ExportLayout::All, &all);
        written(&source, &options, ExportLayout::SentenceTransformers, &native);
        let again = Pretrained::read(&all).unwrap().declared_settings().unwrap();
        assert_eq!(again, settings, "{name}");
        let [of_all, of_native] = [&all, &native].map(|path| SelfCheck::compute::<B>(path, &device()).unwrap());
        for (one, other) in
            of_all.queries.iter().chain(&of_all.documents).zip(of_native.queries.iter().chain(&of_native.documents))
        {
            assert_eq!((&one.ids, one.attended, &one.scored), (&other.ids, other.attended, &other.scored), "{name}");
            let [a, b] = [one, other].map(|text| text.vectors.concat());
            assert!(largest_difference(&a, &b) < 1e-6, "{name}");
        }
        assert!(!native.join("artifact.metadata").exists() && all.join("artifact.metadata").exists());
        assert!(!Weights::read(&native.join("model.safetensors")).unwrap().contains("linear.weight"));
    }
}

#[test]
fn every_dialect_has_the_words_for_prompts_and_expansion() {
    let folder = TempDir::new().unwrap();
    let source = plain_encoder(&folder);
    let (_, options) = choices().into_iter().find(|(name, _)| name.contains("min")).unwrap();
    let [all, native] = ["all", "native"].map(|layout| folder.path().join(layout));
    written(&source, &options, ExportLayout::All, &all);
    written(&source, &options, ExportLayout::SentenceTransformers, &native);
    let prompts = json!({"query": "search_query: ", "document": "search_document: "});
    let expansion = json!({"strategy": "min", "attend": true, "token": null, "length": 12});
    let config = read(all.join("config_sentence_transformers.json"));
    for (key, value) in [
        ("model_type", json!("ColBERT")),
        ("prompts", prompts.clone()),
        ("query_prefix", json!("")),
        ("document_prefix", json!("")),
        ("query_length", json!(16)),
        ("query_expansion", expansion.clone()),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
    assert_eq!(read(all.join("artifact.metadata"))["query_token_id"], "");
    assert_eq!(read(all.join("sentence_bert_config.json"))["max_seq_length"], 24, "no marker takes a place");

    let config = read(native.join("config_sentence_transformers.json"));
    assert_eq!((&config["model_type"], &config["prompts"]), (&json!("MultiVectorEncoder"), &prompts));
    assert!(config.get("query_prefix").is_none() && config.get("query_length").is_none());
    let lengths = read(native.join("sentence_bert_config.json"));
    assert_eq!((&lengths["query_expansion"], &lengths["document_length"]), (&expansion, &json!(24)));
    let classes: Vec<String> = read(native.join("modules.json"))
        .as_array()
        .unwrap()
        .iter()
        .map(|module| module["type"].as_str().unwrap().rsplit('.').next().unwrap().to_owned())
        .collect();
    assert_eq!(classes, ["Transformer", "Dense", "Normalize", "MultiVectorMask"]);
    let mask = read(native.join("3_MultiVectorMask/config.json"));
    assert_eq!((mask["skiplist_words"].as_array().unwrap().len(), &mask["skiplist_tasks"]), (32, &json!(["document"])));
    // A marker is the beginning of the prompt there.
    let marked = folder.path().join("marked");
    written(&source, &base(), ExportLayout::SentenceTransformers, &marked);
    let config = read(marked.join("config_sentence_transformers.json"));
    assert_eq!(config["prompts"], json!({"query": "[unused0]", "document": "[unused1]"}));
}

#[test]
fn a_marker_that_the_vocabulary_lacks_is_a_new_token_with_a_row_of_its_own() {
    let folder = TempDir::new().unwrap();
    let source = plain_encoder(&folder);
    let options = TrainOptions { query_token_id: text("[Q] "), doc_token_id: text(""), ..base() };
    let pretrained = Pretrained::read_for(&source, &options).unwrap();
    let rows = Pretrained::read(&source).unwrap().config.vocab_size();
    assert_eq!(pretrained.config.vocab_size(), rows + 1);
    let (_, report) = pretrained.model::<B>(&pretrained.settings(&options), None, 0, &device()).unwrap();
    assert!(report.initialised.contains(&"embeddings of [Q] ".to_owned()), "{report:?}");
    let path = folder.path().join("exported");
    written(&source, &options, ExportLayout::All, &path);
    let again = Pretrained::read(&path).unwrap();
    // transformers 5 takes the added tokens from there and not from tokenizer.json.
    let listed = &read(path.join("tokenizer_config.json"))["added_tokens_decoder"][rows.to_string()];
    assert_eq!((&listed["content"], &listed["special"]), (&json!("[Q] "), &json!(true)));
    assert_eq!((again.config.vocab_size(), again.declared.query_token_id.as_deref()), (rows + 1, Some("[Q] ")));
    // RoBERTa's vocabulary has no [unused0], and needs none where no marker is wanted.
    let none = TrainOptions { query_token_id: text(""), doc_token_id: text(""), ..base() };
    let roberta = fixture("roberta");
    let [with, without] = [&base(), &none].map(|options| Pretrained::read_for(&roberta, options).unwrap().config);
    assert!(with.vocab_size() > without.vocab_size());
}

#[test]
fn a_model_hands_its_prompts_down_unless_an_option_says_otherwise() {
    let folder = TempDir::new().unwrap();
    let source = plain_encoder(&folder);
    let (_, options) = choices().into_iter().find(|(name, _)| name.contains("min")).unwrap();
    let path = folder.path().join("parent");
    let parent = written(&source, &options, ExportLayout::All, &path);
    let pretrained = Pretrained::read(&path).unwrap();
    let silent = pretrained.settings(&base());
    assert_eq!((&silent.query_prompt, silent.query_expansion_length), (&parent.query_prompt, Some(12)));
    let set = TrainOptions {
        query_prompt: text(""),
        query_token_id: text("[unused0]"),
        query_expansion_length: Some(10),
        ..base()
    };
    let set = pretrained.settings(&set);
    assert_eq!((set.query_prompt.as_str(), set.query_token_id.as_str()), ("", "[unused0]"));
    assert_eq!((set.query_expansion_length, &set.document_prompt), (Some(10), &parent.document_prompt));
}

#[test]
fn what_cannot_be_written_is_refused_before_training() {
    let folder = TempDir::new().unwrap();
    let source = plain_encoder(&folder);
    let refused = |options: &TrainOptions, change: &dyn Fn(&mut ColbertSettings), layout| {
        let pretrained = Pretrained::read_for(&source, options).unwrap();
        let mut settings = pretrained.settings(options);
        change(&mut settings);
        pretrained.check_layout(&settings, layout)
    };
    let masked = |settings: &mut ColbertSettings| settings.mask_query_punctuation = true;
    let error = refused(&base(), &masked, ExportLayout::All).unwrap_err();
    assert!(error.to_string().contains("export_layout = \"sentence-transformers\""), "{error}");
    refused(&base(), &masked, ExportLayout::SentenceTransformers).unwrap();
    // A program that reads the directory would cut a marker that is a word out of other words.
    let word = TrainOptions { query_token_id: text("a"), ..base() };
    let error = refused(&word, &|_| (), ExportLayout::All).unwrap_err();
    assert!(matches!(error, ModelError::ExportTokens { .. }), "{error}");
    // A prompt that leaves no room for the text.
    let long = TrainOptions { query_prompt: text("the way over the moor to the tor and back again: "), ..base() };
    let error = Pretrained::read(&source).unwrap();
    let error = error.tokenizer(&error.settings(&TrainOptions { query_maxlen: 10, ..long })).unwrap_err();
    assert!(matches!(error, ModelError::LengthOutOfRange { option: "query_maxlen", found: 10, .. }), "{error}");
}

#[test]
fn a_graph_for_next_plaid_needs_a_marker_on_each_side() {
    let folder = TempDir::new().unwrap();
    let source = plain_encoder(&folder);
    let options = TrainOptions { doc_token_id: text(""), ..base() };
    let path = folder.path().join("unmarked");
    written(&source, &options, ExportLayout::All, &path);
    let error = write_onnx(&path, ExportDtype::F32).unwrap_err().to_string();
    assert!(error.contains("next-plaid") && error.contains("train.doc_token_id"), "{error}");
    assert!(!path.join("model.onnx").exists());
}

#[test]
fn lengths_may_be_the_models_own() {
    assert_eq!(Pretrained::read(&parity("tiny")).unwrap().max_length(), 512);
    let roberta = Pretrained::read(&fixture("roberta")).unwrap();
    let longest = roberta.max_length();
    let settings = ColbertSettings { doc_maxlen: longest, ..roberta.settings(&base()) };
    roberta.tokenizer(&settings).unwrap();
    assert!(roberta.tokenizer(&ColbertSettings { doc_maxlen: longest + 1, ..settings }).is_err());
}

//! Every encoder family against transformers on a tiny random model of it. The fixtures and the script that made them are
//! in `tests/families`.

use std::fs;
use std::path::Path;

use colbert_config::{ArtifactMetadata, ExportDtype, ExportLayout, TrainOptions, resolve};
use colbert_model::{
    Colbert, ColbertSettings, EncodeOptions, Encoder, EncoderInput, Export, Pretrained, PretrainedEncoder, SelfCheck,
    TokenSequence, Weights, maxsim, named_parameters,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{B, copied, device, expected, fixture, largest_difference, strings};

pub(crate) const FAMILIES: [&str; 14] = [
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

/// Families whose vocabularies have no unused tokens, so that the markers are added.
const WITHOUT_UNUSED: [&str; 8] =
    ["roberta", "xlm-roberta", "mmbert", "eurobert", "qwen3", "qwen3-both", "mpnet", "deberta-v2"];

/// Families whose vocabularies are WordPiece.
const WORD_PIECE: [&str; 6] = ["distilbert", "electra", "nomic_bert", "nomic_bert-5", "gte", "mpnet"];

/// Spread of float32 arithmetic over two to four layers, with a margin.
pub(crate) const TOLERANCE: f32 = 1e-5;

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// The token sequences that transformers got.
pub(crate) fn recorded_sequences(expected: &Value) -> Vec<TokenSequence> {
    let sequence = |sequence: &Value| {
        let ids = ids(&sequence["ids"]);
        let attended = sequence["attended"].as_u64().unwrap() as usize;
        TokenSequence { attended, scored: vec![true; ids.len()], ids }
    };
    expected["sequences"].as_array().unwrap().iter().map(sequence).collect()
}

pub(crate) fn settings(query_maxlen: usize, doc_maxlen: usize) -> ColbertSettings {
    ColbertSettings { dim: 16, query_maxlen, doc_maxlen, ..ColbertSettings::default() }
}

/// Settings of a run with these lengths.
pub(crate) fn settings_of(pretrained: &Pretrained, query_maxlen: usize, doc_maxlen: usize) -> ColbertSettings {
    pretrained.settings(&TrainOptions { dim: 16, query_maxlen, doc_maxlen, ..TrainOptions::default() })
}

#[test]
fn hidden_states_are_those_of_transformers() {
    for family in FAMILIES {
        let expected = expected(family);
        let mut hidden = Weights::read(&fixture(family).join("expected.safetensors")).unwrap();
        let pretrained = Pretrained::read(&fixture(family)).unwrap();
        let (model, report) = pretrained.model::<B>(&settings(16, 40), None, 0, &device()).unwrap();
        assert!(report.ignored.is_empty(), "{family}: {:?}", report.ignored);
        let sequences = recorded_sequences(&expected);
        let found = model.encoder.forward(&EncoderInput::new(&sequences, EncodeOptions::default()), &device());
        let mut start = 0;
        for (i, sequence) in sequences.iter().enumerate() {
            let length = sequence.len();
            // Beyond the window of the last attended token the result is undefined in transformers; ours is zero.
            let defined =
                if matches!(family, "modernbert" | "mmbert") { length.min(sequence.attended + 6) } else { length };
            let name = format!("hidden.{i}");
            let expected = hidden.take(&name, &[length, 32]).unwrap();
            let own = found.clone().narrow(0, start, defined).into_data().to_vec::<f32>().unwrap();
            let difference = largest_difference(&own, &expected.values[..defined * 32]);
            assert!(difference < TOLERANCE, "{family}, sequence {i}: {difference}");
            start += length;
        }
    }
}

#[test]
fn tokens_are_those_of_transformers_with_a_marker_behind_the_first() {
    for family in FAMILIES {
        let expected = expected(family);
        let length = |key: &str| expected[key].as_u64().unwrap() as usize;
        let pretrained = Pretrained::read(&fixture(family)).unwrap();
        let settings = settings_of(&pretrained, length("query_length"), length("document_length"));
        let tokenizer = pretrained.tokenizer(&settings).unwrap();
        let vocabulary = expected["vocabulary"].as_u64().unwrap() as u32;
        let (Some(query_marker), Some(doc_marker)) = tokenizer.marker_ids() else { panic!("{family} has markers") };
        match WITHOUT_UNUSED.contains(&family) {
            true => assert_eq!((query_marker, doc_marker), (vocabulary, vocabulary + 1), "{family}"),
            false => assert!(query_marker < vocabulary && doc_marker < vocabulary, "{family} has unused tokens"),
        }
        let texts = strings(&expected["texts"]);
        let marked = |ids: &[u32], marker: u32| [&ids[..1], &[marker], &ids[1..]].concat();
        for (i, text) in texts.iter().enumerate() {
            let query = tokenizer.queries(&[text]).unwrap().remove(0);
            let document = tokenizer.documents(&[text]).unwrap().remove(0);
            let real = marked(&ids(&expected["queries"][i]), query_marker);
            assert_eq!(query.ids[..real.len()], real, "{family}: {text:?}");
            // Qwen3 has no mask that a query could be filled up with.
            let full = if matches!(family, "qwen3" | "qwen3-both") { real.len() } else { settings.query_maxlen };
            assert_eq!((query.len(), query.attended), (full, real.len()), "{family}: {text:?}");
            assert!(query.ids[real.len()..].windows(2).all(|pair| pair[0] == pair[1]), "{family}: one mask token");
            assert_eq!(document.ids, marked(&ids(&expected["documents"][i]), doc_marker), "{family}: {text:?}");
        }
    }
}

/// Defect 30 of the list in `docs/parity.md`: a symbol is skipped at the start of a text, within a word and after a
/// space.
#[test]
fn defect_30_punctuation_is_skipped_wherever_it_stands() {
    for family in FAMILIES {
        let expected = expected(family);
        let pretrained = Pretrained::read(&fixture(family)).unwrap();
        let skiplist = pretrained.tokenizer(&settings_of(&pretrained, 16, 40)).unwrap().skiplist();
        let json: Value =
            serde_json::from_str(&fs::read_to_string(fixture(family).join("tokenizer.json")).unwrap()).unwrap();
        let unknown = json["model"]["unk_id"].as_u64().map(|id| id as u32);
        let mut seen = 0;
        for (symbol, places) in expected["symbols"].as_object().unwrap() {
            for place in places.as_array().unwrap() {
                let last = *ids(place).last().unwrap();
                if Some(last) != unknown {
                    assert!(skiplist.contains(&last), "{family}: {symbol} as {last}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 20, "{family}: {seen} symbols are in the vocabulary");
        let words = ids(&expected["documents"][0]);
        let scored = words.iter().filter(|id| !skiplist.contains(id)).count();
        assert!(scored > words.len() / 2, "{family}: words are scored");
    }
}

fn exported(family: &str, path: &Path) -> (Pretrained, ColbertSettings) {
    let options = TrainOptions { dim: 16, query_maxlen: 16, doc_maxlen: 40, ..TrainOptions::default() };
    let pretrained = Pretrained::read(&fixture(family)).unwrap();
    let settings = pretrained.settings(&options);
    let (model, _) = pretrained.model::<B>(&settings, None, 3, &device()).unwrap();
    let tensors: Vec<_> =
        named_parameters(&model).into_iter().map(|(name, tensor)| (model.tensor_name(&name), tensor)).collect();
    let plan = resolve(&options, 320).unwrap();
    let metadata = ArtifactMetadata::from_training(&options, &plan, "tiny");
    let all = Export {
        tensors: &tensors,
        settings: &settings,
        files: &pretrained.files,
        metadata: &metadata,
        layout: ExportLayout::All,
        dtype: ExportDtype::F32,
        onnx: false,
        own_encoder: None,
        extra: &[],
    };
    all.write::<B>(path, false, &device()).unwrap();
    (pretrained, settings)
}

#[test]
fn every_family_is_exported_and_loaded_again() {
    for family in FAMILIES {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("exported");
        let (pretrained, settings) = exported(family, &path);
        let (model, report) = pretrained.model::<B>(&settings, None, 3, &device()).unwrap();
        let again = Pretrained::read(&path).unwrap();
        assert_eq!(
            again.declared_settings().unwrap(),
            ColbertSettings { skiplist_words: again.declared.skiplist_words.clone(), ..settings.clone() }
        );
        let declared = again.declared_settings().unwrap();
        let (loaded, nothing) = again.model::<B>(&declared, None, 99, &device()).unwrap();
        assert!(nothing.initialised.is_empty() && nothing.ignored.is_empty(), "{family}: {nothing:?}");
        let drawn = WITHOUT_UNUSED.contains(&family);
        assert_eq!(report.initialised.len(), 1 + usize::from(drawn), "{family}: {:?}", report.initialised);
        let texts = strings(&expected(family)["texts"]);
        let score = |model: &Colbert<B, PretrainedEncoder<B>>, pretrained: &Pretrained, settings| {
            let tokenizer = pretrained.tokenizer(settings).unwrap();
            let queries = model.encode(&tokenizer.queries(&texts).unwrap(), &device());
            let documents = model.encode(&tokenizer.documents(&texts).unwrap(), &device());
            maxsim(&queries, &documents).into_data().to_vec::<f32>().unwrap()
        };
        let (before, after) = (score(&model, &pretrained, &settings), score(&loaded, &again, &declared));
        assert_eq!(before, after, "{family}");
        assert_eq!(SelfCheck::replay::<B>(&path, &device()).unwrap(), 0.0, "{family}");
        let config: Value = serde_json::from_str(&fs::read_to_string(path.join("config.json")).unwrap()).unwrap();
        assert!(config["architectures"][0].as_str().unwrap().ends_with("Model"), "{family}: {config}");
        let special: Value =
            serde_json::from_str(&fs::read_to_string(path.join("special_tokens_map.json")).unwrap()).unwrap();
        let tokenizer: Value =
            serde_json::from_str(&fs::read_to_string(path.join("tokenizer_config.json")).unwrap()).unwrap();
        let inputs = serde_json::json!(["input_ids", "attention_mask"]);
        let with_types = matches!(family, "electra" | "nomic_bert" | "nomic_bert-5" | "gte");
        assert_eq!(tokenizer["model_input_names"] == inputs, !with_types, "{family}: {tokenizer}");
        assert_ne!(tokenizer["tokenizer_class"], "TokenizersBackend", "{family}: transformers 4 does not know it");
        let mask = match family {
            "roberta" | "xlm-roberta" | "mmbert" | "mpnet" => Some("<mask>"),
            "eurobert" => Some("<|mask|>"),
            "qwen3" | "qwen3-both" => None,
            _ => Some("[MASK]"),
        };
        assert_eq!(special.get("mask_token").and_then(Value::as_str), mask, "{family}");
        assert_eq!(tokenizer.get("mask_token").and_then(Value::as_str), mask, "{family}");
        assert_eq!(path.join("vocab.txt").exists(), WORD_PIECE.contains(&family), "{family}");
    }
}

fn copy_with(family: &str, folder: &TempDir, change: impl FnOnce(&mut Value)) -> std::path::PathBuf {
    let path = copied(&fixture(family), folder);
    let file = path.join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    change(&mut config);
    fs::write(&file, config.to_string()).unwrap();
    path
}

fn hidden(path: &Path, sequences: &[TokenSequence]) -> Vec<f32> {
    let pretrained = Pretrained::read(path).unwrap();
    let (model, _) = pretrained.model::<B>(&settings(16, 40), None, 0, &device()).unwrap();
    let input = EncoderInput::new(sequences, EncodeOptions::default());
    model.encoder.forward(&input, &device()).into_data().to_vec().unwrap()
}

fn sequence(ids: &[u32]) -> TokenSequence {
    TokenSequence { ids: ids.to_vec(), attended: ids.len(), scored: vec![true; ids.len()] }
}

/// The keys of Nomic's own model code give the same model as those of transformers, and an export has both.
#[test]
fn nomics_own_configuration_is_read() {
    let sequences = [sequence(&[4, 9, 30, 31, 5])];
    let expected = hidden(&fixture("nomic_bert"), &sequences);
    let folder = TempDir::new().unwrap();
    let own = |config: &mut Value| {
        let old = config.as_object().unwrap().clone();
        *config = serde_json::json!({
            "model_type": "nomic_bert", "vocab_size": old["vocab_size"], "n_embd": 32, "n_layer": 2, "n_head": 2, "n_inner": 64,
            "n_positions": 64, "layer_norm_epsilon": 1e-12, "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0,
            "activation_function": "swiglu", "prenorm": false, "type_vocab_size": 2, "num_experts": 0,
        });
    };
    assert_eq!(hidden(&copy_with("nomic_bert", &folder, own), &sequences), expected);
    for (field, value) in [
        ("num_experts", serde_json::json!(8)),
        ("moe_every_n_layers", serde_json::json!(2)),
        ("activation_function", serde_json::json!("gelu")),
        ("prenorm", serde_json::json!(true)),
        ("rotary_emb_fraction", serde_json::json!(0.5)),
        ("qkv_proj_bias", serde_json::json!(true)),
    ] {
        let folder = TempDir::new().unwrap();
        let path = copy_with("nomic_bert", &folder, |config| config[field] = value.clone());
        let error = Pretrained::read(&path).unwrap_err().to_string();
        assert!(error.contains(field), "{field}: {error}");
    }
}

/// GTE's fixed scaling of angles, against its formula: base times factor, frequencies over factor^(2 / head size).
#[test]
fn scaled_angles_of_gte_are_those_of_its_model_code() {
    let ids: Vec<u32> = (7..40).collect();
    let sequences = [sequence(&ids)];
    let with = |theta: f64, scaling: Value| {
        let folder = TempDir::new().unwrap();
        let path = copy_with("gte", &folder, |config| {
            config["model_type"] = "new".into();
            config.as_object_mut().unwrap().remove("rope_parameters");
            config["rope_theta"] = theta.into();
            config["rope_scaling"] = scaling;
        });
        hidden(&path, &sequences)
    };
    let scaled = with(500.0, serde_json::json!({"type": "ntk", "factor": 4.0}));
    // Heads have 16 numbers. A base of 500 * 4, and all frequencies over 4^(1 / 8): no base alone gives that.
    let unscaled = with(2000.0, Value::Null);
    assert!(largest_difference(&scaled, &unscaled) > 1e-3);
    assert_eq!(with(2000.0, serde_json::json!({"type": "ntk", "factor": 1.0})), unscaled);
    let folder = TempDir::new().unwrap();
    let path = copy_with("gte", &folder, |config| config["rope_scaling"] = serde_json::json!({"type": "yarn"}));
    let error = Pretrained::read(&path).unwrap_err().to_string();
    assert!(error.contains("rope_scaling"), "{error}");
}

/// Qwen3 is causal unless its configuration says otherwise; EuroBERT attends to both sides.
#[test]
fn a_causal_encoder_does_not_see_what_follows() {
    let first = |path: &Path, ids: &[u32]| hidden(path, &[sequence(ids)])[..3 * 32].to_vec();
    let (short, long) = ([40, 41, 42], [40, 41, 42, 43, 44]);
    let apart = |path: &Path| largest_difference(&first(path, &short), &first(path, &long));
    assert!(apart(&fixture("qwen3")) < 1e-6);
    assert!(apart(&fixture("eurobert")) > 1e-3);
    assert!(apart(&fixture("qwen3-both")) > 1e-3);
    let folder = TempDir::new().unwrap();
    let path = copy_with("qwen3", &folder, |config| config["use_sliding_window"] = true.into());
    assert!(Pretrained::read(&path).unwrap_err().to_string().contains("use_sliding_window"));
}

/// transformers 4 reads other keys than transformers 5 writes; without them it would take its defaults.
#[test]
fn an_export_has_the_keys_of_older_and_newer_transformers() {
    for (family, keys) in [
        ("mmbert", [("global_rope_theta", 160_000.0), ("local_rope_theta", 160_000.0)]),
        ("eurobert", [("rope_theta", 250_000.0), ("head_dim", 8.0)]),
        ("qwen3", [("rope_theta", 1_000_000.0), ("head_dim", 16.0)]),
    ] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("exported");
        exported(family, &path);
        let config: Value = serde_json::from_str(&fs::read_to_string(path.join("config.json")).unwrap()).unwrap();
        for (key, value) in keys {
            assert_eq!(config[key].as_f64(), Some(value), "{family}: {key} of {config}");
        }
    }
}

/// Defect 29: vocabularies without unused tokens get markers of their own, and each has an embedding of its own.
#[test]
fn defect_29_markers_that_a_vocabulary_lacks_are_added() {
    let pretrained = Pretrained::read(&fixture("roberta")).unwrap();
    let vocabulary = expected("roberta")["vocabulary"].as_u64().unwrap() as usize;
    assert_eq!(pretrained.config.vocab_size(), vocabulary + 2);
    let (model, report) = pretrained.model::<B>(&settings(16, 40), None, 0, &device()).unwrap();
    assert_eq!(report.initialised, ["linear.weight", "embeddings of [unused0] and [unused1]"]);
    let parameters = named_parameters(&model);
    let table = parameters.iter().find(|(name, _)| name == "encoder.embeddings.word_embeddings.weight").unwrap();
    assert_eq!(table.1.shape, [vocabulary + 2, 32]);
    let rows: Vec<&[f32]> = table.1.values.chunks(32).collect();
    assert_ne!(rows[vocabulary], rows[vocabulary + 1]);
    let deviation = (rows[vocabulary].iter().map(|x| x * x).sum::<f32>() / 32.0).sqrt();
    assert!((0.01..0.04).contains(&deviation), "{deviation}");
}

/// A ModernBERT query whose expansion reaches beyond the window: tokens far after the text have vectors that are
/// defined, finite, and the same however long the expansion is.
#[test]
fn masks_beyond_the_window_are_defined() {
    let pretrained = Pretrained::read(&fixture("modernbert")).unwrap();
    let (model, _) = pretrained.model::<B>(&settings(16, 40), None, 0, &device()).unwrap();
    let encode = |length: usize| {
        let tokenizer = pretrained.tokenizer(&settings(length, 40)).unwrap();
        let query = tokenizer.queries(&["a fen"]).unwrap();
        model.encode(&query, &device()).vectors.into_data().to_vec::<f32>().unwrap()
    };
    let (short, long) = (encode(30), encode(40));
    assert!(long.iter().all(|value| value.is_finite()));
    assert!(largest_difference(&short, &long[..short.len()]) < 1e-6);
}

/// A field of DeBERTa's configuration that requires an unsupported computation is refused by its name.
#[test]
fn what_of_deberta_is_not_computed_is_refused() {
    for (field, value) in [
        ("conv_kernel_size", serde_json::json!(3)),
        ("share_att_key", serde_json::json!(false)),
        ("relative_attention", serde_json::json!(false)),
        ("embedding_size", serde_json::json!(16)),
        ("attention_head_size", serde_json::json!(64)),
        ("pos_att_type", serde_json::json!("p2c|p2p")),
        ("position_buckets", serde_json::json!(2)),
        ("max_relative_positions", serde_json::json!(5)),
    ] {
        let folder = TempDir::new().unwrap();
        let path = copy_with("deberta-v2", &folder, |config| config[field] = value.clone());
        let error = Pretrained::read(&path).unwrap_err().to_string();
        assert!(error.contains(field), "{field}: {error}");
    }
}

/// If a tokenizer puts nothing before a text, the marker follows the text's first token, as in PyLate;
/// sentence-transformers would put it first.
#[test]
fn a_marker_behind_the_first_token_of_a_text_is_not_written_for_sentence_transformers() {
    for family in FAMILIES {
        let pretrained = Pretrained::read(&fixture(family)).unwrap();
        let settings = settings_of(&pretrained, 16, 40);
        let begins = !matches!(family, "qwen3" | "qwen3-both");
        assert_eq!(pretrained.tokenizer(&settings).unwrap().begins_texts(), begins, "{family}");
        let checked = pretrained.check_layout(&settings, ExportLayout::SentenceTransformers);
        match checked {
            Ok(()) => assert!(begins, "{family}"),
            Err(error) => assert!(!begins && error.to_string().contains("query_token_id"), "{family}: {error}"),
        }
        let bare = ColbertSettings {
            query_token_id: String::new(),
            doc_token_id: String::new(),
            query_prompt: "query: ".to_owned(),
            document_prompt: "passage: ".to_owned(),
            ..settings
        };
        pretrained.check_layout(&bare, ExportLayout::SentenceTransformers).unwrap();
    }
}

//! Vocabularies and tokenizer files as people have them.

use std::fs;
use std::path::Path;

use colbert_model::{Pretrained, Weights, safetensors_bytes};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::field::{change, query_ids, read, refused};
use crate::support::{copied, fixture, parity, plain_encoder, strings};

#[test]
fn old_vocabulary_files_make_the_tokenizer_that_transformers_makes() {
    let text = "A tor is a Rocky hill, isn't it?  Où?";
    let folder = TempDir::new().unwrap();
    let path = copied(&parity("tiny"), &folder);
    let expected = query_ids(&path, text);
    fs::remove_file(path.join("tokenizer.json")).unwrap();
    assert_eq!(query_ids(&path, text), expected, "vocab.txt");

    let folder = TempDir::new().unwrap();
    let path = copied(&fixture("roberta"), &folder);
    let expected = query_ids(&path, text);
    let tokenizer = read(&path.join("tokenizer.json"));
    let merges: Vec<String> = tokenizer["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|merge| match merge {
            Value::String(merge) => merge.clone(),
            pair => strings(pair).join(" "),
        })
        .collect();
    fs::write(path.join("merges.txt"), format!("#version: 0.2\n{}\n", merges.join("\n"))).unwrap();
    let mut vocab = tokenizer["model"]["vocab"].clone();
    for token in tokenizer["added_tokens"].as_array().unwrap() {
        vocab[token["content"].as_str().unwrap()] = token["id"].clone();
    }
    fs::write(path.join("vocab.json"), vocab.to_string()).unwrap();
    fs::remove_file(path.join("tokenizer.json")).unwrap();
    assert_eq!(query_ids(&path, text), expected, "vocab.json and merges.txt");

    fs::remove_file(path.join("merges.txt")).unwrap();
    let error = refused(&path);
    assert!(error.contains("tokenizer.json is missing") && error.contains("save_pretrained"), "{error}");
}

/// Vocabularies whose special tokens have other names: Gemma's (so mmBERT's), and names that no list has.
#[test]
fn special_tokens_are_those_of_the_tokenizer() {
    for (names, declared) in [
        ([("[MASK]", "<mask>"), ("[CLS]", "<bos>"), ("[SEP]", "<eos>"), ("[PAD]", "<pad>"), ("[UNK]", "<unk>")], false),
        (
            [
                ("[MASK]", "<|mask|>"),
                ("[CLS]", "<|begin|>"),
                ("[SEP]", "<|stop|>"),
                ("[PAD]", "<|pad|>"),
                ("[UNK]", "<unk>"),
            ],
            false,
        ),
        (
            [("[MASK]", "[MSK]"), ("[CLS]", "[BEGIN]"), ("[SEP]", "[STOP]"), ("[PAD]", "[PAD]"), ("[UNK]", "[UNK]")],
            false,
        ),
        ([("[MASK]", "~blank~"), ("[CLS]", "~a~"), ("[SEP]", "~z~"), ("[PAD]", "~void~"), ("[UNK]", "~odd~")], true),
    ] {
        let folder = TempDir::new().unwrap();
        let path = copied(&parity("tiny"), &folder);
        let expected = query_ids(&path, "a tor is xyzzyq");
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            let mut text = fs::read_to_string(path.join(file)).unwrap();
            for (usual, other) in names {
                text = text.replace(&format!("\"{usual}\""), &format!("\"{other}\""));
            }
            fs::write(path.join(file), text).unwrap();
        }
        if !declared {
            // Only tokenizer.json names the tokens.
            change(&path.join("tokenizer_config.json"), |json| {
                for key in ["mask_token", "cls_token", "sep_token", "pad_token", "unk_token"] {
                    json.as_object_mut().unwrap().remove(key);
                }
            });
        }
        assert_eq!(query_ids(&path, "a tor is xyzzyq"), expected, "{names:?}");
    }
}

#[test]
fn a_tokenizer_that_puts_nothing_around_a_text_is_repaired_or_refused() {
    let folder = TempDir::new().unwrap();
    let path = plain_encoder(&folder);
    let expected = query_ids(&path, "a tor");
    change(&path.join("tokenizer.json"), |json| json["post_processor"] = Value::Null);
    assert_eq!(query_ids(&path, "a tor"), expected);
    let read = Pretrained::read(&path).unwrap();
    assert_eq!(read.files.tokenizer["post_processor"]["type"], "TemplateProcessing", "an export has it too");

    // Only the beginning is there, as for a decoder.
    change(&path.join("tokenizer.json"), |json| {
        let cls = json["model"]["vocab"]["[CLS]"].clone();
        json["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [cls], "tokens": ["[CLS]"]}},
        });
    });
    assert_eq!(query_ids(&path, "a tor"), expected);

    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let text = fs::read_to_string(path.join(file)).unwrap().replace("[SEP]", "the end");
        fs::write(path.join(file), text).unwrap();
    }
    change(&path.join("tokenizer_config.json"), |json| json["sep_token"] = Value::Null);
    let error = refused(&path);
    assert!(error.contains("[SEP]") && error.contains("the end of a text"), "{error}");
}

/// Other programs computed its vectors without [CLS] and [SEP]: with them the vectors would differ, and training needs
/// both.
#[test]
fn a_colbert_that_was_trained_without_tokens_around_its_texts_is_refused() {
    for colbert in ["linear.weight in the root file", "PyLate"] {
        let folder = TempDir::new().unwrap();
        let source = if colbert == "PyLate" { fixture("pylate") } else { parity("tiny") };
        let path = copied(&source, &folder);
        Pretrained::read(&path).unwrap();
        change(&path.join("tokenizer.json"), |json| json["post_processor"] = Value::Null);
        let error = refused(&path);
        for part in ["tokenizer.json", "[CLS] and [SEP]", "post-processor", "plain encoder"] {
            assert!(error.contains(part), "{colbert}: {error}");
        }
    }
}

/// As transformers reads them: `added_tokens.json` and special tokens of old layouts, `added_tokens_decoder` of newer
/// ones.
#[test]
fn tokens_that_files_beside_the_vocabulary_add_are_honoured() {
    let text = "a [Q] tor [unused2] and tor-x";
    let vocabulary = Pretrained::read(&parity("tiny")).unwrap().config.vocab_size() as u64;
    let ids = |files: &[(&str, Value)], rows: u64, old: bool| {
        let folder = TempDir::new().unwrap();
        let path = copied(&parity("tiny"), &folder);
        if old {
            fs::remove_file(path.join("tokenizer.json")).unwrap();
        }
        // As in older directories; a newer one has its list there, and only that counts.
        change(&path.join("tokenizer_config.json"), |json| {
            json.as_object_mut().unwrap().remove("added_tokens_decoder");
        });
        for (file, json) in files {
            fs::write(path.join(file), json.to_string()).unwrap();
        }
        let mut weights = Weights::read(&path.join("model.safetensors")).unwrap();
        let mut tensors = Vec::new();
        for name in weights.names().map(str::to_owned).collect::<Vec<_>>() {
            let shape = weights.shape(&name).unwrap().to_vec();
            let mut tensor = weights.take(&name, &shape).unwrap();
            if name.ends_with("word_embeddings.weight") {
                tensor.shape[0] += rows as usize;
                tensor.values.extend(std::iter::repeat_n(0.5, rows as usize * shape[1]));
            }
            tensors.push((name, tensor));
        }
        fs::write(path.join("model.safetensors"), safetensors_bytes(&tensors).unwrap()).unwrap();
        change(&path.join("config.json"), |json| json["vocab_size"] = json!(vocabulary + rows));
        Pretrained::read(&path).map(|_| query_ids(&path, text)).map_err(|error| error.to_string())
    };
    let one = |id: u64, ids: &[u32]| ids.iter().filter(|own| u64::from(**own) == id).count();
    let plain = ids(&[], 0, true).unwrap();
    let added = ("added_tokens.json", json!({"[Q]": vocabulary, "tor-x": vocabulary + 1}));
    for old in [true, false] {
        let found = ids(std::slice::from_ref(&added), 2, old).unwrap();
        assert_eq!((one(vocabulary, &found), one(vocabulary + 1, &found)), (1, 1), "{found:?}");
        let newer = json!({"do_lower_case": true, "added_tokens_decoder": {
            vocabulary.to_string(): {"content": "[Q]", "lstrip": false, "rstrip": false, "normalized": false, "special": true}
        }});
        let found = ids(&[("tokenizer_config.json", newer), added.clone()], 2, old).unwrap();
        assert_eq!((one(vocabulary, &found), one(vocabulary + 1, &found)), (1, 0), "its list counts alone");
    }
    // An entry of the vocabulary that a file calls special is one token, wherever it stands.
    let special =
        ("special_tokens_map.json", json!({"additional_special_tokens": ["[unused2]", {"content": "[no such]"}]}));
    let found = ids(&[special], 0, true).unwrap();
    assert_ne!(found, plain);
    let unused = Pretrained::read(&parity("tiny")).unwrap();
    let unused = unused.files.tokenizer["model"]["vocab"]["[unused2]"].as_u64();
    assert_eq!(one(unused.unwrap(), &found), 1);
    for (file, json) in [
        ("added_tokens.json", json!({"[Q]": vocabulary + 1})),
        ("added_tokens.json", json!({"[Q]": "first"})),
        ("tokenizer_config.json", json!({"added_tokens_decoder": {"x": {"content": "[Q]"}}})),
    ] {
        let error = ids(&[(file, json.clone())], 2, true).unwrap_err();
        assert!(error.contains("added") && error.contains("expected"), "{json}: {error}");
    }
}

/// transformers sets BERT's normalizer by `tokenizer_config.json`, whatever `tokenizer.json` says: so do we, and the
/// exported files agree.
#[test]
fn the_case_of_letters_follows_tokenizer_config_as_in_transformers() {
    let text = "A Tor";
    let folder = TempDir::new().unwrap();
    let path = copied(&parity("tiny"), &folder);
    let lower = query_ids(&path, text);
    change(&path.join("tokenizer_config.json"), |json| json["do_lower_case"] = json!(false));
    let cased = query_ids(&path, text);
    assert_ne!(cased, lower, "the vocabulary has no capital letters");
    // Not declared: transformers' default is lower case.
    change(&path.join("tokenizer_config.json"), |json| drop(json.as_object_mut().unwrap().remove("do_lower_case")));
    change(&path.join("tokenizer.json"), |json| json["normalizer"]["lowercase"] = json!(false));
    assert_eq!(query_ids(&path, text), lower);
    // A general class of transformers leaves tokenizer.json as it is.
    change(&path.join("tokenizer_config.json"), |json| json["tokenizer_class"] = json!("PreTrainedTokenizerFast"));
    assert_eq!(query_ids(&path, text), cased);
}

/// sentence-transformers puts lower case before a normalizer that does not do it.
#[test]
fn lower_case_of_sentence_bert_config_is_honoured() {
    let text = "A Tor";
    let folder = TempDir::new().unwrap();
    let path = copied(&parity("tiny"), &folder);
    let lower = query_ids(&path, text);
    change(&path.join("tokenizer_config.json"), |json| json["do_lower_case"] = json!(false));
    let cased = query_ids(&path, text);
    fs::write(path.join("sentence_bert_config.json"), json!({"do_lower_case": true}).to_string()).unwrap();
    assert_eq!(query_ids(&path, text), lower);
    fs::write(path.join("sentence_bert_config.json"), json!({"do_lower_case": false}).to_string()).unwrap();
    assert_eq!(query_ids(&path, text), cased);
}

/// In transformers 4.55 and 5.3 the mask token of such a directory is `[unused5]`.
#[test]
fn tokenizer_config_that_lists_added_tokens_goes_before_special_tokens_map() {
    let folder = TempDir::new().unwrap();
    let path = copied(&parity("tiny"), &folder);
    let mask = |path: &Path| *query_ids(path, "tor").last().unwrap();
    let usual = mask(&path);
    change(&path.join("tokenizer_config.json"), |json| json["mask_token"] = json!("[unused5]"));
    assert_ne!(mask(&path), usual);
    change(&path.join("tokenizer_config.json"), |json| {
        drop(json.as_object_mut().unwrap().remove("added_tokens_decoder"))
    });
    assert_eq!(mask(&path), usual);
}

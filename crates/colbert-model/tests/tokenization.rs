//! Every recorded tokenization case, identical: ids, attention masks, score masks, skiplist, markers.

use colbert_model::{ColbertSettings, ColbertTokenizer};
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::support::{json, parity, strings};

fn tokenizer(model: &str, settings: &ColbertSettings) -> ColbertTokenizer {
    let path = parity(model).join("tokenizer.json");
    ColbertTokenizer::new(Tokenizer::from_file(&path).unwrap(), settings, &path).unwrap()
}

fn ints(row: &Value) -> Vec<u32> {
    row.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

fn settings_of(case: &str) -> ColbertSettings {
    let mut settings = ColbertSettings::default();
    for (name, value) in case.split(',').filter_map(|part| part.split_once('=')) {
        match name {
            "query_maxlen" => settings.query_maxlen = value.parse().unwrap(),
            "doc_maxlen" => settings.doc_maxlen = value.parse().unwrap(),
            other => panic!("unknown setting {other} in the fixture"),
        }
    }
    settings
}

#[test]
fn every_recorded_case_is_identical() {
    let recorded = json("tokenization.json");
    let (queries, docs) = (strings(&recorded["queries"]), strings(&recorded["docs"]));
    let mut cases = 0;
    for (model, entry) in recorded["models"].as_object().unwrap() {
        for (case, expected) in entry.as_object().unwrap() {
            if case.starts_with("query_maxlen") {
                let settings = settings_of(case);
                let sequences = tokenizer(model, &settings).queries(&queries).unwrap();
                for (i, sequence) in sequences.iter().enumerate() {
                    let place = format!("{model} {case} query {i} {:?}", queries[i]);
                    assert_eq!(sequence.ids, ints(&expected["ids"][i]), "{place}");
                    let mask: Vec<u32> = (0..sequence.len()).map(|at| u32::from(at < sequence.attended)).collect();
                    assert_eq!(mask, ints(&expected["attention_mask"][i]), "{place}");
                    assert!(sequence.scored.iter().all(|scored| *scored), "{place}");
                }
                cases += sequences.len();
            } else if case.starts_with("doc_maxlen") {
                let sequences = tokenizer(model, &settings_of(case)).documents(&docs).unwrap();
                for (i, sequence) in sequences.iter().enumerate() {
                    let place = format!("{model} {case} document {i} {:?}", docs[i]);
                    assert_eq!(sequence.ids, ints(&expected["ids"][i]), "{place}");
                    assert_eq!(sequence.attended, sequence.len(), "{place}");
                    let scored: Vec<u32> = sequence.scored.iter().map(|s| u32::from(*s)).collect();
                    assert_eq!(scored, ints(&expected["score_mask"][i]), "{place}");
                }
                cases += sequences.len();
            }
        }
        let tokenizer = tokenizer(model, &ColbertSettings::default());
        assert_eq!(tokenizer.skiplist(), ints(&entry["skiplist_ids"]), "{model}");
        let markers = (entry["q_marker_id"].as_u64().unwrap() as u32, entry["d_marker_id"].as_u64().unwrap() as u32);
        assert_eq!(tokenizer.marker_ids(), (Some(markers.0), Some(markers.1)), "{model}");
    }
    assert_eq!(cases, 2 * (2 * 44 + 2 * 47), "the fixture lost cases");
}

/// colbert-ai's own golden query (`tests/tokenizers_test.py`).
#[test]
fn golden_query_of_colbert_ai() {
    let sequence = tokenizer("minilm", &ColbertSettings::default()).queries(&["what color is amber urine"]).unwrap();
    let mut expected = vec![101, 1, 2054, 3609, 2003, 8994, 17996, 102];
    expected.resize(32, 103);
    assert_eq!(sequence[0].ids, expected);
    assert_eq!(sequence[0].attended, 8);
}

#[test]
fn attending_to_masks_changes_the_attention_and_not_the_ids() {
    let plain = ColbertSettings::default();
    let attending = ColbertSettings { attend_to_mask_tokens: true, ..plain.clone() };
    let text = ["a short query"];
    let (a, b) =
        (tokenizer("tiny", &plain).queries(&text).unwrap(), tokenizer("tiny", &attending).queries(&text).unwrap());
    assert_eq!(a[0].ids, b[0].ids);
    assert_eq!(b[0].attended, 32);
    assert!(a[0].attended < 32);
}

/// Defect 31: the reference crashes without a skiplist.
#[test]
fn defect_31_punctuation_counts_when_it_is_not_masked() {
    let settings = ColbertSettings { mask_punctuation: false, ..ColbertSettings::default() };
    let tokenizer = tokenizer("tiny", &settings);
    assert!(tokenizer.skiplist().is_empty());
    assert!(tokenizer.documents(&["!!! ... ???"]).unwrap()[0].scored.iter().all(|scored| *scored));
}

#[test]
fn a_length_without_room_for_text_is_refused() {
    let settings = ColbertSettings { doc_maxlen: 3, ..ColbertSettings::default() };
    let path = parity("tiny").join("tokenizer.json");
    let error = ColbertTokenizer::new(Tokenizer::from_file(&path).unwrap(), &settings, &path).unwrap_err();
    assert!(error.to_string().contains("doc_maxlen = 3"), "{error}");
}

/// Defect 29: in the reference a missing marker silently becomes [UNK].
#[test]
fn defect_29_a_missing_marker_is_an_error() {
    let settings = ColbertSettings { query_token_id: "[unused99999]".into(), ..ColbertSettings::default() };
    let path = parity("tiny").join("tokenizer.json");
    let error = ColbertTokenizer::new(Tokenizer::from_file(&path).unwrap(), &settings, &path).unwrap_err();
    assert!(error.to_string().contains("[unused99999]") && error.to_string().contains("query marker"), "{error}");
}

#[test]
fn lengths_count_what_would_be_cut_and_what_the_vocabulary_lacks() {
    let settings = ColbertSettings { doc_maxlen: 8, ..ColbertSettings::default() };
    let tokenizer = tokenizer("minilm", &settings);
    let texts = ["one two three four five six seven eight", "\u{1F9FF}"];
    let lengths = tokenizer.document_lengths(&texts).unwrap();
    // [CLS] [D] 8 words [SEP]; [CLS] [D] [UNK] [SEP]
    assert_eq!(lengths, [(11, 0), (4, 1)]);
    assert_eq!(tokenizer.documents(&texts).unwrap()[0].len(), 8);
}

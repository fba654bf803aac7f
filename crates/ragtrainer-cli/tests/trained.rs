//! What is done with a trained model: encode, rerank, search.

use std::fs;
use std::path::Path;

use ragtrainer::config::Precision;
use ragtrainer::model::{Pretrained, Weights};
use ragtrainer::search::{EncodedDocuments, TextVectors};
use ragtrainer::{DocumentFolder, Error, RagPretrainedModel};

use crate::program::{copy_tiny_model, ragtrainer, same};
use crate::support::{backend, folder, pairs, pretrained, tiny_model};

pub(crate) fn model() -> RagPretrainedModel {
    pretrained(tiny_model())
}

pub(crate) fn documents() -> Vec<String> {
    let mut documents: Vec<String> = pairs().into_iter().map(|(_, document)| document).collect();
    documents.push("Short.".to_owned());
    documents.push("Much, much longer: ".to_owned() + &documents.join(" "));
    documents
}

pub(crate) const QUERY: &str = "what was made in Garth";

/// MaxSim as it is written in the paper, in f64. With `floor`, a vector of zeros competes too.
pub(crate) fn naive(query: &[f32], document: &[f32], dim: usize, floor: bool) -> f64 {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let start = if floor { 0.0 } else { f64::NEG_INFINITY };
    query.chunks(dim).map(|q| document.chunks(dim).map(|d| product(q, d)).fold(start, f64::max)).sum()
}

#[test]
fn reranking_is_maxsim_ranks_from_one_and_k_beyond_the_list_is_the_list() {
    let (model, documents) = (model(), documents());
    let hits = model.rerank(QUERY, &documents, 1000).unwrap();
    assert_eq!(hits.iter().map(|hit| hit.rank).collect::<Vec<_>>(), (1..=documents.len()).collect::<Vec<_>>());
    assert!(hits.windows(2).all(|pair| pair[0].score >= pair[1].score));
    let query = model.query_vectors(&[QUERY]).unwrap();
    let vectors = model.document_vectors(&documents).unwrap();
    for hit in &hits {
        let expected = naive(query.values(), vectors.rows(hit.index), 16, false);
        assert!((f64::from(hit.score) - expected).abs() < 1e-4, "{hit:?} {expected}");
        assert_eq!(hit.text, documents[hit.index]);
    }
    let three = model.rerank(QUERY, &documents, 3).unwrap();
    assert_eq!(three, hits[..3]);
    assert!(model.rerank::<&str>(QUERY, &[], 3).unwrap().is_empty());
}

/// Defects 49 to 52 of the list in `docs/parity.md`: to the last bit, and whether it was encoded before or not.
#[test]
fn defect_49_a_score_is_the_same_whatever_else_is_in_the_call() {
    let here = folder();
    let (model, documents) = (model(), documents());
    let all = model.rerank(QUERY, &documents, documents.len()).unwrap();
    let encoded = model.encode(&documents).unwrap();
    let mut kept = DocumentFolder::open_or_create(here.path().join("kept"), &model).unwrap();
    let records: Vec<_> = documents.iter().map(|text| (None, text.clone())).collect();
    kept.add(&model, &records, &mut |_| {}).unwrap();
    let queries = ["another query", QUERY, "a third one of more words than the others have"];
    let searched = model.search(QUERY, &encoded, documents.len()).unwrap();
    let from_folder = model.search_all(&queries, &kept, documents.len()).unwrap().swap_remove(1);
    for hit in &all {
        let alone = model.rerank(QUERY, &[&hit.text], 1).unwrap().remove(0);
        let score = |hits: &[ragtrainer::Hit]| hits.iter().find(|other| other.index == hit.index).unwrap().score;
        for other in [alone.score, score(&searched), score(&from_folder)] {
            assert!(same(other, hit.score), "{other}, not {}: {}", hit.score, hit.text);
        }
    }
    let of = |hits: &[ragtrainer::Hit]| hits.iter().map(|hit| (hit.rank, hit.index)).collect::<Vec<_>>();
    assert_eq!(of(&searched), of(&all));
    assert_eq!(of(&from_folder), of(&all));
}

/// The reference's floor: a document that is padded, or has punctuation, competes with a vector of zeros.
#[test]
fn the_references_zero_floor_is_an_option() {
    let plain = model();
    let query = plain.query_vectors(&[QUERY]).unwrap();
    let floored = model().with_zero_floor(true);
    let short = "Salt";
    let alone = floored.rerank(QUERY, &[short], 1).unwrap()[0].score;
    let bare = plain.rerank(QUERY, &[short], 1).unwrap()[0].score;
    assert!(same(alone, bare), "nothing is padded, nothing is masked: {alone}, {bare}");
    let pair = floored.rerank(QUERY, &[short, "Salt was made there"], 2).unwrap();
    let beside = pair.iter().find(|hit| hit.index == 0).unwrap().score;
    let rows = plain.document_vectors(&[short]).unwrap();
    let expected = naive(query.values(), rows.rows(0), 16, true);
    assert!((f64::from(beside) - expected).abs() < 1e-4, "{beside} {expected}");
    assert!(beside >= alone || same(beside, alone));
    let searched = floored.search(QUERY, &plain.encode(&[short]).unwrap(), 1).unwrap()[0].score;
    assert!(same(searched, beside), "a search pads to doc_maxlen: {searched}, {beside}");
}

/// Rounded products move vectors a little where the device has them, and not at all where it has not.
#[test]
fn texts_can_be_encoded_in_bfloat16() {
    let (exact, documents) = (model(), documents());
    let fast = model().with_precision(Precision::Bf16);
    let vectors = exact.document_vectors(&documents).unwrap();
    let rounded = fast.document_vectors(&documents).unwrap();
    let largest = vectors.values().iter().zip(rounded.values()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert_eq!(largest > 0.0, fast.precision() == Precision::Bf16, "{largest}");
    assert!(largest < 0.05, "{largest}");
    let score = |model: &RagPretrainedModel, text: &String| model.rerank(QUERY, &[text], 1).unwrap()[0].score;
    let together = fast.rerank(QUERY, &documents, documents.len()).unwrap();
    assert!(together.iter().all(|hit| same(hit.score, score(&fast, &hit.text))), "a text's own score");
    // What one encoded, the other searches.
    let encoded = fast.encode(&documents).unwrap();
    let hit = &exact.search(QUERY, &encoded, 1).unwrap()[0];
    assert!((hit.score - score(&exact, &documents[hit.index])).abs() < 0.5, "{hit:?}");
    // A GPU without bfloat16 may have float16, which "auto" takes and a CPU's never does.
    let auto = model().with_precision(Precision::Auto).precision();
    let in_f16 = auto == Precision::F16 && backend().starts_with("wgpu");
    assert!(auto == fast.precision() || (in_f16 && fast.precision() == Precision::F32), "{auto:?}");
    assert_eq!(fast.with_precision(Precision::F32).document_vectors(&documents).unwrap(), vectors);
}

/// The matches add up to the score, each is the best of its query token, and the page shows them without running them.
#[test]
fn a_score_is_explained_token_by_token() {
    let here = folder();
    let (model, documents) = (model(), documents());
    let query = model.query_vectors(&[QUERY]).unwrap();
    for hit in model.rerank(QUERY, &documents, 4).unwrap() {
        let explained = model.explain(QUERY, &hit.text).unwrap();
        assert!((explained.score - hit.score).abs() < 1e-4, "{} {}", explained.score, hit.score);
        assert_eq!(explained.matches.len(), query.tokens());
        let scored = explained.document.iter().filter(|token| token.is_scored).count();
        let rows = model.document_vectors(&[&hit.text]).unwrap();
        assert_eq!(scored, rows.tokens());
        for (one, row) in explained.matches.iter().zip(query.values().chunks(16)) {
            assert!(explained.document[one.place].is_scored);
            assert_eq!(explained.document[one.place].token, one.document_token);
            assert!((f64::from(one.similarity) - naive(row, rows.values(), 16, false)).abs() < 1e-5);
        }
    }
    let words: Vec<String> = model.explain(QUERY, "rope").unwrap().matches.into_iter().map(|m| m.query_token).collect();
    assert!(words.iter().any(|word| word == "what"), "{words:?}");

    fs::write(here.path().join("texts.jsonl"), "\"<script>alert(1)</script> rope and glass\"\n\"salt\"\n").unwrap();
    let model = tiny_model();
    let rerank = |k: &str| {
        let arguments = ["rerank", "--model", model.to_str().unwrap(), "--query", "<b>rope</b>", "--documents"];
        ragtrainer(here.path(), &[&arguments[..], &["texts.jsonl", "--explain", "why.html", "--k", k]].concat())
    };
    let ran = rerank("2");
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    let page = fs::read_to_string(here.path().join("why.html")).unwrap();
    assert!(!page.contains("<script") && !page.contains("<b>rope"), "texts are no markup");
    assert!(page.matches("score ").count() >= 2);
    assert!(page.contains("tokens of expansion"), "{page}");
    let ran = rerank("1");
    assert!(ran.code == Some(1) && ran.errors.contains("why.html is there already"), "{}", ran.errors);
}

/// About half of the vectors, of length 1, which search and rerank score alike; bad factors write nothing.
#[test]
fn documents_are_pooled_where_they_are_encoded() {
    use ragtrainer::model::TokenPooling;

    let here = folder();
    let documents = documents();
    let pooled = model().with_token_pooling(TokenPooling::new(2.0).unwrap());
    let (all, half) = (model().document_vectors(&documents).unwrap(), pooled.document_vectors(&documents).unwrap());
    for text in 0..documents.len() {
        let (before, after) = (all.rows(text).len() / 16, half.rows(text).len() / 16);
        assert!(after <= 1 + (before - 1).div_ceil(2) && after >= 1, "{before} to {after}");
        assert_eq!(all.rows(text)[..16], half.rows(text)[..16], "the first token is kept");
        for row in half.rows(text).chunks(16) {
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            assert!((length - 1.0).abs() < 1e-5, "{length}");
        }
    }
    assert_eq!(pooled.query_vectors(&[QUERY]).unwrap(), model().query_vectors(&[QUERY]).unwrap());
    let searched = pooled.search(QUERY, &pooled.encode(&documents).unwrap(), 5).unwrap();
    let reranked = pooled.rerank(QUERY, &documents, 5).unwrap();
    let of = |hits: &[ragtrainer::Hit]| hits.iter().map(|hit| (hit.index, hit.score)).collect::<Vec<_>>();
    assert_scores(&of(&searched), &of(&reranked));

    let lines: String = documents.iter().map(|text| serde_json::json!(text).to_string() + "\n").collect();
    fs::write(here.path().join("texts.jsonl"), lines).unwrap();
    let model = tiny_model();
    let encode = |further: &[&str]| {
        let arguments =
            ["encode", "--model", model.to_str().unwrap(), "--input", "texts.jsonl", "--output", "v.safetensors"];
        ragtrainer(here.path(), &[&arguments[..], further].concat())
    };
    for (bad, words) in [("0.5", "1 or more"), ("NaN", "1 or more"), ("two", "invalid value")] {
        let ran = encode(&["--pool-factor", bad]);
        assert!(ran.code != Some(0) && ran.errors.contains(words), "{bad}: {}", ran.errors);
        assert!(!here.path().join("v.safetensors").exists());
    }
    let ran = encode(&["--pool-factor", "2"]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    assert!(ran.output.contains(&format!(" {} vectors of 16", half.tokens())), "{}", ran.output);
}

/// The same things in the same order with the same scores.
pub(crate) fn assert_scores<T: PartialEq + std::fmt::Debug>(found: &[(T, f32)], expected: &[(T, f32)]) {
    let alike = found.iter().zip(expected).all(|(a, b)| a.0 == b.0 && same(a.1, b.1));
    assert!(alike && found.len() == expected.len(), "{found:?}, not {expected:?}");
}

fn assert_same(found: &EncodedDocuments, expected: &EncodedDocuments) {
    assert_eq!(found.texts(), expected.texts());
    let [a, b] = [found, expected].map(|encoded| encoded.vectors());
    assert!(a.offsets() == b.offsets() && a.values().iter().zip(b.values()).all(|(a, b)| same(*a, *b)));
}

#[test]
fn encoded_documents_grow_and_shrink() {
    let (model, documents) = (model(), documents());
    let mut encoded = model.encode(&documents[..5]).unwrap();
    encoded.add(&model, &documents[5..]).unwrap();
    assert_same(&encoded, &model.encode(&documents).unwrap());
    encoded.remove(&[0, 7]).unwrap();
    let kept: Vec<String> =
        documents.iter().enumerate().filter(|(i, _)| ![0, 7].contains(i)).map(|(_, text)| text.clone()).collect();
    assert_same(&encoded, &model.encode(&kept).unwrap());
    assert!(matches!(encoded.remove(&[99]), Err(Error::UnknownDocument { .. })));
    assert_eq!(encoded.len(), kept.len());
}

#[test]
fn a_folder_of_documents_is_added_to_deleted_from_and_opened_again() {
    let here = folder();
    let path = here.path().join("kept");
    let (model, documents) = (model(), documents());
    let mut kept = DocumentFolder::open_or_create(&path, &model).unwrap();
    let records = |from: usize, to: usize| -> Vec<(Option<String>, String)> {
        documents[from..to].iter().enumerate().map(|(i, text)| (Some(format!("d{}", from + i)), text.clone())).collect()
    };
    let mut told = 0;
    kept.add(&model, &records(0, 4), &mut |done| told = done).unwrap();
    assert_eq!(told, 4);
    kept.add(&model, &records(4, documents.len()), &mut |_| {}).unwrap();
    kept.delete(&["d1", "d3"]).unwrap();
    assert!(matches!(kept.delete(&["d1"]), Err(Error::UnknownDocument { .. })));
    let taken = kept.add(&model, &records(2, 3), &mut |_| {}).unwrap_err();
    assert!(taken.to_string().contains("d2"), "{taken}");
    kept.add(&model, &records(1, 2), &mut |_| {}).unwrap();

    let opened = DocumentFolder::open(&path).unwrap();
    assert_eq!(opened.len(), documents.len() - 1);
    let hits = model.search(QUERY, &opened, 100).unwrap();
    let expected = model.rerank(QUERY, &documents, 100).unwrap();
    let expected: Vec<_> = expected.iter().filter(|hit| hit.index != 3).map(|hit| (&hit.text, hit.score)).collect();
    assert_scores(&hits.iter().map(|hit| (&hit.text, hit.score)).collect::<Vec<_>>(), &expected);
    assert!(hits.iter().all(|hit| hit.id.as_deref().is_some_and(|id| id.starts_with('d'))));

    // Most are deleted: the files are made compact, and the rest is found as before.
    let all: Vec<String> = opened.ids().unwrap();
    kept.delete(&all[..all.len() - 2]).unwrap();
    let left = model.search(QUERY, &kept, 100).unwrap();
    let left_before = hits.iter().filter(|hit| all[all.len() - 2..].contains(hit.id.as_ref().unwrap()));
    let [left, left_before] = [left.iter().collect(), left_before.collect()]
        .map(|hits: Vec<_>| hits.iter().map(|hit| (&hit.id, hit.score)).collect::<Vec<_>>());
    assert_scores(&left, &left_before);
    let mut files: Vec<String> =
        fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, ["documents-1.jsonl", "entries-1.bin", "lock", "state.json", "vectors-1.f32"]);
}

#[test]
fn a_write_that_does_not_finish_leaves_what_was_there() {
    let here = folder();
    let path = here.path().join("kept");
    let model = model();
    let mut kept = DocumentFolder::open_or_create(&path, &model).unwrap();
    kept.add(&model, &["A fen is wet."], &mut |_| {}).unwrap();
    let failed = kept.add(&model, &["A tor.", " "], &mut |_| {}).unwrap_err();
    assert!(matches!(failed, Error::EmptyText { what: "document", index: 1 }), "{failed}");
    // What another writer left behind the counts is cut off.
    for file in ["vectors-0.f32", "documents-0.jsonl", "entries-0.bin"] {
        let mut bytes = fs::read(path.join(file)).unwrap();
        bytes.extend_from_slice(b"half of someth");
        fs::write(path.join(file), bytes).unwrap();
    }
    let mut kept = DocumentFolder::open(&path).unwrap();
    assert_eq!(kept.len(), 1);
    kept.add(&model, &["A beck is a stream."], &mut |_| {}).unwrap();
    let hits = model.search("stream", &DocumentFolder::open(&path).unwrap(), 5).unwrap();
    let expected = model.rerank("stream", &["A fen is wet.", "A beck is a stream."], 5).unwrap();
    let scores = |hits: &[ragtrainer::Hit]| hits.iter().map(|hit| (hit.text.clone(), hit.score)).collect::<Vec<_>>();
    assert_scores(&scores(&hits), &scores(&expected));
}

/// A copy of the tiny model with another projection.
fn other_model(to: &Path) {
    copy_tiny_model(to, |name, tensor| {
        if name == "linear.weight" {
            tensor.values[0] += 0.5;
        }
    });
}

#[test]
fn wrong_use_is_told() {
    let here = folder();
    let model = model();
    assert!(matches!(model.rerank(QUERY, &["a"], 0), Err(Error::NoHits)));
    assert!(matches!(model.rerank(" ", &["a"], 1), Err(Error::EmptyText { what: "query", index: 0 })));
    assert!(matches!(model.rerank("a", &["a", "\n"], 1), Err(Error::EmptyText { what: "document", index: 1 })));
    assert!(matches!(model.encode(&["", "a"]), Err(Error::EmptyText { .. })));

    other_model(&here.path().join("other"));
    let other = pretrained(here.path().join("other"));
    let mut encoded = model.encode(&["a text"]).unwrap();
    assert!(matches!(other.search(QUERY, &encoded, 1), Err(Error::OtherModel { .. })));
    assert!(matches!(encoded.add(&other, &["b text"]), Err(Error::OtherModel { .. })));
    let path = here.path().join("kept");
    let mut kept = DocumentFolder::open_or_create(&path, &model).unwrap();
    kept.add(&model, &["a text"], &mut |_| {}).unwrap();
    assert!(matches!(DocumentFolder::open_or_create(&path, &other), Err(Error::OtherModel { .. })));

    assert!(matches!(DocumentFolder::open(here.path().join("nowhere")), Err(Error::Io { .. })));
    let occupied = here.path().join("occupied");
    fs::create_dir(&occupied).unwrap();
    fs::write(occupied.join("precious"), "x").unwrap();
    assert!(DocumentFolder::open_or_create(&occupied, &model).unwrap_err().to_string().contains("not empty"));

    let held = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock")).unwrap();
    held.lock().unwrap();
    let error = kept.add(&model, &["b"], &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("another program"), "{error}");
    drop(held);
    let state = fs::read_to_string(path.join("state.json")).unwrap();
    let mut changed: serde_json::Value = serde_json::from_str(&state).unwrap();
    for (field, value) in [("dim", 1u64 << 62), ("tokens", u64::MAX)] {
        let kept = std::mem::replace(&mut changed[field], value.into());
        fs::write(path.join("state.json"), changed.to_string()).unwrap();
        let error = DocumentFolder::open(&path).unwrap_err().to_string();
        assert!(error.contains("state.json is damaged"), "{field}: {error}");
        changed[field] = kept;
    }
    changed["deleted"] = serde_json::json!([[0, 2]]);
    fs::write(path.join("state.json"), changed.to_string()).unwrap();
    assert!(DocumentFolder::open(&path).unwrap_err().to_string().contains("state.json is damaged"));
    fs::write(path.join("state.json"), state).unwrap();
    fs::write(path.join("vectors-0.f32"), b"cut").unwrap();
    assert!(DocumentFolder::open(&path).unwrap_err().to_string().contains("shorter"));
    fs::write(path.join("state.json"), b"{").unwrap();
    assert!(DocumentFolder::open(&path).unwrap_err().to_string().contains("state of a document folder"));
}

/// A plain encoder was never trained to find anything: it is refused rather than given a random projection.
#[test]
fn a_plain_encoder_is_refused() {
    let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/quickstart/model");
    assert!(Pretrained::read(&quickstart).unwrap().declared_settings().is_none());
    let error = RagPretrainedModel::from_pretrained_on(quickstart, &backend()).unwrap_err().to_string();
    assert!(error.contains("no ColBERT"), "{error}");
}

#[test]
fn vectors_are_written_for_other_programs() {
    let here = folder();
    let vectors: TextVectors = model().document_vectors(&["A fen.", "A tor is a rocky hill."]).unwrap();
    let (npy, safetensors) = (here.path().join("v.npy"), here.path().join("v.safetensors"));
    assert_eq!(vectors.write_npy(&npy).unwrap(), here.path().join("v.offsets.npy"));
    vectors.write_safetensors(&safetensors).unwrap();

    let bytes = fs::read(&npy).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert!((10 + length).is_multiple_of(64) && bytes[9 + length] == b'\n');
    let header = String::from_utf8(bytes[10..10 + length].to_vec()).unwrap();
    let expected = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, 16), }}", vectors.tokens());
    assert_eq!(header.trim_end(), expected);
    let numbers: Vec<f32> = bytes[10 + length..].chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(numbers, vectors.values());
    let offsets = fs::read(here.path().join("v.offsets.npy")).unwrap();
    let starts: Vec<i64> =
        offsets[offsets.len() - 24..].chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(starts, vectors.offsets().iter().map(|offset| *offset as i64).collect::<Vec<_>>());
    let mut read = Weights::read(&safetensors).unwrap();
    let taken = read.take("vectors", &[vectors.tokens(), 16]).unwrap();
    assert_eq!(taken.values, vectors.values());
    assert_eq!(vectors.dim(), 16);
}

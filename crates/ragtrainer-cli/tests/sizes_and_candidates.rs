//! A trained model with smaller vectors, and measured among given candidates.

use std::fs;

use ragtrainer::{DocumentFolder, Error};

use crate::program::{ragtrainer, same};
use crate::support::{beir_folder, folder, tiny_model};
use crate::trained::{QUERY, documents, model, naive};

/// The first numbers of every vector, at length 1: in encoding, reranking, folders and searches.
#[test]
fn vectors_are_cut_to_a_size_and_brought_back_to_length_one() {
    let here = folder();
    let (whole, documents) = (model(), documents());
    let cut = model().with_dim(4).unwrap();
    let vectors = cut.document_vectors(&documents).unwrap();
    assert_eq!(vectors.dim(), 4);
    let full = whole.document_vectors(&documents).unwrap();
    assert_eq!(vectors.offsets(), full.offsets());
    for (found, full) in vectors.values().chunks(4).zip(full.values().chunks(16)) {
        let length = full[..4].iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        assert!(
            found.iter().zip(full).all(|(found, full)| (f64::from(*found) - f64::from(*full) / length).abs() < 1e-6)
        );
    }
    let query = cut.query_vectors(&[QUERY]).unwrap();
    let hits = cut.rerank(QUERY, &documents, documents.len()).unwrap();
    for hit in &hits {
        let expected = naive(query.values(), vectors.rows(hit.index), 4, false);
        assert!((f64::from(hit.score) - expected).abs() < 1e-4, "{hit:?} {expected}");
    }
    assert_ne!(hits, whole.rerank(QUERY, &documents, documents.len()).unwrap());

    // A folder of small vectors is searched with queries of its size, by whichever size the model is used with.
    let path = here.path().join("small");
    let mut kept = DocumentFolder::open_or_create(&path, &cut).unwrap();
    let records: Vec<_> = documents.iter().map(|text| (None, text.clone())).collect();
    kept.add(&cut, &records, &mut |_| {}).unwrap();
    for model in [&cut, &whole] {
        let found = model.search(QUERY, &kept, documents.len()).unwrap();
        assert_eq!(
            found.iter().map(|hit| hit.index).collect::<Vec<_>>(),
            hits.iter().map(|h| h.index).collect::<Vec<_>>()
        );
        assert!(found.iter().zip(&hits).all(|(found, hit)| same(found.score, hit.score)), "{found:?} {hits:?}");
    }
    // Vectors of two sizes do not get into one folder, and small queries do not search large documents.
    let error = kept.add(&whole, &records, &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::OtherSize { found: 4, expected: 16 }), "{error}");
    let error = DocumentFolder::open_or_create(&path, &whole).unwrap_err();
    assert!(matches!(error, Error::OtherSize { .. }), "{error}");
    let error = cut.search(QUERY, &whole.encode(&documents).unwrap(), 1).unwrap_err();
    assert!(matches!(error, Error::OtherSize { found: 16, expected: 4 }), "{error}");
    for dim in [0, 17] {
        assert!(matches!(model().with_dim(dim), Err(Error::NoSuchSize { dim: 16, .. })), "{dim}");
    }
    assert_eq!(model().with_dim(16).unwrap().document_vectors(&documents).unwrap(), full);
}

#[test]
fn the_program_cuts_vectors_to_a_size() {
    let here = folder();
    let data = beir_folder(here.path());
    let (tiny, input) = (tiny_model(), data.join("corpus.jsonl"));
    let (tiny, input) = (tiny.to_str().unwrap(), input.to_str().unwrap());
    let encoded =
        ragtrainer(here.path(), &["encode", "--model", tiny, "--input", input, "--output", "v.npy", "--dim", "4"]);
    assert_eq!(encoded.code, Some(0), "{}", encoded.errors);
    assert!(encoded.output.contains("vectors of 4"), "{}", encoded.output);
    assert!(encoded.errors.contains("was trained for vectors of 16 numbers, not of 4"), "{}", encoded.errors);
    let kept =
        ragtrainer(here.path(), &["encode", "--model", tiny, "--input", input, "--folder", "kept", "--dim", "8"]);
    assert_eq!(kept.code, Some(0), "{}", kept.errors);
    let search = ["search", "--model", tiny, "--folder", "kept", "--query", QUERY, "--json"];
    let (plain, named) =
        (ragtrainer(here.path(), &search), ragtrainer(here.path(), &[&search[..], &["--dim", "8"]].concat()));
    assert_eq!((plain.code, &plain.output), (Some(0), &named.output), "{}", plain.errors);
    let evaluate = |further: &[&str]| {
        let all = [&["evaluate", "--model", tiny, "--data", data.to_str().unwrap(), "--json"], further].concat();
        ragtrainer(here.path(), &all)
    };
    let (whole, cut) = (evaluate(&[]), evaluate(&["--dim", "2"]));
    assert_eq!((whole.code, cut.code), (Some(0), Some(0)), "{}", cut.errors);
    assert_ne!(whole.output, cut.output);
    assert_eq!(evaluate(&["--dim", "16"]).output, whole.output);
    for wrong in ["0", "17"] {
        let refused = evaluate(&["--dim", wrong]);
        assert!(refused.errors.contains("expected 1 to 16") && refused.code != Some(0), "{}", refused.errors);
    }
}

/// Evaluation among given candidates, with BM25 among the same.
#[test]
fn the_program_measures_reranking_of_given_candidates() {
    let here = folder();
    let data = beir_folder(here.path());
    let (tiny, data) = (tiny_model(), data.to_str().unwrap().to_owned());
    let evaluate = |further: &[&str]| {
        let all = [&["evaluate", "--model", tiny.to_str().unwrap(), "--data", &data, "--json"], further].concat();
        ragtrainer(here.path(), &all)
    };
    let numbers = |output: &str| -> serde_json::Value { serde_json::from_str(output).unwrap() };
    let whole = evaluate(&[]);
    // Every query among all documents is the whole corpus; six queries have their own document alone.
    let all = (0..12).flat_map(|q| (0..12).map(move |d| format!("q{q} Q0 d{d} {} 1.5 first-stage\n", d + 1)));
    fs::write(here.path().join("all.trec"), all.collect::<String>()).unwrap();
    let reranked = evaluate(&["--candidates", "all.trec"]);
    assert_eq!(reranked.code, Some(0), "{}", reranked.errors);
    assert_eq!(numbers(&reranked.output)["model"], numbers(&whole.output)["model"]);
    assert!(reranked.errors.contains("12 of 12 relevant documents among them"), "{}", reranked.errors);
    let own = (0..6).map(|q| format!("{{\"query_id\": \"q{q}\", \"candidates\": [\"d{q}\"]}}\n"));
    fs::write(here.path().join("own.jsonl"), own.collect::<String>()).unwrap();
    let own = evaluate(&["--candidates", "own.jsonl", "--per-query", "queries.jsonl"]);
    assert_eq!(own.code, Some(0), "{}", own.errors);
    for system in ["model", "bm25"] {
        let first = &numbers(&own.output)[system]["metrics"][0];
        assert_eq!(*first, serde_json::json!(["ndcg@10", 0.5]), "{system}: {}", own.output);
    }
    assert!(own.errors.contains("6 queries without candidates"), "{}", own.errors);
    let rows = fs::read_to_string(here.path().join("queries.jsonl")).unwrap();
    assert_eq!(rows.lines().filter(|line| line.contains("\"rank\":null")).count(), 6, "{rows}");

    fs::write(here.path().join("wrong.trec"), "q0 Q0 d99 1 1.5 x\n").unwrap();
    for (wrong, part) in [
        (&["--candidates", "wrong.trec"][..], "wrong.trec, line 1, document id: id `d99` is not in the corpus"),
        (&["--candidates", "nothing.trec"], "nothing.trec: no such file"),
        (&["--candidates", "all.trec", "--candidates", "own.jsonl"], "2 --candidates for 1 --data"),
        (&["--candidates", "all.trec", "--pool-size", "5"], "cannot be used with"),
    ] {
        let refused = evaluate(wrong);
        assert!(refused.code != Some(0) && refused.errors.contains(part), "{wrong:?}: {}", refused.errors);
    }
}

//! A trained model on the command line: `encode`, `rerank`, `search`, `export`.

use std::fs;

use ragtrainer::search::EncodedSource;

use crate::program::ragtrainer;
use crate::support::{folder, pairs, tiny_model};
use crate::trained::{QUERY, assert_scores, model};

#[test]
fn the_command_line_encodes_reranks_and_searches() {
    let here = folder();
    let model = tiny_model();
    let model = model.to_str().unwrap();
    let lines = pairs().into_iter().enumerate();
    let corpus: String = lines
        .map(|(i, (_, text))| serde_json::json!({"_id": format!("t{i}"), "text": text}).to_string() + "\n")
        .collect();
    fs::write(here.path().join("corpus.jsonl"), corpus).unwrap();
    let ran = ragtrainer(here.path(), &["encode", "--model", model, "--input", "corpus.jsonl", "--folder", "kept"]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    assert!(ran.output.contains("12 documents added, 12 in all"), "{}", ran.output);
    let again = ragtrainer(here.path(), &["encode", "--model", model, "--input", "corpus.jsonl", "--folder", "kept"]);
    assert_eq!(again.code, Some(1));
    assert!(again.errors.contains("t0"), "{}", again.errors);

    let search = ["search", "--model", model, "--folder", "kept", "--query", QUERY, "--k", "3"];
    let ran = ragtrainer(here.path(), &search);
    assert_eq!(ran.output.lines().count(), 3, "{}{}", ran.output, ran.errors);
    assert!(ran.output.starts_with("   1  "), "{}", ran.output);
    let json = |ran: &crate::program::Ran| -> serde_json::Value { serde_json::from_str(&ran.output).unwrap() };
    let searched = json(&ragtrainer(here.path(), &[&search[..], &["--json"]].concat()));
    let rerank = ["rerank", "--model", model, "--documents", "corpus.jsonl", "--query", QUERY, "--k", "3", "--json"];
    let ranked = |answer: &serde_json::Value| -> Vec<(String, f32)> {
        let hits = answer["hits"].as_array().unwrap();
        let what = |hit: &serde_json::Value| format!("{} {} {}", hit["rank"], hit["id"], hit["text"]);
        hits.iter().map(|hit| (what(hit), hit["score"].as_f64().unwrap() as f32)).collect()
    };
    assert_scores(&ranked(&json(&ragtrainer(here.path(), &rerank))), &ranked(&searched));
    let first = searched["hits"][0]["id"].as_str().unwrap().to_owned();
    let ran = ragtrainer(here.path(), &["encode", "--model", model, "--folder", "kept", "--delete", &first]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    let searched = json(&ragtrainer(here.path(), &[&search[..], &["--json"]].concat()));
    assert_ne!(searched["hits"][0]["id"].as_str(), Some(first.as_str()));

    let ran = ragtrainer(here.path(), &["encode", "--model", model, "--input", "corpus.jsonl", "--output", "v.npy"]);
    assert!(ran.output.contains("12 texts") && here.path().join("v.offsets.npy").exists(), "{}", ran.output);
    let bytes = |name: &str| fs::read(here.path().join(name)).unwrap();
    let whole = bytes("v.npy");
    let encode = ["encode", "--model", model, "--input", "corpus.jsonl", "--output", "v.npy", "--precision"];
    assert_eq!(ragtrainer(here.path(), &[&encode[..], &["f32"]].concat()).code, Some(0));
    assert_eq!(bytes("v.npy"), whole);
    let ran = ragtrainer(here.path(), &[&encode[..], &["bf16"]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    assert_ne!(bytes("v.npy") == whole, ran.errors.is_empty(), "other bytes, or a warning: {}", ran.errors);
    let ran = ragtrainer(here.path(), &[&encode[..], &["f16"]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    assert_ne!(bytes("v.npy") == whole, ran.errors.is_empty() || ran.errors.contains("using bf16"), "{}", ran.errors);
    let ran = ragtrainer(here.path(), &[&encode[..], &["f8"]].concat());
    assert_eq!(ran.code, Some(2));
    assert!(ran.errors.contains("one of f32, tf32, bf16, f16, auto"), "{}", ran.errors);

    for (arguments, part) in [
        (vec!["encode", "--model", model, "--input", "corpus.jsonl", "--output", "v.txt"], ".npy"),
        (vec!["encode", "--model", "nowhere", "--input", "corpus.jsonl", "--output", "v.npy"], "nowhere"),
        (vec!["search", "--model", model, "--folder", "nowhere", "--query", "x"], "nowhere"),
        (vec!["rerank", "--model", model, "--documents", "corpus.jsonl", "--query", "x", "--k", "0"], "k = 0"),
        (vec!["rerank", "--model", model, "--documents", "no.jsonl", "--query", "x"], "no.jsonl"),
    ] {
        let ran = ragtrainer(here.path(), &arguments);
        assert_eq!(ran.code, Some(1), "{arguments:?}");
        assert!(ran.errors.contains(part), "{part} is not in {}", ran.errors);
    }
}

/// Passages, metadata, number formats, files of queries and a choice of documents, as a user meets them.
#[test]
fn the_command_line_splits_keeps_metadata_and_answers_files_of_queries() {
    let here = folder();
    let model = tiny_model();
    let model = model.to_str().unwrap();
    let long = "A tor is a hill. A fen is wet. A beck is a stream. A weir is a dam. A moor is open land.";
    let corpus = [
        serde_json::json!({"_id": "long", "text": long, "metadata": {"source": "moor.txt"}}).to_string(),
        serde_json::json!({"_id": "short", "text": "Ropes were made in Garth."}).to_string(),
    ];
    fs::write(here.path().join("corpus.jsonl"), corpus.join("\n")).unwrap();
    let queries =
        (0..3).map(|i| serde_json::json!({"_id": format!("q{i}"), "text": "what is a fen"}).to_string() + "\n");
    fs::write(here.path().join("queries.jsonl"), queries.collect::<String>()).unwrap();
    let encode = ["encode", "--model", model, "--input", "corpus.jsonl", "--folder"];
    let split = ["kept", "--vectors", "int8", "--split", "sentences", "--passage-tokens", "8"];
    let ran = ragtrainer(here.path(), &[&encode[..], &split].concat());
    assert!(ran.code == Some(0) && ran.output.contains("2 documents added as "), "{}{}", ran.output, ran.errors);
    assert!(here.path().join("kept/vectors-0.i8").exists());

    let search = ["search", "--model", model, "--folder", "kept", "--queries", "queries.jsonl", "--json", "--k", "50"];
    let ran = ragtrainer(here.path(), &search);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    let answers: Vec<serde_json::Value> = ran.output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.iter().map(|answer| answer["id"].as_str().unwrap()).collect::<Vec<_>>(), ["q0", "q1", "q2"]);
    assert_eq!(answers[0]["hits"], answers[2]["hits"]);
    let hits = answers[0]["hits"].as_array().unwrap();
    assert!(hits.len() > 2, "{hits:?}");
    for hit in hits {
        let of_long = hit["id"] == "long";
        assert_eq!(hit["metadata"]["source"] == "moor.txt", of_long, "{hit}");
        assert!(!of_long || long.contains(hit["text"].as_str().unwrap()), "{hit}");
    }
    let mut passages: Vec<u64> =
        hits.iter().filter(|hit| hit["id"] == "long").map(|hit| hit["passage"].as_u64().unwrap()).collect();
    passages.sort_unstable();
    assert_eq!(passages, (0..passages.len() as u64).collect::<Vec<_>>());

    let ran = ragtrainer(here.path(), &[&search[..], &["--among", "short"]].concat());
    let first: serde_json::Value = serde_json::from_str(ran.output.lines().next().unwrap()).unwrap();
    let hits = first["hits"].as_array().unwrap();
    assert!(!hits.is_empty() && hits.iter().all(|hit| hit["id"] == "short"), "{first}");

    let overlap = ["other", "--split", "sentences", "--overlap", "3"];
    for (arguments, part) in [
        ([&search[..], &["--among", "nobody"]].concat(), "no document nobody"),
        ([&encode[..], &["kept", "--vectors", "float32"]].concat(), "another format"),
        ([&encode[..], &overlap].concat(), "--split tokens"),
        ([&encode[..], &["other", "--split", "tokens", "--passage-tokens", "100000"]].concat(), "doc_maxlen"),
    ] {
        let ran = ragtrainer(here.path(), &arguments);
        assert!(ran.code == Some(1) && ran.errors.contains(part), "{part} is not in {}", ran.errors);
    }
    let ran = ragtrainer(here.path(), &[&encode[..], &["other", "--vectors", "f64"]].concat());
    assert!(ran.code == Some(2) && ran.errors.contains("expected float32, float16 or int8"), "{}", ran.errors);
    if cfg!(not(feature = "index")) {
        let ran = ragtrainer(here.path(), &["index", "--folder", "kept"]);
        assert!(ran.code == Some(1) && ran.errors.contains("--features index"), "{}", ran.errors);
    }
}

#[test]
fn sources_of_documents_agree_on_dim() {
    let encoded = model().encode(&["a text"]).unwrap();
    assert_eq!((encoded.dim(), encoded.texts().len(), encoded.vectors().len()), (16, 1, 1));
}

/// As an option of a run, and afterwards for a directory that is there.
#[test]
fn a_directory_gets_an_onnx_graph() {
    let here = folder();
    let data = crate::program::pairs_file(here.path());
    let ran = crate::program::train(here.path(), &data, &["--maxsteps", "1", "--export-onnx"]);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    let best = here.path().join("run/best");
    let card = fs::read_to_string(best.join("README.md")).unwrap();
    assert!(card.contains(", next-plaid and pylate-rs") && !card.contains("next-plaid, by way"), "{card}");
    let written = |name: &str| fs::read(best.join(name)).unwrap();
    let first = ["model.onnx", "onnx_config.json"].map(written);
    for name in ["model.onnx", "onnx_config.json"] {
        fs::remove_file(best.join(name)).unwrap();
    }
    let ran = ragtrainer(here.path(), &["onnx", "run/best"]);
    assert!(ran.code == Some(0) && ran.output.contains("model.onnx"), "{}{}", ran.output, ran.errors);
    assert!(first == ["model.onnx", "onnx_config.json"].map(written), "the same directory, the same graph");
    let ran = ragtrainer(here.path(), &["onnx", "nowhere"]);
    assert!(ran.code == Some(1) && ran.errors.contains("nowhere"), "{}", ran.errors);
}

//! The folder of encoded documents when programs die, delete and read at the same time.

use std::fs;
use std::path::Path;

use ragtrainer::search::{EncodedSource, Split, VectorFormat};
use ragtrainer::{Document, DocumentFolder, Error, Hit, RagPretrainedModel};

use crate::support::{folder, pretrained, tiny_model};

fn add(folder: &mut DocumentFolder, model: &RagPretrainedModel, texts: &[&str]) -> Vec<String> {
    folder.add(model, texts, &mut |_| ()).unwrap()
}

fn found(folder: &DocumentFolder, model: &RagPretrainedModel) -> Vec<String> {
    let hits = model.search_all(&["what is a tor"], folder, 10).unwrap().remove(0);
    let mut texts: Vec<String> = hits.into_iter().map(|hit| hit.text).collect();
    texts.sort();
    texts
}

#[test]
fn a_folder_whose_maker_was_killed_is_made_again() {
    let here = folder();
    let model = pretrained(tiny_model());
    let path = here.path().join("documents");
    fs::create_dir(&path).unwrap();
    for file in ["lock", "vectors-0.f32", "documents-0.jsonl", "entries-0.bin", ".state.json.partial-123"] {
        fs::write(path.join(file), "").unwrap();
    }
    let mut made = DocumentFolder::open_or_create(&path, &model).unwrap();
    assert_eq!(add(&mut made, &model, &["a tor is a hill"]), ["0"]);

    fs::write(here.path().join("thesis.txt"), "precious").unwrap();
    assert!(matches!(DocumentFolder::open_or_create(here.path(), &model), Err(Error::DocumentFolder { .. })));
}

/// MaxSim passes over NaN: a damaged document would be ranked by what is left of it.
#[test]
fn a_folder_with_vectors_that_are_not_finite_is_not_searched() {
    let here = folder();
    let model = pretrained(tiny_model());
    let path = here.path().join("documents");
    let mut documents = DocumentFolder::open_or_create(&path, &model).unwrap();
    add(&mut documents, &model, &["a tor is a hill", "a weir is a dam"]);
    let is_vectors = |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "f32");
    let vectors = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).find(is_vectors).unwrap();
    let whole = fs::read(&vectors).unwrap();
    for value in [f32::NAN, f32::INFINITY] {
        let mut damaged = whole.clone();
        damaged[4..8].copy_from_slice(&value.to_le_bytes());
        fs::write(&vectors, damaged).unwrap();
        let opened = DocumentFolder::open(&path).unwrap();
        let error = model.search("what is a tor", &opened, 2).unwrap_err().to_string();
        assert!(error.contains("not finite") && error.contains(".f32"), "{error}");
    }
    fs::write(&vectors, whole).unwrap();
    assert_eq!(found(&DocumentFolder::open(&path).unwrap(), &model).len(), 2);
}

#[test]
fn a_number_is_given_once_and_a_document_is_deleted_once() {
    let here = folder();
    let model = pretrained(tiny_model());
    let path = here.path().join("documents");
    let mut documents = DocumentFolder::open_or_create(&path, &model).unwrap();
    assert_eq!(add(&mut documents, &model, &["one", "two", "three", "four"]), ["0", "1", "2", "3"]);
    assert_eq!(documents.delete(&["1", "2", "3", "3"]).unwrap(), 3, "the same id twice is one document");
    assert_eq!(documents.ids().unwrap(), ["0"]);
    let mut documents = DocumentFolder::open(&path).unwrap();
    assert_eq!(add(&mut documents, &model, &["five"]), ["4"], "the folder was made compact meanwhile");
    assert!(matches!(documents.delete(&["2"]), Err(Error::UnknownDocument { .. })));
}

#[cfg(unix)]
#[test]
fn a_reader_keeps_what_it_opened_while_a_writer_makes_the_folder_compact() {
    let here = folder();
    let model = pretrained(tiny_model());
    let path = here.path().join("documents");
    let texts = ["a tor is a hill", "a fen is wet", "a beck is a stream"];
    let mut writer = DocumentFolder::open_or_create(&path, &model).unwrap();
    add(&mut writer, &model, &texts);
    let reader = DocumentFolder::open(&path).unwrap();
    writer.delete(&["0", "1"]).unwrap();
    assert!(!path.join("vectors-0.f32").exists(), "the files of the reader are gone");
    let mut all = texts.map(str::to_owned);
    all.sort();
    assert_eq!(found(&reader, &model), all);
    assert_eq!(found(&DocumentFolder::open(&path).unwrap(), &model), ["a beck is a stream"]);
}

/// Turns a folder into one of version 1, as the program wrote it before there were entries, passages and formats.
fn first_version(path: &Path) {
    let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(path.join("state.json")).unwrap()).unwrap();
    let deleted: Vec<u64> = json["deleted"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|range| range[0].as_u64().unwrap()..range[1].as_u64().unwrap())
        .collect();
    let first = serde_json::json!({
        "format": 1, "dim": json["dim"], "fingerprint": json["fingerprint"], "generation": json["generation"],
        "documents": json["passages"], "tokens": json["tokens"], "text_bytes": json["text_bytes"], "deleted": deleted,
    });
    fs::write(path.join("state.json"), first.to_string()).unwrap();
    fs::remove_file(path.join(format!("entries-{}.bin", json["generation"]))).unwrap();
}

#[test]
fn a_folder_of_the_first_version_is_read_and_written_to() {
    let here = folder();
    let model = pretrained(tiny_model());
    let path = here.path().join("documents");
    let mut documents = DocumentFolder::open_or_create(&path, &model).unwrap();
    add(&mut documents, &model, &["a tor is a hill", "a fen is wet", "a beck is a stream"]);
    documents.delete(&["1"]).unwrap();
    let expected = found(&documents, &model);
    first_version(&path);
    let mut first = DocumentFolder::open(&path).unwrap();
    assert_eq!((first.dim(), first.len(), first.passages()), (16, 2, 2));
    assert_eq!(found(&first, &model), expected);
    assert_eq!(first.ids().unwrap(), ["0", "2"]);
    assert!(!path.join("entries-0.bin").exists(), "reading changes nothing");

    // Both ways of writing make it one of today.
    assert_eq!(add(&mut first, &model, &["a weir is a dam"]), ["3"]);
    let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(path.join("state.json")).unwrap()).unwrap();
    assert_eq!(json["format"], 2);
    first_version(&path);
    let mut first = DocumentFolder::open(&path).unwrap();
    assert_eq!(first.delete(&["0"]).unwrap(), 1);
    assert_eq!(DocumentFolder::open(&path).unwrap().ids().unwrap(), ["2", "3"]);
    assert_eq!(found(&first, &model), ["a beck is a stream", "a weir is a dam"]);
}

#[test]
fn every_format_ranks_as_its_vectors_do() {
    let here = folder();
    let model = pretrained(tiny_model());
    let texts = ["a tor is a hill", "a fen is wet", "a beck is a stream", "a weir is a dam", "a moor is open land"];
    let exact = model.rerank("what is a tor", &texts, 5).unwrap();
    let mut sizes = Vec::new();
    for format in VectorFormat::ALL {
        let path = here.path().join(format.name());
        let mut documents = DocumentFolder::open_or_create_as(&path, &model, Some(format)).unwrap();
        documents.add(&model, &texts, &mut |_| ()).unwrap();
        assert_eq!(DocumentFolder::open(&path).unwrap().vector_format(), format);
        let hits = model.search("what is a tor", &documents, 5).unwrap();
        let scores = |hits: &[Hit]| -> Vec<f32> {
            let mut scores: Vec<(usize, f32)> = hits.iter().map(|hit| (hit.index, hit.score)).collect();
            scores.sort_by_key(|(index, _)| *index);
            scores.into_iter().map(|(_, score)| score).collect()
        };
        let allowed = match format {
            VectorFormat::Float32 => 0.0,
            VectorFormat::Float16 => 0.02,
            VectorFormat::Int8 => 0.2,
        };
        for (found, exact) in scores(&hits).iter().zip(scores(&exact)) {
            assert!((found - exact).abs() <= allowed, "{format}: {found} {exact}");
        }
        assert_eq!(hits.windows(2).filter(|pair| pair[0].score < pair[1].score).count(), 0);
        sizes.push(fs::metadata(path.join(format!("vectors-0.{}", ["f32", "f16", "i8"][sizes.len()]))).unwrap().len());
        let refused = DocumentFolder::open_or_create_as(&path, &model, Some(VectorFormat::ALL[sizes.len() % 3]));
        assert!(refused.unwrap_err().to_string().contains("another format"));
        assert!(DocumentFolder::open_or_create(&path, &model).is_ok());
    }
    let vectors = sizes[0] / 64;
    assert_eq!(sizes, [vectors * 64, vectors * 32, vectors * 20]);
}

#[test]
fn passages_point_to_their_document_and_go_with_it() {
    let here = folder();
    let model = pretrained(tiny_model());
    let path = here.path().join("documents");
    let metadata = serde_json::json!({"source": "moor.txt"}).as_object().unwrap().clone();
    let long = Document {
        id: Some("long".to_owned()),
        text: "A tor is a hill. A fen is wet. A beck is a stream. A weir is a dam.".to_owned(),
        metadata: metadata.clone(),
    };
    let mut documents = DocumentFolder::open_or_create(&path, &model).unwrap();
    let split = Split::Sentences { tokens: Some(8) };
    let ids = documents.add_passages(&model, &[long, "A moor is open land.".into()], split, &mut |_| ()).unwrap();
    assert_eq!((ids, documents.len(), documents.passages()), (vec!["long".to_owned(), "0".to_owned()], 2, 5));
    let documents = DocumentFolder::open(&path).unwrap();
    let mut hits = model.search("what is a tor", &documents, 10).unwrap();
    hits.sort_by_key(|hit| hit.index);
    let found: Vec<_> = hits.iter().map(|hit| (hit.id.as_deref().unwrap(), hit.passage, hit.text.as_str())).collect();
    let expected = [
        ("long", 0, "A tor is a hill."),
        ("long", 1, "A fen is wet."),
        ("long", 2, "A beck is a stream."),
        ("long", 3, "A weir is a dam."),
        ("0", 0, "A moor is open land."),
    ];
    assert_eq!(found, expected);
    assert!(hits[..4].iter().all(|hit| hit.metadata == metadata) && hits[4].metadata.is_empty());
    assert_eq!(documents.ids().unwrap(), ["long", "0"]);

    let mut documents = documents;
    assert_eq!(documents.delete(&["long"]).unwrap(), 1);
    assert_eq!(found_ids(&documents, &model), ["0"]);
    assert!(matches!(documents.delete(&["long"]), Err(Error::UnknownDocument { .. })));
    let again = Document { id: Some("long".to_owned()), ..Document::from("A fen is wet.") };
    documents.add(&model, &[again], &mut |_| ()).unwrap();
    assert_eq!(documents.len(), 2);

    let room = Split::Tokens { tokens: Some(10_000), overlap: 0 };
    let error = documents.add_passages(&model, &["x"], room, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("doc_maxlen"), "{error}");
    assert_eq!(DocumentFolder::open(&path).unwrap().len(), 2);
}

fn found_ids(folder: &DocumentFolder, model: &RagPretrainedModel) -> Vec<String> {
    model.search("what", folder, 10).unwrap().into_iter().map(|hit| hit.id.unwrap()).collect()
}

/// Whatever the number of threads and of queries that are searched at once.
#[test]
fn many_queries_at_once_find_what_each_finds_alone() {
    let here = folder();
    let model = pretrained(tiny_model());
    let mut documents = DocumentFolder::open_or_create(here.path().join("documents"), &model).unwrap();
    let texts: Vec<String> = (0..150).map(|i| format!("the {} of town {} is {}", i % 7, i, i * i % 31)).collect();
    documents.add(&model, &texts, &mut |_| ()).unwrap();
    documents.delete(&["3", "4", "5", "40"]).unwrap();
    let queries: Vec<String> = (0..70).map(|i| format!("what is {i} of town {}", i * 2)).collect();
    let together = model.search_all(&queries, &documents, 7).unwrap();
    for (query, together) in queries.iter().zip(&together).step_by(9) {
        assert_eq!(&model.search(query, &documents, 7).unwrap(), together);
        let left: Vec<&String> =
            texts.iter().enumerate().filter(|(i, _)| ![3, 4, 5, 40].contains(i)).map(|x| x.1).collect();
        let ranked = model.rerank(query, &left, 7).unwrap();
        let key = |hit: &Hit| (hit.rank, hit.text.clone(), hit.score.to_bits());
        assert_eq!(ranked.iter().map(key).collect::<Vec<_>>(), together.iter().map(key).collect::<Vec<_>>());
    }
}

//! The folder of encoded documents when programs die, delete and read at the same time.

use std::fs;
use std::path::Path;

use ragtrainer::{DocumentFolder, EncodedSource, Error, RagPretrainedModel};

use crate::support::{folder, pretrained, tiny_model};

fn add(folder: &mut DocumentFolder, model: &RagPretrainedModel, texts: &[&str]) -> Vec<String> {
    let documents: Vec<_> = texts.iter().map(|text| (None, (*text).to_owned())).collect();
    folder.add(model, &documents, &mut |_| ()).unwrap()
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
    for file in ["lock", "vectors-0.f32", "documents-0.jsonl", ".state.json.partial-123"] {
        fs::write(path.join(file), "").unwrap();
    }
    let mut made = DocumentFolder::open_or_create(&path, &model).unwrap();
    assert_eq!(add(&mut made, &model, &["a tor is a hill"]), ["0"]);

    fs::write(here.path().join("thesis.txt"), "precious").unwrap();
    assert!(matches!(DocumentFolder::open_or_create(here.path(), &model), Err(Error::DocumentFolder { .. })));
}

#[test]
fn a_number_is_given_once_and_a_document_is_deleted_once() {
    let here = folder();
    let model = pretrained(tiny_model());
    let path = here.path().join("documents");
    let mut documents = DocumentFolder::open_or_create(&path, &model).unwrap();
    assert_eq!(add(&mut documents, &model, &["one", "two", "three", "four"]), ["0", "1", "2", "3"]);
    assert_eq!(documents.delete(&["1", "2", "3", "3"]).unwrap(), 3, "the same id twice is one document");
    assert_eq!(documents.ids().collect::<Vec<_>>(), ["0"]);
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

/// Folders of the first version do not say how many documents were ever added.
#[test]
fn a_folder_of_the_first_version_is_read() {
    let here = folder();
    let model = pretrained(tiny_model());
    let path = here.path().join("documents");
    let mut documents = DocumentFolder::open_or_create(&path, &model).unwrap();
    add(&mut documents, &model, &["one", "two"]);
    let state = path.join("state.json");
    let mut json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&state).unwrap()).unwrap();
    json.as_object_mut().unwrap().remove("added").unwrap();
    fs::write(&state, json.to_string()).unwrap();
    let mut documents = DocumentFolder::open(Path::new(&path)).unwrap();
    assert_eq!((documents.dim(), documents.len()), (16, 2));
    assert_eq!(add(&mut documents, &model, &["three"]), ["2"]);
}

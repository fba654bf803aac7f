//! Token pooling as a module of a directory: read, honoured and written as sentence-transformers 6.2 does.

use std::fs;
use std::path::{Path, PathBuf};

use colbert_config::{ArtifactMetadata, ExportDtype, ExportLayout, TrainOptions};
use colbert_model::{ColbertSettings, Export, Pretrained, TokenPooling, Weights, named_parameters};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::field::{TOLERANCE, change, native, read, refused};
use crate::support::{B, device, largest_difference, strings};

/// A directory with sentence-transformers' module for token pooling.
fn pooled(folder: &TempDir) -> PathBuf {
    let path = native("pooled", folder);
    let all = test_backend::crate_folder().join("tests/field/st6-native/pooled");
    fs::create_dir_all(path.join("4_HierarchicalTokenPooling")).unwrap();
    for file in ["modules.json", "4_HierarchicalTokenPooling/config.json"] {
        fs::copy(all.join(file), path.join(file)).unwrap();
    }
    path
}

/// Means come in another order here, which does not change MaxSim.
fn by_first_number(values: &[f32], dim: usize) -> Vec<f32> {
    let mut rows: Vec<&[f32]> = values.chunks(dim).collect();
    rows.sort_by(|a, b| a[0].total_cmp(&b[0]));
    rows.concat()
}

#[test]
fn a_module_that_pools_documents_gives_sentence_transformers_vectors_and_is_written_again() {
    let folder = TempDir::new().unwrap();
    let pretrained = Pretrained::read(&pooled(&folder)).unwrap();
    let settings = pretrained.declared_settings().unwrap();
    let pooling = settings.token_pooling.unwrap();
    assert_eq!(pooling, TokenPooling::new(2.0).unwrap());
    let (model, _) = pretrained.model::<B>(&settings, None, 0, &device()).unwrap();
    let tokenizer = pretrained.tokenizer(&settings).unwrap();
    let all = test_backend::crate_folder().join("tests/field/st6-native");
    let texts = read(&all.join("texts.json"));
    let mut expected = Weights::read(&all.join("pooled/expected.safetensors")).unwrap();
    let (queries, documents) = (strings(&texts["queries"]), strings(&texts["documents"]));
    let (queries, documents) = (tokenizer.queries(&queries).unwrap(), tokenizer.documents(&documents).unwrap());
    let mut pooled = 0;
    for (side, sequences) in [("q", queries), ("d", documents)] {
        for (i, found) in model.encode(&sequences, &device()).to_host().into_iter().enumerate() {
            let rows = if side == "d" { pooling.pool(&found.values, 16) } else { found.values.clone() };
            let name = format!("{side}{i}");
            let shape = expected.shape(&name).unwrap().to_vec();
            pooled += usize::from(rows.len() < found.values.len());
            assert_eq!(rows.len(), shape[0] * shape[1], "{name}");
            let expected = expected.take(&name, &shape).unwrap().values;
            let difference = largest_difference(&by_first_number(&rows, 16), &by_first_number(&expected, 16));
            assert!(difference < TOLERANCE, "{name}: {difference}");
        }
    }
    assert_eq!(pooled, 3, "all documents, no query");

    // A run that starts from it keeps the module, unless told otherwise, and the layout of all programs lacks it.
    let options = TrainOptions { dim: 16, query_maxlen: 24, doc_maxlen: 40, ..TrainOptions::default() };
    let of = |pool_factor| pretrained.settings(&TrainOptions { pool_factor, ..options.clone() });
    assert_eq!(of(None).token_pooling, Some(pooling));
    assert_eq!(of(Some(3.0)).token_pooling.unwrap().factor, 3.0);
    let none = of(Some(1.0));
    pretrained.check_layout(&none, ExportLayout::All).unwrap();
    let error = pretrained.check_layout(&of(None), ExportLayout::All).unwrap_err().to_string();
    assert!(error.contains("token pooling of documents") && error.contains("pool_factor = 1"), "{error}");
    for (settings, written) in [(of(Some(1.5)), true), (none, false)] {
        let path = folder.path().join(format!("{written}"));
        write_native(&pretrained, &settings, &path);
        let modules = read(&path.join("modules.json"));
        assert_eq!(modules.as_array().unwrap().len(), 4 + usize::from(written), "{modules}");
        let again = Pretrained::read(&path).unwrap().declared_settings().unwrap();
        assert_eq!(again.token_pooling, settings.token_pooling.filter(|pooling| pooling.factor > 1.0));
    }
    let (own, theirs) =
        (folder.path().join("true"), test_backend::crate_folder().join("tests/field/st6-native/pooled"));
    let last = |path: &Path| read(&path.join("modules.json")).as_array().unwrap().last().unwrap().clone();
    assert_eq!(last(&own), last(&theirs));
    let mut config = read(&theirs.join("4_HierarchicalTokenPooling/config.json"));
    config["pool_factor"] = json!(1.5);
    assert_eq!(read(&own.join("4_HierarchicalTokenPooling/config.json")), config);
}

/// Writes a model in the layout of sentence-transformers.
fn write_native(pretrained: &Pretrained, settings: &ColbertSettings, path: &Path) {
    let (model, _) = pretrained.model::<B>(settings, None, 0, &device()).unwrap();
    let tensors: Vec<_> =
        named_parameters(&model).into_iter().map(|(name, tensor)| (model.tensor_name(&name), tensor)).collect();
    let metadata = ArtifactMetadata::default();
    let all = Export {
        tensors: &tensors,
        settings,
        files: &pretrained.files,
        metadata: &metadata,
        layout: ExportLayout::SentenceTransformers,
        dtype: ExportDtype::F32,
        onnx: false,
        own_encoder: None,
        extra: &[],
    };
    all.write::<B>(path, false, &device()).unwrap();
}

#[test]
fn pooling_that_is_not_done_here_is_refused_by_name() {
    let error = |change: &dyn Fn(&Path)| {
        let folder = TempDir::new().unwrap();
        let path = pooled(&folder);
        change(&path);
        refused(&path)
    };
    let set = |key: &'static str, value: Value| {
        move |path: &Path| {
            change(&path.join("4_HierarchicalTokenPooling/config.json"), |json| json[key] = value.clone())
        }
    };
    for (key, value) in [
        ("pool_factor", json!(0.5)),
        ("pool_factor", json!("2")),
        ("num_protected_tokens", json!(-1)),
        ("normalize_embeddings", json!(1)),
        ("tasks", json!(["query", "document"])),
        ("tasks", json!("query")),
        ("tasks", json!(7)),
    ] {
        let error = error(&set(key, value.clone()));
        assert!(error.contains("4_HierarchicalTokenPooling") && error.contains(key), "{key} = {value}: {error}");
    }
    let moved = |from: usize, to: usize| {
        move |path: &Path| {
            change(&path.join("modules.json"), |modules| {
                let modules = modules.as_array_mut().unwrap();
                let module = modules.remove(from);
                modules.insert(to, module);
            });
        }
    };
    assert!(error(&moved(4, 3)).contains("HierarchicalTokenPooling as the last module"), "in front of the mask");
    assert!(error(&moved(4, 2)).contains("no Normalize before HierarchicalTokenPooling"));
    // Keys that older files leave out, and a module without a task.
    let read_with = |key: &'static str, value: Value| {
        let folder = TempDir::new().unwrap();
        let path = pooled(&folder);
        set(key, value)(&path);
        Pretrained::read(&path).unwrap().declared.token_pooling.unwrap()
    };
    assert!(!read_with("normalize_embeddings", Value::Null).unit_length);
    assert_eq!((read_with("pool_factor", Value::Null).factor, read_with("tasks", json!([])).factor), (1.0, 1.0));
    assert_eq!(read_with("num_protected_tokens", json!(0)).protected, 0);
    assert_eq!(read_with("tasks", json!("document")).factor, 2.0);
}

//! Directories that PyLate and torch wrote. The fixtures and the script that made them are in `tests/families`.

use std::fs;
use std::path::Path;

use colbert_model::{ColbertSettings, ModelError, Pretrained, Weights, named_parameters};
use tempfile::TempDir;

use crate::families::{TOLERANCE, settings};
use crate::support::{B, compare_with_pylate, copied, device, fixture};

#[test]
fn a_directory_that_pylate_saved_gives_pylates_vectors() {
    let path = fixture("pylate");
    let pretrained = Pretrained::read(&path).unwrap();
    let settings = pretrained.declared_settings().unwrap();
    assert_eq!(
        settings,
        ColbertSettings {
            dim: 24,
            query_maxlen: 14,
            doc_maxlen: 30,
            attend_to_mask_tokens: true,
            query_expansion: true,
            mask_punctuation: true,
            skiplist_words: Some(vec![".".into(), ",".into(), "the".into()]),
            use_relu: false,
            query_token_id: "[Q] ".into(),
            doc_token_id: "[D] ".into(),
            ..ColbertSettings::default()
        }
    );
    let tokenizer = pretrained.tokenizer(&settings).unwrap();
    let (model, report) = pretrained.model::<B>(&settings, None, 0, &device()).unwrap();
    assert!(report.initialised.is_empty() && report.ignored.is_empty(), "{report:?}");
    compare_with_pylate("pylate", &model, &tokenizer, TOLERANCE);
}

#[test]
fn queries_without_expansion_are_as_long_as_they_are() {
    let folder = TempDir::new().unwrap();
    let path = copied(&fixture("pylate"), &folder);
    let file = path.join("config_sentence_transformers.json");
    let config = fs::read_to_string(&file).unwrap();
    fs::write(&file, config.replace("\"do_query_expansion\": true", "\"do_query_expansion\": false")).unwrap();
    let pretrained = Pretrained::read(&path).unwrap();
    let settings = pretrained.declared_settings().unwrap();
    assert!(!settings.query_expansion);
    let query = pretrained.tokenizer(&settings).unwrap().queries(&["a fen"]).unwrap().remove(0);
    assert!(query.len() < 14 && query.attended == query.len(), "{query:?}");
    fs::write(&file, config.replace("\"[Q] \"", "\"\"")).unwrap();
    // No marker at all: the query is filled up to its length all the same.
    let pretrained = Pretrained::read(&path).unwrap();
    let tokenizer = pretrained.tokenizer(&pretrained.declared_settings().unwrap()).unwrap();
    let bare = tokenizer.queries(&["a fen"]).unwrap().remove(0);
    assert_eq!((bare.len(), tokenizer.marker_ids().0), (14, None));
    assert_eq!((bare.ids[0], &bare.ids[1..4]), (query.ids[0], &query.ids[2..5]));
}

/// The weights in several files, or in PyTorch's own format, give the same model.
#[test]
fn sharded_and_pickled_weights_load() {
    let folder = TempDir::new().unwrap();
    let path = copied(&fixture("distilbert"), &folder);
    let whole = path.join("model.safetensors");
    let parameters = |path: &Path| {
        let pretrained = Pretrained::read(path).unwrap();
        named_parameters(&pretrained.model::<B>(&settings(16, 40), None, 0, &device()).unwrap().0)
    };
    let original = parameters(&path);
    let mut weights = Weights::read(&whole).unwrap();
    let names: Vec<String> = weights.names().map(str::to_owned).collect();
    let mut parts = [Vec::new(), Vec::new()];
    let mut map = serde_json::Map::new();
    for (i, name) in names.into_iter().enumerate() {
        let shape = weights.shape(&name).unwrap().to_vec();
        map.insert(name.clone(), format!("part-{}.safetensors", i % 2).into());
        let tensor = weights.take(&name, &shape).unwrap();
        parts[i % 2].push((name, tensor));
    }
    for (i, part) in parts.iter().enumerate() {
        let bytes = colbert_model::safetensors_bytes(part).unwrap();
        fs::write(path.join(format!("part-{i}.safetensors")), bytes).unwrap();
    }
    fs::remove_file(&whole).unwrap();
    let index = path.join("model.safetensors.index.json");
    fs::write(&index, serde_json::json!({"metadata": {}, "weight_map": &map}).to_string()).unwrap();
    assert_eq!(parameters(&path), original);

    fs::remove_file(path.join("part-1.safetensors")).unwrap();
    let error = Pretrained::read(&path).unwrap_err().to_string();
    assert!(error.contains("part-1.safetensors") && error.contains("index.json"), "{error}");
    fs::remove_file(&index).unwrap();
    let torch = path.join("pytorch_model.bin");
    fs::copy(fixture("torch").join("distilbert.bin"), &torch).unwrap();
    assert_eq!(parameters(&path), original);

    map.values_mut().for_each(|part| *part = "part-1.bin".into());
    fs::rename(&torch, path.join("part-1.bin")).unwrap();
    fs::write(path.join("pytorch_model.bin.index.json"), serde_json::json!({"weight_map": map}).to_string()).unwrap();
    assert_eq!(parameters(&path), original);
}

#[test]
fn code_in_a_pickle_is_refused_by_name_and_not_run() {
    let folder = TempDir::new().unwrap();
    let path = copied(&fixture("distilbert"), &folder);
    fs::remove_file(path.join("model.safetensors")).unwrap();
    for (file, parts) in [
        ("evil.bin", vec!["system", "nothing of it was run"]),
        ("module.bin", vec!["torch.nn.modules.linear.Linear", "nothing of it was run"]),
        ("legacy.bin", vec!["before 1.6"]),
        ("bare.bin", vec!["before 1.6"]),
    ] {
        fs::copy(fixture("torch").join(file), path.join("pytorch_model.bin")).unwrap();
        let error = Pretrained::read(&path).unwrap_err();
        assert!(matches!(error, ModelError::BrokenPickle { .. }), "{file}: {error}");
        let error = error.to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{file}: {error}");
    }
    let state = fs::read(fixture("torch").join("distilbert.bin")).unwrap();
    fs::write(path.join("pytorch_model.bin"), &state[..state.len() / 2]).unwrap();
    assert!(matches!(Pretrained::read(&path), Err(ModelError::BrokenPickle { .. })));
}

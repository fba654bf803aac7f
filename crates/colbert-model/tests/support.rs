//! The recorded fixtures and the tiny model that made them.

use std::fs;
use std::path::{Path, PathBuf};

use colbert_config::{ArtifactMetadata, ExportDtype, ExportLayout, TrainOptions, resolve};
use colbert_model::{
    Colbert, ColbertSettings, ColbertTokenizer, Export, HostTensor, ModelError, Pretrained, PretrainedEncoder, Weights,
    named_parameters, safetensors_bytes,
};
use serde_json::Value;
use tempfile::TempDir;
pub(crate) use test_backend::device;
use test_backend::{TestBackend, crate_folder};

pub(crate) type B = TestBackend;

pub(crate) fn parity(file: &str) -> PathBuf {
    crate_folder().join("tests/parity").join(file)
}

pub(crate) fn json(file: &str) -> Value {
    let path = parity(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

pub(crate) fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Settings of the tiny model, which projects to 16.
pub(crate) fn settings(query_maxlen: usize, doc_maxlen: usize) -> ColbertSettings {
    ColbertSettings { dim: 16, query_maxlen, doc_maxlen, ..ColbertSettings::default() }
}

pub(crate) fn tiny(settings: &ColbertSettings) -> (Colbert<B, PretrainedEncoder<B>>, ColbertTokenizer, Pretrained) {
    let pretrained = Pretrained::read(&parity("tiny")).unwrap();
    let (model, report) = pretrained.model::<B>(settings, None, 0, &device()).unwrap();
    assert!(report.initialised.is_empty() && report.ignored.is_empty(), "{report:?}");
    (model, pretrained.tokenizer(settings).unwrap(), pretrained)
}

/// Largest absolute difference; the lengths must agree. NaN is larger than any: `f32::max` would skip it.
pub(crate) fn largest_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a })
}

/// Options of the directory that [`export_tiny`] writes.
pub(crate) fn options() -> TrainOptions {
    TrainOptions { dim: 16, doc_maxlen: 64, ..TrainOptions::default() }
}

/// Exports the tiny ColBERT of the recorded numbers to a folder.
pub(crate) fn export_tiny(path: &Path, overwrite: bool) -> Result<(), ModelError> {
    export_tiny_as(path, overwrite, ExportDtype::F32, |_| ())
}

/// With numbers of a type, and after a change to the tensors.
pub(crate) fn export_tiny_as(
    path: &Path,
    overwrite: bool,
    dtype: ExportDtype,
    change: impl Fn(&mut Vec<(String, HostTensor)>),
) -> Result<(), ModelError> {
    let settings = settings(32, 64);
    let (model, _, pretrained) = tiny(&settings);
    let mut tensors: Vec<_> =
        named_parameters(&model).into_iter().map(|(name, tensor)| (model.tensor_name(&name), tensor)).collect();
    change(&mut tensors);
    let plan = resolve(&options(), 320).unwrap();
    let metadata = ArtifactMetadata::from_training(&options(), &plan, "tiny");
    let card = [("README.md", "a card\n".to_owned())];
    let directory = Export {
        tensors: &tensors,
        settings: &settings,
        files: &pretrained.files,
        metadata: &metadata,
        layout: ExportLayout::All,
        dtype,
        onnx: false,
        own_encoder: None,
        extra: &card,
    };
    directory.write::<B>(path, overwrite, &device())
}

/// The encoder of the tiny ColBERT without its head.
pub(crate) fn plain_encoder(folder: &TempDir) -> PathBuf {
    let path = copied(&parity("tiny"), folder);
    let file = path.join("model.safetensors");
    let mut weights = Weights::read(&file).unwrap();
    weights.take("linear.weight", &[16, 32]).unwrap();
    let names: Vec<String> = weights.names().map(str::to_owned).collect();
    let tensors: Vec<_> = names
        .into_iter()
        .map(|name| {
            let shape = weights.shape(&name).unwrap().to_vec();
            let tensor = weights.take(&name, &shape).unwrap();
            (name, tensor)
        })
        .collect();
    fs::write(&file, safetensors_bytes(&tensors).unwrap()).unwrap();
    path
}

/// A folder of `tests/families`.
pub(crate) fn fixture(family: &str) -> PathBuf {
    test_backend::crate_folder().join("tests/families").join(family)
}

/// The results of the libraries that made it, for its texts.
pub(crate) fn expected(family: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(fixture(family).join("expected.json")).unwrap()).unwrap()
}

pub(crate) fn copied(from: &Path, folder: &TempDir) -> PathBuf {
    let to = folder.path().join("model");
    copy(from, &to);
    to
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Vectors of the texts of a directory that PyLate wrote, against PyLate's own.
pub(crate) fn compare_with_pylate(
    folder: &str,
    model: &Colbert<B, PretrainedEncoder<B>>,
    tokenizer: &ColbertTokenizer,
    tolerance: f32,
) {
    let texts = strings(&expected(folder)["texts"]);
    let mut vectors = Weights::read(&fixture(folder).join("expected.safetensors")).unwrap();
    let found = [
        ("query", model.encode(&tokenizer.queries(&texts).unwrap(), &device()).to_host()),
        ("document", model.encode(&tokenizer.documents(&texts).unwrap(), &device()).to_host()),
    ];
    for (side, found) in found {
        for (i, own) in found.iter().enumerate() {
            let name = format!("{side}.{i}");
            let shape = vectors.shape(&name).unwrap().to_vec();
            assert_eq!(own.shape, shape, "{name}: {}", texts[i]);
            let difference = largest_difference(&own.values, &vectors.take(&name, &shape).unwrap().values);
            assert!(difference < tolerance, "{folder}, {name}: {difference}");
        }
    }
}

//! Directories with float16 and bfloat16 numbers.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use colbert_config::ExportDtype;
use colbert_model::{HostTensor, Pretrained, SelfCheck, Weights, named_parameters};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{B, device, export_tiny, export_tiny_as, settings};

/// Types of the tensors of a safetensors file, by its header.
fn dtypes(path: &Path) -> BTreeSet<String> {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let tensors = header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
    tensors.map(|(_, tensor)| tensor["dtype"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn half_precision_is_written_read_and_checked() {
    let folder = TempDir::new().unwrap();
    let whole = folder.path().join("f32");
    export_tiny(&whole, false).unwrap();
    let read = |path: &Path, file: &str| Weights::read(&path.join(file)).unwrap();
    let check = |path: &Path| -> SelfCheck {
        serde_json::from_str(&fs::read_to_string(path.join("selfcheck.json")).unwrap()).unwrap()
    };
    let config = |path: &Path| -> Value {
        serde_json::from_str(&fs::read_to_string(path.join("config.json")).unwrap()).unwrap()
    };
    assert_eq!(config(&whole)["torch_dtype"], "float32");
    for (dtype, name, torch_name, bits) in
        [(ExportDtype::F16, "F16", "float16", 11), (ExportDtype::Bf16, "BF16", "bfloat16", 8)]
    {
        let path = folder.path().join(name);
        export_tiny_as(&path, false, dtype, |_| ()).unwrap();
        assert_eq!(config(&path)["torch_dtype"], torch_name);
        for file in ["model.safetensors", "1_Dense/model.safetensors"] {
            assert_eq!(dtypes(&path.join(file)), BTreeSet::from([name.to_owned()]), "{file}");
            let (mut exact, mut rounded) = (read(&whole, file), read(&path, file));
            let names: Vec<String> = exact.names().map(str::to_owned).collect();
            for name in names {
                let shape = exact.shape(&name).unwrap().to_vec();
                let pair = (exact.take(&name, &shape).unwrap(), rounded.take(&name, &shape).unwrap());
                for (exact, rounded) in pair.0.values.iter().zip(&pair.1.values) {
                    // Half a unit in the last of these bits, or of the smallest number of float16.
                    let allowed = (exact.abs() * 0.5f32.powi(bits)).max(0.5f32.powi(25));
                    assert!((exact - rounded).abs() <= allowed, "{name}: {exact} became {rounded}");
                }
            }
        }
        // The vectors in it are those of the written model.
        assert_eq!(SelfCheck::replay::<B>(&path, &device()).unwrap(), 0.0);
        let (exact, rounded) = (check(&whole), check(&path));
        assert_ne!(exact.documents[0].vectors, rounded.documents[0].vectors);
        for (exact, rounded) in exact.documents.iter().zip(&rounded.documents) {
            let (exact, rounded) = (exact.vectors.concat(), rounded.vectors.concat());
            let largest = exact.iter().zip(&rounded).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(largest < 0.05, "{name}: {largest}");
        }
        // A second export from it is the same: nothing is left to round.
        let again = Pretrained::read(&path).unwrap();
        let (model, _) = again.model::<B>(&settings(32, 64), None, 0, &device()).unwrap();
        let (loaded, mut kept) = (named_parameters(&model), read(&path, "model.safetensors"));
        for (name, tensor) in loaded {
            assert_eq!(kept.take(&model.tensor_name(&name), &tensor.shape).unwrap(), tensor);
        }
    }
}

#[test]
fn a_number_beyond_half_precision_is_refused_by_the_name_of_its_tensor() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("exported");
    let large = |value: f32| {
        move |tensors: &mut Vec<(String, HostTensor)>| {
            let (_, tensor) = tensors.iter_mut().find(|(name, _)| name.ends_with("layer.1.output.dense.bias")).unwrap();
            tensor.values[3] = value;
        }
    };
    // 65504 is the largest number of float16; numbers closer to the next one become infinite.
    for (dtype, value) in [(ExportDtype::F16, 65520.0), (ExportDtype::F16, -1e6), (ExportDtype::Bf16, f32::MAX)] {
        let error = export_tiny_as(&path, false, dtype, large(value)).unwrap_err().to_string();
        assert!(error.contains("bert.encoder.layer.1.output.dense.bias"), "{error}");
        assert!(error.contains(dtype.torch_name()) && error.contains(&value.to_string()), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
    }
    export_tiny_as(&path, false, ExportDtype::F16, large(65504.0)).unwrap();
    export_tiny_as(&path, true, ExportDtype::Bf16, large(1e6)).unwrap();
}

//! Weights: safetensors, pytorch_model.bin as it is, and its pickle program in an archive that is whole.

use colbert_model::{Pretrained, Weights};
use ragtrainer::RagPretrainedModel;

use super::scratch::{choice, with_scratch};
use super::tiny_model::write_tiny_model;

/// An archive of entries that are not compressed, as `torch.save` writes them but for the alignment.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let size = u32::try_from(content.len()).expect("inputs are small").to_le_bytes();
        let start = u32::try_from(bytes.len()).expect("inputs are small").to_le_bytes();
        let length = u16::try_from(name.len()).expect("names are short").to_le_bytes();
        let head = [&[0u8; 2][..], &[0; 2], &[0; 2], &[0; 4], &[0; 4], &size, &size, &length, &[0; 2]].concat();
        bytes.extend([&b"PK\x03\x04"[..], &head[..], name.as_bytes(), content].concat());
        let tail = [&[0u8; 2][..], &[0; 2], &[0; 2], &[0; 4], &start].concat();
        directory.extend([&b"PK\x01\x02"[..], &[0; 2], &head[..], &tail, name.as_bytes()].concat());
    }
    let count = u16::try_from(entries.len()).expect("few entries").to_le_bytes();
    let size = u32::try_from(directory.len()).expect("inputs are small").to_le_bytes();
    let start = u32::try_from(bytes.len()).expect("inputs are small").to_le_bytes();
    bytes.extend(directory);
    bytes.extend([&b"PK\x05\x06"[..], &[0u8; 4], &count, &count, &size, &start, &[0; 2]].concat());
    bytes
}

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    let Some((kind, content)) = choice(bytes, 3) else { return };
    with_scratch(
        "weights",
        |scratch| write_tiny_model(scratch, "model"),
        |scratch| {
            for name in ["model/model.safetensors", "model/pytorch_model.bin"] {
                scratch.remove(name);
            }
            let directory = scratch.path().join("model");
            match kind {
                0 => {
                    let path = scratch.write("model/model.safetensors", content);
                    if let Ok(mut weights) = Weights::read(&path) {
                        let names: Vec<String> = weights.names().map(str::to_owned).collect();
                        for name in names {
                            let shape = weights.shape(&name).expect("it is named").to_vec();
                            if let Ok(tensor) = weights.take(&name, &shape) {
                                assert_eq!(shape.iter().product::<usize>(), tensor.values.len());
                            }
                        }
                    }
                }
                1 => drop(scratch.write("model/pytorch_model.bin", content)),
                _ => {
                    let numbers = [0u8; 256];
                    let entries = [("m/data.pkl", content), ("m/data/0", &numbers[..]), ("m/data/1", &numbers[..16])];
                    scratch.write("model/pytorch_model.bin", &archive(&entries));
                }
            }
            drop(Pretrained::read(&directory));
            drop(RagPretrainedModel::from_pretrained(&directory));
        },
    );
}

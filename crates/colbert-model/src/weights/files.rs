//! The weights of a directory, in whichever files they are: one safetensors file, several with an index, or PyTorch's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use crate::error::ModelError;
use crate::weights::Weights;
use crate::weights::json::{LFS_POINTER, read_json};
use crate::weights::layout::inside;
use crate::weights::pickle;

/// The content of an index, such as `model.safetensors.index.json`: which tensor is in which file.
#[derive(Debug, Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Reads the weights of a directory: `model.safetensors`, else the files that `model.safetensors.index.json` names,
/// else `pytorch_model.bin`, else the files that `pytorch_model.bin.index.json` names. None if it has none of these.
///
/// # Errors
/// A file that is damaged, or a tensor that the index promises and its file lacks.
pub(crate) fn read_weights(directory: &Path) -> Result<Option<Weights>, ModelError> {
    let (single, index, pickled) = (
        directory.join("model.safetensors"),
        directory.join("model.safetensors.index.json"),
        directory.join("pytorch_model.bin"),
    );
    if single.is_file() {
        return Weights::read(&single).map(Some);
    }
    if index.is_file() {
        return read_parts(directory, &index).map(Some);
    }
    if pickled.is_file() {
        refuse_pointer(&pickled)?;
        return Ok(Some(Weights::new(&pickled, pickle::read(&pickled)?)));
    }
    let index = directory.join("pytorch_model.bin.index.json");
    if index.is_file() {
        return read_parts(directory, &index).map(Some);
    }
    Ok(None)
}

fn refuse_pointer(path: &Path) -> Result<(), ModelError> {
    let fail = |source| ModelError::Io { action: "read", path: path.to_owned(), source };
    let mut first = Vec::with_capacity(LFS_POINTER.len());
    File::open(path).map_err(fail)?.take(LFS_POINTER.len() as u64).read_to_end(&mut first).map_err(fail)?;
    if first == LFS_POINTER { Err(ModelError::GitLfsPointer { path: path.to_owned() }) } else { Ok(()) }
}

fn read_parts(directory: &Path, path: &Path) -> Result<Weights, ModelError> {
    let index: Index = read_json(path, "a weight_map from tensors to files")?;
    let mut all = Weights::new(path, []);
    for file in index.weight_map.values().collect::<BTreeSet<_>>() {
        let Some(part) = inside(directory, file) else {
            let (found, expected) = (format!("\"{file}\""), "files of the directory".to_owned());
            return Err(ModelError::UnsupportedConfig { path: path.to_owned(), field: "weight_map", found, expected });
        };
        if !part.is_file() {
            let is_torch = path.file_name().is_some_and(|name| name == "pytorch_model.bin.index.json");
            let hint = if is_torch {
                "pytorch_model.bin.index.json names it"
            } else {
                "model.safetensors.index.json names it"
            };
            return Err(ModelError::MissingFile { path: part, hint });
        }
        all.append(match part.extension().is_some_and(|extension| extension == "bin") {
            true => {
                refuse_pointer(&part)?;
                Weights::new(&part, pickle::read(&part)?)
            }
            false => Weights::read(&part)?,
        });
    }
    match index.weight_map.keys().find(|name| !all.contains(name)) {
        // Integers, such as position ids, are in the index and are not read.
        Some(name) if name.ends_with(".weight") || name.ends_with(".bias") => {
            Err(ModelError::MissingTensor { path: path.to_owned(), name: name.clone() })
        }
        _ => Ok(all),
    }
}

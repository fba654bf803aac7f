//! Which of a model's files are downloaded: what a directory is loaded from, and the weights in one of their formats.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::error::Error;

/// Files of the root folder that say what a model is and how it is used.
const OF_ROOT: [&str; 4] =
    ["modules.json", "config_sentence_transformers.json", "artifact.metadata", "sentence_bert_config.json"];

/// Files of the root folder and of folders of modules.
const OF_MODULE: [&str; 6] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "sentence_bert_config.json",
];

/// The files of a model, by their paths in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WantedFiles {
    /// Small files first, so that what cannot be used is seen before the weights are here.
    pub(super) files: Vec<String>,
    /// `model.safetensors.index.json`, each of which names further files.
    pub(super) indices: Vec<String>,
}

impl WantedFiles {
    /// Of all files that there are; or what is missing.
    pub(super) fn of(all: &[String]) -> Result<Self, &'static str> {
        let has = |name: &str| all.iter().any(|file| file == name);
        // Modules of sentence-transformers and PyLate: `0_Transformer`, `1_Pooling`, `1_Dense`, `2_Dense`.
        let modules: BTreeSet<&str> = all
            .iter()
            .filter_map(|file| file.split_once('/'))
            .map(|(folder, _)| folder)
            .filter(|folder| folder.split_once('_').is_some_and(|(n, _)| n.parse::<u8>().is_ok()))
            .collect();
        let mut small: Vec<String> = OF_ROOT.iter().map(|file| (*file).to_owned()).collect();
        let (mut weights, mut indices) = (Vec::new(), Vec::new());
        let mut encoder_has_weights = false;
        for folder in [""].into_iter().chain(modules) {
            let within = |file: &str| if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") };
            small.extend(OF_MODULE.iter().map(|file| within(file)));
            let (single, index, pickled) =
                (within("model.safetensors"), within("model.safetensors.index.json"), within("pytorch_model.bin"));
            let found = [has(&single), has(&index), has(&pickled)];
            match found {
                [true, ..] => weights.push(single),
                [_, true, _] => indices.push(index),
                [.., true] => weights.push(pickled),
                _ => {}
            }
            encoder_has_weights |= found.contains(&true) && has(&within("tokenizer.json"));
        }
        for file in ["config.json", "tokenizer.json"] {
            if !has(file) && !has(&format!("0_Transformer/{file}")) {
                return Err(file);
            }
        }
        if !encoder_has_weights {
            return Err("model.safetensors or pytorch_model.bin");
        }
        let mut files: Vec<String> = Vec::new();
        for file in small {
            if has(&file) && !files.contains(&file) {
                files.push(file);
            }
        }
        files.extend(weights);
        Ok(Self { files, indices })
    }
}

/// The files of weights that an index names, of those that there are. What is missing is seen when the model is read.
///
/// # Errors
/// The index does not parse.
pub(super) fn parts_of(path: &Path, index: &str, all: &[String]) -> Result<BTreeSet<String>, Error> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = fs::read(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?;
    let read: Index = serde_json::from_slice(&text).map_err(|source| {
        let expected = "a weight_map from tensors to files";
        Error::Json { path: path.to_owned(), expected, source }
    })?;
    let folder = index.rsplit_once('/').map_or_else(String::new, |(folder, _)| format!("{folder}/"));
    // Files that the hub lists have plain names; others that an index may hold are not asked for.
    let listed = |file: &String| all.contains(file) && file.split('/').all(|part| part != ".." && !part.is_empty());
    Ok(read.weight_map.into_values().map(|file| format!("{folder}{file}")).filter(listed).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[&str]) -> Result<WantedFiles, &'static str> {
        WantedFiles::of(&files.iter().map(|file| (*file).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn weights_are_wanted_in_one_format_and_last() {
        let base = ["config.json", "tokenizer.json"];
        let with = |more: &[&'static str]| of(&[&base[..], more].concat());
        let both = with(&["model.safetensors", "pytorch_model.bin", "onnx/model.onnx", "README.md"]).unwrap();
        assert_eq!(both.files, ["config.json", "tokenizer.json", "model.safetensors"]);
        assert_eq!(with(&["pytorch_model.bin"]).unwrap().files[2], "pytorch_model.bin");
        let parts = with(&["model.safetensors.index.json", "model-00001-of-00002.safetensors"]).unwrap();
        assert_eq!((parts.files.len(), parts.indices), (2, vec!["model.safetensors.index.json".to_owned()]));
        assert_eq!(with(&["model.gguf"]), Err("model.safetensors or pytorch_model.bin"));
        assert_eq!(with(&["1_Dense/model.safetensors"]), Err("model.safetensors or pytorch_model.bin"));
        assert_eq!(of(&["config.json", "model.safetensors"]), Err("tokenizer.json"));
    }

    #[test]
    fn modules_are_wanted_with_their_weights() {
        let all = [
            "config.json",
            "tokenizer.json",
            "modules.json",
            "1_Dense/config.json",
            "1_Dense/model.safetensors",
            "2_Dense/config.json",
            "2_Dense/pytorch_model.bin",
            "model.safetensors",
            "checkpoint_1/model.safetensors",
        ];
        let mut wanted = of(&all).unwrap().files;
        wanted.sort();
        let mut expected = all[..8].to_vec();
        expected.sort_unstable();
        assert_eq!(wanted, expected);
        let old =
            ["modules.json", "0_Transformer/config.json", "0_Transformer/tokenizer.json", "1_Pooling/config.json"];
        assert!(of(&[&old[..], &["0_Transformer/pytorch_model.bin"]].concat()).is_ok());
    }

    #[test]
    fn an_index_names_only_files_that_are_listed() {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join("index.json");
        let map =
            serde_json::json!({"weight_map": {"a": "m-1.safetensors", "b": "m-1.safetensors", "c": "../x", "d": "y"}});
        fs::write(&path, map.to_string()).unwrap();
        let all = ["m-1.safetensors".to_owned(), "../x".to_owned()];
        let parts: Vec<_> = parts_of(&path, "model.safetensors.index.json", &all).unwrap().into_iter().collect();
        assert_eq!(parts, ["m-1.safetensors"]);
        fs::write(&path, "[]").unwrap();
        assert!(parts_of(&path, "i", &all).unwrap_err().to_string().contains("weight_map"));
    }
}

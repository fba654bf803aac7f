//! Writing one directory in the layout that colbert-ai, RAGatouille, PyLate, sentence-transformers and pylate-rs read.
//!
//! Which file serves whom is in docs/interop.md. The directory is written beside its final name and renamed.

pub(crate) mod onnx;

use std::fs;
use std::path::Path;

use colbert_config::{ArtifactMetadata, ExportDtype};
use colbert_kernels::KernelBackend;
use serde_json::{Value, json};
use tokenizers::{ModelWrapper, Tokenizer};

use crate::directory::load::SourceFiles;
use crate::directory::selfcheck::{self, SelfCheck};
use crate::encoder::families::EncoderConfig;
use crate::encoder::family::ExportFacts;
use crate::error::ModelError;
use crate::export::onnx::write_onnx;
use crate::head::config::{HeadConfig, module_folder, names};
use crate::head::files::{module_tensors, one_matrix};
use crate::settings::ColbertSettings;
use crate::tokenizer::special_tokens::{SpecialTokens, skiplist_words};
use crate::weights::{HostTensor, safetensors_bytes_as};
use colbert_config::durable::{beside, replace_folder, sync_folder, write_synced};

/// Everything a model directory is made of.
#[derive(Debug)]
pub struct Export<'a> {
    /// Tensors by their names: the encoder's under its prefix, and the head's as [`Colbert::tensor_name`] names them.
    ///
    /// [`Colbert::tensor_name`]: crate::Colbert::tensor_name
    pub tensors: &'a [(String, HostTensor)],
    /// Lengths, markers, masks.
    pub settings: &'a ColbertSettings,
    /// Files of the source directory about encoder and tokenizer.
    pub files: &'a SourceFiles,
    /// `artifact.metadata`.
    pub metadata: &'a ArtifactMetadata,
    /// Type of the numbers that are written.
    pub dtype: ExportDtype,
    /// `model.onnx` and `onnx_config.json` too, with weights of that type.
    pub onnx: bool,
    /// Name of an encoder that is none of the families of this crate, written as `model_type`: no program then takes
    /// it for the family of the source directory. None: that family.
    pub own_encoder: Option<&'a str>,
    /// Further files: name and content, such as a model card.
    pub extra: &'a [(&'a str, String)],
}

/// Writes the directory at `path`. What was written is loaded again on `device` before it gets its name, and what it
/// makes of a few texts goes into `selfcheck.json`.
///
/// # Errors
/// The folder exists and `overwrite` is false, a number that the type cannot hold, the disk refuses, or what was
/// written does not load; then nothing is left under `path` that was not there.
pub fn export<B: KernelBackend>(
    export: &Export<'_>,
    path: &Path,
    overwrite: bool,
    device: &B::Device,
) -> Result<(), ModelError> {
    export_checked(export, path, overwrite, |directory| SelfCheck::compute::<B>(directory, device))
}

/// Writes the directory at `path`, as [`export()`] does, for a model with an encoder of another crate. `check` gets the
/// directory before it has its name, loads it and computes the self-check.
///
/// # Errors
/// As [`export()`], or whatever `check` reports.
pub fn export_checked(
    export: &Export<'_>,
    path: &Path,
    overwrite: bool,
    check: impl FnOnce(&Path) -> Result<SelfCheck, ModelError>,
) -> Result<(), ModelError> {
    if path.exists() && !overwrite {
        return Err(ModelError::OutputExists { path: path.to_owned() });
    }
    let partial = beside(path, "partial");
    write_checked(export, &partial, check)?;
    replace_folder(&partial, path).map_err(|source| ModelError::Io { action: "rename", path: path.to_owned(), source })
}

/// Does all that [`export_checked`] does, and removes what it wrote: before hours of training, this tells whether a
/// model of this kind can be written at `path`, whose folder must exist.
///
/// # Errors
/// As [`export_checked`].
pub fn rehearse_export(
    export: &Export<'_>,
    path: &Path,
    check: impl FnOnce(&Path) -> Result<SelfCheck, ModelError>,
) -> Result<(), ModelError> {
    let partial = beside(path, "partial");
    write_checked(export, &partial, check)?;
    fs::remove_dir_all(&partial).map_err(|source| ModelError::Io { action: "remove", path: partial, source })
}

/// Writes a directory, loads it again, and adds `selfcheck.json`. On an error nothing is left.
fn write_checked(
    export: &Export<'_>,
    partial: &Path,
    check: impl FnOnce(&Path) -> Result<SelfCheck, ModelError>,
) -> Result<(), ModelError> {
    let written = write_directory(export, partial).and_then(|()| {
        let check = check(partial)?;
        let json = serde_json::to_string(&check).expect("numbers and texts have a JSON form");
        let path = partial.join(selfcheck::FILE);
        write_synced(&path, json.as_bytes()).map_err(|source| ModelError::Io { action: "write", path, source })?;
        if export.onnx { write_onnx(partial, export.dtype) } else { Ok(()) }
    });
    if written.is_err() {
        // The first error is the one to tell; a leftover of our own under a temporary name is harmless.
        drop(fs::remove_dir_all(partial));
    }
    written
}

fn write_directory(export: &Export<'_>, folder: &Path) -> Result<(), ModelError> {
    let create = |path: &Path| {
        fs::create_dir_all(path).map_err(|source| ModelError::Io { action: "create", path: path.to_owned(), source })
    };
    let head = head_of(export, folder)?;
    let encoder = match export.own_encoder {
        Some(_) => ExportFacts { tokenizer_class: None, token_types: false, older_key: None },
        None => EncoderConfig::from_json(&export.files.config, &folder.join("config.json"))?.export_facts(),
    };
    let modules = module_tensors(&head, export.tensors, folder)?;
    let of_head: Vec<String> = names(&head).collect();
    let of_encoder = export.tensors.iter().filter(|(name, _)| !of_head.contains(name)).cloned();
    refuse_non_finite(export.tensors, folder)?;
    let root: Vec<_> = of_encoder.chain([("linear.weight".to_owned(), one_matrix(&head, &modules))]).collect();
    let mut files = vec![("model.safetensors".to_owned(), safetensors_bytes_as(&root, export.dtype)?)];
    for (place, (layer, tensors)) in head.layers.iter().zip(&modules).enumerate() {
        let module = module_folder(place);
        create(&folder.join(&module))?;
        files.push((format!("{module}/model.safetensors"), safetensors_bytes_as(tensors, export.dtype)?));
        files.push((format!("{module}/config.json"), pretty(&layer.to_json())));
    }
    let tokenizer_path = folder.join("tokenizer.json");
    let tokenizer = tokenizer_json(export);
    let read = Tokenizer::from_bytes(tokenizer.to_string())
        .map_err(|error| ModelError::Tokenizer { path: tokenizer_path.clone(), message: error.to_string() })?;
    let source = export.files;
    let special = SpecialTokens::of(&read, [&source.special_tokens_map, &source.tokenizer_config]);
    let skiplist = match &export.settings.skiplist_words {
        _ if !export.settings.mask_punctuation => Vec::new(),
        Some(words) => words.clone(),
        None => skiplist_words(&read, &tokenizer_path)?,
    };
    files.push(("tokenizer.json".to_owned(), pretty(&tokenizer)));
    for (name, value) in json_files(export, encoder, &head, &special, &skiplist) {
        files.push((name.to_owned(), pretty(&value)));
    }
    let metadata = export.metadata.to_json_string();
    let metadata = metadata
        .map_err(|source| ModelError::Metadata { path: folder.join("artifact.metadata"), source: Box::new(source) })?;
    files.push(("artifact.metadata".to_owned(), metadata.into_bytes()));
    if matches!(read.get_model(), ModelWrapper::WordPiece(_)) {
        files.push(("vocab.txt".to_owned(), vocabulary(export.files).into_bytes()));
    }
    files.extend(export.extra.iter().map(|(name, text)| ((*name).to_owned(), text.clone().into_bytes())));
    for (name, bytes) in files {
        let path = folder.join(name);
        write_synced(&path, &bytes).map_err(|source| ModelError::Io { action: "write", path, source })?;
    }
    for place in 0..head.layers.len() {
        let path = folder.join(module_folder(place));
        sync_folder(&path).map_err(|source| ModelError::Io { action: "sync", path, source })?;
    }
    Ok(())
}

fn refuse_non_finite(tensors: &[(String, HostTensor)], folder: &Path) -> Result<(), ModelError> {
    for (name, tensor) in tensors {
        if let Some(index) = tensor.values.iter().position(|value| !value.is_finite()) {
            let path = folder.join("model.safetensors");
            return Err(ModelError::NonFiniteWeight { path, name: name.clone(), index });
        }
    }
    Ok(())
}

/// The head that is written: the source's, or one matrix of the shape that there is.
fn head_of(export: &Export<'_>, folder: &Path) -> Result<HeadConfig, ModelError> {
    let head = match &export.files.head {
        Some(head) if export.own_encoder.is_none() => head.clone(),
        _ => {
            let linear =
                export.tensors.iter().find(|(name, _)| name == "linear.weight").map(|(_, linear)| &linear.shape[..]);
            let Some([dim, hidden_size]) = linear else {
                return Err(ModelError::MissingTensor { path: folder.to_owned(), name: "linear.weight".to_owned() });
            };
            HeadConfig::linear(*hidden_size, *dim)
        }
    };
    head.with_relu(export.settings.use_relu, folder)
}

/// The JSON files of the directory, by name.
fn json_files(
    export: &Export<'_>,
    encoder: ExportFacts,
    head: &HeadConfig,
    special: &SpecialTokens,
    skiplist: &[String],
) -> Vec<(&'static str, Value)> {
    let settings = export.settings;
    let mut config = match export.own_encoder {
        Some(name) => json!({
            "model_type": name, "architectures": [name], "hidden_size": head.layers[0].in_features,
            "vocab_size": export.files.config["vocab_size"],
        }),
        None => {
            let mut config = export.files.config.clone();
            config["architectures"] = json!([EncoderConfig::architecture(&config)]);
            config
        }
    };
    if let Some((newer, older, default)) = encoder.older_key {
        config[older] = config.get(newer).cloned().unwrap_or(json!(default));
    }
    // transformers 4 reads the first, 5 the second: the type of the file, not of the one that training started from.
    config["torch_dtype"] = json!(export.dtype.torch_name());
    if config.get("dtype").is_some() {
        config["dtype"] = json!(export.dtype.torch_name());
    }
    if let Some(fields) = config.as_object_mut() {
        for left_over in ["auto_map", "_name_or_path"] {
            fields.remove(left_over);
        }
    }
    vec![
        ("config.json", config),
        ("tokenizer_config.json", tokenizer_config(export, encoder, special)),
        ("special_tokens_map.json", special_tokens(special)),
        ("modules.json", modules_json(head)),
        ("sentence_bert_config.json", json!({"max_seq_length": settings.doc_maxlen - 1, "do_lower_case": false})),
        ("config_sentence_transformers.json", sentence_transformers_config(settings, skiplist)),
    ]
}

fn modules_json(head: &HeadConfig) -> Value {
    let transformer = json!({"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"});
    let dense = (0..head.layers.len()).map(|place| {
        let place_of_all = place + 1;
        json!({
            "idx": place_of_all, "name": place_of_all.to_string(), "path": module_folder(place),
            "type": "pylate.models.Dense.Dense",
        })
    });
    std::iter::once(transformer).chain(dense).collect()
}

/// PyLate's dialect, which sentence-transformers 6 and pylate-rs read too.
fn sentence_transformers_config(settings: &ColbertSettings, skiplist: &[String]) -> Value {
    let mut config = json!({
        "model_type": "ColBERT",
        "__version__": {"sentence_transformers": "5.3.0", "transformers": "5.3.0", "pytorch": "2.9.0"},
        "prompts": prompts(settings),
        "default_prompt_name": null,
        "similarity_fn_name": "MaxSim",
        "query_prefix": settings.query_token_id,
        "document_prefix": settings.doc_token_id,
        "query_length": settings.query_maxlen,
        "document_length": settings.doc_maxlen,
        "attend_to_expansion_tokens": settings.attend_to_mask_tokens,
        "skiplist_words": skiplist,
        "do_query_expansion": settings.query_expansion,
    });
    if let (true, Some(length)) = (settings.query_expansion, settings.query_expansion_length) {
        // Only sentence-transformers 6 knows a length that queries are filled up to without being cut to it.
        let attend = settings.attend_to_mask_tokens;
        config["query_expansion"] = json!({"strategy": "min", "attend": attend, "token": null, "length": length});
    }
    config
}

/// The prompts, which sentence-transformers puts in front of texts by itself and PyLate when asked to.
fn prompts(settings: &ColbertSettings) -> Value {
    let sides = [("query", &settings.query_prompt), ("document", &settings.document_prompt)];
    let written = sides.into_iter().filter(|(_, prompt)| !prompt.is_empty());
    Value::Object(written.map(|(side, prompt)| (side.to_owned(), json!(prompt))).collect())
}

/// The source's tokenizer with both markers listed as added tokens, without which pylate-rs cuts them into pieces.
fn tokenizer_json(export: &Export<'_>) -> Value {
    let mut tokenizer = export.files.tokenizer.clone();
    let markers = [&export.settings.query_token_id, &export.settings.doc_token_id];
    let ids: Vec<Option<Value>> =
        markers.iter().map(|marker| tokenizer["model"]["vocab"].get(marker.as_str()).cloned()).collect();
    if !tokenizer["added_tokens"].is_array() {
        tokenizer["added_tokens"] = json!([]);
    }
    if let Some(added) = tokenizer["added_tokens"].as_array_mut() {
        for (marker, id) in markers.into_iter().zip(ids) {
            let listed = added.iter().any(|token| token["content"] == json!(marker));
            if let (false, Some(id)) = (listed, id) {
                added.push(json!({
                    "id": id, "content": marker, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true,
                }));
            }
        }
        added.sort_by_key(|token| token["id"].as_u64());
    }
    tokenizer
}

/// The source's settings, with the names and the padding token that every stack agrees on.
fn tokenizer_config(export: &Export<'_>, encoder: ExportFacts, special: &SpecialTokens) -> Value {
    let mut config = if export.files.tokenizer_config.is_object() {
        export.files.tokenizer_config.clone()
    } else {
        json!({"do_lower_case": export.files.tokenizer["normalizer"]["lowercase"].as_bool().unwrap_or(true)})
    };
    // PyLate saves [MASK] here; colbert-ai then drops every expansion token without a word.
    config["pad_token"] = json!(special.pad);
    config["mask_token"] = json!(special.mask);
    config["cls_token"] = json!(special.cls);
    config["sep_token"] = json!(special.sep);
    config["unk_token"] = json!(special.unk);
    if let Some(class) = encoder.tokenizer_class {
        config["tokenizer_class"] = json!(class);
    } else if !config["tokenizer_class"].is_string() {
        config["tokenizer_class"] = json!("PreTrainedTokenizerFast");
    }
    // A general tokenizer class gives token types, which these encoders refuse.
    if !encoder.token_types && !config["model_input_names"].is_array() {
        config["model_input_names"] = json!(["input_ids", "attention_mask"]);
    }
    let normalizer = &export.files.tokenizer["normalizer"];
    if normalizer["type"] == "BertNormalizer" {
        // transformers sets the normalizer by these keys, whatever tokenizer.json says.
        config["do_lower_case"] = normalizer["lowercase"].clone();
        config["strip_accents"] = normalizer["strip_accents"].clone();
        config["tokenize_chinese_chars"] = normalizer["handle_chinese_chars"].clone();
    }
    config["model_max_length"] = json!(export.settings.doc_maxlen.max(512));
    config
}

fn special_tokens(special: &SpecialTokens) -> Value {
    let SpecialTokens { pad, mask, cls, sep, unk } = special;
    json!({"cls_token": cls, "mask_token": mask, "pad_token": pad, "sep_token": sep, "unk_token": unk})
}

/// `vocab.txt`: the source's, or the vocabulary of `tokenizer.json` in the order of its ids.
fn vocabulary(files: &SourceFiles) -> String {
    if let Some(text) = &files.vocab {
        return text.clone();
    }
    let mut entries: Vec<(u64, &String)> = files.tokenizer["model"]["vocab"]
        .as_object()
        .map(|vocab| vocab.iter().filter_map(|(token, id)| Some((id.as_u64()?, token))).collect())
        .unwrap_or_default();
    entries.sort_unstable();
    entries.into_iter().map(|(_, token)| format!("{token}\n")).collect()
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

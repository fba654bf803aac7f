//! Writing of a model directory: one that colbert-ai, RAGatouille, PyLate, sentence-transformers and pylate-rs read, or
//! one in the layout of sentence-transformers 6 alone.
//!
//! docs/interop.md tells which program reads which file. The directory is written beside its final name and renamed.

pub(crate) mod dialects;
pub(crate) mod onnx;

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

use colbert_config::{ArtifactMetadata, ExportDtype, ExportLayout};
use colbert_kernels::KernelBackend;
use serde_json::{Value, json};
use tokenizers::{ModelWrapper, Tokenizer};

use crate::directory::load::{Pretrained, SourceFiles};
use crate::directory::selfcheck::{self, SelfCheck, same_tokens};
use crate::encoder::families::EncoderConfig;
use crate::encoder::family::ExportFacts;
use crate::error::ModelError;
use crate::export::dialects::{Dialect, as_text, native, pylate};
use crate::export::onnx::write_onnx;
use crate::head::config::{HeadConfig, module_folder, names};
use crate::head::files::{module_tensors, one_matrix};
use crate::settings::ColbertSettings;
use crate::tokenizer::ColbertTokenizer;
use crate::tokenizer::panics::guarded;
use crate::tokenizer::special_tokens::{SpecialTokens, skiplist_words};
use crate::weights::HostTensor;
use crate::weights::write::write_safetensors;
use colbert_config::durable::{beside, replace_folder, sync_folder, write_synced};

/// The content of a model directory.
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
    /// Programs that the directory is written for.
    pub layout: ExportLayout,
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

impl Pretrained {
    /// Checks before training that a layout can express these settings.
    ///
    /// # Errors
    /// It cannot express one of them, or a program that reads it would use other tokens.
    pub fn check_layout(&self, settings: &ColbertSettings, layout: ExportLayout) -> Result<(), ModelError> {
        if layout == ExportLayout::All && settings.mask_query_punctuation {
            return Err(ModelError::LayoutLacks {
                layout: "all",
                setting: "queries whose punctuation takes no part in scoring, as the model that training starts from has them",
                advice: "set export_layout = \"sentence-transformers\"",
            });
        }
        if layout == ExportLayout::All && settings.token_pooling.is_some_and(|pooling| pooling.factor > 1.0) {
            return Err(ModelError::LayoutLacks {
                layout: "all",
                setting: "token pooling of documents, as the model that training starts from has it",
                advice: "set export_layout = \"sentence-transformers\", or train.pool_factor = 1 to leave it out",
            });
        }
        let trained = self.tokenizer(settings)?;
        let marked = !(settings.query_token_id.is_empty() && settings.doc_token_id.is_empty());
        if layout == ExportLayout::SentenceTransformers && marked && !trained.begins_texts() {
            return Err(ModelError::LayoutLacks {
                layout: "sentence-transformers",
                setting: "a marker after the first token of a text, where it stands if a tokenizer puts nothing before one",
                advice: "set query_token_id and doc_token_id to \"\", and query_prompt and document_prompt to tell queries from \
                         documents",
            });
        }
        let path = &self.tokenizer_path;
        let written = tokenizer_json(&self.files, settings);
        let written = guarded(path, || Tokenizer::from_bytes(written.to_string()))?;
        let worded = match layout {
            ExportLayout::All => settings.clone(),
            ExportLayout::SentenceTransformers => as_text(settings),
        };
        let written = ColbertTokenizer::with_special_tokens(written, &self.special, &worded, path)?;
        same_tokens(&trained, &written, self.directory())
    }
}

impl Export<'_> {
    /// Writes the directory at `path`. It is loaded again on `device` before it gets its name: it must give the token
    /// ids of training, and its vectors of a few texts go into `selfcheck.json`.
    ///
    /// # Errors
    /// The folder exists and `overwrite` is false, a number that the type cannot hold, settings that the layout cannot
    /// express, the disk refuses, or the directory does not load; then nothing new is left under `path`.
    pub fn write<B: KernelBackend>(&self, path: &Path, overwrite: bool, device: &B::Device) -> Result<(), ModelError> {
        self.write_checked(path, overwrite, |directory| SelfCheck::compute::<B>(directory, device))
    }

    /// Writes the directory at `path`, as [`write`](Self::write) does, for a model with an encoder of another crate.
    /// `check` gets the directory before it has its name, loads it and computes the self-check.
    ///
    /// # Errors
    /// As [`write`](Self::write), or an error of `check`.
    pub fn write_checked(
        &self,
        path: &Path,
        overwrite: bool,
        check: impl FnOnce(&Path) -> Result<SelfCheck, ModelError>,
    ) -> Result<(), ModelError> {
        if path.exists() && !overwrite {
            return Err(ModelError::OutputExists { path: path.to_owned() });
        }
        let partial = beside(path, "partial");
        write_partial(self, &partial, check)?;
        replace_folder(&partial, path).map_err(|source| ModelError::Io {
            action: "rename",
            path: path.to_owned(),
            source,
        })
    }

    /// Writes as [`write_checked`](Self::write_checked) does, and removes the result: before hours of training, this
    /// checks that a model of this kind can be written at `path`, whose folder must exist.
    ///
    /// # Errors
    /// As [`write_checked`](Self::write_checked).
    pub fn rehearse(
        &self,
        path: &Path,
        check: impl FnOnce(&Path) -> Result<SelfCheck, ModelError>,
    ) -> Result<(), ModelError> {
        let partial = beside(path, "partial");
        write_partial(self, &partial, check)?;
        fs::remove_dir_all(&partial).map_err(|source| ModelError::Io { action: "remove", path: partial, source })
    }
}

/// Writes a directory, loads it again, and adds `selfcheck.json`. On an error nothing is left.
fn write_partial(
    export: &Export<'_>,
    partial: &Path,
    check: impl FnOnce(&Path) -> Result<SelfCheck, ModelError>,
) -> Result<(), ModelError> {
    let written = write_directory(export, partial).and_then(|()| {
        let check = check(partial)?;
        check.agrees_with(&tokenizer_of_training(export, partial)?, partial)?;
        let json = serde_json::to_string(&check).expect("numbers and texts have a JSON form");
        let path = partial.join(selfcheck::FILE);
        write_synced(&path, json.as_bytes()).map_err(|source| ModelError::Io { action: "write", path, source })?;
        if export.onnx { write_onnx(partial, export.dtype) } else { Ok(()) }
    });
    if written.is_err() {
        // The first error is reported; our own leftover under a temporary name is harmless.
        drop(fs::remove_dir_all(partial));
    }
    written
}

/// Special tokens by their keys; none if the vocabulary has no such token.
type Entries<'a> = [(&'static str, Option<&'a str>); 5];

fn write_directory(export: &Export<'_>, folder: &Path) -> Result<(), ModelError> {
    let head = head_of(export, folder)?;
    let encoder = match export.own_encoder {
        Some(_) => None,
        None => Some(EncoderConfig::from_json(&export.files.config, &folder.join("config.json"))?),
    };
    let modules = module_tensors(&head, export.tensors, folder)?;
    let of_head: Vec<String> = names(&head).collect();
    let of_encoder = export.tensors.iter().filter(|(name, _)| !of_head.contains(name));
    refuse_non_finite(export.tensors, folder)?;
    // colbert-ai reads the head there.
    let matrix = (export.layout == ExportLayout::All).then(|| one_matrix(&head, &modules));
    let matrix = matrix.iter().map(|matrix| ("linear.weight".to_owned(), matrix));
    let root: Vec<_> = of_encoder.map(|(name, tensor)| (name.clone(), tensor)).chain(matrix).collect();
    fs::create_dir_all(folder).map_err(error("create", folder))?;
    write_safetensors(&folder.join("model.safetensors"), &root, export.dtype)?;
    for (place, tensors) in modules.iter().enumerate() {
        let module = folder.join(module_folder(place));
        fs::create_dir_all(&module).map_err(error("create", &module))?;
        write_safetensors(&module.join("model.safetensors"), tensors, export.dtype)?;
    }
    let mut files = Vec::new();
    let tokenizer_path = folder.join("tokenizer.json");
    let tokenizer = tokenizer_json(export.files, export.settings);
    let read = guarded(&tokenizer_path, || Tokenizer::from_bytes(tokenizer.to_string()))?;
    let source = export.files;
    let special = SpecialTokens::of(&read, [&source.special_tokens_map, &source.tokenizer_config]);
    let skiplist = match &export.settings.skiplist_words {
        _ if !export.settings.mask_punctuation => Vec::new(),
        Some(words) => words.clone(),
        None => skiplist_words(&read, &tokenizer_path)?,
    };
    files.push(("tokenizer.json".to_owned(), pretty(&tokenizer)));
    let dialect = Dialect { settings: export.settings, head: &head, skiplist: &skiplist };
    let of_layout = match export.layout {
        ExportLayout::All => pylate(dialect),
        ExportLayout::SentenceTransformers => native(dialect),
    };
    for (name, value) in
        json_files(export, encoder.as_ref(), &head, special.entries(&read), &tokenizer).into_iter().chain(of_layout)
    {
        files.push((name, pretty(&value)));
    }
    if export.layout == ExportLayout::All {
        let path = folder.join("artifact.metadata");
        let metadata = export.metadata.to_json_string();
        let metadata = metadata.map_err(|source| ModelError::Metadata { path, source: Box::new(source) })?;
        files.push(("artifact.metadata".to_owned(), metadata.into_bytes()));
    }
    if matches!(read.get_model(), ModelWrapper::WordPiece(_)) {
        files.push(("vocab.txt".to_owned(), vocabulary(export.files).into_bytes()));
    }
    files.extend(export.extra.iter().map(|(name, text)| ((*name).to_owned(), text.clone().into_bytes())));
    write_files(files, folder)
}

/// Makes an error of the disk an error of the model.
fn error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ModelError + use<> {
    let path = path.to_owned();
    move |source| ModelError::Io { action, path, source }
}

/// Writes files, and the folders that their names have.
fn write_files(files: Vec<(String, Vec<u8>)>, folder: &Path) -> Result<(), ModelError> {
    let folders: BTreeSet<_> = files.iter().map(|(name, _)| folder.join(name)).collect();
    let folders: BTreeSet<_> = folders.iter().filter_map(|path| path.parent()).collect();
    for path in &folders {
        fs::create_dir_all(path).map_err(error("create", path))?;
    }
    for (name, bytes) in files {
        let path = folder.join(name);
        write_synced(&path, &bytes).map_err(error("write", &path))?;
    }
    folders.iter().filter(|path| **path != folder).try_for_each(|path| sync_folder(path).map_err(error("sync", path)))
}

/// Returns the tokenizer that the weights were trained with.
fn tokenizer_of_training(export: &Export<'_>, folder: &Path) -> Result<ColbertTokenizer, ModelError> {
    let path = folder.join("tokenizer.json");
    let source = export.files;
    let tokenizer = guarded(&path, || Tokenizer::from_bytes(source.tokenizer.to_string()))?;
    let special = SpecialTokens::of(&tokenizer, [&source.special_tokens_map, &source.tokenizer_config]);
    ColbertTokenizer::with_special_tokens(tokenizer, &special, export.settings, &path)
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

/// Returns the head that is written: the source's, or one matrix of the shape that there is.
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

/// Makes the JSON files that every layout has, by name.
fn json_files(
    export: &Export<'_>,
    encoder: Option<&EncoderConfig>,
    head: &HeadConfig,
    special: Entries<'_>,
    tokenizer: &Value,
) -> Vec<(String, Value)> {
    let general = ExportFacts { tokenizer_class: None, token_types: false, older_key: None };
    let facts = encoder.map_or(general, EncoderConfig::export_facts);
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
    if let (Some(encoder), Some(fields)) = (encoder, config.as_object_mut()) {
        encoder.complete(fields);
    }
    if let Some((newer, older, default)) = facts.older_key {
        config[older] = config.get(newer).cloned().unwrap_or(json!(default));
    }
    // transformers 4 reads the first, 5 the second: the type of this file, not of the one that training started from.
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
        ("config.json".to_owned(), config),
        ("tokenizer_config.json".to_owned(), tokenizer_config(export, facts, special, tokenizer)),
        ("special_tokens_map.json".to_owned(), special_tokens(special)),
    ]
}

/// Returns the source's tokenizer with both markers listed as added tokens, without which pylate-rs splits them into
/// pieces.
fn tokenizer_json(files: &SourceFiles, settings: &ColbertSettings) -> Value {
    let mut tokenizer = files.tokenizer.clone();
    let markers = [&settings.query_token_id, &settings.doc_token_id];
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

/// Returns the source's settings, with the names and the padding token that every stack agrees on.
fn tokenizer_config(export: &Export<'_>, encoder: ExportFacts, special: Entries<'_>, tokenizer: &Value) -> Value {
    let mut config = if export.files.tokenizer_config.is_object() {
        export.files.tokenizer_config.clone()
    } else {
        json!({"do_lower_case": export.files.tokenizer["normalizer"]["lowercase"].as_bool().unwrap_or(true)})
    };
    // PyLate saves [MASK] here; colbert-ai would then silently drop every expansion token.
    for (key, token) in special {
        match token {
            Some(token) => config[key] = json!(token),
            // A token that the vocabulary lacks would be added to it.
            None => drop(config.as_object_mut().and_then(|config| config.remove(key))),
        }
    }
    if let Some(class) = encoder.tokenizer_class {
        config["tokenizer_class"] = json!(class);
    } else if !config["tokenizer_class"].is_string() || config["tokenizer_class"] == "TokenizersBackend" {
        // transformers 5 writes a name that 4 does not know.
        config["tokenizer_class"] = json!("PreTrainedTokenizerFast");
    }
    // A general tokenizer class returns token types, which these encoders refuse.
    if !encoder.token_types && !config["model_input_names"].is_array() {
        config["model_input_names"] = json!(["input_ids", "attention_mask"]);
    }
    // transformers 5 makes BERT's tokenizer from the vocabulary and this list, whatever tokenizer.json adds.
    let added = tokenizer["added_tokens"].as_array().into_iter().flatten().map(|token| {
        let mut described = token.clone();
        let id = described.as_object_mut().and_then(|fields| fields.remove("id")).unwrap_or_default();
        (id.to_string(), described)
    });
    config["added_tokens_decoder"] = Value::Object(added.collect());
    let normalizer = &export.files.tokenizer["normalizer"];
    if normalizer["type"] == "BertNormalizer" {
        // transformers sets the normalizer by these keys, whatever tokenizer.json says.
        config["do_lower_case"] = normalizer["lowercase"].clone();
        config["strip_accents"] = normalizer["strip_accents"].clone();
        config["tokenize_chinese_chars"] = normalizer["handle_chinese_chars"].clone();
    }
    config["model_max_length"] = json!(export.settings.doc_maxlen.max(export.settings.query_maxlen).max(512));
    config
}

fn special_tokens(special: Entries<'_>) -> Value {
    let there = special.into_iter().filter_map(|(key, token)| Some((key.to_owned(), json!(token?))));
    Value::Object(there.collect())
}

/// Makes `vocab.txt`: the source's, or the vocabulary of `tokenizer.json` in the order of its ids.
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

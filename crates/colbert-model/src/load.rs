//! Reading a model directory in Hugging Face layout: a plain BERT, or a ColBERT that somebody saved.

use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use colbert_config::ArtifactMetadata;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::bert::{Bert, BertConfig};
use crate::colbert::Colbert;
use crate::error::ModelError;
use crate::layers::Linear;
use crate::settings::ColbertSettings;
use crate::tokenizer::ColbertTokenizer;
use crate::weights::{HostTensor, Weights, normal_tensor, to_param};

/// Encoder families that can be loaded.
const SUPPORTED: &str = "bert";

/// Files of the source directory that an export needs again.
#[derive(Debug, Clone)]
pub struct SourceFiles {
    /// `config.json`
    pub config: Value,
    /// `tokenizer.json`
    pub tokenizer: Value,
    /// `tokenizer_config.json`, empty if the source has none.
    pub tokenizer_config: Value,
    /// `vocab.txt`, if the source has it.
    pub vocab: Option<String>,
}

/// A model directory, read and checked, not yet on a device.
#[derive(Debug)]
pub struct Pretrained {
    directory: PathBuf,
    /// The encoder's sizes.
    pub config: BertConfig,
    /// What an export needs again.
    pub files: SourceFiles,
    /// `artifact.metadata`, if the directory is a ColBERT.
    pub metadata: Option<ArtifactMetadata>,
    pub(crate) weights: Weights,
    projection: Option<HostTensor>,
    pub(crate) tokenizer: Tokenizer,
}

/// What became of the tensors of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadReport {
    /// Tensors that were used.
    pub taken: usize,
    /// Tensors that were not there and were drawn at random.
    pub initialised: Vec<String>,
    /// Tensors that were there and are not needed.
    pub ignored: Vec<String>,
}

impl Pretrained {
    /// Reads a directory: `config.json`, `model.safetensors`, `tokenizer.json`; the projection from the root file or
    /// `1_Dense`; `artifact.metadata` if it is there.
    ///
    /// # Errors
    /// Anything missing, cut short, of an unknown architecture, or that does not fit together.
    pub fn read(directory: &Path) -> Result<Self, ModelError> {
        if !directory.is_dir() {
            return Err(ModelError::NoSuchDirectory { path: directory.to_owned() });
        }
        let config_path = directory.join("config.json");
        let config_json: Value = read_json(&config_path, "a JSON object")?;
        let found = config_json.get("model_type").and_then(Value::as_str).unwrap_or("(none)");
        if found != SUPPORTED {
            let found = found.to_owned();
            return Err(ModelError::UnknownArchitecture { path: config_path, found, supported: SUPPORTED });
        }
        let config: BertConfig = serde_json::from_value(config_json.clone()).map_err(|source| ModelError::Json {
            path: config_path.clone(),
            expected: "the fields of a BERT configuration",
            source,
        })?;
        if let Some((field, found, expected)) = config.unsupported() {
            return Err(ModelError::UnsupportedConfig { path: config_path, field, found, expected });
        }
        let weights_path = directory.join("model.safetensors");
        if !weights_path.is_file() {
            let hint = if directory.join("model.safetensors.index.json").is_file() {
                "the weights are in several files; save the model as a single safetensors file"
            } else if directory.join("pytorch_model.bin").is_file() {
                "pytorch_model.bin is not read, as it can run code; convert it to safetensors"
            } else {
                "it holds the weights"
            };
            return Err(ModelError::MissingFile { path: weights_path, hint });
        }
        let mut weights = Weights::read(&weights_path)?.normalised();
        let projection = match weights.shape("linear.weight").map(<[usize]>::to_vec) {
            Some(shape) => Some(weights.take("linear.weight", &shape)?),
            None => dense_projection(directory)?,
        };
        let metadata_path = directory.join("artifact.metadata");
        let metadata = if metadata_path.is_file() {
            let read = ArtifactMetadata::read(&metadata_path);
            let read =
                read.map_err(|source| ModelError::Metadata { path: metadata_path.clone(), source: Box::new(source) })?;
            for (field, found, expected) in
                [("similarity", &read.similarity, "cosine"), ("interaction", &read.interaction, "colbert")]
            {
                if found.as_str() != expected {
                    let (found, expected) = (found.clone(), format!("\"{expected}\""));
                    return Err(ModelError::UnsupportedConfig { path: metadata_path, field, found, expected });
                }
            }
            Some(read)
        } else {
            None
        };
        let (tokenizer, files) = read_tokenizer(directory, config_json)?;
        let largest_id = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        if largest_id as usize >= config.vocab_size {
            let vocab_size = config.vocab_size;
            return Err(ModelError::VocabularyTooLarge {
                path: directory.join("tokenizer.json"),
                largest_id,
                vocab_size,
            });
        }
        Ok(Self { directory: directory.to_owned(), config, files, metadata, weights, projection, tokenizer })
    }

    /// The directory it was read from.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Settings that the directory itself declares: `artifact.metadata`, else the size of its projection, over the
    /// defaults. None for a plain encoder.
    pub fn declared_settings(&self) -> Option<ColbertSettings> {
        let Some(metadata) = &self.metadata else {
            let dim = self.projection.as_ref()?.shape[0];
            return Some(ColbertSettings { dim, ..ColbertSettings::default() });
        };
        Some(ColbertSettings {
            dim: metadata.dim,
            query_maxlen: metadata.query_maxlen,
            doc_maxlen: metadata.doc_maxlen,
            attend_to_mask_tokens: metadata.attend_to_mask_tokens,
            mask_punctuation: metadata.mask_punctuation,
            use_relu: metadata.relu,
            query_token_id: metadata.query_token_id.clone(),
            doc_token_id: metadata.doc_token_id.clone(),
        })
    }

    /// The tokenizer with these settings.
    ///
    /// # Errors
    /// A length that the encoder has no positions for, or a marker that the vocabulary lacks.
    pub fn tokenizer(&self, settings: &ColbertSettings) -> Result<ColbertTokenizer, ModelError> {
        let maximum = self.config.max_position_embeddings;
        for (option, found) in [("query_maxlen", settings.query_maxlen), ("doc_maxlen", settings.doc_maxlen)] {
            if found > maximum {
                return Err(ModelError::LengthOutOfRange { option, found, minimum: 4, maximum });
            }
        }
        ColbertTokenizer::new(self.tokenizer.clone(), settings, &self.directory.join("tokenizer.json"))
    }

    /// The model on `device`. `dropout` replaces the probabilities of `config.json`. A projection that the directory
    /// lacks is drawn from N(0, initializer_range²) with `seed`.
    ///
    /// # Errors
    /// A missing tensor, one of the wrong shape (a projection to another `dim` than the settings', too), or one with a
    /// value that is not finite.
    pub fn model<B: Backend>(
        &self,
        settings: &ColbertSettings,
        dropout: Option<f64>,
        seed: u64,
        device: &B::Device,
    ) -> Result<(Colbert<B, Bert<B>>, LoadReport), ModelError> {
        let mut config = self.config.clone();
        if let Some(probability) = dropout {
            config.hidden_dropout_prob = probability;
            config.attention_probs_dropout_prob = probability;
        }
        let shape = [settings.dim, config.hidden_size];
        let mut initialised = Vec::new();
        let projection = match &self.projection {
            Some(tensor) if tensor.shape == shape => tensor.clone(),
            Some(tensor) => {
                let hint = match tensor.shape.as_slice() {
                    [dim, hidden] if *hidden == config.hidden_size => format!("; set dim = {dim}").into(),
                    _ => "".into(),
                };
                return Err(ModelError::WrongShape {
                    path: self.weights.path().to_owned(),
                    name: "linear.weight".to_owned(),
                    found: tensor.shape.clone().into(),
                    expected: shape.into(),
                    hint,
                });
            }
            None => {
                initialised.push("linear.weight".to_owned());
                normal_tensor(&shape, config.initializer_range, &mut ChaCha8Rng::seed_from_u64(seed))
            }
        };
        let mut weights = self.weights.clone();
        let before = weights.names().count();
        let encoder = Bert::from_weights(&config, &mut weights, device)?;
        let ignored: Vec<String> = weights.names().map(str::to_owned).collect();
        let taken = before - ignored.len() + usize::from(self.projection.is_some());
        let linear = Linear { weight: to_param(projection, device), bias: None };
        let model = Colbert { encoder, linear, use_relu: settings.use_relu };
        Ok((model, LoadReport { taken, initialised, ignored }))
    }
}

pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path, expected: &'static str) -> Result<T, ModelError> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|source| ModelError::Json { path: path.to_owned(), expected, source })
}

fn read_text(path: &Path) -> Result<String, ModelError> {
    std::fs::read_to_string(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => {
            ModelError::MissingFile { path: path.to_owned(), hint: "a model directory in Hugging Face layout has it" }
        }
        _ => ModelError::Io { action: "read", path: path.to_owned(), source },
    })
}

/// PyLate and sentence-transformers keep the projection in a module folder of its own.
fn dense_projection(directory: &Path) -> Result<Option<HostTensor>, ModelError> {
    let path = directory.join("1_Dense/model.safetensors");
    if !path.is_file() {
        return Ok(None);
    }
    let mut weights = Weights::read(&path)?;
    let unsupported = |path, field, found: &str, expected: &str| {
        Err(ModelError::UnsupportedConfig { path, field, found: found.to_owned(), expected: expected.to_owned() })
    };
    if weights.contains("linear.bias") {
        return unsupported(path, "linear.bias", "present", "a projection without bias");
    }
    if directory.join("2_Dense").is_dir() {
        return unsupported(directory.join("2_Dense"), "modules", "a second projection", "one projection");
    }
    let config_path = directory.join("1_Dense/config.json");
    if config_path.is_file() {
        let config: Value = read_json(&config_path, "a JSON object")?;
        let activation = config["activation_function"].as_str().unwrap_or("torch.nn.modules.linear.Identity");
        if !activation.ends_with(".Identity") && !activation.ends_with(".ReLU") {
            return unsupported(config_path, "activation_function", activation, "Identity or ReLU");
        }
        if config["use_residual"] == Value::Bool(true) {
            return unsupported(config_path, "use_residual", "true", "false");
        }
    }
    let Some(shape) = weights.shape("linear.weight").map(<[usize]>::to_vec) else {
        return Err(ModelError::MissingTensor { path, name: "linear.weight".to_owned() });
    };
    weights.take("linear.weight", &shape).map(Some)
}

fn read_tokenizer(directory: &Path, config: Value) -> Result<(Tokenizer, SourceFiles), ModelError> {
    let path = directory.join("tokenizer.json");
    let mut json: Value = read_json(&path, "a tokenizer of the tokenizers library")?;
    // A saved length limit or padding is some other program's; ours are set per side.
    for field in ["truncation", "padding"] {
        json[field] = Value::Null;
    }
    let tokenizer = Tokenizer::from_bytes(json.to_string())
        .map_err(|error| ModelError::Tokenizer { path, message: error.to_string() })?;
    let optional = directory.join("tokenizer_config.json");
    let tokenizer_config = if optional.is_file() { read_json(&optional, "a JSON object")? } else { Value::Null };
    let vocab_path = directory.join("vocab.txt");
    let vocab = if vocab_path.is_file() { Some(read_text(&vocab_path)?) } else { None };
    Ok((tokenizer, SourceFiles { config, tokenizer: json, tokenizer_config, vocab }))
}

//! A sentence encoder: one vector for each text, computed as in sentence-transformers. It mines negatives and is not
//! trained here.
//!
//! Owns a directory's declarations of pooling, lengths, unit vectors and prefixes. Does not own the ranking.

use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::KernelBackend;
use serde_json::Value;
use tokenizers::{Tokenizer, TruncationParams};

use crate::directory::hub_cache::{folder_name, hub_name};
use crate::directory::load::Pretrained;
use crate::encoder::families::PretrainedEncoder;
use crate::encoder::{EncodeOptions, Encoder, EncoderInput};
use crate::error::ModelError;
use crate::sentence::blocks::blocks;
use crate::sentence::family::{Family, Pooling};
use crate::tokenizer::panics::guarded;
use crate::tokenizer::sequence::TokenSequence;
use crate::weights::HostTensor;
use crate::weights::json::read_json;

/// Settings that a directory declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentenceSettings {
    /// Pooling of the vectors of tokens.
    pub pooling: Pooling,
    /// Vectors have length 1, so that their product is the cosine.
    pub unit_length: bool,
    /// Longest text in tokens, `[CLS]` and `[SEP]` included; longer ones are truncated.
    pub max_seq_length: usize,
    /// Texts are converted to lower case before the tokenizer.
    pub lower_case: bool,
    /// Text put before every query.
    pub query_prefix: String,
    /// Text put before every document.
    pub document_prefix: String,
}

/// A sentence encoder on a device.
#[derive(Debug)]
pub struct SentenceEncoder<B: Backend> {
    encoder: PretrainedEncoder<B>,
    tokenizer: Tokenizer,
    directory: PathBuf,
    /// Settings that the directory declares; prefixes may be replaced.
    pub settings: SentenceSettings,
}

impl<B: KernelBackend> SentenceEncoder<B> {
    /// Reads a directory in sentence-transformers' layout, or a plain BERT in Hugging Face's.
    ///
    /// `modules.json` lists the modules, `1_Pooling/config.json` declares the pooling of tokens,
    /// `sentence_bert_config.json` what is cut, `config_sentence_transformers.json` the prompts. What they leave open
    /// follows from the family that the directory's name tells, and else is mean pooling, cosine and no prefix.
    ///
    /// # Errors
    /// A directory that [`Pretrained::read`] refuses, and a module, a pooling or a similarity that is not known here.
    pub fn read(directory: &Path, device: &B::Device) -> Result<Self, ModelError> {
        let modules = Modules::read(directory)?;
        let pretrained = Pretrained::read(&modules.transformer)?;
        let settings = settings(directory, &modules, &pretrained)?;
        let mut tokenizer = pretrained.tokenizer.clone();
        let truncation = TruncationParams { max_length: settings.max_seq_length, ..Default::default() };
        let path = pretrained.tokenizer_path.clone();
        guarded(&path, || tokenizer.with_truncation(Some(truncation)).map(drop))?;
        let encoder = pretrained.encoder(device)?;
        Ok(Self { encoder, tokenizer, directory: directory.to_owned(), settings })
    }

    /// Returns the last part of the directory's path, or the name on the hub if it lies in the hub's cache.
    pub fn name(&self) -> String {
        hub_name(&self.directory).unwrap_or_else(|| folder_name(&self.directory))
    }

    /// Returns the size of a vector.
    pub fn dim(&self) -> usize {
        Encoder::<B>::hidden_size(&self.encoder)
    }

    /// Encodes queries.
    ///
    /// # Shapes
    /// `[texts, dim]`
    ///
    /// # Errors
    /// The tokenizers library refuses a text.
    pub fn queries(&self, texts: &[&str], device: &B::Device) -> Result<HostTensor, ModelError> {
        self.encode(texts, &self.settings.query_prefix, device)
    }

    /// Encodes documents.
    ///
    /// # Shapes
    /// `[texts, dim]`
    ///
    /// # Errors
    /// The tokenizers library refuses a text.
    pub fn documents(&self, texts: &[&str], device: &B::Device) -> Result<HostTensor, ModelError> {
        self.encode(texts, &self.settings.document_prefix, device)
    }

    fn encode(&self, texts: &[&str], prefix: &str, device: &B::Device) -> Result<HostTensor, ModelError> {
        let sequences = self.tokenize(texts, prefix)?;
        let dim = self.dim();
        let mut values = Vec::with_capacity(texts.len() * dim);
        for block in blocks(&sequences) {
            let hidden = self.encoder.forward(&EncoderInput::new(block, EncodeOptions::default()), device);
            self.pool(hidden, block, &mut values);
        }
        Ok(HostTensor { shape: vec![texts.len(), dim], values })
    }

    fn tokenize(&self, texts: &[&str], prefix: &str) -> Result<Vec<TokenSequence>, ModelError> {
        let lower = self.settings.lower_case;
        let whole = |text: &&str| {
            let whole = format!("{prefix}{}", text.trim());
            if lower { whole.to_lowercase() } else { whole }
        };
        let fail = |message: String| ModelError::Tokenizer { path: self.directory.clone(), message };
        let texts: Vec<String> = texts.iter().map(whole).collect();
        let encodings = guarded(&self.directory, || self.tokenizer.encode_batch_fast(texts, true))?;
        encodings
            .iter()
            .map(|encoding| {
                let ids = encoding.get_ids().to_vec();
                if ids.is_empty() {
                    return Err(fail("a text has no tokens at all, not even [CLS]".to_owned()));
                }
                Ok(TokenSequence { attended: ids.len(), scored: vec![true; ids.len()], ids })
            })
            .collect()
    }

    /// Appends a vector for each sequence. On the host and in f64: it is little work beside the encoder's.
    fn pool(&self, hidden: Tensor<B, 2>, sequences: &[TokenSequence], into: &mut Vec<f32>) {
        let dim = self.dim();
        let hidden = hidden.into_data().convert::<f32>().into_vec::<f32>().expect("the data was converted to f32");
        let mut tokens = hidden.chunks_exact(dim);
        for sequence in sequences {
            let mut sum = vec![0f64; dim];
            for (place, vector) in tokens.by_ref().take(sequence.len()).enumerate() {
                if self.settings.pooling == Pooling::Mean || place == 0 {
                    sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += f64::from(*value));
                }
            }
            // The cosine does not depend on the division by the number of tokens, but the dot product does.
            let count = if self.settings.pooling == Pooling::Mean { sequence.len() as f64 } else { 1.0 };
            let mut divisor = count;
            if self.settings.unit_length {
                // torch `normalize`, eps 1e-12, of the mean.
                let length = sum.iter().map(|value| (value / count).powi(2)).sum::<f64>().sqrt();
                divisor *= length.max(1e-12);
            }
            into.extend(sum.iter().map(|value| (value / divisor) as f32));
        }
    }
}

/// The modules of a directory that matter here.
struct Modules {
    transformer: PathBuf,
    pooling: Option<PathBuf>,
    normalize: bool,
}

impl Modules {
    fn read(directory: &Path) -> Result<Self, ModelError> {
        let path = directory.join("modules.json");
        let listed = directory.join("1_Pooling");
        let mut modules = Self {
            transformer: directory.to_owned(),
            pooling: listed.join("config.json").is_file().then_some(listed),
            normalize: false,
        };
        if !path.is_file() {
            return Ok(modules);
        }
        for module in read_json::<Vec<Value>>(&path, "a list of modules")? {
            let text = |field: &str| module.get(field).and_then(Value::as_str).unwrap_or_default();
            let folder = directory.join(text("path"));
            match text("type").rsplit('.').next().unwrap_or_default() {
                "Transformer" => modules.transformer = folder,
                "Pooling" => modules.pooling = Some(folder),
                "Normalize" => modules.normalize = true,
                _ => {
                    let expected = "Transformer, Pooling and Normalize".to_owned();
                    let found = text("type").to_owned();
                    return Err(ModelError::UnsupportedConfig { path, field: "type", found, expected });
                }
            }
        }
        Ok(modules)
    }
}

fn settings(directory: &Path, modules: &Modules, pretrained: &Pretrained) -> Result<SentenceSettings, ModelError> {
    let family = Family::of(directory, &pretrained.files.config);
    let pooling = match &modules.pooling {
        Some(folder) => read_pooling(&folder.join("config.json"))?,
        None => family.pooling,
    };
    let own = optional_json(&modules.transformer.join("sentence_bert_config.json"))?;
    let positions = pretrained.config.max_length();
    let declared = own.get("max_seq_length").and_then(Value::as_u64);
    // A tokenizer without a limit of its own declares an enormous one, as a float.
    let of_tokenizer = pretrained.files.tokenizer_config.get("model_max_length").and_then(Value::as_u64);
    let max_seq_length = declared.or(of_tokenizer).map_or(positions, |length| (length as usize).min(positions));
    if max_seq_length < 3 {
        let (option, minimum, maximum) = ("max_seq_length", 3, positions);
        return Err(ModelError::LengthOutOfRange { option, found: max_seq_length, minimum, maximum });
    }
    let path = directory.join("config_sentence_transformers.json");
    let config = optional_json(&path)?;
    let similarity = config.get("similarity_fn_name").and_then(Value::as_str).unwrap_or("cosine");
    if !["cosine", "dot"].contains(&similarity) {
        let (found, expected) = (similarity.to_owned(), "\"cosine\" or \"dot\"".to_owned());
        return Err(ModelError::UnsupportedConfig { path, field: "similarity_fn_name", found, expected });
    }
    // Newer versions write empty prompts if none were set, so an empty one counts as none.
    let prompt = |names: &[&str]| {
        let prompts = config.get("prompts");
        let found = names.iter().find_map(|name| prompts?.get(name)?.as_str().filter(|prompt| !prompt.is_empty()));
        found.map(str::to_owned)
    };
    let (query, document) = (prompt(&["query"]), prompt(&["document", "passage", "corpus"]));
    let prefixes = match (query, document) {
        (None, None) => [family.query_prefix, family.document_prefix].map(str::to_owned),
        (query, document) => [query.unwrap_or_default(), document.unwrap_or_default()],
    };
    let [query_prefix, document_prefix] = prefixes;
    Ok(SentenceSettings {
        pooling,
        unit_length: modules.normalize || similarity == "cosine",
        max_seq_length,
        lower_case: own.get("do_lower_case") == Some(&Value::Bool(true)),
        query_prefix,
        document_prefix,
    })
}

fn read_pooling(path: &Path) -> Result<Pooling, ModelError> {
    let config: Value = read_json(path, "a JSON object")?;
    let unsupported = |field, found: String, expected: &str| {
        Err(ModelError::UnsupportedConfig { path: path.to_owned(), field, found, expected: expected.to_owned() })
    };
    if config.get("include_prompt") == Some(&Value::Bool(false)) {
        return unsupported("include_prompt", "false".to_owned(), "true");
    }
    let mut modes: Vec<&str> = Vec::new();
    for (name, value) in config.as_object().into_iter().flatten() {
        match (name.strip_prefix("pooling_mode"), value) {
            (Some(""), Value::String(mode)) => modes.push(mode),
            (Some(mode), Value::Bool(true)) => modes.push(mode.trim_start_matches('_')),
            _ => {}
        }
    }
    match modes[..] {
        ["mean" | "mean_tokens"] => Ok(Pooling::Mean),
        ["cls" | "cls_token"] => Ok(Pooling::Cls),
        _ => unsupported("pooling_mode", modes.join(" and "), "mean or cls, one of them"),
    }
}

fn optional_json(path: &Path) -> Result<Value, ModelError> {
    if path.is_file() { read_json(path, "a JSON object") } else { Ok(Value::Null) }
}

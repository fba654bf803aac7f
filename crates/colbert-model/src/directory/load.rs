//! Reading of a model directory in Hugging Face layout: a plain encoder, or a saved ColBERT.

use std::hash::Hasher;
use std::path::{Path, PathBuf};

use colbert_config::{ArtifactMetadata, ExportDtype, HeadInit, HeadLayers, TrainOptions};
use fnv::FnvHasher;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokenizers::{AddedToken, Tokenizer};

use crate::directory::declared::Declared;
use crate::directory::tokenizer_files::{TokenizerFiles, by_precedence};
use crate::encoder::families::EncoderConfig;
use crate::error::ModelError;
use crate::head::config::HeadConfig;
use crate::head::files::HeadFiles;
use crate::onnx::graph::Graph;
use crate::onnx::nodes::{Inputs, Nodes, Tokens};
use crate::settings::ColbertSettings;
use crate::tokenizer::panics::guarded;
use crate::tokenizer::special_tokens::SpecialTokens;
use crate::weights::files::read_weights;
use crate::weights::json::read_json;
use crate::weights::layout::Layout;
use crate::weights::{HostTensor, Weights};

/// Longest query or document in tokens, whatever positions `config.json` claims: the encoders in use have 8,192 at
/// most, and every query is filled up to its length.
pub(super) const MAX_LENGTH: usize = 1 << 17;

/// Files of the source directory that an export needs.
#[derive(Debug, Clone)]
pub struct SourceFiles {
    /// `config.json`, with the rows of embeddings that were added.
    pub config: Value,
    /// `tokenizer.json`, with the markers that were added.
    pub tokenizer: Value,
    /// `tokenizer_config.json`, empty if the source has none.
    pub tokenizer_config: Value,
    /// `special_tokens_map.json`, empty if the source has none.
    pub special_tokens_map: Value,
    /// `vocab.txt`, if the source has it.
    pub vocab: Option<String>,
    /// The head that the source has, or that options give a plain encoder; without either, it gets one matrix.
    pub head: Option<HeadConfig>,
}

/// A model directory, read and checked, not yet on a device.
#[derive(Debug)]
pub struct Pretrained {
    pub(super) directory: PathBuf,
    /// The encoder's family and sizes.
    pub config: EncoderConfig,
    /// Files that an export needs.
    pub files: SourceFiles,
    /// Settings that the directory declares.
    pub declared: Declared,
    pub(crate) weights: Weights,
    pub(super) head: Option<HeadFiles>,
    /// Layers of a new head, if there is none.
    pub(super) new_layers: HeadLayers,
    /// First weights of a new head.
    pub(super) new_init: HeadInit,
    /// The one matrix of a new head, `[dim, hidden_size]`; none draws the weights.
    pub(super) new_matrix: Option<HostTensor>,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) tokenizer_path: PathBuf,
    pub(crate) special: SpecialTokens,
    /// Markers that the vocabulary lacked, and the rows of the embedding matrix that were added for them.
    pub(super) added: Vec<String>,
    pub(super) added_rows: usize,
}

impl Pretrained {
    /// Reads a directory: `config.json`; `model.safetensors`, the several files of `model.safetensors.index.json`, or
    /// `pytorch_model.bin`; `tokenizer.json`, or the vocabulary files before it; the head from its Dense modules, else
    /// `linear.weight` of the root file; what `artifact.metadata` and `config_sentence_transformers.json` declare.
    ///
    /// Older layouts, with the encoder in `0_Transformer`, and the folder of a run, whose model is in `best`, are read
    /// too.
    ///
    /// A vocabulary without the markers `[unused0]` and `[unused1]` gets them as new tokens.
    ///
    /// # Errors
    /// Anything missing, cut short, of an unknown architecture, or that does not fit together.
    pub fn read(directory: &Path) -> Result<Self, ModelError> {
        Self::read_for(directory, &TrainOptions::default())
    }

    /// Reads a directory to train it with these options: the vocabulary gets the markers that they name and it lacks, a
    /// plain encoder gets their head.
    ///
    /// # Errors
    /// As [`Pretrained::read`], or layers of a head where there is another one.
    pub fn read_for(directory: &Path, options: &TrainOptions) -> Result<Self, ModelError> {
        let layout = Layout::find(directory)?;
        let config_path = layout.encoder.join("config.json");
        let config_json = EncoderConfig::with_model_type(read_json(&config_path, "a JSON object")?, &config_path)?;
        let config = EncoderConfig::from_json(&config_json, &config_path)?;
        let Some(weights) = read_weights(&layout.encoder)? else {
            let path = layout.encoder.join("model.safetensors");
            return Err(ModelError::MissingFile { path, hint: "it holds the weights" });
        };
        let mut weights = weights.unwrapped(config.prefix(), config.word_table())?;
        config.adopt(&mut weights)?;
        let modules = HeadFiles::read(&layout, config.hidden_size())?;
        // If there are modules, the matrix in the root file is their product.
        let matrix = match weights.shape("linear.weight").map(<[usize]>::to_vec) {
            Some(shape) => Some(weights.take("linear.weight", &shape)?),
            None => None,
        };
        if modules.is_none() && matrix.is_some() && weights.contains("linear.bias") {
            let (path, field, found) = (layout.encoder, "linear.bias", "a bias beside linear.weight".to_owned());
            let expected = "a projection without one, as in colbert-ai; a bias needs a Dense module".to_owned();
            return Err(ModelError::UnsupportedConfig { path, field, found, expected });
        }
        let metadata = read_metadata(&layout.root)?;
        let of_modules = modules.as_ref().map(|modules| &modules.config);
        let positions = config.max_length().min(MAX_LENGTH);
        let mut declared = Declared::read(&layout, metadata.as_ref(), of_modules, positions)?;
        let head = modules.or_else(|| matrix.map(HeadFiles::linear));
        declared.dim = head.as_ref().map(|head| head.config.dim());
        let written = head_of(head.as_ref(), options, config.hidden_size(), &layout.root)?;
        let tokenizer = TokenizerFiles::read(&layout.encoder, &config, declared.is_colbert())?;
        let named = by_precedence(&tokenizer.special_tokens_map, &tokenizer.config);
        let special = SpecialTokens::of(&tokenizer.tokenizer, named);
        let files = SourceFiles {
            config: config_json,
            tokenizer: tokenizer.json,
            tokenizer_config: tokenizer.config,
            special_tokens_map: tokenizer.special_tokens_map,
            vocab: tokenizer.vocab,
            head: written,
        };
        let mut read = Self {
            directory: layout.root,
            tokenizer_path: layout.encoder.join("tokenizer.json"),
            config,
            files,
            declared,
            weights,
            head,
            new_layers: options.head.clone(),
            new_init: options.head_init,
            new_matrix: None,
            tokenizer: tokenizer.tokenizer,
            special,
            added: Vec::new(),
            added_rows: 0,
        };
        read.add_markers(options)?;
        read.check_shapes()?;
        Ok(read)
    }

    /// Returns the directory it was read from.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the markers that the vocabulary lacked.
    pub(crate) fn added_markers(&self) -> &[String] {
        &self.added
    }

    /// Returns a tensor of the head's layer at this place, by its name in a module folder.
    pub(crate) fn head_tensor(&self, place: usize, name: &str) -> Option<&HostTensor> {
        self.head.as_ref()?.tensor(place, name)
    }

    /// Returns a hash (64-bit FNV-1a, in hexadecimal digits) of everything that a model's output depends on: weights,
    /// head, tokenizer, configuration and declared settings. `purpose` distinguishes different uses of one directory.
    pub fn content_hash(&self, purpose: &str) -> String {
        let mut hash = FnvHasher::default();
        let mut add = |bytes: &[u8]| {
            hash.write(&(bytes.len() as u64).to_le_bytes());
            hash.write(bytes);
        };
        add(purpose.as_bytes());
        add(self.files.config.to_string().as_bytes());
        add(self.files.tokenizer.to_string().as_bytes());
        add(format!("{:?}", self.declared).as_bytes());
        let head = self.head.iter().flat_map(|head| head.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)));
        for (name, tensor) in self.weights.iter().chain(head) {
            add(name.as_bytes());
            add(format!("{:?}", tensor.shape).as_bytes());
            let bytes: Vec<u8> = tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect();
            add(&bytes);
        }
        format!("{:016x}", hash.finish())
    }

    /// Compares the shapes of all tensors that the encoder takes with the configuration, before anything is computed.
    ///
    /// # Errors
    /// A missing tensor, or one of the wrong shape.
    fn check_shapes(&self) -> Result<(), ModelError> {
        let mut weights = self.weights.outline();
        if self.added_rows > 0 {
            let mut rng = ChaCha8Rng::seed_from_u64(0);
            weights.add_rows(self.config.word_table(), self.added_rows, 0.0, &mut rng);
        }
        // The nodes of an ONNX graph take every tensor that the encoder takes.
        let mut on = Nodes { graph: Graph::new(ExportDtype::F32), weights: &mut weights };
        let (ids, mask) = (on.graph.input("input_ids"), on.graph.input("attention_mask"));
        let places = on.places(&ids);
        let inputs = Inputs { ids, token_types: None };
        self.config.nodes(&mut on, &inputs, &Tokens { places, attended: mask }).map(drop)
    }

    /// Adds the missing markers to the vocabulary, after its last id: the usual ones, and those that options name.
    /// Rows of the embedding matrix that no token names are used first.
    ///
    /// # Errors
    /// The tokenizer has ids beyond the embedding matrix.
    fn add_markers(&mut self, options: &TrainOptions) -> Result<(), ModelError> {
        let path = self.tokenizer_path.clone();
        let largest_id = self.tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        // The table decides if config.json claims more rows than there are.
        let rows = self.weights.shape(self.config.word_table());
        let rows = rows.map(|shape| shape.first().copied().unwrap_or(0).min(shape.iter().product()));
        let vocab_size = self.config.vocab_size().min(rows.unwrap_or(usize::MAX));
        if largest_id as usize >= vocab_size {
            return Err(ModelError::VocabularyTooLarge { path, largest_id, vocab_size });
        }
        let (settings, usual) = (self.settings(options), ColbertSettings::default());
        for (marker, usual, named) in [
            (settings.query_token_id, usual.query_token_id, &options.query_token_id),
            (settings.doc_token_id, usual.doc_token_id, &options.doc_token_id),
        ] {
            // A marker with another name is declared by the directory itself, so it is an error if it is missing.
            let may_be_added = !marker.is_empty() && (marker == usual || named.is_some());
            if may_be_added && self.tokenizer.token_to_id(&marker).is_none() {
                self.add_marker(marker, &path)?;
            }
        }
        Ok(())
    }

    fn add_marker(&mut self, marker: String, path: &Path) -> Result<(), ModelError> {
        let token = AddedToken::from(marker.clone(), true).normalized(false);
        guarded(path, || Ok(self.tokenizer.add_special_tokens(&[token])))?;
        let id = self.tokenizer.token_to_id(&marker).expect("it was just added");
        let listed = json!({
            "id": id, "content": marker, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        });
        match self.files.tokenizer["added_tokens"].as_array_mut() {
            Some(added) => added.push(listed),
            None => self.files.tokenizer["added_tokens"] = json!([listed]),
        }
        self.added.push(marker);
        let (before, needed) = (self.config.vocab_size(), id as usize + 1);
        if needed > before {
            self.added_rows += needed - before;
            self.config.set_vocab_size(needed);
            self.files.config["vocab_size"] = json!(needed);
        }
        Ok(())
    }
}

/// Returns the head that the directory has, or that options give a plain encoder.
///
/// # Errors
/// Options describe another head than the one that is there.
fn head_of(
    there: Option<&HeadFiles>,
    options: &TrainOptions,
    hidden_size: usize,
    path: &Path,
) -> Result<Option<HeadConfig>, ModelError> {
    if there.is_some() && options.head_init == HeadInit::Pca {
        return Err(ModelError::HeadIsTrained { path: path.to_owned() });
    }
    if options.head.0.is_empty() {
        return Ok(there.map(|head| head.config.clone()));
    }
    let asked = HeadConfig::of(&options.head, hidden_size, options.dim);
    let Some(there) = there else { return Ok(Some(asked)) };
    let with_relu = |head: &HeadConfig| head.clone().with_relu(options.use_relu, path);
    if with_relu(&there.config)? == with_relu(&asked)? {
        return Ok(Some(there.config.clone()));
    }
    let (found, asked) = (there.config.to_string(), asked.to_string());
    Err(ModelError::HeadIsThere { path: path.to_owned(), found, asked })
}

fn read_metadata(directory: &Path) -> Result<Option<ArtifactMetadata>, ModelError> {
    let path = directory.join("artifact.metadata");
    if !path.is_file() {
        return Ok(None);
    }
    let read = ArtifactMetadata::read(&path);
    let read = read.map_err(|source| ModelError::Metadata { path: path.clone(), source: Box::new(source) })?;
    for (field, found, expected) in
        [("similarity", &read.similarity, "cosine"), ("interaction", &read.interaction, "colbert")]
    {
        if found.as_str() != expected {
            let (found, expected) = (found.clone(), format!("\"{expected}\""));
            return Err(ModelError::UnsupportedConfig { path, field, found, expected });
        }
    }
    Ok(Some(read))
}

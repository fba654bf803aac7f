//! A cross-encoder: one score for a query and a document that are read together, computed as by a sequence
//! classification model of transformers or a CrossEncoder of sentence-transformers. It is a teacher, and is not trained
//! here.
//!
//! Owns a directory's declarations of lengths and of the function over its scores. The head is in
//! [`crate::sentence::classifier`].

use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use colbert_kernels::KernelBackend;
use serde_json::Value;
use tokenizers::{Tokenizer, TruncationParams};

use crate::directory::hub_cache::{folder_name, hub_name};
use crate::directory::load::Pretrained;
use crate::encoder::families::PretrainedEncoder;
use crate::encoder::{EncodeOptions, Encoder, EncoderInput};
use crate::error::ModelError;
use crate::head::activation::Activation;
use crate::sentence::blocks::blocks;
use crate::sentence::classifier::Classifier;
use crate::tokenizer::panics::guarded;
use crate::tokenizer::sequence::TokenSequence;
use crate::weights::json::{Keys, optional_object};
use crate::weights::{HostTensor, Weights};

/// Shortest pair in tokens that is accepted: special tokens and a little text.
const SHORTEST: usize = 8;

/// A cross-encoder on a device.
#[derive(Debug)]
pub struct CrossEncoder<B: Backend> {
    encoder: PretrainedEncoder<B>,
    classifier: Classifier<B>,
    tokenizer: Tokenizer,
    directory: PathBuf,
    max_length: usize,
    activation: Activation,
    fingerprint: String,
    /// Rows of the word table, if the rows after them belong to the second text.
    second_text: Option<u32>,
}

impl<B: KernelBackend> CrossEncoder<B> {
    /// Returns whether a directory declares a sequence classification model.
    ///
    /// # Errors
    /// A `config.json` that does not parse.
    pub fn is_one(directory: &Path) -> Result<bool, ModelError> {
        let path = directory.join("config.json");
        let config = optional_object(&path)?;
        let classes = Keys { json: &config, path: &path }.texts("architectures")?.unwrap_or_default();
        Ok(classes.iter().any(|class| class.ends_with("ForSequenceClassification")))
    }

    /// Reads a directory as transformers saves a `*ForSequenceClassification` with one label, and
    /// sentence-transformers a CrossEncoder.
    ///
    /// Pairs are cut to `max_seq_length` of `sentence_bert_config.json`, to the tokenizer's `model_max_length`, and to
    /// the positions that the encoder has, whichever is least; the longer text of a pair is cut first.
    ///
    /// # Errors
    /// A directory that [`Pretrained::read`] refuses; no classification head, or one of more than one label; a prompt.
    pub fn read(directory: &Path, device: &B::Device) -> Result<Self, ModelError> {
        let mut pretrained = Pretrained::read(directory)?;
        let path = pretrained.directory().join("config.json");
        let config = pretrained.files.config.clone();
        let keys = Keys { json: &config, path: &path };
        one_label(keys)?;
        let activation = activation(keys, pretrained.directory())?;
        let max_length = max_length(&pretrained)?;
        let fingerprint = pretrained.content_hash(&format!("cross-encoder, {max_length} tokens"));
        let classifier = Classifier::take(&pretrained.config, keys, &mut pretrained.weights.clone(), device)?;
        let first_ids = pretrained.config.vocab_size();
        let second_text = add_second_text(&mut pretrained)?.then_some(first_ids as u32);
        let mut tokenizer = pretrained.tokenizer.clone();
        let truncation = TruncationParams { max_length, ..Default::default() };
        guarded(&pretrained.tokenizer_path, || tokenizer.with_truncation(Some(truncation)).map(drop))?;
        let encoder = pretrained.encoder(device)?;
        Ok(Self {
            encoder,
            classifier,
            tokenizer,
            directory: directory.to_owned(),
            max_length,
            activation,
            fingerprint,
            second_text,
        })
    }

    /// Returns the last part of the directory's path, or the name on the hub if it lies in the hub's cache.
    pub fn name(&self) -> String {
        hub_name(&self.directory).unwrap_or_else(|| folder_name(&self.directory))
    }

    /// Returns the length of the longest pair in tokens, special tokens included.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Returns a number in hexadecimal digits that distinguishes this model's scores from those of other models.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Returns the function over scores that the directory declares; a sigmoid if it declares none.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// Scores of (query, document) pairs, without a function over them: transformers' `logits`.
    ///
    /// # Errors
    /// The tokenizers library refuses a text.
    pub fn scores(&self, pairs: &[(&str, &str)], device: &B::Device) -> Result<Vec<f32>, ModelError> {
        let sequences = self.tokenize(pairs)?;
        let mut scores = Vec::with_capacity(pairs.len());
        for block in blocks(&sequences) {
            let hidden = self.encoder.forward(&EncoderInput::new(block, EncodeOptions::default()), device);
            scores.extend(self.classifier.forward(&hidden, block));
        }
        Ok(scores)
    }

    /// Scores after the function that the directory declares: sentence-transformers' `CrossEncoder.predict`.
    ///
    /// # Errors
    /// The tokenizers library refuses a text.
    pub fn predict(&self, pairs: &[(&str, &str)], device: &B::Device) -> Result<Vec<f32>, ModelError> {
        let scores = self.scores(pairs, device)?;
        let count = scores.len();
        let scores = burn::tensor::Tensor::<B, 2>::from_data(burn::tensor::TensorData::new(scores, [count, 1]), device);
        let scores = self.activation.apply(scores).into_data().convert::<f32>();
        Ok(scores.into_vec::<f32>().expect("the data was converted to f32"))
    }

    fn tokenize(&self, pairs: &[(&str, &str)]) -> Result<Vec<TokenSequence>, ModelError> {
        let pairs = pairs.to_vec();
        let encodings = guarded(&self.directory, || self.tokenizer.encode_batch_fast(pairs, true))?;
        let sequence = |encoding: &tokenizers::Encoding| {
            let shift = self.second_text.unwrap_or(0);
            let ids: Vec<u32> = encoding
                .get_ids()
                .iter()
                .zip(encoding.get_type_ids())
                .map(|(id, kind)| id + shift * kind.min(&1))
                .collect();
            TokenSequence { attended: ids.len(), scored: vec![true; ids.len()], ids }
        };
        Ok(encodings.iter().map(sequence).collect())
    }
}

/// Refuses more labels than one: classes have no order by relevance.
fn one_label(keys: Keys<'_>) -> Result<(), ModelError> {
    let labels = match (keys.object("id2label")?, keys.count("num_labels")?) {
        (Some(names), _) => names.as_object().map_or(0, serde_json::Map::len),
        // Two is transformers' default.
        (None, declared) => declared.unwrap_or(2),
    };
    if labels == 1 {
        return Ok(());
    }
    let expected =
        "one label, a cross-encoder that gives one score a pair, such as cross-encoder/ms-marco-MiniLM-L6-v2";
    Err(keys.unsupported("id2label", &Value::from(format!("{labels} labels")), expected))
}

/// Reads the function over scores: from `config_sentence_transformers.json`, else from the two places in `config.json`
/// where sentence-transformers wrote it before version 6.
fn activation(keys: Keys<'_>, directory: &Path) -> Result<Activation, ModelError> {
    let path = directory.join("config_sentence_transformers.json");
    let own = optional_object(&path)?;
    let own_keys = Keys { json: &own, path: &path };
    if let Some(name) = own_keys.text("default_prompt_name")? {
        let expected = "null: a cross-encoder with a prompt is not supported";
        return Err(own_keys.unsupported("default_prompt_name", &Value::from(name), expected));
    }
    let nested = keys.object("sentence_transformers")?.cloned().unwrap_or_default();
    let places = [
        (own_keys, "activation_fn"),
        (Keys { json: &nested, path: keys.path }, "activation_fn"),
        (keys, "sbert_ce_default_activation_function"),
    ];
    for (keys, field) in places {
        let Some(name) = keys.text(field)? else { continue };
        return Activation::from_path(name).ok_or_else(|| {
            let known: Vec<&str> = Activation::ALL.iter().map(|one| one.class()).collect();
            let expected = format!("a class of torch.nn that is one of {}", known.join(", "));
            keys.unsupported(field, &Value::from(name), &expected)
        });
    }
    Ok(Activation::Sigmoid)
}

fn max_length(pretrained: &Pretrained) -> Result<usize, ModelError> {
    let path = pretrained.directory().join("sentence_bert_config.json");
    let own = optional_object(&path)?;
    let declared = Keys { json: &own, path: &path }.count("max_seq_length")?;
    // A tokenizer without a limit of its own declares an enormous one, as a float.
    let of_tokenizer = pretrained.files.tokenizer_config.get("model_max_length").and_then(Value::as_u64);
    let of_tokenizer = of_tokenizer.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    let positions = pretrained.config.max_length();
    let length = declared.or(of_tokenizer).map_or(positions, |length| length.min(positions));
    if length < SHORTEST {
        let option = "max_seq_length";
        return Err(ModelError::LengthOutOfRange { option, found: length, minimum: SHORTEST, maximum: positions });
    }
    Ok(length)
}

/// Adds rows for tokens of the second text after those of the word table: word plus second token type, minus the first
/// token type, which every row gets. The sums are those of BERT, and the encoders only need to know one type.
fn add_second_text(pretrained: &mut Pretrained) -> Result<bool, ModelError> {
    const TYPES: &str = "embeddings.token_type_embeddings.weight";
    let has_types = pretrained.config.takes_token_types();
    let (types, size) = match pretrained.weights.shape(TYPES) {
        Some(&[types, size]) if has_types && types > 1 => (types, size),
        _ => return Ok(false),
    };
    pretrained.fill_added_rows();
    let (weights, word_table) = (&mut pretrained.weights, pretrained.config.word_table());
    let rows = pretrained.config.vocab_size();
    let types_table = weights.take(TYPES, &[types, size])?;
    let mut words = weights.take(word_table, &[rows, size])?;
    let (first, second) = (&types_table.values[..size], &types_table.values[size..2 * size]);
    let shift: Vec<f32> = second.iter().zip(first).map(|(second, first)| second - first).collect();
    let shifted: Vec<f32> = words.values.iter().zip(shift.iter().cycle()).map(|(word, shift)| word + shift).collect();
    words.values.extend(shifted);
    let words = HostTensor { shape: vec![2 * rows, size], values: words.values };
    let tables = [(word_table.to_owned(), words), (TYPES.to_owned(), types_table)];
    weights.append(Weights::new(weights.path().to_owned(), tables));
    pretrained.config.set_vocab_size(2 * rows);
    Ok(true)
}

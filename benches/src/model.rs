//! Models nobody trained, of the sizes people train, and the quickstart's tokenizer.

use std::path::Path;

use burn::module::Param;
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Tensor};
use ragtrainer::config::TrainOptions;
use ragtrainer::model::{
    Bert, BertConfig, Colbert, ColbertSettings, ColbertTokenizer, EncoderConfig, Head, Linear, Pretrained,
};

/// Tokenizer and vocabulary come from here; the weights are used by the dense miner alone.
const QUICKSTART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/quickstart/model");

/// Rows of the word embedding matrix in published MiniLM models.
const VOCABULARY: usize = 30_522;

/// Size of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Size {
    /// 2 layers of 32: only to see that a bench runs, or where the encoder does not matter.
    Tiny,
    /// MiniLM-L3: 3 layers of 384, 12 heads, feed-forward 1536.
    L3,
    /// MiniLM-L6: 6 layers of the same.
    L6,
    /// BERT-base: 12 layers of 768, 12 heads, feed-forward 3072.
    Base,
}

impl Size {
    /// The encoder's sizes; `dropout` means 0.1, as BERT was trained.
    pub fn config(self, dropout: bool) -> BertConfig {
        let (layers, hidden, heads, wide, vocabulary) = match self {
            Self::Tiny => (2, 32, 2, 64, 11_000),
            Self::L3 => (3, 384, 12, 1536, VOCABULARY),
            Self::L6 => (6, 384, 12, 1536, VOCABULARY),
            Self::Base => (12, 768, 12, 3072, VOCABULARY),
        };
        let EncoderConfig::Bert(quickstart) = quickstart().config else { panic!("the quickstart's model is a BERT") };
        let probability = if dropout { 0.1 } else { 0.0 };
        BertConfig {
            vocab_size: vocabulary,
            hidden_size: hidden,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            intermediate_size: wide,
            hidden_dropout_prob: probability,
            attention_probs_dropout_prob: probability,
            ..quickstart
        }
    }
}

/// A ColBERT of a size with random weights. `dropout` means 0.1, as BERT was trained.
pub fn untrained<B: Backend>(size: Size, dim: usize, dropout: bool, device: &B::Device) -> Colbert<B, Bert<B>> {
    let config = size.config(dropout);
    let encoder = Bert::from_weights(&config, &mut config.random_weights(1), device);
    let encoder = encoder.expect("random weights have every tensor");
    B::seed(device, 2);
    let deviation = Distribution::Normal(0.0, config.initializer_range);
    let projection = Tensor::random([dim, config.hidden_size], deviation, device);
    let linear = Linear { weight: Param::from_tensor(projection), bias: None };
    Colbert { encoder, head: Head::linear(linear, false) }
}

/// colbert-ai's settings, with documents of at most `doc_maxlen` tokens.
pub fn settings(doc_maxlen: usize) -> ColbertSettings {
    ColbertSettings { doc_maxlen, ..ColbertSettings::from(&TrainOptions::default()) }
}

/// Folder of the quickstart's encoder.
pub fn quickstart_model() -> &'static str {
    QUICKSTART
}

/// The quickstart's tokenizer.
pub fn tokenizer(settings: &ColbertSettings) -> ColbertTokenizer {
    quickstart().tokenizer(settings).expect("the quickstart's vocabulary has the markers")
}

/// Whole words of the quickstart's vocabulary, each of which is one token.
pub(crate) fn vocabulary() -> Vec<String> {
    let vocabulary = quickstart().files.vocab.expect("the quickstart's model has a vocabulary");
    let is_word = |token: &&str| token.len() > 2 && token.bytes().all(|byte| byte.is_ascii_lowercase());
    vocabulary.lines().filter(is_word).map(str::to_owned).collect()
}

fn quickstart() -> Pretrained {
    Pretrained::read(Path::new(QUICKSTART)).unwrap_or_else(|error| panic!("the quickstart's model: {error}"))
}

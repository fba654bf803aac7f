//! Untrained models of common sizes, and the quickstart's tokenizer.

use std::path::Path;

use burn::module::Param;
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Tensor};
use ragtrainer::config::TrainOptions;
use ragtrainer::model::families::{BertConfig, ModernBertConfig};
use ragtrainer::model::{
    Colbert, ColbertSettings, ColbertTokenizer, EncoderConfig, Head, HostTensor, Linear, Pretrained, PretrainedEncoder,
    Weights,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Normal};

/// Tokenizer and vocabulary come from here; the weights are used by the dense miner alone.
const QUICKSTART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/quickstart/model");

/// Rows of the word embedding matrix in published MiniLM models.
const VOCABULARY: usize = 30_522;

/// Size of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Size {
    /// 2 layers of 32: to check that a bench runs, or where the encoder does not matter.
    Tiny,
    /// MiniLM-L3: 3 layers of 384, 12 heads, feed-forward 1536.
    L3,
    /// MiniLM-L6: 6 layers of the same.
    L6,
    /// BERT-base: 12 layers of 768, 12 heads, feed-forward 3072.
    Base,
    /// ModernBERT-base: 22 layers of 768, 12 heads, a gated feed-forward of 1152, windows of 128 tokens in two layers
    /// of three.
    Modern,
}

/// Sizes of an encoder that decide how much a step has to do.
#[derive(Debug)]
pub struct Sizes {
    /// Layers.
    pub layers: usize,
    /// Numbers of a hidden vector.
    pub hidden: usize,
    /// Attention heads of a layer.
    pub heads: usize,
    /// Linear maps of a layer, `[out, in]` each.
    pub maps: Vec<[usize; 2]>,
    /// In all layers but each of this number, from the first, a token sees only this many tokens to each side.
    window: Option<(usize, usize)>,
}

impl Sizes {
    /// Products of queries and keys of a layer and head, for a text.
    pub(crate) fn products(&self, layer: usize, tokens: usize, attended: usize) -> usize {
        match self.window {
            Some((every, reach)) if !layer.is_multiple_of(every) => {
                let seen = |token: usize| (token + reach + 1).min(attended).saturating_sub(token.saturating_sub(reach));
                (0..tokens).map(seen).sum()
            }
            _ => tokens * attended,
        }
    }
}

impl Size {
    /// What decides the work of a step.
    pub fn sizes(self) -> Sizes {
        if self == Self::Modern {
            let config = modern();
            let (hidden, wide) = (config.hidden_size, config.intermediate_size);
            return Sizes {
                layers: config.num_hidden_layers,
                hidden,
                heads: config.num_attention_heads,
                maps: vec![[3 * hidden, hidden], [hidden, hidden], [2 * wide, hidden], [hidden, wide]],
                window: Some((config.global_attn_every_n_layers, config.local_attention / 2)),
            };
        }
        let config = self.bert(false);
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let mut maps = vec![[hidden, hidden]; 4];
        maps.extend([[wide, hidden], [hidden, wide]]);
        Sizes { layers: config.num_hidden_layers, hidden, heads: config.num_attention_heads, maps, window: None }
    }

    fn bert(self, dropout: bool) -> BertConfig {
        let (layers, hidden, heads, wide, vocabulary) = match self {
            Self::Tiny => (2, 32, 2, 64, 11_000),
            Self::L3 => (3, 384, 12, 1536, VOCABULARY),
            Self::L6 => (6, 384, 12, 1536, VOCABULARY),
            Self::Base => (12, 768, 12, 3072, VOCABULARY),
            Self::Modern => unreachable!("ModernBERT is no BERT"),
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

/// ModernBERT-base, with transformers' defaults where this says nothing.
fn modern() -> ModernBertConfig {
    let sizes = serde_json::json!({
        "vocab_size": 50_368, "hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": 22,
        "num_attention_heads": 12,
    });
    serde_json::from_value(sizes).expect("the fields that have no default")
}

/// Random tensors of a ModernBERT.
fn modern_weights(config: &ModernBertConfig) -> Weights {
    let (hidden, wide) = (config.hidden_size, config.intermediate_size);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let normal = Normal::new(0.0, config.initializer_range as f32).expect("a deviation");
    let mut drawn = vec![("embeddings.tok_embeddings".to_owned(), [config.vocab_size, hidden])];
    let mut norms = vec!["embeddings.norm".to_owned(), "final_norm".to_owned()];
    for layer in 0..config.num_hidden_layers {
        let at = |name: &str| format!("layers.{layer}.{name}");
        drawn.extend([
            (at("attn.Wqkv"), [3 * hidden, hidden]),
            (at("attn.Wo"), [hidden, hidden]),
            (at("mlp.Wi"), [2 * wide, hidden]),
            (at("mlp.Wo"), [hidden, wide]),
        ]);
        norms.push(at("mlp_norm"));
        norms.extend((layer > 0).then(|| at("attn_norm")));
    }
    let drawn = drawn.into_iter().map(|(name, shape)| {
        let values = (0..shape[0] * shape[1]).map(|_| normal.sample(&mut rng)).collect();
        (format!("{name}.weight"), HostTensor { shape: shape.to_vec(), values })
    });
    let norms = norms
        .into_iter()
        .map(|name| (format!("{name}.weight"), HostTensor { shape: vec![hidden], values: vec![1.0; hidden] }));
    Weights::new("random weights", drawn.chain(norms))
}

/// A ColBERT of a size with random weights. `dropout` means 0.1, as BERT was trained; ModernBERT has none.
pub fn untrained<B: Backend>(
    size: Size,
    dim: usize,
    dropout: bool,
    device: &B::Device,
) -> Colbert<B, PretrainedEncoder<B>> {
    let (mut weights, config) = if size == Size::Modern {
        let config = modern();
        (modern_weights(&config), EncoderConfig::ModernBert(config))
    } else {
        let config = size.bert(dropout);
        (config.random_weights(1), EncoderConfig::Bert(config))
    };
    let encoder = config.build(&mut weights, device).expect("random weights have every tensor");
    B::seed(device, 2);
    let projection =
        Tensor::random([dim, size.sizes().hidden], Distribution::Normal(0.0, config.initializer_range()), device);
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

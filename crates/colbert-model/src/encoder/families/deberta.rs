//! DeBERTa from version 2 on (He et al. 2020 and 2021): BERT's layers; attention adds to the products of queries and
//! keys those of queries and places, and of keys and places, where a place is the bucket of a distance (transformers
//! 5.24, `modeling_deberta_v2.py`).
//!
//! As in transformers, a token that cannot be attended to starts from zeros, and attends to all tokens of its text
//! alike.

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use colbert_kernels::{AttentionPlan, KernelBackend, Segment};

use crate::encoder::families::deberta_attention::SharedAttention;
use crate::encoder::families::deberta_config::DebertaConfig;
use crate::encoder::families::deberta_nodes::DebertaNodes;
use crate::encoder::families::deberta_places::Relative;
use crate::encoder::family::{
    ExportFacts, Facts, Family, Loaders, Transformers, Unsupported, check_dropout, check_eps, check_heads,
    check_initializer, check_name, check_sizes,
};
use crate::encoder::layers::{Embedding, LayerNorm, Linear};
use crate::encoder::token_embeddings::TokenEmbeddings;
use crate::encoder::transformer::{LayerNames, Transformer};
use crate::encoder::transformer_nodes::TransformerNodes;
use crate::encoder::{EncodeOptions, Encoder, EncoderInput};
use crate::error::ModelError;
use crate::onnx::graph::Value;
use crate::onnx::nodes::{Inputs, Nodes, Tokens};
use crate::weights::Weights;

/// Name of the table of places, and of the norm on it.
const RELATIVE: &str = "encoder.rel_embeddings";
const RELATIVE_NORM: &str = "encoder.LayerNorm";

/// Numbers that attention holds for each head and pair of tokens: both kinds of products with places, their sums,
/// exponentials, weights, dropped weights and their factors.
const HELD_OF_A_PAIR: usize = 7;

const NAMES: LayerNames = LayerNames {
    layers: "encoder.layer",
    parts: [
        "attention.self.query_proj",
        "attention.self.key_proj",
        "attention.self.value_proj",
        "attention.output.dense",
        "attention.output.LayerNorm",
        "intermediate.dense",
        "output.dense",
        "output.LayerNorm",
    ],
};

impl Family for DebertaConfig {
    const ARCHITECTURES: &'static [(&'static str, &'static str)] = &[("deberta-v2", "DebertaV2Model")];
    const PREFIX: &'static str = "deberta.";
    const LOADERS: Loaders =
        Loaders { colbert_ai: true, pylate_rs: false, colbert_ai_punctuation: false, transformers: Transformers::Any };
    // transformers 5 would make its own DeBERTa tokenizer from the vocabulary, with another normalisation than the
    // file's.
    const EXPORT: ExportFacts =
        ExportFacts { tokenizer_class: Some("PreTrainedTokenizerFast"), token_types: false, older_key: None };

    fn unsupported(&self) -> Option<Unsupported> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        let heads =
            || check_heads(("num_attention_heads", self.num_attention_heads), ("hidden_size", self.hidden_size));
        check_name("hidden_act", &self.hidden_act, "gelu")
            .or_else(|| self.unsupported_form())
            .or_else(|| check_sizes(sizes))
            .or_else(heads)
            .or_else(|| self.unsupported_distances())
            .or_else(|| check_dropout("hidden_dropout_prob", self.hidden_dropout_prob))
            .or_else(|| check_dropout("attention_probs_dropout_prob", self.attention_probs_dropout_prob))
            .or_else(|| check_eps("layer_norm_eps", self.layer_norm_eps))
            .or_else(|| check_initializer(self.initializer_range))
    }

    fn vocab_size_mut(&mut self) -> &mut usize {
        &mut self.vocab_size
    }

    fn facts(&self) -> Facts {
        let positions = if self.position_biased_input { self.max_position_embeddings } else { 0 };
        let beside = [positions, self.type_vocab_size, self.relative().rows()];
        Facts {
            vocabulary: self.vocab_size,
            max_length: self.max_position_embeddings,
            initializer_range: self.initializer_range,
            hidden: self.hidden_size,
            wide: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            attention: self.hidden_size,
            pairs: HELD_OF_A_PAIR.saturating_mul(self.num_attention_heads),
            rows: beside.into_iter().fold(self.vocab_size, usize::saturating_add),
        }
    }

    fn dropouts_mut(&mut self) -> Vec<&mut f64> {
        vec![&mut self.hidden_dropout_prob, &mut self.attention_probs_dropout_prob]
    }

    fn nodes(&self, on: &mut Nodes<'_>, inputs: &Inputs, tokens: &Tokens) -> Result<Value, ModelError> {
        let (relative, farthest) = (self.relative(), self.max_position_embeddings as i64);
        let nodes = DebertaNodes {
            transformer: TransformerNodes {
                layers: self.layers(),
                names: NAMES,
                tables: self.tables(),
                heads: self.num_attention_heads,
                padding: None,
                relative: None,
            },
            table: RELATIVE,
            rows: relative.rows(),
            norm: self.normalises_places().then_some(RELATIVE_NORM),
            of_distance: (-farthest..=farthest).map(|distance| relative.place(distance) as i64).collect(),
            to_place: relative.to_place,
            from_place: relative.from_place,
            scale: relative.scale,
        };
        nodes.build(on, inputs, tokens)
    }
}

/// DeBERTa: embeddings, a table of places, and a stack of transformer layers.
#[derive(Module, Debug)]
pub struct Deberta<B: Backend> {
    embeddings: TokenEmbeddings<B>,
    encoder: Transformer<B>,
    places: Embedding<B>,
    places_norm: Option<LayerNorm<B>>,
    #[module(skip)]
    relative: Relative,
    heads: usize,
    hidden_size: usize,
    places_dropout: f64,
}

impl<B: Backend> Deberta<B> {
    /// Builds the encoder, taking each tensor it uses out of `weights`.
    pub(crate) fn from_weights(
        config: &DebertaConfig,
        weights: &mut Weights,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        let (size, eps) = (config.hidden_size, config.layer_norm_eps);
        let places_norm = match config.normalises_places() {
            true => Some(LayerNorm::take(RELATIVE_NORM, size, eps, weights, device)?),
            false => None,
        };
        Ok(Self {
            embeddings: TokenEmbeddings::take(config.tables(), weights, device)?,
            encoder: Transformer::take(config.layers(), NAMES, weights, device)?,
            places: Embedding::take(RELATIVE, [config.relative().rows(), size], weights, device)?,
            places_norm,
            relative: config.relative(),
            heads: config.num_attention_heads,
            hidden_size: size,
            places_dropout: config.hidden_dropout_prob,
        })
    }
}

impl<B: KernelBackend> Deberta<B> {
    /// Returns the row in the table of places for each query and key of texts of at most this length, `[length,
    /// length]`.
    fn rows_of_places(&self, length: usize, device: &B::Device) -> Tensor<B, 2, Int> {
        let relative = self.relative;
        let row = |query: usize| (0..length).map(move |key| relative.place(query as i64 - key as i64) as i32);
        let rows: Vec<i32> = (0..length).flat_map(row).collect();
        Tensor::from_data(TensorData::new(rows, [length, length]), device)
    }

    /// Returns 1 for a token that can be attended to, 0 for another, `[tokens, 1]`; none if all can be.
    fn attended(input: &EncoderInput, device: &B::Device) -> Option<Tensor<B, 2>> {
        let segments = input.segments.as_slice();
        if segments.iter().all(|segment| segment.attended == segment.length) {
            return None;
        }
        let of = |segment: &Segment| {
            let attended = segment.attended;
            (0..segment.length).map(move |place| f32::from(u8::from(place < attended)))
        };
        let values: Vec<f32> = segments.iter().flat_map(of).collect();
        let tokens = values.len();
        Some(Tensor::from_data(TensorData::new(values, [tokens, 1]), device))
    }
}

impl<B: KernelBackend> Encoder<B> for Deberta<B> {
    fn forward(&self, input: &EncoderInput, device: &B::Device) -> Tensor<B, 2> {
        let mut embedded = self.embeddings.forward(input);
        if let Some(attended) = Self::attended(input, device) {
            embedded = embedded * attended;
        }
        let places = self.places.weight.val();
        let places = match &self.places_norm {
            Some(norm) => norm.forward(places),
            None => places,
        };
        let rows = self.rows_of_places(input.segments.max_length(), device);
        let shared = SharedAttention { places, rows, relative: self.relative, dropout: self.places_dropout };
        let attend = |input: Tensor<B, 2>, maps: [&Linear<B>; 3], plan: &AttentionPlan, options: EncodeOptions| {
            shared.attend(input, maps, plan, options)
        };
        self.encoder.forward(embedded, &input.segments, self.heads, Some(&attend), input.options)
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn tensor_prefix(&self) -> &'static str {
        DebertaConfig::PREFIX
    }

    fn tensor_name(&self, path: &str) -> String {
        let name = match path.split_once('.') {
            Some(("places", kind)) => format!("{RELATIVE}.{kind}"),
            Some(("places_norm", kind)) => format!("{RELATIVE_NORM}.{kind}"),
            _ => NAMES.tensor_name("encoder.layer.", path),
        };
        format!("{}{name}", DebertaConfig::PREFIX)
    }
}

//! DeBERTa from version 2 on (He et al. 2020 and 2021): BERT's layers; attention adds to the products of queries and
//! keys those of queries and places, and of keys and places, where a place is the bucket of a distance (transformers
//! 5.24, `modeling_deberta_v2.py`).
//!
//! A token that cannot be attended to starts from zeros, and looks at all tokens of its text alike: that is what
//! transformers makes of it. Attention is composed of burn's operators, one text after the other.

use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use colbert_kernels::{AttentionPlan, Dropout, KernelBackend, Segment, dropout};
use serde::{Deserialize, Serialize};

use crate::encoder::bert::gelu_name;
use crate::encoder::deberta_nodes::DebertaNodes;
use crate::encoder::dropout::DropoutSeed;
use crate::encoder::family::{
    ExportFacts, Family, Loaders, Sizes, Transformers, Unsupported, check_dropout, check_eps, check_initializer,
    check_sizes,
};
use crate::encoder::layers::{Embedding, LayerNorm, Linear};
use crate::encoder::token_embeddings::{EMBEDDINGS_NORM, TableSizes, TokenEmbeddings};
use crate::encoder::transformer::{LayerNames, LayerSizes, Transformer};
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

/// The child of a layer's options for dropout of the places.
const OF_PLACES: u64 = 3;

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

/// The part of `config.json` that the encoder reads. Defaults are transformers' `DebertaV2Config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DebertaConfig {
    /// Rows of the word embedding matrix.
    pub vocab_size: usize,
    /// Size of a hidden vector.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads of a layer.
    pub num_attention_heads: usize,
    /// Size of a head; only `hidden_size / num_attention_heads` is supported.
    #[serde(default)]
    pub attention_head_size: Option<usize>,
    /// Size of the feed-forward layer.
    pub intermediate_size: usize,
    /// Size of a word embedding; only `hidden_size` is supported.
    #[serde(default)]
    pub embedding_size: Option<usize>,
    /// Activation of the feed-forward layer; only `gelu` (by the error function) is supported.
    #[serde(default = "gelu_name")]
    pub hidden_act: String,
    /// Dropout after embeddings, of places, and after attention output and feed-forward output.
    #[serde(default = "tenth")]
    pub hidden_dropout_prob: f64,
    /// Dropout on attention weights.
    #[serde(default = "tenth")]
    pub attention_probs_dropout_prob: f64,
    /// Longest sequence, in tokens.
    #[serde(default = "positions")]
    pub max_position_embeddings: usize,
    /// Rows of the token type embedding matrix, which may have none; only row 0 is used.
    #[serde(default)]
    pub type_vocab_size: usize,
    /// Epsilon of layer normalisation.
    #[serde(default = "tiny")]
    pub layer_norm_eps: f64,
    /// Standard deviation that new weights are drawn with.
    #[serde(default = "init_range")]
    pub initializer_range: f64,
    /// Whether attention has places; only `true` is supported.
    #[serde(default)]
    pub relative_attention: bool,
    /// The largest distance that has a place of its own without buckets, and where the last bucket ends with them;
    /// below 1 it is `max_position_embeddings`.
    #[serde(default = "none")]
    pub max_relative_positions: i64,
    /// Places to each side that distances are put into; below 1 each distance has its own.
    #[serde(default = "none")]
    pub position_buckets: i64,
    /// Norms of the table of places; `layer_norm` among them, or `none`.
    #[serde(default = "no_norm")]
    pub norm_rel_ebd: String,
    /// Whether places have the maps of queries and keys; only `true` is supported.
    #[serde(default)]
    pub share_att_key: bool,
    /// Products that are added: of the query and the key's place (`c2p`), of the key and the query's place (`p2c`).
    #[serde(default)]
    pub pos_att_type: Option<PlaceProducts>,
    /// Whether positions are embedded too.
    #[serde(default = "yes")]
    pub position_biased_input: bool,
    /// Width of a convolution beside the first layer; only 0, no convolution, is supported.
    #[serde(default)]
    pub conv_kernel_size: usize,
}

/// The products with places, as files spell them: one text or a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PlaceProducts {
    /// Such as `"p2c|c2p"`.
    Joined(String),
    /// Such as `["p2c", "c2p"]`.
    Listed(Vec<String>),
}

fn tenth() -> f64 {
    0.1
}
fn positions() -> usize {
    512
}
fn tiny() -> f64 {
    1e-7
}
fn init_range() -> f64 {
    0.02
}
fn none() -> i64 {
    -1
}
fn no_norm() -> String {
    "none".to_owned()
}
fn yes() -> bool {
    true
}

impl DebertaConfig {
    /// The kinds of products with places, in lower case.
    fn products(&self) -> Vec<String> {
        match &self.pos_att_type {
            None => Vec::new(),
            Some(PlaceProducts::Joined(text)) => {
                text.to_lowercase().split('|').map(|kind| kind.trim().to_owned()).collect()
            }
            Some(PlaceProducts::Listed(kinds)) => kinds.clone(),
        }
    }

    fn has(&self, kind: &str) -> bool {
        self.products().iter().any(|own| own == kind)
    }

    /// The distances and what attention adds for them.
    fn relative(&self) -> Relative {
        let farthest = match self.max_relative_positions {
            none if none < 1 => self.max_position_embeddings,
            given => given as usize,
        };
        let buckets = (self.position_buckets > 0).then_some(self.position_buckets as usize);
        let (to_place, from_place) = (self.has("c2p"), self.has("p2c"));
        let terms = 1 + usize::from(to_place) + usize::from(from_place);
        let head_size = self.hidden_size / self.num_attention_heads.max(1);
        let scale = 1.0 / ((head_size * terms) as f32).sqrt();
        Relative { farthest, buckets, to_place, from_place, scale }
    }

    fn normalises_places(&self) -> bool {
        self.norm_rel_ebd.to_lowercase().split('|').any(|norm| norm.trim() == "layer_norm")
    }

    fn layers(&self) -> LayerSizes {
        LayerSizes {
            layers: self.num_hidden_layers,
            hidden: self.hidden_size,
            wide: self.intermediate_size,
            eps: self.layer_norm_eps,
            attention_dropout: self.attention_probs_dropout_prob,
            projection_dropout: self.hidden_dropout_prob,
            output_dropout: self.hidden_dropout_prob,
        }
    }

    fn tables(&self) -> TableSizes {
        TableSizes {
            norm: EMBEDDINGS_NORM,
            words: self.vocab_size,
            positions: self.position_biased_input.then_some(self.max_position_embeddings),
            token_types: (self.type_vocab_size > 0).then_some(self.type_vocab_size),
            size: self.hidden_size,
            eps: self.layer_norm_eps,
            dropout: self.hidden_dropout_prob,
        }
    }
}

/// Places of distances, and the products with them.
#[derive(Debug, Clone, Copy)]
struct Relative {
    farthest: usize,
    buckets: Option<usize>,
    /// Products of queries with places are added.
    to_place: bool,
    /// Products of keys with places are added.
    from_place: bool,
    /// Factor of all products.
    scale: f32,
}

impl Relative {
    /// Places to each side.
    fn span(&self) -> usize {
        self.buckets.unwrap_or(self.farthest)
    }

    /// Rows of the table of places.
    fn rows(&self) -> usize {
        self.span().saturating_mul(2)
    }

    /// The row of a distance from a key to a query: those within half the buckets have their own, beyond them buckets
    /// grow by powers.
    fn place(&self, distance: i64) -> usize {
        let span = self.span() as i64;
        let bucket = match self.buckets {
            None => distance,
            Some(buckets) => bucket(distance, buckets as i64, self.farthest),
        };
        (bucket + span).clamp(0, 2 * span - 1) as usize
    }
}

/// In float32 and in this order, as in transformers.
fn bucket(distance: i64, buckets: i64, farthest: usize) -> i64 {
    let middle = buckets / 2;
    let far = distance.abs();
    if far <= middle {
        return distance;
    }
    let middle = middle as f32;
    let widest = ((farthest as f64 - 1.0) / f64::from(middle)) as f32;
    let beyond = (far as f32 / middle).ln() / widest.ln() * (middle - 1.0);
    (beyond.ceil() + middle) as i64 * distance.signum()
}

impl Family for DebertaConfig {
    const ARCHITECTURES: &'static [(&'static str, &'static str)] = &[("deberta-v2", "DebertaV2Model")];
    const PREFIX: &'static str = "deberta.";
    const LOADERS: Loaders =
        Loaders { colbert_ai: true, pylate_rs: false, colbert_ai_punctuation: false, transformers: Transformers::Any };
    // transformers 5 makes a tokenizer of this name out of the vocabulary, with a normalisation that is not the file's.
    const EXPORT: ExportFacts =
        ExportFacts { tokenizer_class: Some("PreTrainedTokenizerFast"), token_types: false, older_key: None };

    fn unsupported(&self) -> Option<Unsupported> {
        if self.hidden_act != "gelu" {
            return Some(("hidden_act", self.hidden_act.clone(), "\"gelu\"".to_owned()));
        }
        for (field, set) in [("relative_attention", self.relative_attention), ("share_att_key", self.share_att_key)] {
            if !set {
                return Some((field, "false".to_owned(), "true, as every published model has it".to_owned()));
            }
        }
        if self.conv_kernel_size > 0 {
            return Some(("conv_kernel_size", self.conv_kernel_size.to_string(), "0: no convolution".to_owned()));
        }
        let known = |kind: &String| matches!(kind.as_str(), "c2p" | "p2c");
        if let Some(kind) = self.products().into_iter().find(|kind| !known(kind)) {
            return Some(("pos_att_type", kind, "\"c2p\", \"p2c\" or both".to_owned()));
        }
        if let Some(size) = self.embedding_size.filter(|size| *size != self.hidden_size) {
            return Some(("embedding_size", size.to_string(), format!("hidden_size = {}", self.hidden_size)));
        }
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        if let Some(wrong) = check_sizes(sizes) {
            return Some(wrong);
        }
        if self.num_attention_heads == 0 || !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let expected = format!("a divisor of hidden_size = {}", self.hidden_size);
            return Some(("num_attention_heads", self.num_attention_heads.to_string(), expected));
        }
        let head_size = self.hidden_size / self.num_attention_heads;
        if let Some(size) = self.attention_head_size.filter(|size| *size != head_size) {
            let expected = format!("hidden_size / num_attention_heads = {head_size}");
            return Some(("attention_head_size", size.to_string(), expected));
        }
        // Below two buckets, and below more distances than half of them, the logarithms have no meaning.
        let Relative { farthest, buckets, .. } = self.relative();
        if let Some(buckets) = buckets.filter(|buckets| *buckets < 4 || *buckets > 1 << 20) {
            return Some(("position_buckets", buckets.to_string(), "4 to 1048576, or -1 for none".to_owned()));
        }
        let least = buckets.map_or(1, |buckets| buckets / 2 + 2);
        if farthest < least || farthest > 1 << 20 {
            let expected = format!("{least} to 1048576, or -1 for max_position_embeddings");
            return Some(("max_relative_positions", farthest.to_string(), expected));
        }
        check_dropout("hidden_dropout_prob", self.hidden_dropout_prob)
            .or_else(|| check_dropout("attention_probs_dropout_prob", self.attention_probs_dropout_prob))
            .or_else(|| check_eps("layer_norm_eps", self.layer_norm_eps))
            .or_else(|| check_initializer(self.initializer_range))
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn set_vocab_size(&mut self, rows: usize) {
        self.vocab_size = rows;
    }

    fn sizes(&self) -> Sizes {
        let positions = if self.position_biased_input { self.max_position_embeddings } else { 0 };
        let beside = [positions, self.type_vocab_size, self.relative().rows()];
        Sizes {
            hidden: self.hidden_size,
            wide: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            attention: self.hidden_size,
            pairs: HELD_OF_A_PAIR.saturating_mul(self.num_attention_heads),
            rows: beside.into_iter().fold(self.vocab_size, usize::saturating_add),
        }
    }

    fn max_length(&self) -> usize {
        self.max_position_embeddings
    }

    fn initializer_range(&self) -> f64 {
        self.initializer_range
    }

    fn set_dropout(&mut self, probability: f64) {
        self.hidden_dropout_prob = probability;
        self.attention_probs_dropout_prob = probability;
    }

    fn takes_token_types(&self) -> bool {
        false
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
    /// Builds the encoder out of `weights`, taking each tensor it uses.
    ///
    /// # Errors
    /// A missing tensor, one of a wrong shape or with a value that is not finite, by name.
    pub fn from_weights(config: &DebertaConfig, weights: &mut Weights, device: &B::Device) -> Result<Self, ModelError> {
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
    /// Rows of the table of places for each query and key of texts of at most this length, `[length, length]`.
    fn rows_of_places(&self, length: usize, device: &B::Device) -> Tensor<B, 2, Int> {
        let relative = self.relative;
        let row = |query: usize| (0..length).map(move |key| relative.place(query as i64 - key as i64) as i32);
        let rows: Vec<i32> = (0..length).flat_map(row).collect();
        Tensor::from_data(TensorData::new(rows, [length, length]), device)
    }

    /// 1 for a token that can be attended to, 0 for another, `[tokens, 1]`; none where all can be.
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

    /// Attention of a layer.
    fn attend(
        &self,
        input: Tensor<B, 2>,
        maps: [&Linear<B>; 3],
        plan: &AttentionPlan,
        (places, rows): (&Tensor<B, 2>, &Tensor<B, 2, Int>),
        options: EncodeOptions,
    ) -> Tensor<B, 2> {
        let relative = self.relative;
        let of_places = DropoutSeed::dropout(options.child(OF_PLACES).dropout, self.places_dropout);
        let places = dropout(places.clone(), of_places);
        let heads = |packed: Tensor<B, 2>| {
            let [rows, size] = packed.dims();
            packed.reshape([rows, plan.heads, size / plan.heads]).swap_dims(0, 1)
        };
        // `[heads, size of a head, places]`.
        let mapped = |wanted: bool, map: &Linear<B>| {
            wanted.then(|| heads(map.forward(places.clone(), plan.precision)).swap_dims(1, 2))
        };
        let [query, key, value] = maps.map(|map| map.forward(input.clone(), plan.precision));
        let context = Places {
            keys: mapped(relative.to_place, maps[1]),
            queries: mapped(relative.from_place, maps[0]),
            rows: rows.clone(),
            scale: relative.scale,
        };
        let of_text = |segment: &Segment| {
            let of = |packed: &Tensor<B, 2>| heads(packed.clone().narrow(0, segment.start, segment.length));
            let [query, key, value] = [of(&query), of(&key), of(&value)];
            let weights = context.weights(query, key, segment.attended);
            // A mask of its own for each text, as windows have it.
            let seed = plan.dropout.seed ^ (segment.start as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let (length, size) = (segment.length, plan.heads * value.dims()[2]);
            let weights = weights.reshape([plan.heads * length, length]);
            let weights = dropout(weights, Dropout { seed, ..plan.dropout }).reshape([plan.heads, length, length]);
            weights.matmul(value).swap_dims(0, 1).reshape([length, size])
        };
        Tensor::cat(plan.segments.as_slice().iter().map(of_text).collect(), 0)
    }
}

/// The places of a layer.
struct Places<B: Backend> {
    /// The places as keys, for products with queries, `[heads, size of a head, places]`.
    keys: Option<Tensor<B, 3>>,
    /// The places as queries, for products with keys, of the same shape.
    queries: Option<Tensor<B, 3>>,
    /// The row of each query and key, `[positions, positions]`.
    rows: Tensor<B, 2, Int>,
    /// Factor of all products.
    scale: f32,
}

impl<B: KernelBackend> Places<B> {
    /// Weights of a text's tokens, `[heads, length, length]`, of queries and keys `[heads, length, size of a head]`.
    fn weights(&self, query: Tensor<B, 3>, key: Tensor<B, 3>, attended: usize) -> Tensor<B, 3> {
        let ([heads, length, _], device) = (query.dims(), query.device());
        let first = |tensor: Tensor<B, 3>| tensor.narrow(1, 0, attended);
        let (query, key) = (first(query), first(key));
        let rows = self.rows.clone().narrow(0, 0, attended).narrow(1, 0, attended);
        let of_head = |rows: Tensor<B, 2, Int>| rows.unsqueeze::<3>().expand([heads, attended, attended]);
        let mut products = query.clone().matmul(key.clone().swap_dims(1, 2));
        if let Some(places) = &self.keys {
            products = products + query.matmul(places.clone()).gather(2, of_head(rows.clone()));
        }
        if let Some(places) = &self.queries {
            let of_keys = key.matmul(places.clone()).gather(2, of_head(rows.swap_dims(0, 1)));
            products = products + of_keys.swap_dims(1, 2);
        }
        let weights = softmax(products * self.scale, 2);
        if attended == length {
            return weights;
        }
        let beside = Tensor::zeros([heads, attended, length - attended], &device);
        let alike = Tensor::full([heads, length - attended, length], 1.0 / length as f32, &device);
        Tensor::cat(vec![Tensor::cat(vec![weights, beside], 2), alike], 1)
    }
}

impl<B: KernelBackend> Encoder<B> for Deberta<B> {
    fn forward(&self, input: &EncoderInput, device: &B::Device) -> Tensor<B, 2> {
        let seed = input.options.child(0).dropout;
        let mut embedded = self.embeddings.forward(&input.ids, input.segments.positions(), seed);
        if let Some(attended) = Self::attended(input, device) {
            embedded = embedded * attended;
        }
        let places = self.places.weight.val();
        let places = match &self.places_norm {
            Some(norm) => norm.forward(places),
            None => places,
        };
        let rows = self.rows_of_places(input.segments.max_length(), device);
        let attend = |input: Tensor<B, 2>, maps: [&Linear<B>; 3], plan: &AttentionPlan, options: EncodeOptions| {
            self.attend(input, maps, plan, (&places, &rows), options)
        };
        self.encoder.forward_with(embedded, &input.segments, self.heads, &attend, input.options)
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn tensor_prefix(&self) -> &'static str {
        DebertaConfig::PREFIX
    }

    fn tensor_name(&self, path: &str) -> String {
        let of_layer = path.strip_prefix("encoder.layer.").and_then(|path| NAMES.tensor_name(path));
        let own = match path.split_once('.') {
            Some(("places", kind)) => format!("{RELATIVE}.{kind}"),
            Some(("places_norm", kind)) => format!("{RELATIVE_NORM}.{kind}"),
            _ => of_layer.unwrap_or_else(|| path.to_owned()),
        };
        format!("{}{own}", DebertaConfig::PREFIX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places of all distances, with the numbers of DeBERTa-v3.
    #[test]
    fn places_are_those_of_transformers() {
        let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/deberta-v2");
        let text = std::fs::read_to_string(fixture.join("expected.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let places = json["places"].as_array().unwrap();
        let relative = Relative { farthest: 512, buckets: Some(256), to_place: true, from_place: true, scale: 1.0 };
        assert_eq!(places.len(), 1023);
        for (place, distance) in places.iter().zip(-511..) {
            assert_eq!(relative.place(distance) as u64, place.as_u64().unwrap(), "{distance}");
        }
        let each = Relative { farthest: 8, buckets: None, ..relative };
        assert_eq!((-10..=10).step_by(5).map(|distance| each.place(distance)).collect::<Vec<_>>(), [0, 3, 8, 13, 15]);
    }
}

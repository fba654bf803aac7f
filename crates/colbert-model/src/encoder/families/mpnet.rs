//! MPNet (Song et al. 2020): RoBERTa's layers and positions, and a bias for relative positions that is added to the
//! products of every layer's attention (transformers 5.24, `modeling_mpnet.py`).

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use colbert_kernels::{AttentionPlan, KernelBackend, biased_attention};
use serde::{Deserialize, Serialize};

use crate::encoder::families::bert::{BertConfig, Pooler};
use crate::encoder::families::roberta::positions;
use crate::encoder::family::{ExportFacts, Facts, Family, Loaders, Transformers, Unsupported, check_sizes};
use crate::encoder::layers::{Embedding, Linear};
use crate::encoder::token_embeddings::{TableSizes, TokenEmbeddings};
use crate::encoder::transformer::{LayerNames, Transformer};
use crate::encoder::transformer_nodes::TransformerNodes;
use crate::encoder::{Encoder, EncoderInput};
use crate::error::ModelError;
use crate::onnx::graph::Value;
use crate::onnx::nodes::{Inputs, Nodes, Tokens};
use crate::weights::Weights;

/// The padding id, after which positions begin; it is fixed in transformers.
const PADDING: u32 = 1;

/// Buckets of relative positions that transformers computes with, whatever the table has.
const BUCKETS: usize = 32;

/// The distance from which all are in the last bucket of their side.
const FARTHEST: f64 = 128.0;

/// Numbers that composed attention holds for each head and pair of tokens: products, the same with the bias, weights,
/// dropped weights and their factors.
const HELD_OF_A_PAIR: usize = 5;

const RELATIVE: &str = "encoder.relative_attention_bias";

const NAMES: LayerNames = LayerNames {
    layers: "encoder.layer",
    parts: [
        "attention.attn.q",
        "attention.attn.k",
        "attention.attn.v",
        "attention.attn.o",
        "attention.LayerNorm",
        "intermediate.dense",
        "output.dense",
        "output.LayerNorm",
    ],
};

/// The part of `config.json` that the encoder reads: BERT's, without token types.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MpnetConfig {
    /// Sizes, dropout and the rest, as in BERT.
    #[serde(flatten)]
    pub bert: BertConfig,
    /// Rows of the table of relative positions.
    #[serde(default = "buckets")]
    pub relative_attention_num_buckets: usize,
}

fn buckets() -> usize {
    BUCKETS
}

impl MpnetConfig {
    /// Returns the longest sequence; the table's rows up to the padding id are not used.
    fn max_length(&self) -> usize {
        self.bert.max_position_embeddings.saturating_sub(PADDING as usize + 1)
    }

    fn tables(&self) -> TableSizes {
        TableSizes { token_types: None, ..self.bert.tables() }
    }
}

/// Returns the bucket of a distance from a query to a key (Raffel et al. 2020, section 2.1): half of them for each
/// direction; of these half for one distance each, the rest growing by powers.
fn bucket(distance: i64) -> usize {
    let (half, near) = (BUCKETS / 2, BUCKETS / 4);
    // The second half of the buckets is for keys after the query.
    let side = if distance > 0 { half } else { 0 };
    let far = distance.unsigned_abs() as usize;
    if far < near {
        return side + far;
    }
    // In float32 and in this order, as in transformers.
    let share = (far as f32 / near as f32).ln() / (FARTHEST / near as f64).ln() as f32;
    let beyond = (share * (half - near) as f32) as usize;
    side + (near + beyond).min(half - 1)
}

impl Family for MpnetConfig {
    const ARCHITECTURES: &'static [(&'static str, &'static str)] = &[("mpnet", "MPNetModel")];
    const PREFIX: &'static str = "mpnet.";
    const LOADERS: Loaders =
        Loaders { colbert_ai: true, pylate_rs: false, colbert_ai_punctuation: true, transformers: Transformers::Any };
    const EXPORT: ExportFacts = ExportFacts { tokenizer_class: None, token_types: false, older_key: None };
    // The special tokens have RoBERTa's names.
    const BERT_TOKENIZER: bool = false;

    fn unsupported(&self) -> Option<Unsupported> {
        let rows = self.relative_attention_num_buckets;
        if rows < BUCKETS {
            return Some(("relative_attention_num_buckets", rows.to_string(), format!("{BUCKETS} or more")));
        }
        let sizes = [("max_position_embeddings", self.max_length())];
        self.bert.unsupported().or_else(|| check_sizes(sizes))
    }

    fn vocab_size_mut(&mut self) -> &mut usize {
        &mut self.bert.vocab_size
    }

    fn facts(&self) -> Facts {
        let pairs = HELD_OF_A_PAIR.saturating_mul(self.bert.num_attention_heads);
        Facts { pairs, max_length: self.max_length(), ..self.bert.facts() }
    }

    fn dropouts_mut(&mut self) -> Vec<&mut f64> {
        self.bert.dropouts_mut()
    }

    fn nodes(&self, on: &mut Nodes<'_>, inputs: &Inputs, tokens: &Tokens) -> Result<Value, ModelError> {
        let farthest = self.max_length() as i64;
        let of_distance = (-farthest..=farthest).map(|distance| bucket(distance) as i64).collect();
        let relative =
            Some(("encoder.relative_attention_bias.weight", self.relative_attention_num_buckets, of_distance));
        let nodes = self.bert.transformer_nodes();
        let nodes = TransformerNodes { names: NAMES, tables: self.tables(), padding: Some(PADDING), relative, ..nodes };
        nodes.build(on, inputs, tokens)
    }
}

/// MPNet: embeddings and a stack of transformer layers with a table of relative positions.
#[derive(Module, Debug)]
pub struct Mpnet<B: Backend> {
    embeddings: TokenEmbeddings<B>,
    encoder: Transformer<B>,
    relative_attention_bias: Embedding<B>,
    pooler: Option<Pooler<B>>,
    heads: usize,
    hidden_size: usize,
}

impl<B: Backend> Mpnet<B> {
    /// Builds the encoder, taking each tensor it uses out of `weights`.
    pub(crate) fn from_weights(
        config: &MpnetConfig,
        weights: &mut Weights,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        let (bert, rows) = (&config.bert, config.relative_attention_num_buckets);
        Ok(Self {
            embeddings: TokenEmbeddings::take(config.tables(), weights, device)?,
            encoder: Transformer::take(bert.layers(), NAMES, weights, device)?,
            relative_attention_bias: Embedding::take(RELATIVE, [rows, bert.num_attention_heads], weights, device)?,
            pooler: Pooler::take(bert.hidden_size, weights, device)?,
            heads: bert.num_attention_heads,
            hidden_size: bert.hidden_size,
        })
    }
}

impl<B: KernelBackend> Mpnet<B> {
    /// Returns the bias of each head and distance in texts of at most this length, `[heads, length, length]`.
    fn bias(&self, length: usize, device: &B::Device) -> Tensor<B, 3> {
        let place = |row: usize| (0..length).map(move |column| bucket(column as i64 - row as i64) as i32);
        let places: Vec<i32> = (0..length).flat_map(place).collect();
        let places = Tensor::<B, 1, Int>::from_data(TensorData::new(places, [length * length]), device);
        let numbers = self.relative_attention_bias.weight.val().select(0, places);
        numbers.swap_dims(0, 1).reshape([self.heads, length, length])
    }
}

impl<B: KernelBackend> Encoder<B> for Mpnet<B> {
    fn forward(&self, input: &EncoderInput, device: &B::Device) -> Tensor<B, 2> {
        let embedded = self.embeddings.forward_at(positions(input, PADDING), input);
        let bias = self.bias(input.segments.max_length(), device);
        let attend = |input: Tensor<B, 2>, maps: [&Linear<B>; 3], plan: &AttentionPlan, _| {
            biased_attention(maps.map(|map| map.forward(input.clone(), plan.precision)), Some(&bias), false, plan)
        };
        self.encoder.forward(embedded, &input.segments, self.heads, Some(&attend), input.options)
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn tensor_prefix(&self) -> &'static str {
        "mpnet."
    }

    fn tensor_name(&self, path: &str) -> String {
        let name = match path.strip_prefix("relative_attention_bias.") {
            Some(kind) => format!("{RELATIVE}.{kind}"),
            None => NAMES.tensor_name("encoder.layer.", path),
        };
        format!("{}{name}", MpnetConfig::PREFIX)
    }
}

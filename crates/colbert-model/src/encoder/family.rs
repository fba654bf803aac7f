//! The facts about an encoder family that the rest of the crate needs.
//!
//! A new family is a file in `families/` with its module, its configuration and `impl Family`, and its lines in
//! `families.rs`.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::ModelError;
use crate::onnx::graph::Value as Node;
use crate::onnx::nodes::{Inputs, Nodes, Tokens};
use crate::weights::Weights;

/// The facts of an encoder family, implemented by its configuration.
pub(crate) trait Family: DeserializeOwned {
    /// Values of `model_type`, each with the name of the bare encoder's class in transformers.
    const ARCHITECTURES: &'static [(&'static str, &'static str)];

    /// Prefix that tensor names of this family may have in a weight file.
    const PREFIX: &'static str;

    /// Name of the word embedding matrix, without the prefix.
    const WORD_TABLE: &'static str = "embeddings.word_embeddings.weight";

    /// The programs that load an exported directory of this family. There is no default, so that a new family has to
    /// decide.
    const LOADERS: Loaders;

    /// Whether a vocabulary file of the family is BERT's: WordPiece, with its special tokens.
    const BERT_TOKENIZER: bool = Self::LOADERS.colbert_ai_punctuation;

    /// Whether a text has to begin with a special token, as the encoder was trained with one.
    const NEEDS_CLS: bool = true;

    /// Whether the ONNX graph has `token_type_ids` among its inputs.
    const TAKES_TOKEN_TYPES: bool = false;

    /// Differences between the files of an export of this family and those of the others.
    const EXPORT: ExportFacts;

    /// Returns the programs that load an exported directory of this configuration.
    fn loaders(&self) -> Loaders {
        Self::LOADERS
    }

    /// Returns how many tokens to each side a token sees in layers with windows; none without windows.
    fn reach(&self) -> Option<usize> {
        None
    }

    /// Converts tensors to the names and the layout that this family is computed with, if files have others. The prefix
    /// is removed already.
    ///
    /// # Errors
    /// Tensors that belong together do not fit together.
    fn adopt(_weights: &mut Weights) -> Result<(), ModelError> {
        Ok(())
    }

    /// Adds the keys to an exported `config.json` that programs read and the source may lack.
    fn complete(&self, _config: &mut Map<String, Value>) {}

    /// Returns the first field that requires something unsupported, or that is out of range.
    fn unsupported(&self) -> Option<Unsupported>;

    /// Returns the numbers that the rest of the crate needs of a configuration.
    fn facts(&self) -> Facts;

    /// Returns the field with the number of rows of the word embedding matrix, to set it.
    fn vocab_size_mut(&mut self) -> &mut usize;

    /// Returns the fields with probabilities of dropout, to set them.
    fn dropouts_mut(&mut self) -> Vec<&mut f64>;

    /// Adds the nodes that compute hidden states, `[batch, length, hidden]`, to an ONNX graph.
    fn nodes(&self, on: &mut Nodes<'_>, inputs: &Inputs, tokens: &Tokens) -> Result<Node, ModelError>;
}

/// Programs that load an exported directory of a family. docs/interop.md has the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaders {
    /// colbert-ai and RAGatouille, under the tensor names that the other programs read.
    pub colbert_ai: bool,
    /// pylate-rs.
    pub pylate_rs: bool,
    /// colbert-ai finds the punctuation of the family's vocabularies: they are WordPiece, where a symbol is one token.
    pub colbert_ai_punctuation: bool,
    /// The condition under which PyLate and sentence-transformers load it.
    pub transformers: Transformers,
}

/// The version of transformers, under PyLate and sentence-transformers, that loads an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transformers {
    /// Every version that these programs work with.
    Any,
    /// A version that has the family: 5.3 has, 4.55 has not.
    From5_3,
    /// 5.3; 4.55 loads it too, but always with causal attention, whatever its configuration says.
    CausalBefore5_3,
    /// A version that has the family: 5.24 has, 5.3 has not.
    From5_24,
    /// None, without the model code of the source.
    None,
}

/// Differences between the files of an export of one family and those of another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ExportFacts {
    /// `tokenizer_class`, in place of the source's. None: the source's, or else a general one.
    pub(crate) tokenizer_class: Option<&'static str>,
    /// The encoder accepts token types from a tokenizer.
    pub(crate) token_types: bool,
    /// A key of `config.json` that a program reads under an older name: newer name, older name, default.
    pub(crate) older_key: Option<(&'static str, &'static str, f64)>,
}

/// The numbers of a configuration that the rest of the crate needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Facts {
    /// Rows of the word embedding matrix.
    pub(crate) vocabulary: usize,
    /// The longest sequence, in tokens.
    pub(crate) max_length: usize,
    /// Standard deviation that new weights are drawn with.
    pub(crate) initializer_range: f64,
    /// Size of a hidden vector.
    pub(crate) hidden: usize,
    /// Size of the feed-forward layer; both halves if one is a gate.
    pub(crate) wide: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    /// Numbers of a token's query: heads times their size.
    pub(crate) attention: usize,
    /// Numbers that a layer holds for each pair of a query's token and a key's until the backward pass; 0 if the
    /// weights of attention are recomputed.
    pub(crate) pairs: usize,
    /// Rows of all embedding tables.
    pub(crate) rows: usize,
}

/// A field that an encoder does not support: its name, its value, and the expected values.
pub(crate) type Unsupported = (&'static str, String, String);

/// Checks a probability of dropout, as the float32 that it becomes: 0.99999999999 would be 1 there.
pub(crate) fn check_dropout(field: &'static str, value: f64) -> Option<Unsupported> {
    (!(0.0..1.0).contains(&(value as f32)))
        .then(|| (field, value.to_string(), "a probability from 0 to below 1".to_owned()))
}

/// Checks an epsilon of layer normalisation. Above 1 it would swallow every vector, at 0 a constant one gives NaN.
pub(crate) fn check_eps(field: &'static str, value: f64) -> Option<Unsupported> {
    let fits = value as f32 > 0.0 && value <= 1.0;
    (!fits).then(|| (field, format!("{value:e}"), "a small number above 0, such as 1e-12".to_owned()))
}

/// Checks the standard deviation of new weights.
pub(crate) fn check_initializer(value: f64) -> Option<Unsupported> {
    let expected = "a number from 0 to 10, such as 0.02";
    (!(0.0..=10.0).contains(&value)).then(|| ("initializer_range", value.to_string(), expected.to_owned()))
}

/// Checks sizes that must be at least 1. How large they may be is seen by the weights, which have to be there.
pub(crate) fn check_sizes<const N: usize>(fields: [(&'static str, usize); N]) -> Option<Unsupported> {
    let wrong = fields.into_iter().find(|(_, size)| *size == 0);
    wrong.map(|(field, _)| (field, "0".to_owned(), "1 or more".to_owned()))
}

/// Checks a key whose one supported value is `expected`.
pub(crate) fn check_name(field: &'static str, found: &str, expected: &str) -> Option<Unsupported> {
    (found != expected).then(|| (field, found.to_owned(), format!("\"{expected}\"")))
}

/// Checks switches that must be off.
pub(crate) fn check_off<const N: usize>(fields: [(&'static str, bool); N]) -> Option<Unsupported> {
    let on = fields.into_iter().find(|(_, set)| *set);
    on.map(|(field, _)| (field, "true".to_owned(), "false".to_owned()))
}

/// Checks that the heads share a hidden vector evenly; each of the two has its key and its value.
pub(crate) fn check_heads(heads: (&'static str, usize), hidden: (&'static str, usize)) -> Option<Unsupported> {
    let fits = heads.1 > 0 && hidden.1.is_multiple_of(heads.1);
    (!fits).then(|| (heads.0, heads.1.to_string(), format!("a divisor of {} = {}", hidden.0, hidden.1)))
}

/// Checks that heads have an even size, as rotary positions need it.
pub(crate) fn check_even_heads(hidden: usize, heads: usize) -> Option<Unsupported> {
    let fits = heads > 0 && hidden.is_multiple_of(heads.saturating_mul(2));
    let expected = || format!("heads of an even size: a divisor of half of hidden_size = {hidden}");
    (!fits).then(|| ("num_attention_heads", heads.to_string(), expected()))
}

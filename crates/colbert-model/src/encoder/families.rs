//! The one list of encoder families. `model_type` in `config.json` decides which one a directory holds.

#![expect(missing_debug_implementations, reason = "the record that burn derives has none")]

mod bert;
mod deberta;
mod deberta_attention;
mod deberta_config;
mod deberta_nodes;
mod deberta_places;
mod defaults;
mod distilbert;
mod electra;
mod gte;
mod llama;
mod llama_config;
mod llama_nodes;
mod modernbert;
mod modernbert_config;
mod modernbert_nodes;
mod mpnet;
mod nomic_bert;
mod roberta;

use std::path::Path;

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::KernelBackend;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::encoder::family::{ExportFacts, Facts, Family, Loaders};
use crate::encoder::{Encoder, EncoderInput};
use crate::error::ModelError;
use crate::onnx::graph::Value as Node;
use crate::onnx::nodes::{Inputs, Nodes, Tokens};
use crate::weights::Weights;
use crate::weights::json::Keys;

pub use crate::encoder::rotary::RotaryKeys;
pub use bert::{Bert, BertConfig};
pub use deberta::Deberta;
pub use deberta_config::{DebertaConfig, PlaceProducts};
pub use distilbert::{DistilBert, DistilBertConfig};
pub use electra::{Electra, ElectraConfig};
pub use gte::{Gte, GteConfig};
pub use llama::Llama;
pub use llama_config::LlamaConfig;
pub use modernbert::ModernBert;
pub use modernbert_config::ModernBertConfig;
pub use mpnet::{Mpnet, MpnetConfig};
pub use nomic_bert::{NomicBert, NomicBertConfig};
pub use roberta::{Roberta, RobertaConfig};

fn fields<T: DeserializeOwned>(json: &Value, path: &Path) -> Result<T, ModelError> {
    serde_json::from_value(json.clone()).map_err(|source| ModelError::Json {
        path: path.to_owned(),
        expected: "the fields of this model_type's configuration",
        source,
    })
}

/// Finds a family's architecture by its `model_type`.
fn architecture<F: Family>(model_type: &str) -> Option<&'static str> {
    F::ARCHITECTURES.iter().find(|(own, _)| *own == model_type).map(|(_, class)| *class)
}

/// Makes the enums of all families from the list.
macro_rules! families {
    ($($(#[$doc:meta])* $name:ident($config:ident)),+ $(,)?) => {
        /// The configuration of an encoder of any family.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum EncoderConfig {
            $($(#[$doc])* $name($config),)+
        }

        /// An encoder of any family that can be loaded.
        #[derive(Module, Debug)]
        pub enum PretrainedEncoder<B: Backend> {
            $($(#[$doc])* $name($name<B>),)+
        }

        /// Evaluates an expression on the configuration, whatever its family.
        macro_rules! each_config {
            ($own:expr, $inner:ident => $result:expr) => {
                match $own { $(EncoderConfig::$name($inner) => $result,)+ }
            };
        }

        /// Evaluates an expression on the encoder, whatever its family.
        macro_rules! each_encoder {
            ($own:expr, $inner:ident => $result:expr) => {
                match $own { $(PretrainedEncoder::$name($inner) => $result,)+ }
            };
        }

        impl EncoderConfig {
            /// Returns all values of `model_type` that can be loaded, each with its class in transformers.
            fn architectures() -> impl Iterator<Item = (&'static str, &'static str)> {
                [$($config::ARCHITECTURES),+].into_iter().flatten().copied()
            }

            fn of_type(model_type: &str, json: &Value, path: &Path) -> Result<Option<Self>, ModelError> {
                $(if architecture::<$config>(model_type).is_some() {
                    return fields(json, path).map(Self::$name).map(Some);
                })+
                Ok(None)
            }

            /// Builds the encoder on a device, taking its tensors out of `weights`.
            ///
            /// # Errors
            /// A missing tensor, one of a wrong shape or with a value that is not finite, by name.
            pub fn build<B: Backend>(
                &self,
                weights: &mut Weights,
                device: &B::Device,
            ) -> Result<PretrainedEncoder<B>, ModelError> {
                Ok(match self {
                    $(Self::$name(config) => PretrainedEncoder::$name($name::from_weights(config, weights, device)?),)+
                })
            }

            /// Returns the prefix that tensor names of this family may have in a weight file.
            pub(crate) fn prefix(&self) -> &'static str {
                match self { $(Self::$name(_) => $config::PREFIX,)+ }
            }

            /// Converts the tensors of a file to the names and the layout that this family is computed with.
            ///
            /// # Errors
            /// Tensors that belong together do not fit together.
            pub(crate) fn adopt(&self, weights: &mut Weights) -> Result<(), ModelError> {
                match self { $(Self::$name(_) => $config::adopt(weights),)+ }
            }

            /// Returns the name of the word embedding matrix, without the prefix.
            pub(crate) fn word_table(&self) -> &'static str {
                match self { $(Self::$name(_) => $config::WORD_TABLE,)+ }
            }

            /// Returns the programs that load an exported directory of this family.
            pub fn loaders(&self) -> Loaders {
                match self { $(Self::$name(config) => config.loaders(),)+ }
            }

            /// Returns how many tokens to each side a token sees in layers with windows; none without windows.
            pub fn reach(&self) -> Option<usize> {
                match self { $(Self::$name(config) => config.reach(),)+ }
            }

            /// Returns whether a vocabulary file of the family is BERT's: WordPiece, with its special tokens.
            pub(crate) fn is_word_piece(&self) -> bool {
                match self { $(Self::$name(_) => $config::BERT_TOKENIZER,)+ }
            }

            /// Returns whether a text has to begin with a special token.
            pub(crate) fn needs_cls(&self) -> bool {
                match self { $(Self::$name(_) => $config::NEEDS_CLS,)+ }
            }

            /// Returns whether the ONNX graph has `token_type_ids` among its inputs.
            pub(crate) fn takes_token_types(&self) -> bool {
                match self { $(Self::$name(_) => $config::TAKES_TOKEN_TYPES,)+ }
            }

            /// Returns the differences of an export's files.
            pub(crate) fn export_facts(&self) -> ExportFacts {
                match self { $(Self::$name(_) => $config::EXPORT,)+ }
            }
        }
    };
}

families! {
    /// BERT: `bert`.
    Bert(BertConfig),
    /// DistilBERT: `distilbert`.
    DistilBert(DistilBertConfig),
    /// RoBERTa and its kin: `roberta`, `xlm-roberta`, `camembert`.
    Roberta(RobertaConfig),
    /// ELECTRA: `electra`.
    Electra(ElectraConfig),
    /// ModernBERT: `modernbert`.
    ModernBert(ModernBertConfig),
    /// NomicBERT: `nomic_bert`.
    NomicBert(NomicBertConfig),
    /// GTE from 2024 on: `gte`, `new`.
    Gte(GteConfig),
    /// The block of Llama: `eurobert`, `qwen3`.
    Llama(LlamaConfig),
    /// MPNet: `mpnet`.
    Mpnet(MpnetConfig),
    /// DeBERTa from version 2 on: `deberta-v2`.
    Deberta(DebertaConfig),
}

impl EncoderConfig {
    /// Reads the configuration; `path` appears in messages.
    ///
    /// # Errors
    /// A `model_type` that is not supported, a field that is missing or out of range, or one that requires something
    /// unsupported.
    pub(crate) fn from_json(json: &Value, path: &Path) -> Result<Self, ModelError> {
        let model_type = json["model_type"].as_str().unwrap_or("(none)");
        let Some(config) = Self::of_type(model_type, json, path)? else {
            let supported: Vec<&str> = Self::architectures().map(|(model_type, _)| model_type).collect();
            return Err(ModelError::UnknownArchitecture {
                path: path.to_owned(),
                found: model_type.to_owned(),
                supported: supported.join(", "),
            });
        };
        let keys = Keys { json, path };
        if keys.flag("is_decoder")? == Some(true) {
            let expected = "false: a token of a decoder attends to those before it only";
            return Err(keys.unsupported("is_decoder", &json["is_decoder"], expected));
        }
        match each_config!(&config, config => config.unsupported()) {
            None => Ok(config),
            Some((field, found, expected)) => {
                Err(ModelError::UnsupportedConfig { path: path.to_owned(), field, found, expected })
            }
        }
    }

    /// Returns `config.json` with a `model_type`. One that is missing, as in old files, follows from `architectures`.
    ///
    /// # Errors
    /// A value that is not a text, or unknown architectures.
    pub(crate) fn with_model_type(mut json: Value, path: &Path) -> Result<Value, ModelError> {
        let keys = Keys { json: &json, path };
        if keys.text("model_type")?.is_some() {
            return Ok(json);
        }
        let classes = keys.texts("architectures")?.unwrap_or_default();
        // `BertForMaskedLM` and `BertPreTrainedModel` are of the family of `BertModel`.
        let family = |class: &str| {
            let stem = |own: &str| own.trim_end_matches("Model").to_owned();
            let rest = |own: &str| class.strip_prefix(&stem(own)).map(str::to_owned);
            let fits = |(_, own): &(&str, &str)| {
                rest(own).is_some_and(|rest| ["Model", "For", "PreTrained"].iter().any(|part| rest.starts_with(part)))
            };
            Self::architectures().find(fits).map(|(model_type, _)| model_type)
        };
        if let Some(model_type) = classes.iter().find_map(|class| family(class)) {
            json["model_type"] = Value::from(model_type);
        }
        Ok(json)
    }

    /// Returns the rows of the word embedding matrix.
    pub fn vocab_size(&self) -> usize {
        self.facts().vocabulary
    }

    pub(crate) fn set_vocab_size(&mut self, rows: usize) {
        *each_config!(self, config => config.vocab_size_mut()) = rows;
    }

    /// Returns the size of a hidden vector.
    pub fn hidden_size(&self) -> usize {
        self.facts().hidden
    }

    /// Adds the keys to an exported `config.json` that programs read and the source may lack.
    pub(crate) fn complete(&self, config: &mut Map<String, Value>) {
        each_config!(self, own => own.complete(config));
    }

    /// Returns the numbers that the rest of the crate needs.
    pub(crate) fn facts(&self) -> Facts {
        each_config!(self, config => config.facts())
    }

    /// Returns the longest sequence, in tokens.
    pub fn max_length(&self) -> usize {
        self.facts().max_length
    }

    /// Returns the standard deviation that new weights are drawn with.
    pub fn initializer_range(&self) -> f64 {
        self.facts().initializer_range
    }

    /// Returns the configuration with every dropout set to one probability.
    pub(crate) fn with_dropout(mut self, probability: f64) -> Self {
        each_config!(&mut self, config => config.dropouts_mut()).into_iter().for_each(|own| *own = probability);
        self
    }

    /// Adds the nodes that compute hidden states to an ONNX graph.
    pub(crate) fn nodes(&self, on: &mut Nodes<'_>, inputs: &Inputs, tokens: &Tokens) -> Result<Node, ModelError> {
        each_config!(self, config => config.nodes(on, inputs, tokens))
    }

    /// Returns the name of the bare encoder's class in transformers.
    pub(crate) fn architecture(json: &Value) -> &'static str {
        let model_type = json["model_type"].as_str().unwrap_or_default();
        let found = Self::architectures().find(|(own, _)| *own == model_type);
        found.expect("a configuration that was read has a known model_type").1
    }
}

impl<B: KernelBackend> Encoder<B> for PretrainedEncoder<B> {
    fn forward(&self, input: &EncoderInput, device: &B::Device) -> Tensor<B, 2> {
        each_encoder!(self, encoder => encoder.forward(input, device))
    }

    fn hidden_size(&self) -> usize {
        each_encoder!(self, encoder => Encoder::<B>::hidden_size(encoder))
    }

    fn tensor_prefix(&self) -> &'static str {
        each_encoder!(self, encoder => Encoder::<B>::tensor_prefix(encoder))
    }

    fn tensor_name(&self, path: &str) -> String {
        each_encoder!(self, encoder => Encoder::<B>::tensor_name(encoder, path))
    }
}

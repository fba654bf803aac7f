//! A late-interaction (ColBERT) model on burn: token encoder, head, masks, MaxSim; loading and export.
//!
//! - [`PretrainedEncoder`] is the token encoder: [`Bert`], [`DistilBert`], [`Roberta`], [`Electra`] or [`ModernBert`].
//!   [`Encoder`] is the trait another one implements.
//! - [`ColbertTokenizer`] turns texts into [`TokenSequence`]s exactly as colbert-ai does.
//! - [`Colbert`] puts encoder and [`Head`] together: [`Colbert::encode`] gives [`Embeddings`], [`maxsim`] their scores.
//! - [`SentenceEncoder`] gives one vector a text, for mining negatives.
//! - [`Pretrained`] reads a Hugging Face directory, [`export()`] writes one in the layout that other stacks read, with a
//!   [`SelfCheck`] that they can replay; [`write_onnx`] adds an ONNX graph.
//!
//! Masks are named for what *true* means. Axes in the docs: queries, docs, query_len, doc_len, hidden_size, dim.
//! Texts are packed: `[tokens, ...]`, one after the other, no padding.

mod activation;
mod bert;
mod colbert;
mod declared;
mod distilbert;
mod dropout;
mod durable;
mod electra;
mod embeddings;
mod encoder;
mod error;
mod export;
mod family;
mod guard;
mod head;
mod head_config;
mod head_files;
mod hub_cache;
mod layers;
mod load;
mod memory;
mod modernbert;
mod onnx;
mod parameters;
mod pickle;
mod roberta;
mod selfcheck;
mod sentence_encoder;
mod sentence_family;
mod settings;
mod special_tokens;
mod token_embeddings;
mod tokenizer;
mod tokens;
mod torch_archive;
mod transformer;
mod weight_files;
mod weights;
mod window_attention;

pub use colbert_kernels as kernels;

pub use activation::Activation;
pub use bert::{Bert, BertConfig};
pub use colbert::Colbert;
pub use declared::Declared;
pub use distilbert::{DistilBert, DistilBertConfig};
pub use dropout::DropoutSeed;
pub use durable::{beside, remove_leftovers, replace_file, replace_folder, sync_folder, write_synced};
pub use electra::{Electra, ElectraConfig};
pub use embeddings::{Embeddings, maxsim};
pub use encoder::{EncodeOptions, Encoder, EncoderInput};
pub use error::ModelError;
pub use export::{Export, export};
pub use family::{EncoderConfig, PretrainedEncoder};
pub use head::{Dense, Head};
pub use head_config::{DenseConfig, HeadConfig};
pub use hub_cache::hub_name;
pub use layers::Linear;
pub use load::{LoadReport, Pretrained, SourceFiles};
pub use memory::TrainingMemory;
pub use modernbert::{ModernBert, ModernBertConfig};
pub use onnx::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto, check_onnx, write_onnx,
};
pub use parameters::{named_parameters, parameter_names, replace_parameters};
pub use roberta::{Roberta, RobertaConfig};
pub use selfcheck::{CheckedText, SelfCheck};
pub use sentence_encoder::{Pooling, SentenceEncoder, SentenceSettings};
pub use settings::ColbertSettings;
pub use tokenizer::ColbertTokenizer;
pub use tokens::TokenSequence;
pub use weights::{HostTensor, Weights, safetensors_bytes, write_vectors};

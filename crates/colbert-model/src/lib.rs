//! A late-interaction (ColBERT) model on burn: token encoder, head, masks, MaxSim; loading and export.
//!
//! - [`PretrainedEncoder`] is the token encoder, of one of the [`families`]; your own encoder implements [`Encoder`].
//! - [`ColbertTokenizer`] turns texts into [`TokenSequence`]s exactly as colbert-ai does.
//! - [`Colbert`] joins encoder and [`Head`]: [`Colbert::encode`] computes [`Embeddings`], [`maxsim`] their scores.
//! - [`sentence`] has encoders with one vector for each text, to mine negatives, and cross-encoders with one score for
//!   each pair of texts, as teachers.
//! - [`Pretrained`] reads a Hugging Face directory, [`Export`] writes one in the layout that other stacks read, with a
//!   [`SelfCheck`] that they can replay; [`write_onnx`] adds an ONNX graph.
//!
//! Masks are named for what *true* means. Axes in the docs: queries, docs, query_len, doc_len, hidden_size, dim.
//! Texts are packed: `[tokens, ...]`, one after the other, no padding.

mod colbert;
mod directory;
mod embeddings;
mod encoder;
mod error;
mod export;
mod head;
mod onnx;
pub mod sentence;
mod settings;
mod tokenizer;
mod training_memory;
mod weights;

pub use colbert_kernels as kernels;

pub use colbert::Colbert;
pub use directory::build::LoadReport;
pub use directory::declared::Declared;
pub use directory::hub_cache::hub_name;
pub use directory::load::{Pretrained, SourceFiles};
pub use directory::parameters::load_parameters;
pub use directory::selfcheck::{CheckedText, SelfCheck};
pub use embeddings::{Embeddings, maxsim, scored_texts};
pub use encoder::dropout::DropoutSeed;
pub use encoder::families::{self, EncoderConfig, PretrainedEncoder};
pub use encoder::family::{Loaders, Transformers};
pub use encoder::layers::Linear;
pub use encoder::{EncodeOptions, Encoder, EncoderInput};
pub use error::ModelError;
pub use export::Export;
pub use export::onnx::write_onnx;
pub use head::activation::Activation;
pub use head::components::SecondMoment;
pub use head::config::{DenseConfig, HeadConfig};
pub use head::{Dense, Head};
pub use settings::ColbertSettings;
pub use settings::token_pooling::TokenPooling;
pub use tokenizer::ColbertTokenizer;
pub use tokenizer::sequence::TokenSequence;
pub use training_memory::TrainingMemory;
pub use weights::parameters::{device_parameters, named_parameters, parameter_names, replace_parameters};
pub use weights::write::{DeviceTensor, TensorSource, safetensors_bytes, write_safetensors};
pub use weights::{HostTensor, Weights, write_vectors};

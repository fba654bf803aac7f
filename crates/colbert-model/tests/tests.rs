//! Tests of the model against numbers recorded from colbert-ai 0.2.22 (`parity/README.md`), and of properties that must
//! hold.

mod cross_encoders;
mod directory;
mod encoding;
mod families;
mod field;
mod half_precision;
mod heads;
mod onnx;
mod other_programs;
mod pooling_module;
mod prompts;
mod sentences;
mod support;
mod token_pooling;
mod tokenization;
mod trainable;
mod vocabularies;

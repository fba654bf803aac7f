//! Names for a program that brings an encoder, a loss or a miner of its own: `use ragtrainer::prelude::*`.

pub use crate::run::encoder::EncoderBuilder;
pub use crate::trainer::RagTrainer;
pub use colbert_config::{EvaluationOptions, NegativeOptions, TrainOptions};
pub use colbert_data::{
    BeirFolder, Collection, DataError, EvaluationSet, MiningProgress, NegativeMiner, PrepareOptions, Queries, Ranked,
    RawData,
};
pub use colbert_kernels::{KernelAutodiffBackend, KernelBackend};
pub use colbert_model::{Embeddings, Encoder, EncoderInput, ModelError, Pretrained, maxsim};
pub use colbert_train::{Event, Flow, Loss, Objective, Observer, Targets};

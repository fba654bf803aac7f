//! What an encoder needs to be trained.

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use colbert_model::Encoder;

/// An encoder with gradients whose gradient-free form encodes too. Implemented for every encoder that qualifies.
pub trait TrainableEncoder<B: AutodiffBackend>:
    Encoder<B> + AutodiffModule<B, InnerModule: Encoder<B::InnerBackend>>
{
}

impl<B: AutodiffBackend, E> TrainableEncoder<B> for E where
    E: Encoder<B> + AutodiffModule<B, InnerModule: Encoder<B::InnerBackend>>
{
}

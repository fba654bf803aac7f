//! The requirements of an encoder that is trained.

use burn::module::AutodiffModule;
use colbert_kernels::KernelAutodiffBackend;
use colbert_model::Encoder;

/// An encoder with gradients whose gradient-free form encodes too. Implemented for every encoder that qualifies.
pub trait TrainableEncoder<B: KernelAutodiffBackend>:
    Encoder<B> + AutodiffModule<B, InnerModule: Encoder<B::InnerBackend>>
{
}

impl<B: KernelAutodiffBackend, E> TrainableEncoder<B> for E where
    E: Encoder<B> + AutodiffModule<B, InnerModule: Encoder<B::InnerBackend>>
{
}

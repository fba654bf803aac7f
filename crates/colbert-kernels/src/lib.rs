//! Fused operators for training late-interaction models on packed token sequences.
//!
//! Sequences lie one after the other without padding, so every operator works on `[tokens, size]`. The functions of
//! this crate run on every backend that has [`Kernels`], and are differentiable under
//! [`Autodiff`](burn::backend::Autodiff) with a backward of their own. On [`Flex`](burn_flex::Flex), burn's CPU
//! backend, they are fused, use every thread and the instructions that the processor has, and take buffers from a pool;
//! elsewhere they are composed of burn's operators.
//!
//! The same input gives the same bits on every run and with any number of threads: sums are cut into blocks by shape
//! alone, and taken in order. Dropout is a function of seed and place.

mod adamw;
mod attention;
mod backend;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod dropout;
mod embed;
mod flex;
mod gelu;
#[cfg(any(feature = "cuda", feature = "tch"))]
mod generation;
mod layer_norm;
#[cfg(feature = "tch")]
mod libtorch;
mod linear;
mod maxsim;
mod node;
mod padded;
mod precision;
mod primitive;
mod segments;
mod self_attention;

pub use adamw::{AdamW, Moments, adamw_step};
pub use attention::{Attended, AttentionPlan, attention};
pub use backend::{KernelAutodiffBackend, KernelBackend, Kernels};
#[cfg(feature = "cuda")]
pub use cuda::{CudaMissing, probe_cuda};
pub use device::DevicePanics;
pub use dropout::{Dropout, dropout};
pub use embed::{Tables, TokenRows, embed};
pub use flex::release_idle_memory;
pub use gelu::gelu;
pub use layer_norm::{Affine, NormGradients, Normalised, layer_norm, residual_layer_norm};
#[cfg(feature = "tch")]
pub use libtorch::{LibTorchMissing, bound_libtorch_caches, probe_libtorch_cuda, set_libtorch_threads};
pub use linear::{Map, feed_forward, linear};
pub use maxsim::{ScoredTexts, maxsim};
pub use precision::Precision;
pub use segments::{Segment, Segments};
pub use self_attention::self_attention;

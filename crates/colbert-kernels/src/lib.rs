//! Fused operators for training late-interaction models on packed token sequences.
//!
//! Sequences lie one after the other without padding, so every operator works on `[tokens, size]`. The functions of
//! this crate run on every backend that has [`Kernels`], and are differentiable under
//! [`Autodiff`](burn::backend::Autodiff) with a backward of their own. On [`Flex`](burn_flex::Flex), burn's CPU
//! backend, they are fused, use every thread and the instructions that the processor has, and take buffers from a pool.
//! On GPUs those of CubeCL are fused too. Elsewhere they are composed of burn's operators.
//!
//! The same input gives the same bits on every run and with any number of threads: sums are cut into blocks by shape
//! alone, and taken in order. Dropout is a function of seed and place.
//!
//! [`device`] finds GPUs, and tells where a device keeps its tensors and how it reports failures.

mod backend;
// A kernel computes both sides of `&&`, so an index is guarded by an `if` of its own; comparisons run on the device,
// and NaN must fail them.
#[cfg(feature = "cube")]
#[allow(clippy::collapsible_if, clippy::neg_cmp_op_on_partial_ord, clippy::nonminimal_bool)]
mod cube;
pub mod device;
mod flex;
#[cfg(feature = "tch")]
mod libtorch;
mod operators;
mod precision;
mod search;
mod segments;

pub use backend::Kernels;
pub use backend::differentiable::{KernelAutodiffBackend, KernelBackend};
pub use flex::release_idle_memory;
pub use operators::adamw::{AdamW, Moments, Update, adamw_step};
pub use operators::attention::{Attended, AttentionPlan, attention};
pub use operators::attention_sublayer::{AttentionSublayer, attention_sublayer};
pub use operators::biased_attention::biased_attention;
pub use operators::dropout::{Dropout, dropout};
pub use operators::embed::{Tables, TokenRows, embed};
pub use operators::finite::all_finite;
pub use operators::gate::{Activation, ActiveHalf, Gate};
pub use operators::gated_feed_forward::{GatedFeedForward, gated_feed_forward};
pub use operators::gelu::{GeluGradients, gelu};
pub use operators::layer_norm::{Affine, NormGradients, Normalised, layer_norm, residual_layer_norm};
pub use operators::linear::{Map, linear};
pub use operators::mapped_attention::{Mapped, MappedAttention};
pub use operators::matmul::float32_matmul;
pub use operators::maxsim::{ScoredTexts, maxsim};
pub use operators::packed_attention::packed_self_attention;
pub use operators::post_norm::{PostNorm, PostNormGradients, post_norm_linear};
pub use operators::post_norm_attention::post_norm_attention;
pub use operators::post_norm_feed_forward::post_norm_feed_forward;
pub use operators::rotation::{Rotation, rotate};
pub use operators::sum::{sum, sum_of_all, sum_of_squares};
pub use precision::Precision;
pub use search::packed_queries::{PackedQueries, Scratch, VectorRows};
pub use search::vector_format::VectorFormat;
pub use segments::{Segment, Segments};

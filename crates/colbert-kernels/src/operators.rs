//! The operators of a training step: checks, a version composed of burn's operators, and the backward pass of each.

pub(crate) mod adamw;
pub(crate) mod attention;
pub(crate) mod attention_sublayer;
pub(crate) mod biased_attention;
pub(crate) mod dropout;
pub(crate) mod embed;
pub(crate) mod finite;
pub(crate) mod gate;
pub(crate) mod gated_feed_forward;
pub(crate) mod gelu;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod mapped_attention;
pub(crate) mod matmul;
pub(crate) mod maxsim;
pub(crate) mod node;
pub(crate) mod packed_attention;
pub(crate) mod padded;
pub(crate) mod post_norm;
pub(crate) mod post_norm_attention;
pub(crate) mod post_norm_feed_forward;
pub(crate) mod primitive;
pub(crate) mod rotation;
pub(crate) mod sublayer;
pub(crate) mod sum;

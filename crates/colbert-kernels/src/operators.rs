//! The operators of a training step: checks, a version composed of burn's operators, and the backward pass of each.

pub(crate) mod adamw;
pub(crate) mod attention;
pub(crate) mod dropout;
pub(crate) mod embed;
pub(crate) mod gelu;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod maxsim;
pub(crate) mod node;
pub(crate) mod padded;
pub(crate) mod primitive;
pub(crate) mod self_attention;

//! One optimizer step: the batch, its loss and gradient, and the update.

pub(crate) mod adamw;
pub(crate) mod batch;
pub(crate) mod gradients;
pub(crate) mod loss_scale;
pub(crate) mod objective;
pub(crate) mod order;
pub(crate) mod rehearsal;
pub(crate) mod schedule;
pub(crate) mod trainable;

//! One optimizer step: the batch, its loss and gradient, and the update.

pub(crate) mod adamw;
pub(crate) mod batch;
pub(crate) mod gradients;
pub(crate) mod loss_scale;
pub(crate) mod loss_watch;
pub(crate) mod objective;
pub(crate) mod optimizer_step;
pub(crate) mod order;
pub(crate) mod prefetch;
pub(crate) mod rehearsal;
pub(crate) mod schedule;
pub(crate) mod trainable;

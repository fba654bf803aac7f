//! One optimizer step: the batch, its loss and gradient, and the update.

pub(crate) mod adamw;
pub(crate) mod batch;
pub(crate) mod batch_loss;
pub(crate) mod blocks;
pub(crate) mod cached;
pub(crate) mod colbert_objective;
pub(crate) mod device_sum;
pub(crate) mod gradient_sum;
pub(crate) mod gradients;
pub(crate) mod groups;
pub(crate) mod learned;
pub(crate) mod loss_scale;
pub(crate) mod loss_watch;
pub(crate) mod matryoshka;
pub(crate) mod mix;
pub(crate) mod objective;
pub(crate) mod optimizer_step;
pub(crate) mod order;
pub(crate) mod ordered_sum;
pub(crate) mod own_rows;
pub(crate) mod prefetch;
pub(crate) mod rehearsal;
pub(crate) mod schedule;
pub(crate) mod sum_of_pieces;
pub(crate) mod trainable;

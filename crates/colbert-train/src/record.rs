//! The files of a run: its folder, checkpoints, metrics, and what a checkpoint is tied to.

pub(crate) mod checkpoint;
pub(crate) mod faulty_batch;
pub(crate) mod identity;
pub(crate) mod observer;
pub(crate) mod run_folder;
pub(crate) mod state;
pub(crate) mod tensorboard;

//! One run, from options and texts to a model directory.

pub(crate) mod base_model;
pub(crate) mod checks;
pub(crate) mod data;
pub(crate) mod encoder;
pub(crate) mod evaluation;
pub(crate) mod fit;
pub(crate) mod inherit;
pub(crate) mod miner;
pub(crate) mod new_head;
pub(crate) mod objective;
pub(crate) mod session;
pub(crate) mod sharing;
pub(crate) mod spacing;
pub(crate) mod teacher;

pub use encoder::{DirectoryEncoder, EncoderBuilder};
pub use evaluation::{DirectoryChoice, DirectoryEvaluation, evaluate_directory, evaluate_directory_with};
pub use inherit::{Inheritance, InheritedSetting};
pub use session::Preview;

pub use crate::launch::devices::Exchange;

//! Training and evaluation sets, and the number that stands for their content.

pub(crate) mod evaluation_set;
pub(crate) mod fingerprint;
pub(crate) mod reference_files;
pub(crate) mod training_set;

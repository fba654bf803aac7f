//! Training and evaluation sets, and fingerprints of their content.

pub(crate) mod evaluation_set;
pub(crate) mod fingerprint;
pub(crate) mod reference_files;
pub(crate) mod training_set;

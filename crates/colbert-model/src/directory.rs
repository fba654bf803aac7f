//! Model directories: loading, declared settings, export, and the self-check written beside the weights.

pub(crate) mod build;
pub(crate) mod declared;
pub(crate) mod hub_cache;
pub(crate) mod load;
pub(crate) mod model_settings;
pub(crate) mod parameters;
pub(crate) mod selfcheck;
pub(crate) mod tokenizer_files;

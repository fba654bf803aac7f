//! Values of keys that a family's `config.json` may leave out, as functions for serde; each family names those of its
//! configuration class in transformers.

/// GELU by the error function.
pub(super) fn gelu() -> String {
    "gelu".to_owned()
}

/// SiLU.
pub(super) fn silu() -> String {
    "silu".to_owned()
}

/// The usual probability of dropout, 0.1.
pub(super) fn tenth() -> f64 {
    0.1
}

/// The usual standard deviation of new weights, 0.02.
pub(super) fn initializer_range() -> f64 {
    0.02
}

/// BERT's epsilon of layer normalisation.
pub(super) fn eps_1e_12() -> f64 {
    1e-12
}

/// DeBERTa's epsilon of layer normalisation.
pub(super) fn eps_1e_7() -> f64 {
    1e-7
}

/// ModernBERT's epsilon of layer normalisation.
pub(super) fn eps_1e_5() -> f64 {
    1e-5
}

/// BERT's longest sequence, in tokens.
pub(super) fn positions_512() -> usize {
    512
}

/// The longest sequence of newer families, in tokens.
pub(super) fn positions_8192() -> usize {
    8192
}

/// Rows of BERT's table of token types.
pub(super) fn two() -> usize {
    2
}

/// A switch that is on.
pub(super) fn yes() -> bool {
    true
}

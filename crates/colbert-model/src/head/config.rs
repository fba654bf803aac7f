//! The configuration of a ColBERT's head: the layers between the encoder's hidden vectors and those that are scored.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::ModelError;
use crate::head::activation::Activation;

/// One layer: `activation(x W^T + b)`, plus x or a linear map of it (`pylate/models/Dense.py`, PyLate 1.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenseConfig {
    /// Size of an input vector.
    pub in_features: usize,
    /// Size of an output vector.
    pub out_features: usize,
    /// The linear map has a bias.
    pub bias: bool,
    /// After the linear map.
    pub activation: Activation,
    /// Its input is added after the activation: as it is, or through a second matrix without bias if the sizes differ.
    pub use_residual: bool,
}

impl DenseConfig {
    /// Describes one matrix.
    pub fn linear(in_features: usize, out_features: usize) -> Self {
        Self { in_features, out_features, bias: false, activation: Activation::Identity, use_residual: false }
    }

    /// Returns whether the residual has a matrix of its own.
    pub fn has_residual_matrix(&self) -> bool {
        self.use_residual && self.in_features != self.out_features
    }

    /// Returns the shapes of its tensors, by their names in a module folder.
    pub(crate) fn shapes(&self) -> Vec<(&'static str, Vec<usize>)> {
        let matrix = vec![self.out_features, self.in_features];
        let mut shapes = vec![("linear.weight", matrix.clone())];
        if self.bias {
            shapes.push(("linear.bias", vec![self.out_features]));
        }
        if self.has_residual_matrix() {
            shapes.push(("residual.weight", matrix));
        }
        shapes
    }

    /// Makes the `config.json` of a module folder.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.bias,
            "activation_function": self.activation.path(),
            "use_residual": self.use_residual,
        })
    }
}

impl fmt::Display for DenseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.out_features)?;
        let mut parts = Vec::new();
        if self.bias {
            parts.push("bias");
        }
        if self.activation != Activation::Identity {
            parts.push(self.activation.class());
        }
        if self.use_residual {
            parts.push("residual");
        }
        if parts.is_empty() { Ok(()) } else { write!(f, " ({})", parts.join(", ")) }
    }
}

/// The layers of a head, the first one first. A ColBERT of colbert-ai has one, without bias and residual.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadConfig {
    /// At least one; each takes the output of the previous one.
    pub layers: Vec<DenseConfig>,
}

impl HeadConfig {
    /// Describes one matrix.
    pub fn linear(hidden_size: usize, dim: usize) -> Self {
        Self { layers: vec![DenseConfig::linear(hidden_size, dim)] }
    }

    fn last(&self) -> &DenseConfig {
        self.layers.last().expect("a head has a layer")
    }

    /// Returns the size of a vector that is scored.
    pub fn dim(&self) -> usize {
        self.last().out_features
    }

    /// Returns whether it is one matrix, with or without ReLU.
    pub fn is_simple(&self) -> bool {
        match &self.layers[..] {
            [only] => !only.bias && only.takes_relu(),
            _ => false,
        }
    }

    /// Returns whether it has nothing but matrices, so that one matrix does the same.
    pub fn is_linear(&self) -> bool {
        self.layers.iter().all(|layer| !layer.bias && layer.activation == Activation::Identity)
    }

    /// Returns whether it ends with a ReLU.
    pub fn ends_with_relu(&self) -> bool {
        self.last().activation == Activation::Relu && !self.last().use_residual
    }

    /// Returns the head with a ReLU at its end, or without one.
    ///
    /// # Errors
    /// A ReLU is requested after a residual or another activation. `path` appears in the message.
    pub(crate) fn with_relu(mut self, use_relu: bool, path: &Path) -> Result<Self, ModelError> {
        let last = self.layers.last_mut().expect("a head has a layer");
        if last.takes_relu() {
            last.activation = if use_relu { Activation::Relu } else { Activation::Identity };
        } else if use_relu {
            let expected = format!("false, as the last layer of the model's head is {last}");
            let (path, found) = (path.to_owned(), "true".to_owned());
            return Err(ModelError::UnsupportedConfig { path, field: "use_relu", found, expected });
        }
        Ok(self)
    }
}

impl DenseConfig {
    fn takes_relu(&self) -> bool {
        !self.use_residual && matches!(self.activation, Activation::Identity | Activation::Relu)
    }
}

impl fmt::Display for HeadConfig {
    /// Writes the layers, such as `384 -> 768 (GELU, residual) -> 48 (bias)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.layers[0].in_features)?;
        self.layers.iter().try_for_each(|layer| write!(f, " -> {layer}"))
    }
}

/// Returns the name among a model's tensors of a tensor of the layer at this place: bare for the first, as for the one
/// matrix of a simple head; after the module folder's name for the others.
pub(crate) fn tensor_name(layer: usize, name: &str) -> String {
    match layer {
        0 => name.to_owned(),
        _ => format!("{}.{name}", module_folder(layer)),
    }
}

/// Names among a model's tensors of all of a head's.
pub(crate) fn names(head: &HeadConfig) -> impl Iterator<Item = String> {
    let of_layer = |(place, layer): (usize, &DenseConfig)| {
        layer.shapes().into_iter().map(move |(name, _)| tensor_name(place, name)).collect::<Vec<_>>()
    };
    head.layers.iter().enumerate().flat_map(of_layer)
}

/// Returns the folder that the layer at this place is written into.
pub(crate) fn module_folder(layer: usize) -> String {
    format!("{}_Dense", layer + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stacked() -> HeadConfig {
        let first = DenseConfig { activation: Activation::Gelu, use_residual: true, ..DenseConfig::linear(8, 12) };
        HeadConfig { layers: vec![first, DenseConfig { bias: true, ..DenseConfig::linear(12, 4) }] }
    }

    #[test]
    fn a_head_says_what_it_is() {
        assert_eq!(stacked().to_string(), "8 -> 12 (GELU, residual) -> 4 (bias)");
        assert_eq!(HeadConfig::linear(8, 4).to_string(), "8 -> 4");
        assert!(HeadConfig::linear(8, 4).is_simple() && !stacked().is_simple() && !stacked().is_linear());
        let twice = HeadConfig { layers: vec![DenseConfig::linear(8, 6), DenseConfig::linear(6, 4)] };
        assert!(twice.is_linear() && !twice.is_simple());
        let biased = HeadConfig { layers: vec![DenseConfig { bias: true, ..DenseConfig::linear(8, 6) }] };
        assert!(!biased.is_simple() && !biased.is_linear());
    }

    #[test]
    fn a_relu_goes_where_the_last_layer_has_room_for_it() {
        let path = Path::new("model");
        let with = stacked().with_relu(true, path).unwrap();
        assert!(with.ends_with_relu() && with.layers[0].activation == Activation::Gelu);
        assert_eq!(with.with_relu(false, path).unwrap(), stacked());
        let turned = HeadConfig { layers: vec![stacked().layers[0].clone()] };
        assert_eq!(turned.clone().with_relu(false, path).unwrap(), turned);
        let error = turned.with_relu(true, path).unwrap_err().to_string();
        assert!(error.contains("use_relu = true") && error.contains("12 (GELU, residual)"), "{error}");
    }
}

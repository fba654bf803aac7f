//! Activations of a head's layers, by the names that PyLate and sentence-transformers write.

use std::fmt;

use burn::tensor::Tensor;
use burn::tensor::activation::{relu, sigmoid, silu, tanh};
use colbert_kernels::{KernelBackend, gelu};
use serde::{Deserialize, Serialize};

/// An activation, with PyTorch's default arguments, as other programs create it from its name alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Activation {
    /// None.
    #[default]
    Identity,
    /// max(x, 0)
    #[serde(rename = "ReLU")]
    Relu,
    /// x Phi(x), by the error function (Hendrycks and Gimpel 2016).
    #[serde(rename = "GELU")]
    Gelu,
    /// Hyperbolic tangent.
    Tanh,
    /// 1 / (1 + exp(-x))
    Sigmoid,
    /// x sigmoid(x)
    #[serde(rename = "SiLU")]
    Silu,
}

impl Activation {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Identity, Self::Relu, Self::Gelu, Self::Tanh, Self::Sigmoid, Self::Silu];

    /// Returns PyTorch's class, such as `ReLU`.
    pub fn class(self) -> &'static str {
        match self {
            Self::Identity => "Identity",
            Self::Relu => "ReLU",
            Self::Gelu => "GELU",
            Self::Tanh => "Tanh",
            Self::Sigmoid => "Sigmoid",
            Self::Silu => "SiLU",
        }
    }

    /// Returns the class with its module, such as `torch.nn.modules.activation.ReLU`.
    pub(crate) fn path(self) -> String {
        let module = if self == Self::Identity { "linear" } else { "activation" };
        format!("torch.nn.modules.{module}.{}", self.class())
    }

    /// Returns the activation of a class in `torch.nn`; none if it is not supported.
    pub(crate) fn from_path(path: &str) -> Option<Self> {
        let class = path.strip_prefix("torch.nn.")?.rsplit('.').next()?;
        Self::ALL.into_iter().find(|activation| activation.class() == class)
    }

    pub(crate) fn apply<B: KernelBackend>(self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::Identity => input,
            Self::Relu => relu(input),
            Self::Gelu => gelu(input),
            Self::Tanh => tanh(input),
            Self::Sigmoid => sigmoid(input),
            Self::Silu => silu(input),
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.class())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_pytorchs_and_others_are_none() {
        for activation in Activation::ALL {
            assert_eq!(Activation::from_path(&activation.path()), Some(activation));
            assert_eq!(Activation::from_path(&format!("torch.nn.{activation}")), Some(activation));
        }
        assert_eq!(Activation::Identity.path(), "torch.nn.modules.linear.Identity");
        assert_eq!(Activation::Silu.path(), "torch.nn.modules.activation.SiLU");
        for other in ["torch.nn.modules.activation.Softmax", "os.system", "ReLU", "torch.nn.", "my.torch.nn.ReLU"] {
            assert_eq!(Activation::from_path(other), None, "{other}");
        }
    }
}

//! Gated linear units (Shazeer 2020, "GLU variants improve transformer", section 2): one half of the numbers goes
//! through an activation and is multiplied with the other.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use burn::tensor::ops::FloatTensor;

use crate::backend::Kernels;
use crate::operators::dropout::Dropout;
use crate::operators::primitive::{primitive, tensor};

/// The activation function of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// GELU by the error function.
    Gelu,
    /// `x / (1 + e^-x)`, also called swish.
    Silu,
}

/// The half of the numbers that goes through the activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActiveHalf {
    /// The first, as in ModernBERT.
    First,
    /// The second, as in GTE.
    Second,
}

/// A gate: a function of two halves with the size of one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gate {
    /// Function of the active half.
    pub activation: Activation,
    /// The active half.
    pub active: ActiveHalf,
    /// Dropout of the products.
    pub dropout: Dropout,
}

impl Gate {
    /// Splits the numbers into the half that goes through the activation and the other one.
    fn halves<B: Kernels>(self, both: FloatTensor<B>) -> [Tensor<B, 2>; 2] {
        let both = tensor::<B, 2>(both);
        let wide = both.dims()[1] / 2;
        let [first, second] = [0, wide].map(|start| both.clone().narrow(1, start, wide));
        match self.active {
            ActiveHalf::First => [first, second],
            ActiveHalf::Second => [second, first],
        }
    }

    fn activated<B: Kernels>(self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        match self.activation {
            Activation::Gelu => tensor(B::gelu_forward(primitive(x))),
            Activation::Silu => x.clone() * sigmoid(x),
        }
    }

    /// Computes the gradient of the activation's input.
    fn backwards<B: Kernels>(self, x: Tensor<B, 2>, gradient: Tensor<B, 2>) -> Tensor<B, 2> {
        match self.activation {
            Activation::Gelu => tensor(B::gelu_gradient(primitive(x), primitive(gradient))),
            Activation::Silu => {
                let s = sigmoid(x.clone());
                gradient * s.clone() * ((-s + 1.0) * x + 1.0)
            }
        }
    }

    fn drop<B: Kernels>(self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        if self.dropout.is_none() { x } else { tensor(B::dropout_forward(primitive(x), self.dropout)) }
    }
}

/// Applies the gate, `[tokens, 2 * wide]` to `[tokens, wide]`.
pub(crate) fn composed<B: Kernels>(both: FloatTensor<B>, gate: Gate) -> FloatTensor<B> {
    let [active, other] = gate.halves::<B>(both);
    primitive(gate.drop(gate.activated(active) * other))
}

pub(crate) fn composed_gradient<B: Kernels>(
    both: FloatTensor<B>,
    gradient: FloatTensor<B>,
    gate: Gate,
) -> FloatTensor<B> {
    let [active, other] = gate.halves::<B>(both);
    let gradient = gate.drop(tensor::<B, 2>(gradient));
    let of_active = gate.backwards(active.clone(), gradient.clone() * other);
    let of_other = gradient * gate.activated(active);
    primitive(match gate.active {
        ActiveHalf::First => Tensor::cat(vec![of_active, of_other], 1),
        ActiveHalf::Second => Tensor::cat(vec![of_other, of_active], 1),
    })
}

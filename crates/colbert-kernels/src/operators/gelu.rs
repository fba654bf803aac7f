//! GELU by the error function (Hendrycks and Gimpel 2016, section 2), forward and backward.

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn::tensor::ops::FloatTensor;
use burn_autodiff::NodeId;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};

use crate::backend::Kernels;
use crate::backend::differentiable::KernelBackend;
use crate::operators::node::record;
use crate::operators::primitive::{primitive, tensor};

/// Computes GELU, `x / 2 (1 + erf(x / sqrt 2))`, element by element: `[tokens, size]` to the same shape.
///
/// The fused version, and its derivative, are within 5e-7 of the exact value where |x| is at most 4.
pub fn gelu<B: KernelBackend>(input: Tensor<B, 2>) -> Tensor<B, 2> {
    tensor(B::kernel_gelu(primitive(input)))
}

/// GELU of a sum with a bias again, and gradients.
#[derive(Debug, Clone)]
pub struct GeluGradients<T> {
    /// GELU of the sum, `[tokens, wide]`.
    pub output: T,
    /// The gradient of the sum, `[tokens, wide]`.
    pub sum: T,
    /// The gradient of the bias, `[wide]`.
    pub bias: T,
}

/// Computes the derivative by the error function, even if a backend's own is that of the tanh approximation.
pub(crate) fn composed_gradient<B: Kernels>(input: FloatTensor<B>, gradient: FloatTensor<B>) -> FloatTensor<B> {
    let input = tensor::<B, 2>(input);
    let below = (input.clone() * std::f64::consts::FRAC_1_SQRT_2).erf().add_scalar(1.0).mul_scalar(0.5);
    let density = (input.clone().square() * -0.5).exp()
        * (0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2);
    primitive(tensor::<B, 2>(gradient) * (below + input * density))
}

#[derive(Debug)]
struct Node;

impl<B: Kernels> Backward<B, 1> for Node {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [input]: [Option<NodeId>; 1] = ops.parents.map(|parent| parent.map(|node| node.id));
        if let Some(input) = input {
            gradients.register::<B>(input, B::gelu_gradient(ops.state, gradient));
        }
    }
}

pub(crate) fn differentiable<B: Kernels, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let state = input.primitive.clone();
    record::<_, B, C, 1>(Node, [&input], B::gelu_forward(state.clone()), state)
}

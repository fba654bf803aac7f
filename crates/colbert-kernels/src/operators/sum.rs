//! Sums of whole tensors.

use burn::backend::Autodiff;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Shape, Tensor, TensorMetadata, TensorPrimitive};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};

use crate::backend::Kernels;
use crate::backend::differentiable::KernelBackend;
use crate::operators::node::record;
use crate::operators::primitive::{primitive, tensor};

/// Sums all numbers in an order that the shape alone decides, so that the same numbers have the same sum on every run.
/// burn's own sum takes them as they come on CUDA.
///
/// # Shapes
/// Any, to `[1]`.
pub fn sum<B: KernelBackend, const D: usize>(input: Tensor<B, D>) -> Tensor<B, 1> {
    tensor(B::kernel_sum(primitive(input)))
}

/// Sums all numbers of one tensor or several, as [`sum()`](crate::sum()) does those of one. They are primitives
/// ([`Tensor::into_primitive`]), as they may have any number of axes.
///
/// # Shapes
/// Any, to `[1]`.
///
/// # Panics
/// If there is no tensor.
pub fn sum_of_all<B: Kernels>(inputs: Vec<TensorPrimitive<B>>) -> Tensor<B, 1> {
    assert!(!inputs.is_empty(), "one tensor at least");
    tensor(B::sum(inputs.into_iter().map(TensorPrimitive::tensor).collect()))
}

/// Sums the squares of all numbers of one tensor or several, in an order that their shapes alone decide. They are
/// primitives ([`Tensor::into_primitive`]), as they may have any number of axes.
///
/// # Shapes
/// Any, to `[1]`.
///
/// # Panics
/// If there is no tensor.
pub fn sum_of_squares<B: Kernels>(inputs: Vec<TensorPrimitive<B>>) -> Tensor<B, 1> {
    assert!(!inputs.is_empty(), "one tensor at least");
    tensor(B::sum_of_squares(inputs.into_iter().map(TensorPrimitive::tensor).collect()))
}

pub(crate) fn composed<B: Kernels>(inputs: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    inputs.into_iter().map(B::float_sum).reduce(B::float_add).expect("one tensor at least")
}

pub(crate) fn composed_squares<B: Kernels>(inputs: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    let sums = inputs.into_iter().map(|input| B::float_sum(B::float_powi_scalar(input, 2.into())));
    sums.reduce(B::float_add).expect("one tensor at least")
}

#[derive(Debug)]
struct Node;

impl<B: Kernels> Backward<B, 1> for Node {
    type State = Shape;

    fn backward(self, ops: Ops<Shape, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [input] = ops.parents;
        if let Some(node) = input {
            let axes = Shape::from(vec![1; ops.state.num_dims()]);
            let ones = B::float_ones(ops.state, &B::float_device(&gradient), gradient.dtype().into());
            gradients.register::<B>(node.id, B::float_mul(ones, B::float_reshape(gradient, axes)));
        }
    }
}

pub(crate) fn differentiable<B: Kernels, C: CheckpointStrategy>(
    input: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let shape = input.primitive.shape();
    record::<_, B, C, 1>(Node, [&input], B::sum(vec![input.primitive.clone()]), shape)
}

//! Between tensors and the backend's own representation of them.

use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Int, Tensor, TensorData, TensorPrimitive};

/// A tensor of rank `D` around `primitive`.
pub(crate) fn tensor<B: Backend, const D: usize>(primitive: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

/// Returns the tensor as its backend has it.
pub(crate) fn primitive<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> FloatTensor<B> {
    tensor.into_primitive().tensor()
}

/// Row numbers from the host, as a tensor of the backend.
pub(crate) fn indices<B: Backend>(rows: impl ExactSizeIterator<Item = usize>, device: &B::Device) -> Tensor<B, 1, Int> {
    let count = rows.len();
    Tensor::from_data(TensorData::new(rows.map(|row| row as i32).collect(), [count]), device)
}

/// Numbers from the host, as a tensor of the backend.
pub(crate) fn floats<B: Backend, const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &B::Device,
) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

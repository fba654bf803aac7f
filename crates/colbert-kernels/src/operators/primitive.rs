//! Conversions between tensors and the backend's own representation of them.

use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Int, Tensor, TensorData, TensorPrimitive};

/// Wraps `primitive` into a tensor of rank `D`.
pub(crate) fn tensor<B: Backend, const D: usize>(primitive: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

/// Returns the tensor as its backend has it.
pub(crate) fn primitive<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> FloatTensor<B> {
    tensor.into_primitive().tensor()
}

/// Makes a tensor of the backend from row numbers of the host.
pub(crate) fn indices<B: Backend>(rows: impl ExactSizeIterator<Item = usize>, device: &B::Device) -> Tensor<B, 1, Int> {
    let count = rows.len();
    Tensor::from_data(TensorData::new(rows.map(|row| row as i32).collect(), [count]), device)
}

/// Makes a tensor of the backend from numbers of the host.
pub(crate) fn floats<B: Backend, const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &B::Device,
) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

//! Tensors between the devices of the processes.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorPrimitive};
use colbert_kernels::Kernels;
use colbert_kernels::device::DeviceLink;

/// Moves numbers between the devices of the processes. All of them make the same calls, with as many numbers each.
pub(crate) trait DeviceExchange<B: Backend> {
    /// Gives process i the i-th part of `parts`, which are of one length, and returns what every process gave to this
    /// one, by rank: `[processes * length]` in and out.
    fn all_to_all(&self, parts: Tensor<B, 1>) -> Tensor<B, 1>;

    /// Returns the numbers of every process, by rank: `[length]` to `[processes * length]`.
    fn all_gather(&self, own: Tensor<B, 1>) -> Tensor<B, 1>;
}

impl<B: Kernels> DeviceExchange<B> for DeviceLink {
    fn all_to_all(&self, parts: Tensor<B, 1>) -> Tensor<B, 1> {
        let received = B::all_to_all(parts.into_primitive().tensor(), self);
        Tensor::from_primitive(TensorPrimitive::Float(received))
    }

    fn all_gather(&self, own: Tensor<B, 1>) -> Tensor<B, 1> {
        let gathered = B::all_gather(own.into_primitive().tensor(), self);
        Tensor::from_primitive(TensorPrimitive::Float(gathered))
    }
}

/// Gathers a matrix of each process, by rank; `rows` says how many rows each has, and `columns` how many numbers a row
/// has. Without rows there is none.
pub(crate) fn gather_matrices<B: Backend>(
    exchange: &dyn DeviceExchange<B>,
    own: Option<Tensor<B, 2>>,
    rows: &[usize],
    columns: usize,
    device: &B::Device,
) -> Vec<Option<Tensor<B, 2>>> {
    let most = rows.iter().max().copied().unwrap_or(0);
    let own_rows = own.as_ref().map_or(0, |own| own.dims()[0]);
    let padding = (own_rows < most).then(|| Tensor::zeros([most - own_rows, columns], device));
    let padded: Vec<_> = own.into_iter().chain(padding).collect();
    let gathered = exchange.all_gather(Tensor::cat(padded, 0).reshape([most * columns]));
    let of_process = rows.iter().enumerate().map(|(rank, rows)| {
        let numbers = rank * most * columns..(rank * most + rows) * columns;
        (*rows > 0).then(|| gathered.clone().slice([numbers]).reshape([*rows, columns]))
    });
    of_process.collect()
}

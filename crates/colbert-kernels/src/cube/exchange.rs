//! Tensors between the GPUs of several processes. NCCL works on a stream of its own: what CubeCL was asked to do is done
//! before it begins, and CubeCL is asked to go on when it has ended.

use burn::tensor::backend::Backend;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::cuda::CudaRuntime;

use crate::cube::launch::{floats, unwritten};
use crate::device::{Nccl, NcclError};

/// See [`Kernels::all_to_all`](crate::Kernels::all_to_all).
pub(crate) fn all_to_all(nccl: &Nccl, parts: CubeTensor<CudaRuntime>) -> CubeTensor<CudaRuntime> {
    let count = parts.meta.num_elements();
    assert!(count.is_multiple_of(nccl.size()), "a part for each process");
    // SAFETY: both have a part for each process.
    exchanged(parts, count, |from, to| unsafe { nccl.all_to_all(from, to, count / nccl.size()) })
}

/// See [`Kernels::all_gather`](crate::Kernels::all_gather).
pub(crate) fn all_gather(nccl: &Nccl, own: CubeTensor<CudaRuntime>) -> CubeTensor<CudaRuntime> {
    let count = own.meta.num_elements();
    // SAFETY: what is gathered has as many numbers for each process.
    exchanged(own, count * nccl.size(), |from, to| unsafe { nccl.all_gather(from, to, count) })
}

/// Makes a tensor of `count` numbers that `exchange` fills: it gets the addresses of `from` and of that tensor, when
/// nothing else uses their memory, and returns when it is done.
///
/// # Panics
/// If the exchange or the device fails, with its reason.
fn exchanged(
    from: CubeTensor<CudaRuntime>,
    count: usize,
    exchange: impl FnOnce(u64, u64) -> Result<(), NcclError>,
) -> CubeTensor<CudaRuntime> {
    let from = floats(from);
    let to = unwritten(&from, [count]);
    if count > 0 {
        let address = |tensor: &CubeTensor<CudaRuntime>| {
            let resource = tensor.client.get_resource(tensor.handle.clone()).unwrap_or_else(|error| panic!("{error}"));
            let bytes = 4 * tensor.meta.num_elements() as u64;
            assert!(resource.resource().size >= bytes, "memory for all numbers");
            resource.resource().ptr
        };
        let addresses = (address(&from), address(&to));
        // Of this thread's stream, which waits for those that made the tensors.
        CubeBackend::<CudaRuntime, f32, i32, u8>::sync(&from.device).unwrap_or_else(|error| panic!("{error}"));
        exchange(addresses.0, addresses.1).unwrap_or_else(|error| panic!("{error}"));
    }
    to
}

#[cfg(test)]
mod tests {
    use std::thread;

    use burn::backend::Cuda;
    use burn::backend::cuda::CudaDevice;
    use burn::tensor::{Tensor, TensorData};
    use cudarc::driver::CudaContext;

    use crate::backend::Kernels;
    use crate::device::{DeviceLink, Nccl};
    use crate::operators::primitive::{primitive, tensor};

    type B = Cuda<f32, i32>;

    fn value(from: usize, to: usize, number: usize, round: usize) -> f32 {
        (from * 1_000_000 + to * 100_000 + number * 10 + round) as f32
    }

    fn numbers(tensor: Tensor<B, 1>) -> Vec<f32> {
        tensor.into_data().into_vec().expect("float32")
    }

    /// Checks what a process receives, for tensors of several lengths, in several rounds.
    fn exchange(link: &DeviceLink, rank: usize, size: usize, device: &CudaDevice) {
        for (round, each) in [1, 3, 130, 1000, 130].into_iter().enumerate() {
            let all = |own: &dyn Fn(usize, usize) -> f32| -> Vec<f32> {
                (0..size * each).map(|at| own(at / each, at % each)).collect()
            };
            let parts = all(&|to, number| value(rank, to, number, round));
            // A column, whose numbers do not lie one after the other, and on which work is under way.
            let padded: Vec<f32> = parts.iter().flat_map(|part| [part - 1.0, -1.0]).collect();
            let padded = Tensor::<B, 2>::from_data(TensorData::new(padded, [size * each, 2]), device);
            let column = (padded + 1.0).slice([0..size * each, 0..1]).reshape([size * each]);
            let received = numbers(tensor(B::all_to_all(primitive(column), link)) + 0.0);
            let expected = all(&|from, number| value(from, rank, number, round));
            assert!(received == expected, "{each} numbers to process {rank} of {size}: {received:?}");
            let own = Tensor::<B, 1>::from_data(TensorData::new(parts[..each].to_vec(), [each]), device);
            let gathered = numbers(tensor(B::all_gather(primitive(own), link)) + 0.0);
            let expected = all(&|from, number| value(from, 0, number, round));
            assert!(gathered == expected, "{each} numbers gathered by process {rank} of {size}: {gathered:?}");
        }
    }

    /// Threads in place of processes, each with a GPU. One GPU cannot show it.
    #[test]
    fn numbers_arrive_at_the_process_they_are_for() {
        let devices = CudaContext::device_count().expect("a driver") as usize;
        for size in 2..=devices.min(4) {
            let id = Nccl::unique_id().expect("NCCL");
            thread::scope(|scope| {
                for rank in 0..size {
                    let id = &id;
                    scope.spawn(move || {
                        let nccl = Nccl::join(id, rank, size, rank).expect("all come");
                        exchange(&DeviceLink::Nccl(nccl), rank, size, &CudaDevice::new(rank));
                    });
                }
            });
        }
    }
}

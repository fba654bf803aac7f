//! Tensors between the GPUs of several processes. NCCL works on a stream of its own, so that what CubeCL was asked to do
//! must be done before, and NCCL is waited for before CubeCL is asked to go on.

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

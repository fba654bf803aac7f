//! Memory, arguments and the number of cubes for launching a kernel.

use std::ops::Range;

use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::{empty_device_contiguous_dtype, zeros_client};
use burn_cubecl::ops::reshape;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeElement, CubeRuntime};
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

/// Units of a cube in kernels over rows or elements.
pub(crate) const UNITS: u32 = 64;

/// Most tensors of one launch. A kernel is compiled for their number and has code for each, so one launch for all of a
/// model would be slow to compile; a model, whose tensors are the same in every step, needs two forms: with this number
/// and with what is left. Their arguments must also fit into the 4 KiB that CUDA had for them before 12.1.
const MOST_TENSORS: usize = 32;

/// Returns a float32 tensor whose numbers lie one after the other.
pub(crate) fn floats<R: CubeRuntime>(tensor: CubeTensor<R>) -> CubeTensor<R> {
    assert_eq!(tensor.dtype, DType::F32, "kernels take float32");
    into_contiguous(tensor)
}

/// Returns a tensor of float32 or bfloat16 whose numbers lie one after the other.
pub(crate) fn contiguous<R: CubeRuntime>(tensor: CubeTensor<R>) -> CubeTensor<R> {
    assert!(matches!(tensor.dtype, DType::F32 | DType::BF16), "kernels take float32 or bfloat16");
    into_contiguous(tensor)
}

/// Returns a tensor of float32 or bfloat16 that may be written, its numbers one after the other: the tensor itself if
/// nothing else uses its memory, else a copy.
pub(crate) fn writable<R: CubeRuntime>(tensor: CubeTensor<R>) -> CubeTensor<R> {
    let tensor = contiguous(tensor);
    // On CUDA, the rows of burn's copies begin at multiples of 512 bytes.
    if tensor.can_mut() { tensor } else { contiguous(tensor.copy()) }
}

/// Makes a float32 matrix of zeros, its numbers one after the other.
pub(crate) fn zeros<R: CubeRuntime>(like: &CubeTensor<R>, shape: [usize; 2]) -> CubeTensor<R> {
    // In one axis first: on CUDA, the rows of burn's matrices begin at multiples of 512 bytes.
    let all = Shape::from([shape[0] * shape[1]]);
    let zeros = zeros_client(like.client.clone(), like.device.clone(), all, DType::F32);
    reshape(zeros, Shape::from(shape))
}

/// Allocates memory for float32 numbers on the device of another tensor, for a kernel to fill.
pub(crate) fn unwritten<R: CubeRuntime, const D: usize>(like: &CubeTensor<R>, shape: [usize; D]) -> CubeTensor<R> {
    unwritten_as(like, shape, DType::F32)
}

/// Allocates memory for 32-bit integers, for a kernel to fill.
pub(crate) fn unwritten_integers<R: CubeRuntime, const D: usize>(
    like: &CubeTensor<R>,
    shape: [usize; D],
) -> CubeTensor<R> {
    unwritten_as(like, shape, DType::I32)
}

/// Allocates memory for numbers of a type, for a kernel to fill.
pub(crate) fn unwritten_as<R: CubeRuntime, const D: usize>(
    like: &CubeTensor<R>,
    shape: [usize; D],
    dtype: DType,
) -> CubeTensor<R> {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), Shape::from(shape), dtype)
}

/// Copies numbers of the host to the device.
pub(crate) fn copied<R: CubeRuntime, E: CubeElement>(like: &CubeTensor<R>, values: &[E]) -> ArrayArg<R> {
    let handle = like.client.create_from_slice(E::as_bytes(values));
    // SAFETY: the memory was just made from as many values.
    unsafe { ArrayArg::from_raw_parts(handle, values.len()) }
}

/// Returns enough cubes that `CUBE_POS` reaches `count - 1`. It may go beyond; kernels check.
pub(crate) fn cubes<R: CubeRuntime>(like: &CubeTensor<R>, count: usize) -> CubeCount {
    calculate_cube_count_elemwise(&like.client, count, CubeDim::new_single())
}

/// Returns the number of cubes of [`UNITS`] units that gives each element a unit.
pub(crate) fn cubes_of_elements<R: CubeRuntime>(like: &CubeTensor<R>, elements: usize) -> CubeCount {
    cubes(like, elements.div_ceil(UNITS as usize))
}

/// Returns how many tensors one launch can have if it binds `each` arrays for every one of them, and `others` besides.
pub(crate) fn tensors_of_launch<R: CubeRuntime>(like: &CubeTensor<R>, each: usize, others: usize) -> usize {
    let bindings = like.client.properties().hardware.max_bindings as usize;
    // CubeCL binds an array with lengths and scalars.
    (bindings.saturating_sub(others + 1) / each).clamp(1, MOST_TENSORS)
}

/// Gives each tensor of a launch the next cubes, one for a block of numbers.
pub(crate) fn cubes_of_tensors<'a, R: CubeRuntime>(
    tensors: impl Iterator<Item = &'a CubeTensor<R>>,
    block: usize,
) -> Vec<Range<usize>> {
    let ends = tensors.scan(0, |end, tensor| {
        let start = *end;
        *end += tensor.meta.num_elements().div_ceil(block);
        Some(start..*end)
    });
    ends.collect()
}

/// Returns the numbers of rows and columns of a matrix.
pub(crate) fn dims<R: CubeRuntime>(tensor: &CubeTensor<R>) -> [usize; 2] {
    let shape = tensor.meta.shape();
    assert_eq!(shape.num_dims(), 2, "a matrix");
    [shape[0], shape[1]]
}

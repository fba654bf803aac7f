//! Matmuls of bfloat16 factors whose product is kept in either format, and the bias after one.

use burn::tensor::DType;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
use burn_cubecl::ops::reshape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::StorageType;
use cubecl::prelude::*;

use crate::cube::launch::{UNITS, contiguous, cubes_of_elements, dims, floats, unwritten_as, writable};

/// Adds a residual and a bias, if there is one.
#[cube(launch)]
fn add_both<F: Float>(
    product: &Array<F>,
    bias: &Array<f32>,
    residual: &Array<f32>,
    output: &mut Array<f32>,
    size: usize,
    #[comptime] has_bias: bool,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at >= output.len() {
        terminate!();
    }
    let mut number = f32::cast_from(product[at]);
    if comptime!(has_bias) {
        number += bias[at % size];
    }
    output[at] = number + residual[at];
}

/// Adds a bias in place.
#[cube(launch)]
fn add<F: Float>(product: &mut Array<F>, bias: &Array<f32>, size: usize, #[define(F)] _dtype: StorageType) {
    let at = ABSOLUTE_POS;
    if at >= product.len() {
        terminate!();
    }
    product[at] = F::cast_from(f32::cast_from(product[at]) + bias[at % size]);
}

/// Copies tensors of one size to memory one after the other.
#[cube(launch)]
fn join<F: Float>(parts: &Sequence<Array<f32>>, output: &mut Array<F>, each: usize, #[define(F)] _dtype: StorageType) {
    let at = ABSOLUTE_POS;
    if at >= output.len() {
        terminate!();
    }
    #[unroll]
    for i in 0..comptime!(parts.len()) {
        if at / each == comptime!(i) {
            output[at] = F::cast_from(parts.index(i)[at % each]);
        }
    }
}

fn multiply<R: CubeRuntime>(
    left: CubeTensor<R>,
    right: CubeTensor<R>,
    output: Option<CubeTensor<R>>,
    dtype: DType,
) -> CubeTensor<R> {
    // burn looks at the left factor's type alone.
    assert_eq!(left.dtype, right.dtype, "the factors of a matmul");
    matmul(left, right, output, MatmulStrategy::default(), dtype).expect("a matmul that the device can do")
}

/// Multiplies factors of one type to float32. burn's own matmul would round the product to the type of its factors.
pub(crate) fn product<R: CubeRuntime>(left: CubeTensor<R>, right: CubeTensor<R>) -> CubeTensor<R> {
    multiply(left, right, None, DType::F32)
}

/// Multiplies matrices of one type, `[rows, depth]` and `[depth, columns]`, to bfloat16. Sums are float32, and the
/// numbers lie one after the other, which those of burn's matrices on CUDA do not.
pub(crate) fn rounded_product<R: CubeRuntime>(left: CubeTensor<R>, right: CubeTensor<R>) -> CubeTensor<R> {
    let ([rows, _], [_, columns]) = (dims(&left), dims(&right));
    let output = unwritten_as(&left, [rows, columns], DType::BF16);
    multiply(left, right, Some(output), DType::BF16)
}

/// Computes `product + bias + residual` in float32.
pub(crate) fn add_residual<R: CubeRuntime>(
    product: CubeTensor<R>,
    bias: Option<CubeTensor<R>>,
    residual: CubeTensor<R>,
) -> CubeTensor<R> {
    let [rows, size] = dims(&product);
    let (product, residual) = (contiguous(product), floats(residual));
    let (output, dtype) = (unwritten_as(&product, [rows, size], DType::F32), product.dtype);
    let has_bias = bias.is_some();
    // Without a bias, another tensor takes its place as an argument; it is not read.
    let bias = bias.map_or_else(|| residual.clone(), floats);
    if rows * size > 0 {
        add_both::launch(
            &output.client,
            cubes_of_elements(&output, rows * size),
            CubeDim::new_1d(UNITS),
            product.into_array_arg(),
            bias.into_array_arg(),
            residual.into_array_arg(),
            output.clone().into_array_arg(),
            size,
            has_bias,
            dtype.into(),
        );
    }
    output
}

/// Adds a bias to each row of a matrix, whose memory nothing else uses.
pub(crate) fn add_bias<R: CubeRuntime>(product: CubeTensor<R>, bias: CubeTensor<R>) -> CubeTensor<R> {
    let [rows, size] = dims(&product);
    let sum = writable(product);
    if rows * size > 0 {
        add::launch(
            &sum.client,
            cubes_of_elements(&sum, rows * size),
            CubeDim::new_1d(UNITS),
            sum.clone().into_array_arg(),
            floats(bias).into_array_arg(),
            size,
            sum.dtype.into(),
        );
    }
    sum
}

/// Puts float32 tensors of one shape, of one axis or two, below each other as numbers of the given type.
pub(crate) fn joined<R: CubeRuntime, const N: usize>(parts: [CubeTensor<R>; N], dtype: DType) -> CubeTensor<R> {
    let mut shape = parts[0].meta.shape().clone();
    let each = parts[0].meta.num_elements();
    shape[0] *= N;
    let all = unwritten_as(&parts[0], [N * each], dtype);
    if each > 0 {
        join::launch(
            &all.client,
            cubes_of_elements(&all, N * each),
            CubeDim::new_1d(UNITS),
            parts.map(|part| floats(part).into_array_arg()).into_iter().collect(),
            all.clone().into_array_arg(),
            each,
            dtype.into(),
        );
    }
    reshape(all, shape)
}

//! Attention's products on tensor cores: 16 rows, 16 columns and a depth of 16, factors of bfloat16, sums of float32.
//!
//! A plane has 16 rows of its cube. It keeps them as factors and the sums of its result, and takes the tokens on the
//! other side 16 at a time: their products go to shared memory, units compute weights from them in float32, and these
//! are factors again, rounded to bfloat16. As sums in tensor cores cannot be scaled row by row, the forward pass takes
//! the keys twice: for the log-sum-exp, then for the output.

mod backward;
mod forward;

use cubecl::cmma::{Matrix, MatrixIdent, MatrixLayout, execute, load, store};
use cubecl::ir::features::{MmaConfig, Plane};
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;

pub(super) use self::backward::{key_value_gradient, query_gradient};
pub(super) use self::forward::attend;
use crate::cube::attention::{Block, Form, KernelPlan, Part, place_of};

/// Rows, columns and depth of a product.
const TILE: usize = 16;

/// Units of a plane.
const PLANE: usize = 32;

/// The most rows of a cube and the most numbers of a head with as many; larger heads have half as many rows.
const ROWS: usize = 64;
const SMALL_HEAD: usize = 64;

/// The most numbers of a head.
const LARGEST_HEAD: usize = 128;

/// Numbers by which rows in shared memory are longer than they need to be, so that rows below each other are in
/// different banks. Tensor cores read rows that begin at multiples of 16 bytes.
const APART: usize = 8;
const APART_FLOATS: usize = 4;

/// Distance of a tile's rows, as factors and as products.
const FACTOR_STRIDE: usize = TILE + APART;
const PRODUCT_STRIDE: usize = TILE + APART_FLOATS;

/// Numbers of a token that a unit reads at once, so that a block is read in few steps.
const OCTET: usize = 8;

/// Numbers of a token, one after the other.
type Octet<F> = Vector<F, Const<OCTET>>;

/// Alignment of shared memory in bytes; tensor cores need 32.
const ALIGNMENT: usize = 128;

/// Numbers of a row or column that one unit computes: two units have a row of a tile.
const EACH: usize = TILE / 2;

/// Returns the rows of a cube for heads of this size, if the device has tensor cores for bfloat16 that can compute them.
pub(super) fn rows<R: Runtime>(client: &ComputeClient<R>, head_size: usize) -> Option<usize> {
    let bf16 = ElemType::Float(FloatKind::BF16).into();
    let size = TILE as u32;
    let product = MmaConfig {
        a_type: bf16,
        b_type: bf16,
        cd_type: ElemType::Float(FloatKind::F32).into(),
        m: size,
        n: size,
        k: size,
    };
    let properties = client.properties();
    let (features, hardware) = (&properties.features, &properties.hardware);
    let multiplies = features.matmul.cmma.contains(&product)
        && features.plane.contains(Plane::Sync)
        && [hardware.plane_size_min, hardware.plane_size_max] == [PLANE as u32; 2];
    let fits = head_size > 0 && head_size.is_multiple_of(TILE) && head_size <= LARGEST_HEAD;
    let rows = if head_size <= SMALL_HEAD { ROWS } else { ROWS / 2 };
    (multiplies && fits && shared_bytes(rows, head_size) <= hardware.max_shared_memory_size).then_some(rows)
}

/// Shared memory of the kernel that uses most, the gradient of keys and values, in bytes.
fn shared_bytes(rows: usize, head_size: usize) -> usize {
    let tokens = 2 * rows * stride(head_size) * size_of::<half::bf16>() + 4 * rows * size_of::<f32>();
    let tiles = 2 * TILE * (PRODUCT_STRIDE * size_of::<f32>() + FACTOR_STRIDE * size_of::<half::bf16>());
    (tokens + rows / TILE * tiles).next_multiple_of(ALIGNMENT) + 8 * ALIGNMENT
}

/// Returns the units of a cube with this number of rows.
pub(super) fn units(rows: usize) -> usize {
    rows / TILE * PLANE
}

/// Distance of tokens in shared memory.
fn stride(head_size: usize) -> usize {
    head_size + APART
}

/// Computes `e^x` as the device does it fastest. CUDA's instruction is off by at most 2 + 1.2 |x| units in the last place
/// (CUDA C++ programming guide, table of intrinsic functions), far less than a weight's rounding to bfloat16, and keeps
/// NaN in spite of the flags, which CubeCL asks for.
#[cube(fast_math = FastMath::ReducedPrecision | FastMath::NotNaN | FastMath::NotInf)]
fn exponential(x: f32) -> f32 {
    x.exp()
}

/// Where a unit works: its plane's first row, its own row of the plane and the first of its columns. It has every
/// second column.
#[derive(CubeType, Clone, Copy)]
struct Place {
    first: usize,
    row: usize,
    column: usize,
}

#[cube]
fn place() -> Place {
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(PLANE);
    Place { first: unit / comptime!(PLANE) * comptime!(TILE), row: lane / 2, column: lane % 2 }
}

/// Makes shared memory for the numbers of a head of tokens.
#[cube]
fn tokens<F: Float>(#[comptime] form: Form) -> SharedMemory<Octet<F>> {
    SharedMemory::<Octet<F>>::new_aligned(comptime!(form.rows * stride(form.head_size) / OCTET), comptime!(ALIGNMENT))
}

/// Copies a head's numbers of the tokens from `first` on to shared memory, zeros after the last.
#[cube]
fn load_factors<F: Float>(
    from: &Array<F>,
    to: &mut SharedMemory<Octet<F>>,
    block: &Block,
    plan: &KernelPlan,
    first: usize,
    end: usize,
    #[comptime] part: Part,
    #[comptime] form: Form,
) {
    let from = from.to_slice().into_vectorized().with_vector_size::<Const<OCTET>>();
    let octets = comptime!(form.head_size / OCTET);
    #[unroll]
    for i in 0..comptime!(form.rows * form.head_size / OCTET / form.units()) {
        let number = UNIT_POS as usize + comptime!(i * form.units());
        let row = number / octets;
        let octet = number % octets;
        let position = first + row;
        let mut numbers = Octet::<F>::new(F::from_int(0));
        if position < end {
            let at = place_of(block, plan, position, part, form);
            // Within the tensor, as the position is. CubeCL's check would read a single number.
            numbers = from.read_unchecked(at / comptime!(OCTET) + octet);
        }
        to[row * comptime!(stride(form.head_size) / OCTET) + octet] = numbers;
    }
}

/// Makes shared memory for a tile of products for each plane.
#[cube]
fn product_tiles(#[comptime] form: Form) -> SharedMemory<f32> {
    SharedMemory::<f32>::new_aligned(comptime!(form.rows * PRODUCT_STRIDE), comptime!(ALIGNMENT))
}

/// Makes shared memory for a tile of factors for each plane.
#[cube]
fn factor_tiles<F: Float>(#[comptime] form: Form) -> SharedMemory<F> {
    SharedMemory::<F>::new_aligned(comptime!(form.rows * FACTOR_STRIDE), comptime!(ALIGNMENT))
}

/// Takes 16 numbers of 16 tokens in shared memory as a factor: from row `first` and number `16 part` on.
#[cube]
fn factor_of<F: Float>(
    tokens: &SharedMemory<Octet<F>>,
    first: usize,
    #[comptime] part: usize,
    #[comptime] ident: MatrixIdent,
    #[comptime] layout: MatrixLayout,
    #[comptime] form: Form,
) -> Matrix<F> {
    let stride = comptime!(stride(form.head_size));
    // SAFETY: it is loaded before it is used.
    let factor = unsafe { Matrix::<F>::uninitialized(ident, TILE, TILE, TILE, layout) };
    let at = first * comptime!(stride / OCTET) + comptime!(part * TILE / OCTET);
    load(&factor, &tokens.slice(at, tokens.len()), comptime!(stride as u32));
    factor
}

/// Takes a plane's rows as left factors.
#[cube]
fn own_rows<F: Float>(tokens: &SharedMemory<Octet<F>>, place: &Place, #[comptime] form: Form) -> Sequence<Matrix<F>> {
    let mut parts = Sequence::<Matrix<F>>::new();
    #[unroll]
    for part in 0..comptime!(form.head_size / TILE) {
        parts.push(factor_of::<F>(tokens, place.first, part, MatrixIdent::A, MatrixLayout::RowMajor, form));
    }
    parts
}

/// Makes sums of zero for a plane's rows of a result.
#[cube]
fn no_sums(#[comptime] form: Form) -> Sequence<Matrix<f32>> {
    let mut parts = Sequence::<Matrix<f32>>::new();
    #[unroll]
    for _ in 0..comptime!(form.head_size / TILE) {
        parts.push(zeros());
    }
    parts
}

#[cube]
fn zeros() -> Matrix<f32> {
    Matrix::<f32>::from_value(MatrixIdent::Accumulator, TILE, TILE, TILE, MatrixLayout::Undefined, 0.0f32)
}

/// Multiplies a plane's rows with 16 other tokens, those from row `other` of shared memory on, to the plane's tile.
#[cube]
fn multiply<F: Float>(
    own: &Sequence<Matrix<F>>,
    others: &SharedMemory<Octet<F>>,
    other: usize,
    products: &mut SharedMemory<f32>,
    place: &Place,
    #[comptime] form: Form,
) {
    let sums = zeros();
    #[unroll]
    for part in 0..comptime!(form.head_size / TILE) {
        // Their numbers are the depth.
        let right = factor_of::<F>(others, other, part, MatrixIdent::B, MatrixLayout::ColMajor, form);
        execute::<F, F, f32, f32>(own.index(part), &right, &sums, &sums);
    }
    let at = place.first * comptime!(PRODUCT_STRIDE);
    let end = products.len();
    store(&mut products.slice_mut(at, end), &sums, comptime!(PRODUCT_STRIDE as u32), MatrixLayout::RowMajor);
}

/// Adds to a plane's sums the product of its tile of factors with 16 other tokens.
#[cube]
fn accumulate<F: Float>(
    factors: &SharedMemory<F>,
    others: &SharedMemory<Octet<F>>,
    other: usize,
    sums: &Sequence<Matrix<f32>>,
    place: &Place,
    #[comptime] form: Form,
) {
    let left = Matrix::<F>::from_slice(
        MatrixIdent::A,
        TILE,
        TILE,
        TILE,
        MatrixLayout::RowMajor,
        &factors.slice(place.first * comptime!(FACTOR_STRIDE), factors.len()),
        comptime!(FACTOR_STRIDE as u32),
    );
    #[unroll]
    for part in 0..comptime!(form.head_size / TILE) {
        let right = factor_of::<F>(others, other, part, MatrixIdent::B, MatrixLayout::RowMajor, form);
        execute::<F, F, f32, f32>(&left, &right, sums.index(part), sums.index(part));
    }
}

/// Writes a plane's rows of a result, by way of its tile of products.
#[cube]
fn write<F: Float>(
    sums: &Sequence<Matrix<f32>>,
    products: &mut SharedMemory<f32>,
    to: &mut Array<F>,
    block: &Block,
    plan: &KernelPlan,
    place: &Place,
    #[comptime] part: Part,
    #[comptime] form: Form,
) {
    let tile = place.first * comptime!(PRODUCT_STRIDE);
    let lane = UNIT_POS as usize % comptime!(PLANE);
    let end = products.len();
    #[unroll]
    for tile_column in 0..comptime!(form.head_size / TILE) {
        // All units have read what the tile held.
        sync_plane();
        store(
            &mut products.slice_mut(tile, end),
            sums.index(tile_column),
            comptime!(PRODUCT_STRIDE as u32),
            MatrixLayout::RowMajor,
        );
        sync_plane();
        #[unroll]
        for i in 0..EACH {
            let number = lane + comptime!(i * PLANE);
            let row = number / comptime!(TILE);
            let column = number % comptime!(TILE);
            let position = block.first + place.first + row;
            if position < block.length {
                let at = place_of(block, plan, position, part, form);
                let product = products[tile + row * comptime!(PRODUCT_STRIDE) + column];
                to[at + comptime!(tile_column * TILE) + column] = F::cast_from(product);
            }
        }
    }
}

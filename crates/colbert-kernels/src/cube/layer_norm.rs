//! Layer normalisation of a residual sum with dropout: forward in one launch, backward in one for the normalised sum
//! and one or two for the parameters. A unit keeps its numbers of a row in registers, so that a row is read once.
//! Arithmetic is float32, and so is memory, but for what linear maps give or take.

use burn::tensor::DType;
use burn::tensor::backend::Backend;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::StorageType;
use cubecl::prelude::*;

use crate::cube::launch::{UNITS, contiguous, cubes, cubes_of_elements, dims, floats, unwritten, unwritten_as};
use crate::cube::random::{Mask, factor, row_key};
use crate::cube::sums::{sum_of_cube, sum_rows};
use crate::operators::dropout::Dropout;
use crate::operators::layer_norm::{Affine, Normalised};
use crate::operators::primitive::{primitive, tensor};

/// Numbers of a row that a unit keeps, if the row is not too long for it.
const EACH: usize = 8;

/// Units of a cube.
const LEAST_UNITS: usize = 32;
const MOST_UNITS: usize = 256;

/// Rows of which a cube computes the gradients, whose sums for the parameters it keeps.
const ROWS: usize = 16;

/// The parameters that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Form {
    units: usize,
    /// Numbers of a row that a unit keeps.
    each: usize,
}

impl Form {
    fn of(size: usize) -> Self {
        let units = size.div_ceil(EACH).next_power_of_two().clamp(LEAST_UNITS, MOST_UNITS);
        Self { units, each: size.div_ceil(units) }
    }

    fn cube_dim(self) -> CubeDim {
        CubeDim::new_1d(self.units as u32)
    }
}

/// Normalises a row, one cube for each. What is normalised is written unless it is the input itself.
// One function, as all stages work on the same shared memory and on numbers that a unit keeps in registers.
#[cube(launch)]
fn normalise<F: Float, T: Float>(
    input: &Array<F>,
    added: &Array<f32>,
    residual: &Array<f32>,
    weight: &Array<f32>,
    bias: &Array<f32>,
    output: &mut Array<T>,
    sum: &mut Array<f32>,
    statistics: &mut Array<f32>,
    rows: usize,
    size: usize,
    eps: f32,
    seed_high: u32,
    seed_low: u32,
    threshold: u32,
    dropout_scale: f32,
    #[comptime] has_added: bool,
    #[comptime] has_residual: bool,
    #[comptime] has_bias: bool,
    #[comptime] drops: bool,
    #[comptime] writes_sum: bool,
    #[comptime] form: Form,
    #[define(F)] _input_type: StorageType,
    #[define(T)] _output_type: StorageType,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let mut shared = SharedMemory::<f32>::new(comptime!(form.units));
    let start = row * size;
    let mut own = Array::<f32>::new(comptime!(form.each));
    let key = row_key(seed_high, seed_low, row as u32);
    let mut total = 0.0f32;
    #[unroll]
    for n in 0..comptime!(form.each) {
        let i = UNIT_POS as usize + comptime!(n * form.units);
        let mut value = 0.0f32;
        if i < size {
            value = f32::cast_from(input[start + i]);
            if comptime!(has_added) {
                value += added[i];
            }
            if comptime!(drops) {
                value *= factor(key.low, key.high, i as u32, threshold, dropout_scale);
            }
            if comptime!(has_residual) {
                value += residual[start + i];
            }
            if comptime!(writes_sum) {
                sum[start + i] = value;
            }
        }
        own[n] = value;
        total += value;
    }
    let mean = sum_of_cube(total, &mut shared) / f32::cast_from(size);
    let mut squares = 0.0f32;
    #[unroll]
    for n in 0..comptime!(form.each) {
        if UNIT_POS as usize + comptime!(n * form.units) < size {
            let centred = own[n] - mean;
            squares += centred * centred;
        }
    }
    let variance = sum_of_cube(squares, &mut shared) / f32::cast_from(size);
    let scale = 1.0f32 / (variance + eps).sqrt();
    #[unroll]
    for n in 0..comptime!(form.each) {
        let i = UNIT_POS as usize + comptime!(n * form.units);
        if i < size {
            let mut value = (own[n] - mean) * scale * weight[i];
            if comptime!(has_bias) {
                value += bias[i];
            }
            output[start + i] = T::cast_from(value);
        }
    }
    if UNIT_POS == 0 {
        statistics[2 * row] = mean;
        statistics[2 * row + 1] = scale;
    }
}

/// Recomputes the output of a normalisation, one unit for each element.
#[cube(launch)]
fn normalise_again<F: Float>(
    sum: &Array<f32>,
    statistics: &Array<f32>,
    weight: &Array<f32>,
    bias: &Array<f32>,
    output: &mut Array<F>,
    size: usize,
    #[comptime] has_bias: bool,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at >= output.len() {
        terminate!();
    }
    let row = at / size;
    let mut value = (sum[at] - statistics[2 * row]) * statistics[2 * row + 1] * weight[at % size];
    if comptime!(has_bias) {
        value += bias[at % size];
    }
    output[at] = F::cast_from(value);
}

/// Computes the gradient of the normalised sum and, after dropout, of what was mapped, one cube for [`ROWS`] rows. The
/// gradients of weight, bias and the map's bias are summed over these rows: `[cubes, parts * size]`.
// One function, as all stages work on the same shared memory and on numbers that a unit keeps in registers.
#[cube(launch)]
fn go_back<F: Float, T: Float>(
    sum: &Array<f32>,
    statistics: &Array<f32>,
    weight: &Array<f32>,
    gradient: &Array<T>,
    beside: &Array<f32>,
    of_sum: &mut Array<f32>,
    of_mapped: &mut Array<F>,
    parameters: &mut Array<f32>,
    rows: usize,
    size: usize,
    seed_high: u32,
    seed_low: u32,
    threshold: u32,
    dropout_scale: f32,
    #[comptime] has_beside: bool,
    #[comptime] is_mapped: bool,
    #[comptime] drops: bool,
    #[comptime] form: Form,
    #[define(F)] _mapped_type: StorageType,
    #[define(T)] _gradient_type: StorageType,
) {
    let first = CUBE_POS * comptime!(ROWS);
    if first >= rows {
        terminate!();
    }
    let mut shared = SharedMemory::<f32>::new(comptime!(form.units));
    let mut own = Array::<f32>::new(comptime!(form.each));
    let mut normal = Array::<f32>::new(comptime!(form.each));
    let mut of_weight = Array::<f32>::new(comptime!(form.each));
    let mut of_bias = Array::<f32>::new(comptime!(form.each));
    let mut of_added = Array::<f32>::new(comptime!(form.each));
    #[unroll]
    for n in 0..comptime!(form.each) {
        of_weight[n] = 0.0f32;
        of_bias[n] = 0.0f32;
        of_added[n] = 0.0f32;
    }
    let end = select(first + comptime!(ROWS) < rows, first + comptime!(ROWS), rows);
    for row in first..end {
        let start = row * size;
        let mean = statistics[2 * row];
        let scale = statistics[2 * row + 1];
        let mut of_mean = 0.0f32;
        let mut along = 0.0f32;
        #[unroll]
        for n in 0..comptime!(form.each) {
            let i = UNIT_POS as usize + comptime!(n * form.units);
            own[n] = 0.0f32;
            normal[n] = 0.0f32;
            if i < size {
                let change = f32::cast_from(gradient[start + i]);
                normal[n] = (sum[start + i] - mean) * scale;
                of_weight[n] += change * normal[n];
                of_bias[n] += change;
                own[n] = change * weight[i];
            }
            of_mean += own[n];
            along += own[n] * normal[n];
        }
        let of_mean = sum_of_cube(of_mean, &mut shared) / f32::cast_from(size);
        let along = sum_of_cube(along, &mut shared) / f32::cast_from(size);
        let key = row_key(seed_high, seed_low, row as u32);
        #[unroll]
        for n in 0..comptime!(form.each) {
            let i = UNIT_POS as usize + comptime!(n * form.units);
            if i < size {
                let mut value = (own[n] - of_mean - normal[n] * along) * scale;
                if comptime!(has_beside) {
                    value += beside[start + i];
                }
                of_sum[start + i] = value;
                if comptime!(is_mapped) {
                    if comptime!(drops) {
                        value *= factor(key.low, key.high, i as u32, threshold, dropout_scale);
                    }
                    of_mapped[start + i] = F::cast_from(value);
                    of_added[n] += value;
                }
            }
        }
    }
    let at = CUBE_POS * comptime!(if is_mapped { 3 } else { 2 }) * size;
    #[unroll]
    for n in 0..comptime!(form.each) {
        let i = UNIT_POS as usize + comptime!(n * form.units);
        if i < size {
            parameters[at + i] = of_weight[n];
            parameters[at + size + i] = of_bias[n];
            if comptime!(is_mapped) {
                parameters[at + 2 * size + i] = of_added[n];
            }
        }
    }
}

/// The terms of the sum that is normalised.
pub(crate) struct Input<T> {
    /// Of float32 or bfloat16.
    pub(crate) mapped: T,
    /// The bias of the linear map that it comes from, `[size]`, if it is still to be added.
    pub(crate) bias: Option<T>,
    pub(crate) dropout: Dropout,
    pub(crate) residual: Option<T>,
}

/// Normalises `dropout(mapped + bias) + residual`; the output is of type `dtype`. See
/// [`composed`](crate::operators::layer_norm::composed).
pub(crate) fn forward<R: CubeRuntime>(
    input: Input<CubeTensor<R>>,
    affine: Affine<CubeTensor<R>>,
    dtype: DType,
) -> Normalised<CubeTensor<R>> {
    let Input { mapped, bias: added, dropout, residual } = input;
    let [rows, size] = dims(&mapped);
    let mapped = contiguous(mapped);
    let mask = Mask::from(dropout);
    let output = unwritten_as(&mapped, [rows, size], dtype);
    let writes_sum = residual.is_some() || added.is_some() || mask.drops || mapped.dtype != DType::F32;
    let statistics = unwritten(&mapped, [rows, 2]);
    // Of what it has not, another tensor takes the place as an argument; it is not read or written.
    let sum = if writes_sum { unwritten(&mapped, [rows, size]) } else { mapped.clone() };
    let (has_added, has_residual, has_bias) = (added.is_some(), residual.is_some(), affine.bias.is_some());
    let weight = floats(affine.weight);
    let [added, residual, bias] = [added, residual, affine.bias].map(|x| x.map_or_else(|| weight.clone(), floats));
    let form = Form::of(size);
    if rows > 0 {
        let input_dtype = mapped.dtype;
        normalise::launch(
            &output.client,
            cubes(&output, rows),
            form.cube_dim(),
            mapped.into_array_arg(),
            added.into_array_arg(),
            residual.into_array_arg(),
            weight.into_array_arg(),
            bias.into_array_arg(),
            output.clone().into_array_arg(),
            sum.clone().into_array_arg(),
            statistics.clone().into_array_arg(),
            rows,
            size,
            affine.eps as f32,
            mask.seed_high,
            mask.seed_low,
            mask.threshold,
            mask.scale,
            has_added,
            has_residual,
            has_bias,
            mask.drops,
            writes_sum,
            form,
            input_dtype.into(),
            dtype.into(),
        );
    }
    Normalised { output, sum, statistics }
}

/// See [`composed_again`](crate::operators::layer_norm::composed_again); the output is of type `dtype`.
pub(crate) fn again<R: CubeRuntime>(
    sum: CubeTensor<R>,
    statistics: CubeTensor<R>,
    affine: Affine<CubeTensor<R>>,
    dtype: DType,
) -> CubeTensor<R> {
    let [rows, size] = dims(&sum);
    let output = unwritten_as(&sum, [rows, size], dtype);
    let has_bias = affine.bias.is_some();
    let weight = floats(affine.weight);
    let bias = affine.bias.map_or_else(|| weight.clone(), floats);
    if rows > 0 {
        normalise_again::launch(
            &output.client,
            cubes_of_elements(&output, rows * size),
            CubeDim::new_1d(UNITS),
            floats(sum).into_array_arg(),
            floats(statistics).into_array_arg(),
            weight.into_array_arg(),
            bias.into_array_arg(),
            output.clone().into_array_arg(),
            size,
            has_bias,
            dtype.into(),
        );
    }
    output
}

/// The state of the forward pass: the sum that was normalised, its statistics, and the norm's weight.
pub(crate) struct State<T> {
    pub(crate) sum: T,
    pub(crate) statistics: T,
    pub(crate) weight: T,
}

/// Dropout and number format of the gradient of what was mapped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mapped {
    pub(crate) dropout: Dropout,
    pub(crate) dtype: DType,
}

/// Gradients of a normalisation and of what was mapped before it.
pub(crate) struct Found<T> {
    /// `[rows, size]`, without what dropout does.
    pub(crate) sum: T,
    /// `[rows, size]`; none if not asked for.
    pub(crate) mapped: Option<T>,
    /// Of weight and bias, and of the map's bias where the one before is there: `[1, parts * size]`.
    pub(crate) parameters: T,
}

impl<R: CubeRuntime> Found<CubeTensor<R>> {
    /// Returns the gradient of a parameter, `[size]`: 0 is the weight, 1 the bias, 2 the map's bias.
    pub(crate) fn parameter<B>(&self, part: usize) -> CubeTensor<R>
    where
        B: Backend<FloatTensorPrimitive = CubeTensor<R>>,
    {
        let size = dims(&self.sum)[1];
        let all = tensor::<B, 2>(self.parameters.clone());
        primitive(all.narrow(1, part * size, size).squeeze_dim::<1>(0))
    }
}

/// Computes the gradients; `beside` is added to that of the sum. See
/// [`composed_gradient`](crate::operators::layer_norm::composed_gradient).
pub(crate) fn gradient<R: CubeRuntime>(
    state: State<CubeTensor<R>>,
    gradient: CubeTensor<R>,
    beside: Option<CubeTensor<R>>,
    mapped: Option<Mapped>,
) -> Found<CubeTensor<R>> {
    let [rows, size] = dims(&state.sum);
    let State { sum, statistics, weight } = state;
    let [sum, statistics, weight] = [sum, statistics, weight].map(floats);
    let gradient = contiguous(gradient);
    let gradient_dtype = gradient.dtype;
    let of_sum = unwritten(&sum, [rows, size]);
    let of_mapped = mapped.map(|mapped| unwritten_as(&sum, [rows, size], mapped.dtype));
    let parts = if mapped.is_some() { 3 } else { 2 };
    let blocks = rows.div_ceil(ROWS);
    let parameters = unwritten(&sum, [blocks, parts * size]);
    let has_beside = beside.is_some();
    let beside = beside.map_or_else(|| weight.clone(), floats);
    let Mapped { dropout, dtype } = mapped.unwrap_or(Mapped { dropout: Dropout::NONE, dtype: DType::F32 });
    let mask = Mask::from(dropout);
    let form = Form::of(size);
    if rows > 0 {
        go_back::launch(
            &of_sum.client,
            cubes(&of_sum, blocks),
            form.cube_dim(),
            sum.into_array_arg(),
            statistics.into_array_arg(),
            weight.into_array_arg(),
            gradient.into_array_arg(),
            beside.into_array_arg(),
            of_sum.clone().into_array_arg(),
            of_mapped.clone().unwrap_or_else(|| of_sum.clone()).into_array_arg(),
            parameters.clone().into_array_arg(),
            rows,
            size,
            mask.seed_high,
            mask.seed_low,
            mask.threshold,
            mask.scale,
            has_beside,
            mapped.is_some(),
            mask.drops,
            form,
            dtype.into(),
            gradient_dtype.into(),
        );
    }
    Found { sum: of_sum, mapped: of_mapped, parameters: sum_rows(parameters) }
}

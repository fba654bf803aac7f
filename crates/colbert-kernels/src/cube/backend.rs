//! The operators of a GPU's backend: kernels of our own where there are any, composed versions elsewhere.

use burn::tensor::Tensor;
use burn::tensor::ops::{FloatTensor, FloatTensorOps, IntTensor};
use burn::tensor::{DType, FloatDType, Shape};
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend};
use std::sync::Arc;

use crate::backend::Kernels;
use crate::cube::gpu::Gpu;
use crate::cube::launch::dims;
use crate::cube::{adamw, attention, dropout, embed, finite, gate, gelu, layer_norm, linear, maxsim, rotation, sums};
use crate::device::{DeviceLink, DeviceMemory, DevicePanics};
use crate::operators::adamw::{Moments, Update};
use crate::operators::attention::{Attended, AttentionPlan, composed, composed_gradient};
use crate::operators::dropout::Dropout;
use crate::operators::embed::{Tables, TokenRows};
use crate::operators::gate::Gate;
use crate::operators::gelu::GeluGradients;
use crate::operators::layer_norm::{Affine, NormGradients, Normalised};
use crate::operators::linear::{Map, composed_inputs_gradient};
use crate::operators::mapped_attention::{self, Mapped, MappedAttention};
use crate::operators::matmul::in_parts;
use crate::operators::maxsim::ScoredTexts;
use crate::operators::packed_attention;
use crate::operators::post_norm::PostNormGradients;
use crate::operators::primitive::{primitive, tensor};
use crate::operators::rotation::Rotation;
use crate::precision::Precision;

/// Returns whether numbers between operators are bfloat16 for this precision. float16 has too small a range to be kept.
fn keeps_bf16<R: Gpu>(precision: Precision, device: &R::CubeDevice) -> bool {
    precision == Precision::Bf16 && R::has_bf16(device)
}

/// Returns the type of numbers between operators.
fn kept_type<R: Gpu>(precision: Precision, device: &R::CubeDevice) -> DType {
    if keeps_bf16::<R>(precision, device) { DType::BF16 } else { DType::F32 }
}

/// Returns whether our attention kernel can compute a plan on queries of this size and type, on the device of another
/// tensor; otherwise the composed version does, with matmuls in the requested format.
fn attends<R: Gpu>(like: &CubeTensor<R>, size: usize, dtype: DType, plan: &AttentionPlan) -> bool {
    let in_f16 = plan.precision == Precision::F16 && R::has_f16(&like.device);
    !in_f16 && attention::can(&like.client, size / plan.heads, dtype, plan)
}

/// Rounds a factor of matmuls to bfloat16, unless it is that already.
fn to_bf16<R: Gpu>(factor: CubeTensor<R>) -> CubeTensor<R> {
    burn_cubecl::kernel::cast(factor, DType::BF16)
}

/// Computes `input weight^T` for an operator of ours: in bfloat16 if numbers between operators are, else in float32.
fn product_for<R: Gpu, T: BoolElement>(
    input: CubeTensor<R>,
    weight: CubeTensor<R>,
    precision: Precision,
) -> CubeTensor<R> {
    if !keeps_bf16::<R>(precision, &input.device) {
        return Back::<R, T>::linear_forward(input, weight, None, precision);
    }
    linear::rounded_product(to_bf16(input), Back::<R, T>::float_transpose(to_bf16(weight)))
}

/// Computes the gradient of the input of a linear map for an operator of ours, in the same type.
fn input_gradient_for<R: Gpu, T: BoolElement>(
    gradient: CubeTensor<R>,
    weight: CubeTensor<R>,
    precision: Precision,
) -> CubeTensor<R> {
    if !keeps_bf16::<R>(precision, &gradient.device) {
        return Back::<R, T>::linears_input_gradient([gradient], [weight], precision);
    }
    linear::rounded_product(to_bf16(gradient), to_bf16(weight))
}

/// Puts gradients of several maps beside each other and their weights below each other, in bfloat16, so that one matmul
/// multiplies and adds them all.
fn side_by_side<R: Gpu, T: BoolElement, const N: usize>(
    gradients: [CubeTensor<R>; N],
    weights: [CubeTensor<R>; N],
) -> (CubeTensor<R>, CubeTensor<R>) {
    let (mut gradients, mut weights) = (gradients.map(to_bf16).to_vec(), weights.map(to_bf16).to_vec());
    if N == 1 {
        return (gradients.remove(0), weights.remove(0));
    }
    (Back::<R, T>::float_cat(gradients, 1), Back::<R, T>::float_cat(weights, 0))
}

/// Returns the gradients of a normalisation alone.
fn norm_gradients<R: Gpu, T: BoolElement>(
    found: &layer_norm::Found<CubeTensor<R>>,
    has_bias: bool,
) -> NormGradients<CubeTensor<R>> {
    let parameter = |part| found.parameter::<Back<R, T>>(part);
    NormGradients { sum: found.sum.clone(), weight: parameter(0), bias: has_bias.then(|| parameter(1)) }
}

/// Takes the one row of a matrix.
fn one_row<R: Gpu, T: BoolElement>(matrix: CubeTensor<R>) -> CubeTensor<R> {
    primitive(tensor::<Back<R, T>, 2>(matrix).squeeze_dim::<1>(0))
}

/// The backend of a runtime.
type Back<R, T> = CubeBackend<R, f32, i32, T>;

impl<R: Gpu, T: BoolElement> Kernels for CubeBackend<R, f32, i32, T> {
    fn has_bf16(device: &Self::Device) -> bool {
        R::has_bf16(device)
    }

    fn has_f16(device: &Self::Device) -> bool {
        R::has_f16(device)
    }

    fn has_tf32(device: &Self::Device) -> bool {
        R::has_tf32(device)
    }

    /// Multiplies in three parts where CubeCL would round to TF32: its float32 matmuls use TF32 on tensor cores
    /// wherever that wins the autotune (cubek-matmul 0.2, `adjust_dtypes`), and no setting turns that off.
    fn float32_product<const D: usize>(left: Tensor<Self, D>, right: Tensor<Self, D>) -> Tensor<Self, D> {
        if R::has_tf32(&left.device()) { in_parts(left, right, Tensor::matmul) } else { left.matmul(right) }
    }

    /// Keeps the float32 sums of a product of bfloat16.
    fn rounded_product<const D: usize>(left: Tensor<Self, D>, right: Tensor<Self, D>) -> Tensor<Self, D> {
        match left.dtype() {
            DType::BF16 => tensor(linear::product(primitive(left), primitive(right))),
            _ => left.matmul(right).cast(FloatDType::F32),
        }
    }

    fn rounded(input: FloatTensor<Self>, precision: Precision) -> FloatTensor<Self> {
        if keeps_bf16::<R>(precision, &input.device) { to_bf16(input) } else { input }
    }

    fn unrounded(input: FloatTensor<Self>) -> FloatTensor<Self> {
        burn_cubecl::kernel::cast(input, DType::F32)
    }

    fn residual_linear_forward(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        residual: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        linear::add_residual(product_for::<R, T>(input, weight, precision), bias, residual)
    }

    fn inner_input_gradient(
        gradient: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        input_gradient_for::<R, T>(gradient, weight, precision)
    }

    fn inner_linears_forward<const N: usize>(
        input: FloatTensor<Self>,
        maps: [Map<FloatTensor<Self>, Option<FloatTensor<Self>>>; N],
        precision: Precision,
    ) -> [FloatTensor<Self>; N] {
        let input = Self::rounded(input, precision);
        maps.map(|Map { weight, bias }| {
            let product = product_for::<R, T>(input.clone(), weight, precision);
            match bias {
                Some(bias) => linear::add_bias(product, bias),
                None => product,
            }
        })
    }

    fn linears_input_gradient<const N: usize>(
        gradients: [FloatTensor<Self>; N],
        weights: [FloatTensor<Self>; N],
        precision: Precision,
    ) -> FloatTensor<Self> {
        if !keeps_bf16::<R>(precision, &gradients[0].device) {
            return composed_inputs_gradient::<Self, N>(gradients, weights, precision);
        }
        let (gradients, weights) = side_by_side::<R, T, N>(gradients, weights);
        linear::product(gradients, weights)
    }

    fn residual_input_gradient<const N: usize>(
        gradients: [FloatTensor<Self>; N],
        weights: [FloatTensor<Self>; N],
        beside: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        if !keeps_bf16::<R>(precision, &gradients[0].device) {
            return Self::float_add(beside, Self::linears_input_gradient(gradients, weights, precision));
        }
        let (gradients, weights) = side_by_side::<R, T, N>(gradients, weights);
        linear::add_residual(linear::rounded_product(gradients, weights), None, beside)
    }

    fn device_memory(device: &Self::Device) -> DeviceMemory {
        R::memory(device)
    }

    /// Names of threads of cubecl-common 0.10 (`DeviceClient::new`).
    fn device_panics() -> Option<DevicePanics> {
        Some(DevicePanics { out_of_memory: R::OUT_OF_MEMORY, threads: &["DSU-", "DSD-"] })
    }

    fn all_to_all(parts: FloatTensor<Self>, link: &DeviceLink) -> FloatTensor<Self> {
        R::all_to_all(parts, link)
    }

    fn all_gather(own: FloatTensor<Self>, link: &DeviceLink) -> FloatTensor<Self> {
        R::all_gather(own, link)
    }

    fn all_finite(input: FloatTensor<Self>) -> bool {
        let flags = tensor::<Self, 1>(finite::flags(input));
        let flags = flags.into_data().into_vec::<f32>().expect("float32");
        flags.into_iter().all(|flag| flag == 0.0)
    }

    fn sum(inputs: Vec<FloatTensor<Self>>) -> FloatTensor<Self> {
        sums::sum(inputs)
    }

    fn sum_of_squares(inputs: Vec<FloatTensor<Self>>) -> FloatTensor<Self> {
        sums::sum_of_squares(inputs)
    }

    fn sum_rows(gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        one_row::<R, T>(sums::sum_rows(gradient))
    }

    fn linear_gelu_forward(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        gelu::forward_with_bias(product_for::<R, T>(input, weight, precision), bias)
    }

    fn linear_gelu_gradient(
        sum: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        precision: Precision,
    ) -> GeluGradients<FloatTensor<Self>> {
        let of_gelu = input_gradient_for::<R, T>(gradient, weight, precision);
        let [output, sum, bias] = gelu::gradients(sum, of_gelu);
        GeluGradients { output, sum, bias: one_row::<R, T>(bias) }
    }

    fn gelu_forward(input: FloatTensor<Self>) -> FloatTensor<Self> {
        gelu::forward(input)
    }

    fn gelu_gradient(input: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        gelu::gradient(input, gradient)
    }

    fn gated_forward(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        gate: Gate,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        gate::forward(product_for::<R, T>(input, weight, precision), bias, gate)
    }

    fn gated_gradient(
        both: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gate: Gate,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        gate::gradient(both, input_gradient_for::<R, T>(gradient, weight, precision), gate)
    }

    fn dropout_forward(input: FloatTensor<Self>, dropout: Dropout) -> FloatTensor<Self> {
        dropout::forward(input, dropout)
    }

    fn dropout_factors(dropout: Dropout, rows: &[usize], columns: usize, device: &Self::Device) -> FloatTensor<Self> {
        let shape = Shape::from([rows.len(), columns]);
        let unwritten = empty_device_contiguous_dtype(R::client(device), device.clone(), shape, DType::F32);
        dropout::factors(unwritten, dropout, rows)
    }

    fn layer_norm_forward(
        input: FloatTensor<Self>,
        residual: Option<FloatTensor<Self>>,
        dropout: Dropout,
        affine: Affine<FloatTensor<Self>>,
    ) -> Normalised<FloatTensor<Self>> {
        let input = layer_norm::Input { mapped: input, bias: None, dropout, residual };
        layer_norm::forward(input, affine, DType::F32)
    }

    fn layer_norm_for_maps(
        input: FloatTensor<Self>,
        affine: Affine<FloatTensor<Self>>,
        precision: Precision,
    ) -> Normalised<FloatTensor<Self>> {
        let dtype = kept_type::<R>(precision, &input.device);
        let input = layer_norm::Input { mapped: input, bias: None, dropout: Dropout::NONE, residual: None };
        layer_norm::forward(input, affine, dtype)
    }

    fn layer_norm_again(
        sum: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        affine: Affine<FloatTensor<Self>>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let dtype = kept_type::<R>(precision, &sum.device);
        layer_norm::again(sum, statistics, affine, dtype)
    }

    fn layer_norm_gradient(
        sum: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        affine: Affine<FloatTensor<Self>>,
        gradient: FloatTensor<Self>,
        beside: Option<FloatTensor<Self>>,
    ) -> NormGradients<FloatTensor<Self>> {
        let state = layer_norm::State { sum, statistics, weight: affine.weight };
        let found = layer_norm::gradient(state, gradient, beside, None);
        norm_gradients::<R, T>(&found, affine.bias.is_some())
    }

    fn post_norm_forward(
        input: FloatTensor<Self>,
        map: Map<FloatTensor<Self>, Option<FloatTensor<Self>>>,
        residual: FloatTensor<Self>,
        dropout: Dropout,
        affine: Affine<FloatTensor<Self>>,
        precision: Precision,
    ) -> Normalised<FloatTensor<Self>> {
        let mapped = product_for::<R, T>(input, map.weight, precision);
        let input = layer_norm::Input { mapped, bias: map.bias, dropout, residual: Some(residual) };
        layer_norm::forward(input, affine, DType::F32)
    }

    fn post_norm_gradient(
        sum: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        affine: Affine<FloatTensor<Self>>,
        gradient: FloatTensor<Self>,
        dropout: Dropout,
        has_bias: bool,
        precision: Precision,
    ) -> PostNormGradients<FloatTensor<Self>> {
        let dtype = kept_type::<R>(precision, &sum.device);
        let state = layer_norm::State { sum, statistics, weight: affine.weight };
        let found = layer_norm::gradient(state, gradient, None, Some(layer_norm::Mapped { dropout, dtype }));
        let norm = norm_gradients::<R, T>(&found, affine.bias.is_some());
        let bias = has_bias.then(|| found.parameter::<Self>(2));
        PostNormGradients { norm, bias, mapped: found.mapped.expect("asked for") }
    }

    fn attention_forward(qkv: [FloatTensor<Self>; 3], plan: &AttentionPlan) -> Attended<FloatTensor<Self>> {
        if attends(&qkv[0], dims(&qkv[0])[1], qkv[0].dtype, plan) {
            attention::forward(qkv.into(), plan)
        } else {
            composed::<Self>(qkv, plan)
        }
    }

    fn attention_gradient(
        qkv: [FloatTensor<Self>; 3],
        forward: Attended<FloatTensor<Self>>,
        gradient: FloatTensor<Self>,
        plan: &AttentionPlan,
    ) -> [FloatTensor<Self>; 3] {
        if attends(&qkv[0], dims(&qkv[0])[1], qkv[0].dtype, plan) {
            attention::gradient(qkv.into(), forward, gradient, plan).into_tensors()
        } else {
            let forward = Attended { output: Self::unrounded(forward.output), ..forward };
            composed_gradient::<Self>(qkv, forward, Self::unrounded(gradient), plan)
        }
    }

    fn mapped_attention_forward(
        input: FloatTensor<Self>,
        maps: [Map<FloatTensor<Self>, FloatTensor<Self>>; 3],
        plan: &AttentionPlan,
    ) -> MappedAttention<FloatTensor<Self>> {
        let dtype = kept_type::<R>(plan.precision, &input.device);
        if !attends(&input, dims(&maps[0].weight)[0], dtype, plan) {
            return mapped_attention::composed::<Self>(input, maps, plan);
        }
        let [(q, q_bias), (k, k_bias), (v, v_bias)] = maps.map(|Map { weight, bias }| (weight, bias));
        let weight = linear::joined([q, k, v], dtype);
        let product = product_for::<R, T>(input, weight.clone(), plan.precision);
        let qkv = linear::add_bias(product, linear::joined([q_bias, k_bias, v_bias], DType::F32));
        let attended = attention::forward(qkv.clone().into(), plan);
        MappedAttention { attended, mapped: Mapped::Joined(qkv, weight) }
    }

    /// Returns queries and keys after their rotation, which is all that gradients need.
    fn packed_attention_forward(
        qkv: FloatTensor<Self>,
        rotation: Option<&Rotation>,
        plan: &AttentionPlan,
    ) -> (Attended<FloatTensor<Self>>, FloatTensor<Self>) {
        if !attends(&qkv, dims(&qkv)[1] / 3, qkv.dtype, plan) {
            return packed_attention::composed::<Self>(Self::unrounded(qkv), rotation, plan);
        }
        let qkv = rotation::rotate(qkv, rotation, &plan.segments, plan.heads, false);
        (attention::forward(qkv.clone().into(), plan), qkv)
    }

    fn packed_attention_gradient(
        qkv: FloatTensor<Self>,
        forward: Attended<FloatTensor<Self>>,
        gradient: FloatTensor<Self>,
        rotation: Option<&Rotation>,
        plan: &AttentionPlan,
    ) -> FloatTensor<Self> {
        if !attends(&qkv, dims(&qkv)[1] / 3, qkv.dtype, plan) {
            return packed_attention::composed_gradient::<Self>(qkv, forward, gradient, rotation, plan);
        }
        let [of_qkv] = attention::gradient(qkv.into(), forward, gradient, plan).into_tensors();
        rotation::rotate(of_qkv, rotation, &plan.segments, plan.heads, true)
    }

    fn embed_forward(tables: Tables<FloatTensor<Self>>, rows: &TokenRows) -> FloatTensor<Self> {
        embed::forward(tables, rows)
    }

    fn embed_gradient(gradient: FloatTensor<Self>, rows: &Arc<[u32]>, count: usize) -> FloatTensor<Self> {
        embed::gradient(gradient, rows, count)
    }

    fn maxsim_forward(
        queries: FloatTensor<Self>,
        documents: FloatTensor<Self>,
        texts: &[ScoredTexts; 2],
    ) -> (FloatTensor<Self>, IntTensor<Self>) {
        maxsim::forward(queries, documents, texts)
    }

    fn maxsim_gradient(
        queries: FloatTensor<Self>,
        documents: FloatTensor<Self>,
        winners: IntTensor<Self>,
        gradient: FloatTensor<Self>,
        texts: &[ScoredTexts; 2],
    ) -> [FloatTensor<Self>; 2] {
        maxsim::gradient(queries, documents, winners, gradient, texts)
    }

    fn adamw(updates: Vec<Update<FloatTensor<Self>>>) -> Vec<Moments<FloatTensor<Self>>> {
        adamw::step(updates)
    }
}

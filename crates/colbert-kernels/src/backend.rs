//! The operators as an extension of burn's backends.
//!
//! [`Kernels`] has what a backend computes, forward and backward, on its own tensors; every method has a version
//! composed of burn's operators, so that an empty impl block is enough.

pub(crate) mod differentiable;

use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::ops::{FloatTensor, IntTensor};
use burn::tensor::{ElementConversion, FloatDType, Tensor};

use crate::device::{DeviceLink, DeviceMemory, DevicePanics};
use crate::operators::adamw::{self, Moments, Update};
use crate::operators::attention::{self, Attended, AttentionPlan};
use crate::operators::dropout::{self, Dropout};
use crate::operators::embed::{self, Tables, TokenRows};
use crate::operators::gate::{self, Gate};
use crate::operators::gelu::{self, GeluGradients};
use crate::operators::layer_norm::{self, Affine, NormGradients, Normalised};
use crate::operators::linear::{self, Map};
use crate::operators::mapped_attention::{self, MappedAttention};
use crate::operators::maxsim::{self, ScoredTexts};
use crate::operators::packed_attention;
use crate::operators::post_norm::PostNormGradients;
use crate::operators::primitive::tensor;
use crate::operators::rotation::Rotation;
use crate::operators::sum;
use crate::precision::Precision;

/// The operators of a backend on its own tensors. Implement it with an empty block for a new backend, and override the
/// operators for which it has better versions.
///
/// The public functions check the arguments.
pub trait Kernels: Backend {
    /// Returns whether products of bfloat16 are faster than those of float32 on this device. Where they are not,
    /// [`Precision::Bf16`] computes in float32.
    fn has_bf16(_device: &Self::Device) -> bool {
        false
    }

    /// Returns whether there are products of float16 on this device: on a GPU fast ones, on a CPU at any speed. Where
    /// there are none, [`Precision::F16`] computes in float32.
    fn has_f16(_device: &Self::Device) -> bool {
        false
    }

    /// Returns whether the device multiplies float32 factors faster if it may round them to TF32. Where it does not,
    /// [`Precision::Tf32`] computes in float32.
    fn has_tf32(_device: &Self::Device) -> bool {
        false
    }

    /// Multiplies float32 factors as they are.
    ///
    /// # Shapes
    /// `[.., rows, depth]` and `[.., depth, columns]` to `[.., rows, columns]`
    fn float32_product<const D: usize>(left: Tensor<Self, D>, right: Tensor<Self, D>) -> Tensor<Self, D> {
        left.matmul(right)
    }

    /// Multiplies float32 factors that may be rounded to TF32.
    ///
    /// # Shapes
    /// As [`float32_product`](Self::float32_product).
    fn tf32_product<const D: usize>(left: Tensor<Self, D>, right: Tensor<Self, D>) -> Tensor<Self, D> {
        left.matmul(right)
    }

    /// Multiplies factors of bfloat16 or float16, both of one type, to float32. By default the product is rounded to the
    /// type of the factors first.
    ///
    /// # Shapes
    /// As [`float32_product`](Self::float32_product).
    fn rounded_product<const D: usize>(left: Tensor<Self, D>, right: Tensor<Self, D>) -> Tensor<Self, D> {
        left.matmul(right).cast(FloatDType::F32)
    }

    /// Returns where the device keeps its tensors, and how much is free if it has memory of its own.
    fn device_memory(_device: &Self::Device) -> DeviceMemory {
        DeviceMemory::Host
    }

    /// Gives what is freed from now on back to the system at once, in this process, where the backend would keep it:
    /// slower, but what a step takes is then the same each time. Nothing on a device with memory of its own.
    fn return_freed_memory(_device: &Self::Device) {}

    /// Returns how to recognise failures of the device, if they arrive as panics that a run must turn into errors.
    fn device_panics() -> Option<DevicePanics> {
        None
    }

    /// Gives each of several processes its part of a tensor, the first to process 0, and returns the parts that all of
    /// them gave to this one, by rank. All parts have the same length, and all processes make the same calls.
    ///
    /// # Shapes
    /// `[processes * length]` in and out.
    ///
    /// # Panics
    /// If the link fails.
    fn all_to_all(_parts: FloatTensor<Self>, _link: &DeviceLink) -> FloatTensor<Self> {
        unreachable!("no link joins devices of this backend")
    }

    /// Returns the numbers of every process, by rank. All have as many, and all processes make the same calls.
    ///
    /// # Shapes
    /// `[length]` to `[processes * length]`.
    ///
    /// # Panics
    /// If the link fails.
    fn all_gather(_own: FloatTensor<Self>, _link: &DeviceLink) -> FloatTensor<Self> {
        unreachable!("no link joins devices of this backend")
    }

    /// Returns whether all numbers of a tensor are finite. By default their sum is checked, which large numbers may
    /// make infinite; a device that may assume that there is no NaN checks the bits.
    ///
    /// # Shapes
    /// Any, as one axis.
    fn all_finite(input: FloatTensor<Self>) -> bool {
        let sum = tensor::<Self, 1>(Self::float_sum(input));
        sum.into_scalar().elem::<f64>().is_finite()
    }

    /// Sums all numbers of one tensor or several, in an order that their shapes alone decide.
    ///
    /// # Shapes
    /// Any, to `[1]`.
    fn sum(inputs: Vec<FloatTensor<Self>>) -> FloatTensor<Self> {
        sum::composed::<Self>(inputs)
    }

    /// Sums the squares of all numbers of one tensor or several, in an order that their shapes alone decide.
    ///
    /// # Shapes
    /// Any, to `[1]`.
    fn sum_of_squares(inputs: Vec<FloatTensor<Self>>) -> FloatTensor<Self> {
        sum::composed_squares::<Self>(inputs)
    }

    /// Computes `input weight^T + bias`.
    ///
    /// # Shapes
    /// - input: `[tokens, in]`; weight: `[out, in]`; bias: `[out]`
    /// - output: `[tokens, out]`
    fn linear_forward(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        linear::composed::<Self>(input, weight, bias, precision)
    }

    /// Computes `residual + input weight^T + bias`.
    ///
    /// # Shapes
    /// As [`linear_forward`](Self::linear_forward); the residual is as the output.
    fn residual_linear_forward(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        residual: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        Self::float_add(Self::linear_forward(input, weight, bias, precision), residual)
    }

    /// Rounds a factor of matmuls of this precision, once for all of them, if the backend can keep it rounded. Only
    /// the linear maps below and their gradients take the result, as input or as gradient.
    ///
    /// # Shapes
    /// Any, in and out.
    fn rounded(input: FloatTensor<Self>, _precision: Precision) -> FloatTensor<Self> {
        input
    }

    /// Returns float32 numbers of what an operator kept rounded.
    ///
    /// # Shapes
    /// Any, in and out.
    fn unrounded(input: FloatTensor<Self>) -> FloatTensor<Self> {
        input
    }

    /// Applies linear maps to one input, as for query, key and value. The outputs may be rounded to the precision;
    /// they are for attention alone.
    ///
    /// # Shapes
    /// Each as [`linear_forward`](Self::linear_forward).
    fn inner_linears_forward<const N: usize>(
        input: FloatTensor<Self>,
        maps: [Map<FloatTensor<Self>, Option<FloatTensor<Self>>>; N],
        precision: Precision,
    ) -> [FloatTensor<Self>; N] {
        maps.map(|Map { weight, bias }| Self::linear_forward(input.clone(), weight, bias, precision))
    }

    /// Computes the gradient of the input of one linear map or several.
    ///
    /// # Shapes
    /// - gradients: `[tokens, out]` each; weights: `[out, in]` each
    /// - output: `[tokens, in]`
    fn linears_input_gradient<const N: usize>(
        gradients: [FloatTensor<Self>; N],
        weights: [FloatTensor<Self>; N],
        precision: Precision,
    ) -> FloatTensor<Self> {
        linear::composed_inputs_gradient::<Self, N>(gradients, weights, precision)
    }

    /// Computes the gradient of the input of one linear map or several, and adds that of the input's other use.
    ///
    /// # Shapes
    /// As [`linears_input_gradient`](Self::linears_input_gradient); `beside` is as the output.
    fn residual_input_gradient<const N: usize>(
        gradients: [FloatTensor<Self>; N],
        weights: [FloatTensor<Self>; N],
        beside: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        Self::float_add(beside, Self::linears_input_gradient(gradients, weights, precision))
    }

    /// Computes the gradient of a linear map's input for an operator that goes on: it may be rounded to the precision.
    ///
    /// # Shapes
    /// - gradient: `[tokens, out]`; weight: `[out, in]`
    /// - output: `[tokens, in]`
    fn inner_input_gradient(
        gradient: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        Self::linears_input_gradient([gradient], [weight], precision)
    }

    /// Computes the gradients of the weights of linear maps of one input.
    ///
    /// # Shapes
    /// - gradients: `[tokens, out]` each; input: `[tokens, in]`
    /// - outputs: `[out, in]` each
    fn linears_weight_gradients<const N: usize>(
        gradients: [FloatTensor<Self>; N],
        input: FloatTensor<Self>,
        precision: Precision,
    ) -> [FloatTensor<Self>; N] {
        gradients.map(|gradient| linear::composed_weight_gradient::<Self>(gradient, input.clone(), precision))
    }

    /// Sums over tokens, `[tokens, size]` to `[size]`: the gradient of a bias.
    fn sum_rows(gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        linear::composed_sum_rows::<Self>(gradient)
    }

    /// Computes `gelu(input weight^T + bias)`, and the sum before GELU. Both may be rounded to the precision: the
    /// first is for linear maps alone, the second for [`linear_gelu_gradient`](Self::linear_gelu_gradient).
    ///
    /// # Shapes
    /// As [`linear_forward`](Self::linear_forward), twice.
    fn linear_gelu_forward(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let sum = Self::linear_forward(input, weight, Some(bias), precision);
        (Self::gelu_forward(sum.clone()), sum)
    }

    /// Recomputes GELU of a sum with a bias, and computes the gradients of sum and bias. The gradient of GELU's output
    /// is `gradient weight`.
    ///
    /// # Shapes
    /// - sum: `[tokens, wide]`; gradient: `[tokens, out]`; weight: `[out, wide]`
    /// - outputs: those of [`GeluGradients`]
    fn linear_gelu_gradient(
        sum: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        precision: Precision,
    ) -> GeluGradients<FloatTensor<Self>> {
        let of_gelu = Self::linears_input_gradient([gradient], [weight], precision);
        let (output, sum) = (Self::gelu_forward(sum.clone()), Self::gelu_gradient(sum, of_gelu));
        GeluGradients { output, bias: Self::sum_rows(sum.clone()), sum }
    }

    /// Computes GELU by the error function.
    ///
    /// # Shapes
    /// `[tokens, size]` in and out.
    fn gelu_forward(input: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::gelu(input)
    }

    /// Computes the gradient of GELU's input.
    ///
    /// # Shapes
    /// `[tokens, size]` in and out.
    fn gelu_gradient(input: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        gelu::composed_gradient::<Self>(input, gradient)
    }

    /// Returns the gate's output of `input weight^T + bias`, and both halves. Both may be rounded to the precision: the
    /// first is for linear maps alone, the second for [`gated_gradient`](Self::gated_gradient).
    ///
    /// # Shapes
    /// - input: `[tokens, in]`; weight: `[2 * wide, in]`; bias: `[2 * wide]`
    /// - outputs: `[tokens, wide]` and `[tokens, 2 * wide]`
    fn gated_forward(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        gate: Gate,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let both = Self::linear_forward(input, weight, bias, precision);
        (gate::composed::<Self>(both.clone(), gate), both)
    }

    /// Recomputes the gate's output, and computes the gradient of both halves. The gradient of the gate's output is
    /// `gradient weight`.
    ///
    /// # Shapes
    /// - both: `[tokens, 2 * wide]`; gradient: `[tokens, out]`; weight: `[out, wide]`
    /// - outputs: `[tokens, wide]` and `[tokens, 2 * wide]`
    fn gated_gradient(
        both: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gate: Gate,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let of_gated = Self::linears_input_gradient([gradient], [weight], precision);
        (gate::composed::<Self>(both.clone(), gate), gate::composed_gradient::<Self>(both, of_gated, gate))
    }

    /// Multiplies elements by their dropout factor, forward and for the gradient.
    ///
    /// # Shapes
    /// `[rows, columns]` in and out.
    fn dropout_forward(input: FloatTensor<Self>, dropout: Dropout) -> FloatTensor<Self> {
        dropout::composed::<Self>(input, dropout)
    }

    /// Returns the dropout factors of the given rows of a matrix with `columns` columns, `[rows, columns]`: 0 where
    /// dropped, 1 / (1 - probability) elsewhere. Every backend gives the same.
    fn dropout_factors(dropout: Dropout, rows: &[usize], columns: usize, device: &Self::Device) -> FloatTensor<Self> {
        dropout::factors_from_host::<Self>(dropout, rows, columns, device)
    }

    /// Normalises `dropout(input) + residual`.
    ///
    /// # Shapes
    /// - input, residual: `[tokens, size]`; parameters: `[size]`
    /// - outputs: those of [`Normalised`]
    fn layer_norm_forward(
        input: FloatTensor<Self>,
        residual: Option<FloatTensor<Self>>,
        dropout: Dropout,
        affine: Affine<FloatTensor<Self>>,
    ) -> Normalised<FloatTensor<Self>> {
        layer_norm::composed::<Self>(input, residual, dropout, affine)
    }

    /// Normalises for linear maps alone: the output may be rounded to the precision.
    ///
    /// # Shapes
    /// As [`layer_norm_forward`](Self::layer_norm_forward).
    fn layer_norm_for_maps(
        input: FloatTensor<Self>,
        affine: Affine<FloatTensor<Self>>,
        _precision: Precision,
    ) -> Normalised<FloatTensor<Self>> {
        Self::layer_norm_forward(input, None, Dropout::NONE, affine)
    }

    /// Recomputes the output of [`layer_norm_for_maps`](Self::layer_norm_for_maps) from the state of the forward pass.
    ///
    /// # Shapes
    /// - sum: `[tokens, size]`; statistics: `[tokens, 2]`; parameters: `[size]`
    /// - output: `[tokens, size]`
    fn layer_norm_again(
        sum: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        affine: Affine<FloatTensor<Self>>,
        _precision: Precision,
    ) -> FloatTensor<Self> {
        layer_norm::composed_again::<Self>(sum, statistics, affine)
    }

    /// Computes the gradients of a normalisation; `beside` is added to that of what was normalised. The gradient that
    /// comes in may be one of [`inner_input_gradient`](Self::inner_input_gradient).
    ///
    /// # Shapes
    /// As [`layer_norm_again`](Self::layer_norm_again); gradient and `beside` are as the output.
    fn layer_norm_gradient(
        sum: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        affine: Affine<FloatTensor<Self>>,
        gradient: FloatTensor<Self>,
        beside: Option<FloatTensor<Self>>,
    ) -> NormGradients<FloatTensor<Self>> {
        layer_norm::composed_gradient::<Self>(sum, statistics, affine, gradient, beside)
    }

    /// Normalises `dropout(map(input)) + residual`.
    ///
    /// # Shapes
    /// - input: `[tokens, in]`; map: `[size, in]` and `[size]`; residual: `[tokens, size]`; parameters: `[size]`
    /// - outputs: those of [`Normalised`]
    fn post_norm_forward(
        input: FloatTensor<Self>,
        map: Map<FloatTensor<Self>, Option<FloatTensor<Self>>>,
        residual: FloatTensor<Self>,
        dropout: Dropout,
        affine: Affine<FloatTensor<Self>>,
        precision: Precision,
    ) -> Normalised<FloatTensor<Self>> {
        let mapped = Self::linear_forward(input, map.weight, map.bias, precision);
        Self::layer_norm_forward(mapped, Some(residual), dropout, affine)
    }

    /// Computes the gradients of [`post_norm_forward`](Self::post_norm_forward), but for input and weight, and of the
    /// map's bias only if it has one. That of the map's output may be rounded to the precision: it is for linear maps
    /// alone.
    ///
    /// # Shapes
    /// - sum, gradient: `[tokens, size]`; statistics: `[tokens, 2]`; parameters: `[size]`
    /// - outputs: those of [`PostNormGradients`]
    fn post_norm_gradient(
        sum: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        affine: Affine<FloatTensor<Self>>,
        gradient: FloatTensor<Self>,
        dropout: Dropout,
        has_bias: bool,
        precision: Precision,
    ) -> PostNormGradients<FloatTensor<Self>> {
        let norm = Self::layer_norm_gradient(sum, statistics, affine, gradient, None);
        let of_sum = norm.sum.clone();
        let mapped = if dropout.is_none() { of_sum } else { Self::dropout_forward(of_sum, dropout) };
        let bias = has_bias.then(|| Self::sum_rows(mapped.clone()));
        PostNormGradients { norm, bias, mapped: Self::rounded(mapped, precision) }
    }

    /// Computes attention of query, key and value. The output may be rounded to the precision if these three are.
    ///
    /// # Shapes
    /// - query, key, value: `[tokens, heads * head_size]`
    /// - outputs: those of [`Attended`]
    fn attention_forward(qkv: [FloatTensor<Self>; 3], plan: &AttentionPlan) -> Attended<FloatTensor<Self>> {
        attention::composed::<Self>(qkv, plan)
    }

    /// Computes the gradients of query, key and value. The gradient that comes in may be one of
    /// [`inner_input_gradient`](Self::inner_input_gradient).
    ///
    /// # Shapes
    /// - query, key, value, gradient: `[tokens, heads * head_size]`
    /// - outputs: the same
    fn attention_gradient(
        qkv: [FloatTensor<Self>; 3],
        forward: Attended<FloatTensor<Self>>,
        gradient: FloatTensor<Self>,
        plan: &AttentionPlan,
    ) -> [FloatTensor<Self>; 3] {
        attention::composed_gradient::<Self>(qkv, forward, gradient, plan)
    }

    /// Computes attention of query, key and value that are linear maps of one input. That may be rounded to the
    /// precision, and so may the output.
    ///
    /// # Shapes
    /// - input: `[tokens, in]`; maps: `[heads * head_size, in]` and `[heads * head_size]`
    /// - outputs: those of [`MappedAttention`]
    fn mapped_attention_forward(
        input: FloatTensor<Self>,
        maps: [Map<FloatTensor<Self>, FloatTensor<Self>>; 3],
        plan: &AttentionPlan,
    ) -> MappedAttention<FloatTensor<Self>> {
        mapped_attention::composed::<Self>(input, maps, plan)
    }

    /// Computes attention where the query, key and value of a token lie side by side, `[tokens, 3 * size]`; query and
    /// key are rotated. Also returns the three in the form that
    /// [`packed_attention_gradient`](Self::packed_attention_gradient) of the same backend expects.
    fn packed_attention_forward(
        qkv: FloatTensor<Self>,
        rotation: Option<&Rotation>,
        plan: &AttentionPlan,
    ) -> (Attended<FloatTensor<Self>>, FloatTensor<Self>) {
        packed_attention::composed::<Self>(qkv, rotation, plan)
    }

    /// Computes the gradient of the input of [`packed_attention_forward`](Self::packed_attention_forward).
    ///
    /// # Shapes
    /// - qkv: `[tokens, 3 * size]`; gradient: `[tokens, size]`
    /// - output: `[tokens, 3 * size]`
    fn packed_attention_gradient(
        qkv: FloatTensor<Self>,
        forward: Attended<FloatTensor<Self>>,
        gradient: FloatTensor<Self>,
        rotation: Option<&Rotation>,
        plan: &AttentionPlan,
    ) -> FloatTensor<Self> {
        packed_attention::composed_gradient::<Self>(qkv, forward, gradient, rotation, plan)
    }

    /// Looks up embeddings and sums them.
    ///
    /// # Shapes
    /// - tables: `[rows, size]` each
    /// - output: `[tokens, size]`
    fn embed_forward(tables: Tables<FloatTensor<Self>>, rows: &TokenRows) -> FloatTensor<Self> {
        embed::composed::<Self>(tables, rows)
    }

    /// Computes the gradient of a table with `count` rows, from which those in `rows` were looked up.
    ///
    /// # Shapes
    /// - gradient: `[tokens, size]`
    /// - output: `[count, size]`
    fn embed_gradient(gradient: FloatTensor<Self>, rows: &Arc<[u32]>, count: usize) -> FloatTensor<Self> {
        embed::composed_gradient::<Self>(gradient, rows, count)
    }

    /// Computes scores, and the row of the best document token for each query token and document, in the form that
    /// [`maxsim_gradient`](Self::maxsim_gradient) of the same backend expects.
    ///
    /// # Shapes
    /// - queries, documents: `[tokens, dim]`
    /// - outputs: `[queries, docs]`, and a number for each query token and document, in the backend's own order
    fn maxsim_forward(
        queries: FloatTensor<Self>,
        documents: FloatTensor<Self>,
        texts: &[ScoredTexts; 2],
    ) -> (FloatTensor<Self>, IntTensor<Self>) {
        maxsim::composed::<Self>(queries, documents, texts)
    }

    /// Computes the gradients of queries and documents.
    ///
    /// # Shapes
    /// - queries, documents: `[tokens, dim]`; gradient: `[queries, docs]`
    /// - outputs: `[tokens, dim]` each
    fn maxsim_gradient(
        queries: FloatTensor<Self>,
        documents: FloatTensor<Self>,
        winners: IntTensor<Self>,
        gradient: FloatTensor<Self>,
        texts: &[ScoredTexts; 2],
    ) -> [FloatTensor<Self>; 2] {
        maxsim::composed_gradient::<Self>(queries, documents, winners, gradient, texts)
    }

    /// Takes one optimizer step on each of several parameters with one axis.
    ///
    /// # Shapes
    /// `[numbers]` for all tensors of a parameter.
    fn adamw(updates: Vec<Update<FloatTensor<Self>>>) -> Vec<Moments<FloatTensor<Self>>> {
        updates.into_iter().map(adamw::composed::<Self>).collect()
    }
}

//! The operators as models call them: on a backend with [`Kernels`], or differentiable on [`Autodiff`] around one.

use burn::backend::Autodiff;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::ops::FloatTensor;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;

use crate::backend::Kernels;
use crate::operators::attention::{self, AttentionPlan};
use crate::operators::attention_sublayer::{self, AttentionSublayer};
use crate::operators::dropout::{self, Dropout};
use crate::operators::embed::{self, Tables, TokenRows};
use crate::operators::gated_feed_forward::{self, GatedFeedForward};
use crate::operators::gelu;
use crate::operators::layer_norm::{self, Affine};
use crate::operators::linear::{self, FloatMap, Map};
use crate::operators::matmul;
use crate::operators::maxsim::{self, ScoredTexts};
use crate::operators::packed_attention;
use crate::operators::post_norm::{self, FloatPostNorm};
use crate::operators::primitive::{primitive, tensor};
use crate::operators::rotation::Rotation;
use crate::operators::sum;
use crate::operators::{post_norm_attention, post_norm_feed_forward};
use crate::precision::Precision;

/// The operators that models call, differentiable if the backend is. Implement [`Kernels`] instead.
///
/// # Shapes
/// Those of the public functions that each method names.
pub trait KernelBackend: Backend {
    /// See [`linear()`](crate::linear()).
    fn kernel_linear(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        precision: Precision,
    ) -> FloatTensor<Self>;

    /// See [`float32_matmul`](crate::float32_matmul); the factors have `D` axes.
    fn kernel_float32_matmul<const D: usize>(left: FloatTensor<Self>, right: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`post_norm_linear`](crate::post_norm_linear).
    fn kernel_post_norm_linear(
        input: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        end: FloatPostNorm<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;

    /// See [`post_norm_feed_forward`](crate::post_norm_feed_forward()).
    fn kernel_post_norm_feed_forward(
        input: FloatTensor<Self>,
        up: FloatMap<Self>,
        end: FloatPostNorm<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;

    /// See [`gated_feed_forward`](crate::gated_feed_forward).
    fn kernel_gated_feed_forward(
        input: FloatTensor<Self>,
        network: GatedFeedForward<FloatTensor<Self>, FloatTensor<Self>>,
    ) -> FloatTensor<Self>;

    /// See [`attention_sublayer`](crate::attention_sublayer).
    fn kernel_attention_sublayer(
        input: FloatTensor<Self>,
        sublayer: AttentionSublayer<FloatTensor<Self>, FloatTensor<Self>>,
    ) -> FloatTensor<Self>;

    /// See [`gelu()`](crate::gelu()).
    fn kernel_gelu(input: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`dropout()`](crate::dropout()).
    fn kernel_dropout(input: FloatTensor<Self>, dropout: Dropout) -> FloatTensor<Self>;

    /// See [`residual_layer_norm`](crate::residual_layer_norm).
    fn kernel_layer_norm(
        input: FloatTensor<Self>,
        residual: Option<FloatTensor<Self>>,
        dropout: Dropout,
        affine: Affine<FloatTensor<Self>>,
    ) -> FloatTensor<Self>;

    /// See [`attention()`](crate::attention()).
    fn kernel_attention(qkv: [FloatTensor<Self>; 3], plan: AttentionPlan) -> FloatTensor<Self>;

    /// See [`post_norm_attention`](crate::post_norm_attention()).
    fn kernel_post_norm_attention(
        input: FloatTensor<Self>,
        maps: [FloatMap<Self>; 3],
        plan: AttentionPlan,
        end: FloatPostNorm<Self>,
    ) -> FloatTensor<Self>;

    /// See [`packed_self_attention`](crate::packed_self_attention).
    fn kernel_packed_self_attention(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        rotation: Option<Rotation>,
        plan: AttentionPlan,
    ) -> FloatTensor<Self>;

    /// See [`embed()`](crate::embed()).
    fn kernel_embed(tables: Tables<FloatTensor<Self>>, rows: TokenRows) -> FloatTensor<Self>;

    /// See [`maxsim()`](crate::maxsim()).
    fn kernel_maxsim(
        queries: FloatTensor<Self>,
        documents: FloatTensor<Self>,
        texts: [ScoredTexts; 2],
    ) -> FloatTensor<Self>;

    /// See [`all_finite`](crate::all_finite).
    fn kernel_all_finite(input: FloatTensor<Self>) -> bool;

    /// See [`sum()`](crate::sum()).
    fn kernel_sum(input: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl<B: Kernels> KernelBackend for B {
    fn kernel_linear(
        input: FloatTensor<B>,
        weight: FloatTensor<B>,
        bias: Option<FloatTensor<B>>,
        precision: Precision,
    ) -> FloatTensor<B> {
        B::linear_forward(input, weight, bias, precision)
    }

    fn kernel_float32_matmul<const D: usize>(left: FloatTensor<B>, right: FloatTensor<B>) -> FloatTensor<B> {
        primitive(B::float32_product(tensor::<B, D>(left), tensor(right)))
    }

    fn kernel_post_norm_linear(
        input: FloatTensor<B>,
        residual: FloatTensor<B>,
        end: FloatPostNorm<B>,
        precision: Precision,
    ) -> FloatTensor<B> {
        post_norm::forward::<B>(input, residual, end, precision).output
    }

    fn kernel_post_norm_feed_forward(
        input: FloatTensor<B>,
        up: FloatMap<B>,
        end: FloatPostNorm<B>,
        precision: Precision,
    ) -> FloatTensor<B> {
        let (wide, _) = B::linear_gelu_forward(input.clone(), up.weight, up.bias, precision);
        post_norm::forward::<B>(wide, input, end, precision).output
    }

    fn kernel_gated_feed_forward(
        input: FloatTensor<B>,
        network: GatedFeedForward<FloatTensor<B>, FloatTensor<B>>,
    ) -> FloatTensor<B> {
        gated_feed_forward::forward::<B>(input, &network).output
    }

    fn kernel_attention_sublayer(
        input: FloatTensor<B>,
        sublayer: AttentionSublayer<FloatTensor<B>, FloatTensor<B>>,
    ) -> FloatTensor<B> {
        attention_sublayer::forward::<B>(input, &sublayer).output
    }

    fn kernel_gelu(input: FloatTensor<B>) -> FloatTensor<B> {
        B::gelu_forward(input)
    }

    fn kernel_dropout(input: FloatTensor<B>, dropout: Dropout) -> FloatTensor<B> {
        B::dropout_forward(input, dropout)
    }

    fn kernel_layer_norm(
        input: FloatTensor<B>,
        residual: Option<FloatTensor<B>>,
        dropout: Dropout,
        affine: Affine<FloatTensor<B>>,
    ) -> FloatTensor<B> {
        B::layer_norm_forward(input, residual, dropout, affine).output
    }

    fn kernel_attention(qkv: [FloatTensor<B>; 3], plan: AttentionPlan) -> FloatTensor<B> {
        B::attention_forward(qkv, &plan).output
    }

    fn kernel_post_norm_attention(
        input: FloatTensor<B>,
        maps: [FloatMap<B>; 3],
        plan: AttentionPlan,
        end: FloatPostNorm<B>,
    ) -> FloatTensor<B> {
        let attended = B::mapped_attention_forward(input.clone(), maps, &plan).attended;
        post_norm::forward::<B>(attended.output, input, end, plan.precision).output
    }

    fn kernel_packed_self_attention(
        input: FloatTensor<B>,
        weight: FloatTensor<B>,
        bias: Option<FloatTensor<B>>,
        rotation: Option<Rotation>,
        plan: AttentionPlan,
    ) -> FloatTensor<B> {
        let [qkv] = B::inner_linears_forward(input, [Map { weight, bias }], plan.precision);
        B::unrounded(B::packed_attention_forward(qkv, rotation.as_ref(), &plan).0.output)
    }

    fn kernel_embed(tables: Tables<FloatTensor<B>>, rows: TokenRows) -> FloatTensor<B> {
        B::embed_forward(tables, &rows)
    }

    fn kernel_maxsim(queries: FloatTensor<B>, documents: FloatTensor<B>, texts: [ScoredTexts; 2]) -> FloatTensor<B> {
        B::maxsim_forward(queries, documents, &texts).0
    }

    fn kernel_all_finite(input: FloatTensor<B>) -> bool {
        B::all_finite(input)
    }

    fn kernel_sum(input: FloatTensor<B>) -> FloatTensor<B> {
        B::sum(vec![input])
    }
}

impl<B: Kernels, C: CheckpointStrategy> KernelBackend for Autodiff<B, C> {
    fn kernel_linear(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        linear::differentiable::<B, C>(input, weight, bias, precision)
    }

    fn kernel_float32_matmul<const D: usize>(left: FloatTensor<Self>, right: FloatTensor<Self>) -> FloatTensor<Self> {
        matmul::differentiable::<B, C, D>(left, right)
    }

    fn kernel_post_norm_linear(
        input: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        end: FloatPostNorm<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        post_norm::differentiable::<B, C>(input, residual, end, precision)
    }

    fn kernel_post_norm_feed_forward(
        input: FloatTensor<Self>,
        up: FloatMap<Self>,
        end: FloatPostNorm<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        post_norm_feed_forward::differentiable::<B, C>(input, up, end, precision)
    }

    fn kernel_gated_feed_forward(
        input: FloatTensor<Self>,
        network: GatedFeedForward<FloatTensor<Self>, FloatTensor<Self>>,
    ) -> FloatTensor<Self> {
        gated_feed_forward::differentiable::<B, C>(input, network)
    }

    fn kernel_attention_sublayer(
        input: FloatTensor<Self>,
        sublayer: AttentionSublayer<FloatTensor<Self>, FloatTensor<Self>>,
    ) -> FloatTensor<Self> {
        attention_sublayer::differentiable::<B, C>(input, sublayer)
    }

    fn kernel_gelu(input: FloatTensor<Self>) -> FloatTensor<Self> {
        gelu::differentiable::<B, C>(input)
    }

    fn kernel_dropout(input: FloatTensor<Self>, dropout: Dropout) -> FloatTensor<Self> {
        dropout::differentiable::<B, C>(input, dropout)
    }

    fn kernel_layer_norm(
        input: FloatTensor<Self>,
        residual: Option<FloatTensor<Self>>,
        dropout: Dropout,
        affine: Affine<FloatTensor<Self>>,
    ) -> FloatTensor<Self> {
        layer_norm::differentiable::<B, C>(input, residual, dropout, affine)
    }

    fn kernel_attention(qkv: [FloatTensor<Self>; 3], plan: AttentionPlan) -> FloatTensor<Self> {
        attention::differentiable::<B, C>(qkv, plan)
    }

    fn kernel_post_norm_attention(
        input: FloatTensor<Self>,
        maps: [FloatMap<Self>; 3],
        plan: AttentionPlan,
        end: FloatPostNorm<Self>,
    ) -> FloatTensor<Self> {
        post_norm_attention::differentiable::<B, C>(input, maps, plan, end)
    }

    fn kernel_packed_self_attention(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        rotation: Option<Rotation>,
        plan: AttentionPlan,
    ) -> FloatTensor<Self> {
        packed_attention::differentiable::<B, C>(input, weight, bias, rotation, plan)
    }

    fn kernel_embed(tables: Tables<FloatTensor<Self>>, rows: TokenRows) -> FloatTensor<Self> {
        embed::differentiable::<B, C>(tables, rows)
    }

    fn kernel_maxsim(
        queries: FloatTensor<Self>,
        documents: FloatTensor<Self>,
        texts: [ScoredTexts; 2],
    ) -> FloatTensor<Self> {
        maxsim::differentiable::<B, C>(queries, documents, texts)
    }

    fn kernel_all_finite(input: FloatTensor<Self>) -> bool {
        B::all_finite(input.primitive)
    }

    fn kernel_sum(input: FloatTensor<Self>) -> FloatTensor<Self> {
        sum::differentiable::<B, C>(input)
    }
}

/// A backend to train on: differentiable, with the operators on it and on its inner backend.
pub trait KernelAutodiffBackend: AutodiffBackend<InnerBackend: Kernels> + KernelBackend {}

impl<B: AutodiffBackend<InnerBackend: Kernels> + KernelBackend> KernelAutodiffBackend for B {}

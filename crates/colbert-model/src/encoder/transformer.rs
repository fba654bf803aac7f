//! The layers that BERT, RoBERTa, ELECTRA and DistilBERT share: attention and feed-forward, each followed by the
//! normalised sum with its input (Devlin et al. 2018, after Vaswani et al. 2017).
//!
//! Field names spell BERT's tensor names: `self_` stands for `self`, `layer_norm` for `LayerNorm`.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::{
    AttentionPlan, KernelBackend, PostNorm, Segments, post_norm_attention, post_norm_feed_forward, post_norm_linear,
};

use crate::encoder::EncodeOptions;
use crate::encoder::dropout::DropoutSeed;
use crate::encoder::layers::{LayerNorm, Linear};
use crate::error::ModelError;
use crate::weights::Weights;

/// Sizes of the layers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerSizes {
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    /// Of the feed-forward layer.
    pub(crate) wide: usize,
    pub(crate) eps: f64,
    /// Dropout on attention weights.
    pub(crate) attention_dropout: f64,
    /// Dropout after the attention's projection.
    pub(crate) projection_dropout: f64,
    /// Dropout after the feed-forward layer.
    pub(crate) output_dropout: f64,
}

/// A family's names of the tensors of a layer, under `<layers>.<number>`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerNames {
    pub(crate) layers: &'static str,
    /// Query, key, value, projection of the attention, its norm, the wide layer, the narrow one, its norm.
    pub(crate) parts: [&'static str; 8],
}

/// BERT's names, which are also the field paths here.
pub(crate) const BERT_NAMES: LayerNames = LayerNames {
    layers: "encoder.layer",
    parts: [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "attention.output.LayerNorm",
        "intermediate.dense",
        "output.dense",
        "output.LayerNorm",
    ],
};

impl LayerNames {
    /// Returns the name in a file of the parameter at a field path of an encoder, whose layers are at `field`. Only
    /// parameters of a layer are renamed.
    pub(crate) fn tensor_name(&self, field: &str, path: &str) -> String {
        let of_layer = path.strip_prefix(field).and_then(|path| self.of_layer(path));
        of_layer.unwrap_or_else(|| path.to_owned())
    }

    /// Returns the name for a path below the layers, such as `0.output.dense.weight`.
    fn of_layer(&self, path: &str) -> Option<String> {
        let (number, rest) = path.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        let place = BERT_NAMES.parts.iter().position(|own| *own == part)?;
        Some(format!("{}.{number}.{}.{kind}", self.layers, self.parts[place]))
    }
}

type SublayerEnd<B> = PostNorm<Tensor<B, 2>, Tensor<B, 1>>;

#[derive(Module, Debug)]
struct SelfAttention<B: Backend> {
    query: Linear<B>,
    key: Linear<B>,
    value: Linear<B>,
    dropout: f64,
}

/// A projection, dropout, and the normalised sum with the input before it.
#[derive(Module, Debug)]
struct ResidualOutput<B: Backend> {
    dense: Linear<B>,
    layer_norm: LayerNorm<B>,
    dropout: f64,
}

impl<B: KernelBackend> ResidualOutput<B> {
    fn end(&self, options: EncodeOptions) -> SublayerEnd<B> {
        self.layer_norm.after(&self.dense, DropoutSeed::dropout(options.dropout, self.dropout))
    }
}

#[derive(Module, Debug)]
struct Attention<B: Backend> {
    self_: SelfAttention<B>,
    output: ResidualOutput<B>,
}

#[derive(Module, Debug)]
struct Intermediate<B: Backend> {
    dense: Linear<B>,
}

#[derive(Module, Debug)]
struct TransformerLayer<B: Backend> {
    attention: Attention<B>,
    intermediate: Intermediate<B>,
    output: ResidualOutput<B>,
}

/// Attention of a family, before its projection: of a layer's input, `[tokens, hidden]`, and its maps to query, key and
/// value. The options are the layer's; children from 3 on are the family's.
pub(crate) type Attend<'a, B> =
    &'a dyn Fn(Tensor<B, 2>, [&Linear<B>; 3], &AttentionPlan, EncodeOptions) -> Tensor<B, 2>;

impl<B: KernelBackend> TransformerLayer<B> {
    fn forward(
        &self,
        input: Tensor<B, 2>,
        segments: &Segments,
        heads: usize,
        attend: Option<Attend<'_, B>>,
        options: EncodeOptions,
    ) -> Tensor<B, 2> {
        let (place, precision) = (|place| options.child(place), options.precision);
        let a = &self.attention.self_;
        let dropout = DropoutSeed::dropout(place(0).dropout, a.dropout);
        let plan = AttentionPlan { segments: segments.clone(), heads, reach: None, dropout, precision };
        let (maps, end) = ([&a.query, &a.key, &a.value], self.attention.output.end(place(1)));
        let hidden = match attend {
            None => post_norm_attention(input, maps.map(Linear::parameters), &plan, end),
            Some(attend) => post_norm_linear(attend(input.clone(), maps, &plan, options), input, end, precision),
        };
        post_norm_feed_forward(hidden, self.intermediate.dense.parameters(), self.output.end(place(2)), precision)
    }
}

/// A stack of layers.
#[derive(Module, Debug)]
pub(crate) struct Transformer<B: Backend> {
    layer: Vec<TransformerLayer<B>>,
}

impl<B: Backend> Transformer<B> {
    /// Takes the layers' tensors out of `weights`, by a family's names.
    pub(crate) fn take(
        sizes: LayerSizes,
        names: LayerNames,
        weights: &mut Weights,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        let LayerSizes { hidden, wide, eps, .. } = sizes;
        // The number in config.json is not trusted for an allocation before the tensors are there.
        let mut layer = Vec::new();
        for i in 0..sizes.layers {
            let at = |part: usize| format!("{}.{i}.{}", names.layers, names.parts[part]);
            layer.push(TransformerLayer {
                attention: Attention {
                    self_: SelfAttention {
                        query: Linear::take(&at(0), [hidden, hidden], weights, device)?,
                        key: Linear::take(&at(1), [hidden, hidden], weights, device)?,
                        value: Linear::take(&at(2), [hidden, hidden], weights, device)?,
                        dropout: sizes.attention_dropout,
                    },
                    output: ResidualOutput {
                        dense: Linear::take(&at(3), [hidden, hidden], weights, device)?,
                        layer_norm: LayerNorm::take(&at(4), hidden, eps, weights, device)?,
                        dropout: sizes.projection_dropout,
                    },
                },
                intermediate: Intermediate { dense: Linear::take(&at(5), [wide, hidden], weights, device)? },
                output: ResidualOutput {
                    dense: Linear::take(&at(6), [hidden, wide], weights, device)?,
                    layer_norm: LayerNorm::take(&at(7), hidden, eps, weights, device)?,
                    dropout: sizes.output_dropout,
                },
            });
        }
        Ok(Self { layer })
    }
}

impl<B: KernelBackend> Transformer<B> {
    /// Returns the output of the last layer, `[tokens, hidden]`, by BERT's attention or the family's own. Layer i, from
    /// 1, has child i of the options.
    pub(crate) fn forward(
        &self,
        input: Tensor<B, 2>,
        segments: &Segments,
        heads: usize,
        attend: Option<Attend<'_, B>>,
        options: EncodeOptions,
    ) -> Tensor<B, 2> {
        let layers = self.layer.iter().zip(1..);
        layers.fold(input, |hidden, (layer, i)| layer.forward(hidden, segments, heads, attend, options.child(i)))
    }

    /// Returns the input and the output of every layer, `[tokens, hidden]` each.
    pub(crate) fn states(
        &self,
        input: Tensor<B, 2>,
        segments: &Segments,
        heads: usize,
        options: EncodeOptions,
    ) -> Vec<Tensor<B, 2>> {
        let mut states = vec![input];
        for (layer, i) in self.layer.iter().zip(1..) {
            states.push(layer.forward(states[states.len() - 1].clone(), segments, heads, None, options.child(i)));
        }
        states
    }
}

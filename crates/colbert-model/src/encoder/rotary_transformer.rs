//! The layers that NomicBERT and GTE share: rotary positions, one map for query, key and value, a feed-forward network
//! with a gate, and each part followed by the normalised sum with its input.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::{
    Activation, ActiveHalf, AttentionPlan, Gate, GatedFeedForward, KernelBackend, Rotation, Segments,
    gated_feed_forward, packed_self_attention, post_norm_linear,
};

use crate::encoder::dropout::DropoutSeed;
use crate::encoder::layers::{LayerNorm, Linear};
use crate::encoder::rotary::Angles;
use crate::encoder::{EncodeOptions, EncoderInput};
use crate::error::ModelError;
use crate::weights::Weights;

/// Sizes and options of the layers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RotaryLayers {
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    /// Each half of the feed-forward layer.
    pub(crate) wide: usize,
    pub(crate) heads: usize,
    pub(crate) eps: f64,
    pub(crate) angles: Angles,
    pub(crate) activation: Activation,
    pub(crate) attention_dropout: f64,
    /// Dropout after each part.
    pub(crate) hidden_dropout: f64,
    /// Dropout of the gate's output.
    pub(crate) gate_dropout: f64,
    pub(crate) names: RotaryNames,
}

/// A family's names of the tensors of a layer, under `<layers>.<number>`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RotaryNames {
    pub(crate) layers: &'static str,
    pub(crate) qkv: &'static str,
    pub(crate) out: &'static str,
    pub(crate) attention_norm: &'static str,
    /// The half that is multiplied as it is and the half that goes through the activation: two matrices, or one with
    /// the former first.
    pub(crate) up: &'static str,
    pub(crate) gate: Option<&'static str>,
    pub(crate) down: &'static str,
    pub(crate) feed_forward_norm: &'static str,
    /// Whether query, key, value and the projection have biases, and whether `down` has one.
    pub(crate) biases: [bool; 2],
}

impl RotaryNames {
    /// Renames the layers of a file that has transformers' names in memory, `layers.0.self_attn.q_proj` and so on, to
    /// the family's own names, and joins the matrices that are one here.
    ///
    /// # Errors
    /// A part of such a matrix is missing, or does not fit the others.
    pub(crate) fn adopt(&self, weights: &mut Weights) -> Result<(), ModelError> {
        for i in 0.. {
            let (from, to) =
                (|part: &str| format!("layers.{i}.{part}"), |part: &str| format!("{}.{i}.{part}", self.layers));
            if !weights.contains(&from("self_attn.q_proj.weight")) {
                break;
            }
            for kind in ["weight", "bias"] {
                let parts = ["q_proj", "k_proj", "v_proj"].map(|part| from(&format!("self_attn.{part}.{kind}")));
                if weights.contains(&parts[0]) {
                    weights.join(&parts, &format!("{}.{kind}", to(self.qkv)))?;
                }
            }
            match self.gate {
                Some(gate) => {
                    weights.rename(&from("mlp.up_proj"), &to(self.up));
                    weights.rename(&from("mlp.gate_proj"), &to(gate));
                }
                None => {
                    let parts = ["up_proj", "gate_proj"].map(|part| from(&format!("mlp.{part}.weight")));
                    weights.join(&parts, &format!("{}.weight", to(self.up)))?;
                }
            }
            for (part, own) in [
                ("self_attn.o_proj", self.out),
                ("post_attention_layernorm", self.attention_norm),
                ("mlp.down_proj", self.down),
                ("post_mlp_layernorm", self.feed_forward_norm),
            ] {
                weights.rename(&from(part), &to(own));
            }
        }
        Ok(())
    }

    /// Returns the name in a file of the parameter at a field path of an encoder, whose layers are at `field`. Only
    /// parameters of a layer are renamed.
    pub(crate) fn tensor_name(&self, field: &str, path: &str) -> String {
        let of_layer = path.strip_prefix(field).and_then(|path| self.of_layer(path));
        of_layer.unwrap_or_else(|| path.to_owned())
    }

    /// Returns the name for a path below the layers, such as `0.qkv.weight`.
    fn of_layer(&self, path: &str) -> Option<String> {
        let (number, rest) = path.split_once('.')?;
        let (field, kind) = rest.rsplit_once('.')?;
        let part = match field {
            "qkv" => self.qkv,
            "out" => self.out,
            "attention_norm" => self.attention_norm,
            "up" => self.up,
            "gate" => self.gate?,
            "down" => self.down,
            "feed_forward_norm" => self.feed_forward_norm,
            _ => return None,
        };
        Some(format!("{}.{number}.{part}.{kind}", self.layers))
    }
}

#[derive(Module, Debug)]
struct RotaryLayer<B: Backend> {
    qkv: Linear<B>,
    out: Linear<B>,
    attention_norm: LayerNorm<B>,
    up: Linear<B>,
    gate: Option<Linear<B>>,
    down: Linear<B>,
    feed_forward_norm: LayerNorm<B>,
}

/// A stack of layers.
#[derive(Module, Debug)]
pub(crate) struct RotaryTransformer<B: Backend> {
    layer: Vec<RotaryLayer<B>>,
    #[module(skip)]
    sizes: Sizes,
}

/// Numbers that a forward pass needs. (A type of its own, as a module's fields are cloned with it.)
#[derive(Debug, Clone, Copy)]
struct Sizes(RotaryLayers);

impl<B: Backend> RotaryTransformer<B> {
    /// Takes the layers' tensors out of `weights`.
    pub(crate) fn take(sizes: RotaryLayers, weights: &mut Weights, device: &B::Device) -> Result<Self, ModelError> {
        let RotaryLayers { hidden, wide, eps, names, .. } = sizes;
        let [attention_bias, down_bias] = names.biases;
        // The number in config.json is not trusted for an allocation before the tensors are there.
        let mut layer = Vec::new();
        for i in 0..sizes.layers {
            let at = |part: &str| format!("{}.{i}.{part}", names.layers);
            let mut linear = |part: &str, shape: [usize; 2], bias: bool| {
                let take = if bias { Linear::take } else { Linear::bare };
                take(&at(part), shape, weights, device)
            };
            let both = if names.gate.is_some() { wide } else { 2 * wide };
            let (qkv, out) = (
                linear(names.qkv, [3 * hidden, hidden], attention_bias)?,
                linear(names.out, [hidden, hidden], attention_bias)?,
            );
            let up = linear(names.up, [both, hidden], false)?;
            let gate = names.gate.map(|gate| linear(gate, [wide, hidden], false)).transpose()?;
            let down = linear(names.down, [hidden, wide], down_bias)?;
            let mut norm = |part: &str| LayerNorm::take(&at(part), hidden, eps, weights, device);
            let (attention_norm, feed_forward_norm) = (norm(names.attention_norm)?, norm(names.feed_forward_norm)?);
            layer.push(RotaryLayer { qkv, out, attention_norm, up, gate, down, feed_forward_norm });
        }
        Ok(Self { layer, sizes: Sizes(sizes) })
    }
}

impl<B: KernelBackend> RotaryTransformer<B> {
    /// Returns the output of the last layer, `[tokens, hidden]`. Layer i, from 1, has child i of the options.
    pub(crate) fn forward(&self, embedded: Tensor<B, 2>, input: &EncoderInput) -> Tensor<B, 2> {
        let RotaryLayers { hidden, heads, angles, .. } = self.sizes.0;
        let rotation = angles.rotation(hidden / heads, input.segments.max_length());
        let layers = self.layer.iter().zip(1..);
        layers.fold(embedded, |x, (layer, i)| self.layer(layer, x, &input.segments, &rotation, input.options.child(i)))
    }

    fn layer(
        &self,
        layer: &RotaryLayer<B>,
        input: Tensor<B, 2>,
        segments: &Segments,
        rotation: &Rotation,
        options: EncodeOptions,
    ) -> Tensor<B, 2> {
        let RotaryLayers { heads, activation, attention_dropout, hidden_dropout, gate_dropout, .. } = self.sizes.0;
        let precision = options.precision;
        let dropout = |place, probability| DropoutSeed::dropout(options.child(place).dropout, probability);
        let plan = AttentionPlan {
            segments: segments.clone(),
            heads,
            reach: None,
            dropout: dropout(0, attention_dropout),
            precision,
        };
        let bias = layer.qkv.bias.as_ref().map(|bias| bias.val());
        let mixed = packed_self_attention(input.clone(), layer.qkv.weight.val(), bias, Some(rotation), &plan);
        let end = layer.attention_norm.after(&layer.out, dropout(1, hidden_dropout));
        let hidden = post_norm_linear(mixed, input, end, precision);
        let up = match &layer.gate {
            Some(gate) => Tensor::cat(vec![layer.up.weight.val(), gate.weight.val()], 0),
            None => layer.up.weight.val(),
        };
        let network = GatedFeedForward {
            norm: None,
            up,
            up_bias: None,
            gate: Gate { activation, active: ActiveHalf::Second, dropout: dropout(2, gate_dropout) },
            down: layer.down.weight.val(),
            down_bias: layer.down.bias.as_ref().map(|bias| bias.val()),
            residual: false,
            precision,
        };
        let projected = gated_feed_forward(hidden.clone(), network);
        layer.feed_forward_norm.forward_residual(projected, hidden, dropout(3, hidden_dropout))
    }
}

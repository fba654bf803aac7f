//! The classification head of a cross-encoder: from the hidden vectors of a pair to one number, computed for each
//! family as in transformers.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::{KernelBackend, Precision, layer_norm, linear};
use serde_json::Value;

use crate::encoder::families::EncoderConfig;
use crate::encoder::layers::Linear;
use crate::error::ModelError;
use crate::head::activation::Activation;
use crate::sentence::family::Pooling;
use crate::tokenizer::sequence::TokenSequence;
use crate::weights::Weights;
use crate::weights::json::Keys;

/// A classification head: pooling, a layer with its activation, a normalisation if the family has one, and the last
/// layer.
///
/// Source: transformers 4.55, `*ForSequenceClassification` of each family, without dropout.
#[derive(Debug)]
pub(crate) struct Classifier<B: Backend> {
    pooling: Pooling,
    dense: Linear<B>,
    activation: Activation,
    /// Weight, and bias if there is one.
    norm: Option<(Tensor<B, 1>, Option<Tensor<B, 1>>, f64)>,
    out: Linear<B>,
}

/// The parts of a head, by the names of its tensors.
struct Parts {
    dense: &'static str,
    activation: Activation,
    out: &'static str,
}

impl<B: Backend> Classifier<B> {
    /// Takes the head's tensors out of `weights`.
    ///
    /// # Errors
    /// A missing tensor, one of a wrong shape or with a value that is not finite, and a setting that is not known.
    pub(crate) fn take(
        config: &EncoderConfig,
        keys: Keys<'_>,
        weights: &mut Weights,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        let hidden = config.hidden_size();
        let parts = match config {
            EncoderConfig::Bert(_) => Parts { dense: "pooler.dense", activation: Activation::Tanh, out: "classifier" },
            EncoderConfig::DistilBert(_) => {
                Parts { dense: "pre_classifier", activation: Activation::Relu, out: "classifier" }
            }
            EncoderConfig::Roberta(_) => {
                Parts { dense: "classifier.dense", activation: Activation::Tanh, out: "classifier.out_proj" }
            }
            EncoderConfig::Electra(_) => {
                Parts { dense: "classifier.dense", activation: Activation::Gelu, out: "classifier.out_proj" }
            }
            EncoderConfig::ModernBert(_) => {
                let activation = match keys.text("classifier_activation")? {
                    None | Some("gelu") => Activation::Gelu,
                    Some(other) => return Err(keys.unsupported("classifier_activation", &other.into(), "\"gelu\"")),
                };
                Parts { dense: "head.dense", activation, out: "classifier" }
            }
            _ => {
                let expected = "bert, distilbert, roberta, xlm-roberta, electra or modernbert for a cross-encoder";
                let found = keys.text("model_type")?.unwrap_or_default();
                return Err(keys.unsupported("model_type", &found.into(), expected));
            }
        };
        let norm = match config {
            EncoderConfig::ModernBert(own) => {
                let weight = weights.param("head.norm.weight", [hidden], device)?.val();
                let bias = match weights.contains("head.norm.bias") {
                    true => Some(weights.param("head.norm.bias", [hidden], device)?.val()),
                    false => None,
                };
                Some((weight, bias, own.norm_eps))
            }
            _ => None,
        };
        Ok(Self {
            pooling: pooling(config, keys)?,
            dense: layer(parts.dense, [hidden, hidden], weights, device)?,
            activation: parts.activation,
            norm,
            out: layer(parts.out, [1, hidden], weights, device)?,
        })
    }
}

impl<B: KernelBackend> Classifier<B> {
    /// Computes one number a sequence.
    ///
    /// # Shapes
    /// - hidden: `[tokens, hidden_size]`, the sequences one after the other
    /// - output: `[sequences]`
    pub(crate) fn forward(&self, hidden: &Tensor<B, 2>, sequences: &[TokenSequence]) -> Vec<f32> {
        let mut start = 0;
        let pooled = sequences.iter().map(|sequence| {
            let rows = start..start + sequence.len();
            start = rows.end;
            match self.pooling {
                Pooling::Cls => hidden.clone().narrow(0, rows.start, 1),
                Pooling::Mean => hidden.clone().narrow(0, rows.start, sequence.len()).mean_dim(0),
            }
        });
        let pooled = Tensor::cat(pooled.collect(), 0);
        let dense = self.activation.apply(apply(&self.dense, pooled));
        let normed = match &self.norm {
            Some((weight, bias, eps)) => layer_norm(dense, weight.clone(), bias.clone(), *eps),
            None => dense,
        };
        let logits = apply(&self.out, normed);
        logits.into_data().convert::<f32>().into_vec::<f32>().expect("the data was converted to f32")
    }
}

fn apply<B: KernelBackend>(layer: &Linear<B>, input: Tensor<B, 2>) -> Tensor<B, 2> {
    linear(input, layer.weight.val(), layer.bias.as_ref().map(|bias| bias.val()), Precision::F32)
}

/// Takes a layer with or without a bias.
fn layer<B: Backend>(
    name: &str,
    shape: [usize; 2],
    weights: &mut Weights,
    device: &B::Device,
) -> Result<Linear<B>, ModelError> {
    let bias = format!("{name}.bias");
    let bias = if weights.contains(&bias) { Some(weights.param(&bias, [shape[0]], device)?) } else { None };
    Ok(Linear { weight: weights.param(&format!("{name}.weight"), shape, device)?, bias })
}

/// Returns the pooling: the first token's vector, or the mean if a ModernBERT asks for it.
fn pooling(config: &EncoderConfig, keys: Keys<'_>) -> Result<Pooling, ModelError> {
    if !matches!(config, EncoderConfig::ModernBert(_)) {
        return Ok(Pooling::Cls);
    }
    match keys.text("classifier_pooling")? {
        None | Some("cls") => Ok(Pooling::Cls),
        Some("mean") => Ok(Pooling::Mean),
        Some(other) => Err(keys.unsupported("classifier_pooling", &Value::from(other), "\"cls\" or \"mean\"")),
    }
}

//! A new head on a plain encoder: its layers from options, and its first weights.

use colbert_config::{HeadActivation, HeadLayers};
use rand::distr::{Distribution, Uniform};
use rand_chacha::ChaCha8Rng;

use crate::head::activation::Activation;
use crate::head::config::{DenseConfig, HeadConfig, tensor_name};
use crate::weights::{HostTensor, normal_tensor};

impl HeadConfig {
    /// Returns the head that options describe; without layers, one matrix.
    pub fn of(layers: &HeadLayers, hidden_size: usize, dim: usize) -> Self {
        if layers.0.is_empty() {
            return Self::linear(hidden_size, dim);
        }
        let mut in_features = hidden_size;
        let dense = layers.0.iter().map(|layer| {
            let out_features = layer.size.unwrap_or(dim);
            let activation = match layer.activation {
                HeadActivation::Identity => Activation::Identity,
                HeadActivation::Relu => Activation::Relu,
                HeadActivation::Gelu => Activation::Gelu,
                HeadActivation::Tanh => Activation::Tanh,
                HeadActivation::Sigmoid => Activation::Sigmoid,
                HeadActivation::Silu => Activation::Silu,
            };
            let bias = layer.bias;
            let dense = DenseConfig { in_features, out_features, bias, activation, use_residual: layer.residual };
            in_features = out_features;
            dense
        });
        Self { layers: dense.collect() }
    }
}

/// Draws the first weights of a head, by the names of [`tensor_name`]. Without layers in the options the one matrix is
/// drawn as colbert-ai draws it, from N(0, `initializer_range`²); layers as torch's `Linear` draws them for PyLate and
/// sentence-transformers, evenly from within 1 / sqrt(inputs).
pub(crate) fn first_weights(
    head: &HeadConfig,
    layers: &HeadLayers,
    initializer_range: f64,
    rng: &mut ChaCha8Rng,
) -> Vec<(String, HostTensor)> {
    let mut tensors = Vec::new();
    for (place, layer) in head.layers.iter().enumerate() {
        let bound = (layer.in_features.max(1) as f64).sqrt().recip();
        let even = Uniform::new_inclusive(-bound, bound).expect("a bound above 0 and at most 1");
        for (name, shape) in layer.shapes() {
            let tensor = if layers.0.is_empty() {
                normal_tensor(&shape, initializer_range, rng)
            } else {
                let values = (0..shape.iter().product()).map(|_| even.sample(rng) as f32).collect();
                HostTensor { shape, values }
            };
            tensors.push((tensor_name(place, name), tensor));
        }
    }
    tensors
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn layers(text: &str) -> HeadLayers {
        text.parse().unwrap()
    }

    #[test]
    fn options_become_layers_that_fit_together() {
        let head = HeadConfig::of(&layers("12 gelu residual, 12 bias, dim residual"), 8, 4);
        assert_eq!(head.to_string(), "8 -> 12 (GELU, residual) -> 12 (bias) -> 4 (residual)");
        assert!(head.layers[0].has_residual_matrix() && !head.layers[1].use_residual);
        assert_eq!(HeadConfig::of(&HeadLayers::default(), 8, 4), HeadConfig::linear(8, 4));
    }

    /// Within torch's bounds, and as spread out as an even draw from within them: its deviation is bound / sqrt(3).
    #[test]
    fn layers_are_drawn_as_torch_draws_them() {
        let options = layers("64 bias residual, dim");
        let head = HeadConfig::of(&options, 100, 64);
        let tensors = first_weights(&head, &options, 0.02, &mut ChaCha8Rng::seed_from_u64(1));
        let names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["linear.weight", "linear.bias", "residual.weight", "2_Dense.linear.weight"]);
        for ((name, tensor), bound) in tensors.iter().zip([0.1f32, 0.1, 0.1, 0.125]) {
            assert!(tensor.values.iter().all(|value| value.abs() <= bound), "{name}");
            let squares: f32 = tensor.values.iter().map(|value| value * value).sum();
            let deviation = (squares / tensor.values.len() as f32).sqrt();
            let even = bound / 3f32.sqrt();
            assert!((deviation / even - 1.0).abs() < 0.2, "{name}: {deviation} is not near {even}");
        }
        let plain = HeadLayers::default();
        let one = first_weights(&HeadConfig::linear(100, 64), &plain, 0.02, &mut ChaCha8Rng::seed_from_u64(1));
        let own = normal_tensor(&[64, 100], 0.02, &mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(one, [("linear.weight".to_owned(), own)]);
    }
}

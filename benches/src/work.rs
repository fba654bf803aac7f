//! The number of operations of a step, and the highest rate at which a device computes them.

use std::time::Instant;

use burn::tensor::{Distribution, Tensor};
use ragtrainer::model::TokenSequence;
use ragtrainer::model::kernels::{Kernels, Precision, linear};

use crate::model::Sizes;

/// Forward and two gradients.
const PASSES: f64 = 3.0;

/// Measurements of a matmul; the fastest counts.
const TRIALS: usize = 5;

/// Useful floating-point operations: real tokens only, nothing that is computed twice.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Multiplications and additions of matmuls.
    pub operations: f64,
}

impl Work {
    /// Of encoding these texts and of the backward pass. Counts matmuls only, without MaxSim.
    pub fn of_training<'a>(texts: impl Iterator<Item = &'a TokenSequence>, sizes: &Sizes, dim: usize) -> Self {
        Self { operations: PASSES * Self::of_encoding(texts, sizes, dim).operations }
    }

    /// Of the scores of every query token with every document token.
    pub fn of_maxsim(query_tokens: usize, document_tokens: usize, dim: usize) -> Self {
        Self { operations: 2.0 * (query_tokens * document_tokens * dim) as f64 }
    }

    /// Of encoding these texts.
    pub fn of_encoding<'a>(texts: impl Iterator<Item = &'a TokenSequence>, sizes: &Sizes, dim: usize) -> Self {
        let hidden = sizes.hidden as f64;
        let of_maps: f64 = sizes.maps.iter().map(|[out, size]| (out * size) as f64).sum();
        let linear = sizes.layers as f64 * of_maps + hidden * dim as f64;
        let of_text = |text: &TokenSequence| {
            let products =
                (0..sizes.layers).map(|layer| sizes.products(layer, text.len(), text.attended)).sum::<usize>();
            2.0 * (text.len() as f64 * linear + 2.0 * hidden * products as f64)
        };
        Self { operations: texts.map(of_text).sum() }
    }
}

/// Operations per second of the linear maps of a layer, forward and both gradients, each measured alone at its fastest.
pub fn product_rate<B: Kernels>(tokens: usize, sizes: &Sizes, precision: Precision, device: &B::Device) -> f64 {
    let random = |shape: [usize; 2]| Tensor::<B, 2>::random(shape, Distribution::Uniform(-1.0, 1.0), device);
    let (mut operations, mut seconds) = (0.0, 0.0);
    for [out, size] in sizes.maps.iter().copied() {
        let (input, weight, gradient) = (random([tokens, size]), random([out, size]), random([tokens, out]));
        let primitive = |tensor: &Tensor<B, 2>| tensor.clone().into_primitive().tensor();
        let forward = || drop(linear(input.clone(), weight.clone(), None, precision));
        let of_input = || drop(B::linears_input_gradient([primitive(&gradient)], [primitive(&weight)], precision));
        let of_weight = || drop(B::linears_weight_gradients([primitive(&gradient)], primitive(&input), precision));
        for product in [&forward as &dyn Fn(), &of_input, &of_weight] {
            let trial = |_| {
                let start = Instant::now();
                product();
                B::sync(device).expect("the device answers");
                start.elapsed().as_secs_f64()
            };
            operations += 2.0 * (tokens * size * out) as f64;
            seconds += (0..TRIALS).map(trial).fold(f64::INFINITY, f64::min);
        }
    }
    operations / seconds
}

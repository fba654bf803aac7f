//! Groups of parameters: their learning rates, whether they decay, and when they begin to train.

use std::collections::HashSet;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use colbert_config::TrainOptions;
use colbert_kernels::KernelAutodiffBackend;
use colbert_model::{Colbert, parameter_names};

use crate::step::trainable::TrainableEncoder;

/// The treatment of one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Group {
    /// Factor on the learning rate.
    pub(crate) rate: f64,
    /// Whether weight decay acts on it.
    pub(crate) decays: bool,
    /// Updates at the start during which it is frozen.
    pub(crate) frozen_for: u32,
}

impl Default for Group {
    fn default() -> Self {
        Self { rate: 1.0, decays: true, frozen_for: 0 }
    }
}

/// The options that make groups.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct GroupOptions {
    head_rate: f64,
    embeddings_rate: f64,
    layer_decay: f64,
    decay_all: bool,
    pub(crate) frozen_for: u32,
}

impl From<&TrainOptions> for GroupOptions {
    fn from(options: &TrainOptions) -> Self {
        Self {
            head_rate: options.head_rate_factor,
            embeddings_rate: options.embeddings_rate_factor,
            layer_decay: options.layer_rate_decay,
            decay_all: options.decay_biases_and_norms,
            frozen_for: u32::try_from(options.freeze_encoder_steps).unwrap_or(u32::MAX),
        }
    }
}

impl GroupOptions {
    /// Returns the groups of a model's parameters, in the module's order; the names decide, as in every family.
    pub(crate) fn groups<B: KernelAutodiffBackend, E: TrainableEncoder<B>>(&self, model: &Colbert<B, E>) -> Vec<Group> {
        let paths = parameter_names::<B, Colbert<B, E>>(model);
        let mut ranks = Ranks(Vec::new());
        model.visit(&mut ranks);
        let names: Vec<String> = paths.iter().map(|path| model.tensor_name(path)).collect();
        let encoder: Vec<bool> = paths.iter().map(|path| path.starts_with("encoder.")).collect();
        let named: Vec<(bool, &str)> = encoder.into_iter().zip(names.iter().map(String::as_str)).collect();
        self.of(&named, &ranks.0)
    }

    /// Groups of parameters by whether they are the encoder's, their names in a weight file, and their ranks.
    fn of(&self, named: &[(bool, &str)], ranks: &[usize]) -> Vec<Group> {
        let layers = named.iter().filter(|(encoder, _)| *encoder).filter_map(|(_, name)| layer(name)).max();
        let layers = layers.map_or(0, |last| last + 1);
        let group = |(&(encoder, name), rank): (&(bool, &str), &usize)| {
            let below_last = |layers_above: usize| self.layer_decay.powf(layers_above as f64);
            let rate = match layer(name) {
                _ if !encoder => self.head_rate,
                Some(layer) => below_last(layers - 1 - layer),
                None if is_embedding(name) => below_last(layers) * self.embeddings_rate,
                None => 1.0,
            };
            // Biases and the weights of norms are the parameters with one axis.
            Group { rate, decays: self.decay_all || *rank > 1, frozen_for: if encoder { self.frozen_for } else { 0 } }
        };
        named.iter().zip(ranks).map(group).collect()
    }
}

/// Returns the layer in a parameter's name: its first number, such as 3 in `encoder.layer.3.output.dense.weight`.
fn layer(name: &str) -> Option<usize> {
    name.split('.').find_map(|part| part.parse().ok())
}

/// Returns whether a parameter belongs to the embeddings: tables, and the norm over their sum.
fn is_embedding(name: &str) -> bool {
    name.split('.').any(|part| part.contains("embed") || part == "emb_ln")
}

struct Ranks(Vec<usize>);

impl<B: AutodiffBackend> ModuleVisitor<B> for Ranks {
    fn visit_float<const D: usize>(&mut self, _: &Param<Tensor<B, D>>) {
        self.0.push(D);
    }
}

struct Ids(HashSet<ParamId>);

impl<B: AutodiffBackend> ModuleVisitor<B> for Ids {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.0.insert(param.id);
    }
}

struct Drop<'a> {
    of: HashSet<ParamId>,
    gradients: &'a mut GradientsParams,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Drop<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if self.of.contains(&param.id) {
            drop(self.gradients.remove::<B::InnerBackend, D>(param.id));
        }
    }
}

/// Removes the gradients of the encoder, which is frozen: it neither moves nor counts in the norm.
pub(crate) fn drop_encoder<B: KernelAutodiffBackend, E: TrainableEncoder<B>>(
    model: &Colbert<B, E>,
    gradients: &mut GradientsParams,
) {
    let mut ids = Ids(HashSet::new());
    Module::<B>::visit(&model.encoder, &mut ids);
    Module::<B>::visit(&model.encoder, &mut Drop { of: ids.0, gradients });
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [(bool, &str); 7] = [
        (true, "embeddings.word_embeddings.weight"),
        (true, "embeddings.LayerNorm.bias"),
        (true, "encoder.layer.0.attention.self.query.weight"),
        (true, "encoder.layer.1.output.LayerNorm.weight"),
        (true, "layers.2.attn.Wqkv.weight"),
        (true, "final_norm.weight"),
        (false, "linear.weight"),
    ];
    const RANKS: [usize; 7] = [2, 1, 2, 1, 2, 1, 2];

    #[test]
    fn names_and_ranks_decide() {
        let options = TrainOptions {
            head_rate_factor: 10.0,
            embeddings_rate_factor: 0.5,
            layer_rate_decay: 0.8,
            decay_biases_and_norms: false,
            freeze_encoder_steps: 3,
            ..TrainOptions::default()
        };
        let groups = GroupOptions::from(&options).of(&NAMES, &RANKS);
        let rates: Vec<f64> = groups.iter().map(|group| group.rate).collect();
        let lowest = 0.8_f64.powi(3) * 0.5;
        for (rate, expected) in rates.iter().zip([lowest, lowest, 0.64, 0.8, 1.0, 1.0, 10.0]) {
            assert!((rate - expected).abs() < 1e-12, "{rates:?}");
        }
        let decays: Vec<bool> = groups.iter().map(|group| group.decays).collect();
        assert_eq!(decays, [true, false, true, false, true, false, true]);
        assert!(groups[..6].iter().all(|group| group.frozen_for == 3) && groups[6].frozen_for == 0);
    }

    #[test]
    fn by_default_all_parameters_are_alike() {
        let groups = GroupOptions::from(&TrainOptions::default()).of(&NAMES, &RANKS);
        assert!(groups.iter().all(|group| *group == Group::default()));
    }
}

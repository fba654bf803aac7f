//! Building the model of a directory on a device: its head and its encoder.

use std::collections::HashMap;

use burn::tensor::backend::Backend;
use colbert_config::HeadInit;
use colbert_kernels::KernelBackend;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::colbert::Colbert;
use crate::directory::load::Pretrained;
use crate::encoder::Encoder;
use crate::encoder::families::PretrainedEncoder;
use crate::error::ModelError;
use crate::head::Head;
use crate::head::config::{HeadConfig, tensor_name};
use crate::head::files::HeadFiles;
use crate::head::fresh::first_weights;
use crate::settings::ColbertSettings;
use crate::weights::parameters::named_parameters;
use crate::weights::{HostTensor, normal_tensor};

/// A report on the use of a directory's tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadReport {
    /// Number of tensors that were used.
    pub taken: usize,
    /// Missing tensors, which were drawn at random.
    pub initialised: Vec<String>,
    /// Tensors that were not needed.
    pub ignored: Vec<String>,
}

impl Pretrained {
    /// Returns the head of a model with these settings: the directory's, with or without ReLU at its end, else the one
    /// that the options describe.
    ///
    /// # Errors
    /// A `dim` that is not the head's, or a ReLU that it has no place for.
    pub fn head(&self, settings: &ColbertSettings) -> Result<HeadConfig, ModelError> {
        let Some(HeadFiles { config, tensors, .. }) = &self.head else {
            let hidden_size = self.config.hidden_size();
            self.check_components(hidden_size, settings)?;
            let head = HeadConfig::of(&self.new_layers, hidden_size, settings.dim);
            return head.with_relu(settings.use_relu, &self.directory);
        };
        let last = config.layers.len() - 1;
        let name = tensor_name(last, "linear.weight");
        let found = tensors.iter().find(|(own, _)| *own == name).map(|(_, tensor)| tensor.shape.clone());
        let found = found.expect("every layer has a matrix");
        let input = if last == 0 { self.config.hidden_size() } else { config.layers[last].in_features };
        if found == [settings.dim, input] {
            return config.clone().with_relu(settings.use_relu, &self.directory);
        }
        let hint = match found[..] {
            [dim, size] if size == input => format!("; set dim = {dim}").into(),
            _ => "".into(),
        };
        let expected = [settings.dim, input].into();
        Err(ModelError::WrongShape { path: self.weights.path().to_owned(), name, found: found.into(), expected, hint })
    }

    /// Returns the head for an encoder of another crate: one matrix, with or without ReLU.
    ///
    /// # Errors
    /// No size, or a ReLU that the head has no place for.
    pub fn new_head(&self, hidden_size: usize, settings: &ColbertSettings) -> Result<HeadConfig, ModelError> {
        self.check_components(hidden_size, settings)?;
        HeadConfig::linear(hidden_size, settings.dim).with_relu(settings.use_relu, &self.directory)
    }

    fn check_components(&self, hidden_size: usize, settings: &ColbertSettings) -> Result<(), ModelError> {
        match self.new_init == HeadInit::Pca && settings.dim > hidden_size {
            true => Err(ModelError::TooFewComponents { hidden_size, dim: settings.dim }),
            false => Ok(()),
        }
    }

    /// Gives a new head of one matrix its first weights, `[dim, hidden_size]`, in place of drawn ones.
    pub fn set_new_head(&mut self, matrix: HostTensor) {
        self.new_matrix = Some(matrix);
    }

    /// Puts a new head of one matrix on an encoder of another crate, unless it was set, drawn from N(0, initializer_range²) with `seed`.
    ///
    /// # Errors
    /// As [`Pretrained::new_head`].
    pub fn model_with<B: KernelBackend, E: Encoder<B>>(
        &self,
        encoder: E,
        settings: &ColbertSettings,
        seed: u64,
        device: &B::Device,
    ) -> Result<Colbert<B, E>, ModelError> {
        let config = self.new_head(encoder.hidden_size(), settings)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let shape = [settings.dim, encoder.hidden_size()];
        let drawn = || normal_tensor(&shape, self.config.initializer_range(), &mut rng);
        let mut matrix = Some(self.new_matrix.clone().unwrap_or_else(drawn));
        let head = Head::build(&config, |_, name| matrix.take_if(|_| name == "linear.weight"), device);
        // burn draws a parameter when it is first read: here, in the order of the fields.
        drop(named_parameters(&encoder));
        Ok(Colbert { encoder, head })
    }

    /// Builds the model on `device`. `dropout` replaces the probabilities of `config.json`. A head that the directory
    /// lacks, and embeddings of added markers, are drawn with `seed`: from N(0, initializer_range²), layers that
    /// options name as torch draws those of PyLate.
    ///
    /// # Errors
    /// A missing tensor, one of the wrong shape (a projection to another `dim` than the settings', too), or one with a
    /// value that is not finite.
    pub fn model<B: Backend>(
        &self,
        settings: &ColbertSettings,
        dropout: Option<f64>,
        seed: u64,
        device: &B::Device,
    ) -> Result<(Colbert<B, PretrainedEncoder<B>>, LoadReport), ModelError> {
        let config = match dropout {
            Some(probability) => self.config.clone().with_dropout(probability),
            None => self.config.clone(),
        };
        let head_config = self.head(settings)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut initialised = Vec::new();
        let head = match &self.head {
            Some(files) => Head::build(&head_config, |place, name| files.tensor(place, name).cloned(), device),
            None => {
                let tensors = first_weights(&head_config, &self.new_layers, config.initializer_range(), &mut rng);
                initialised.extend(tensors.iter().map(|(name, _)| name.clone()));
                let mut tensors: HashMap<String, HostTensor> = tensors.into_iter().collect();
                if let Some(matrix) = &self.new_matrix {
                    tensors.insert(tensor_name(0, "linear.weight"), matrix.clone());
                }
                Head::build(&head_config, |place, name| tensors.remove(&tensor_name(place, name)), device)
            }
        };
        let mut weights = self.weights.clone();
        if self.added_rows > 0 {
            weights.add_rows(config.word_table(), self.added_rows, config.initializer_range(), &mut rng);
            initialised.push(format!("embeddings of {}", self.added.join(" and ")));
        }
        let before = weights.names().count();
        let encoder = config.build(&mut weights, device)?;
        let mut ignored: Vec<String> = weights.names().map(str::to_owned).collect();
        let of_head = self.head.as_ref().map_or(0, |head| head.tensors.len());
        let taken = before - ignored.len() + of_head;
        ignored.extend(self.head.iter().flat_map(|head| head.ignored.iter().cloned()));
        Ok((Colbert { encoder, head }, LoadReport { taken, initialised, ignored }))
    }

    /// Builds the encoder alone on `device`. Embeddings of added markers are drawn with seed 0, as nothing will look
    /// them up.
    ///
    /// # Errors
    /// A missing tensor, one of the wrong shape, or one with a value that is not finite.
    pub(crate) fn encoder<B: Backend>(&self, device: &B::Device) -> Result<PretrainedEncoder<B>, ModelError> {
        let mut weights = self.weights.clone();
        if self.added_rows > 0 {
            let mut rng = ChaCha8Rng::seed_from_u64(0);
            weights.add_rows(self.config.word_table(), self.added_rows, self.config.initializer_range(), &mut rng);
        }
        self.config.build(&mut weights, device)
    }

    /// Draws the embeddings of markers that were added, for a model that never looks them up.
    pub(crate) fn fill_added_rows(&mut self) {
        if self.added_rows > 0 {
            let mut rng = ChaCha8Rng::seed_from_u64(0);
            let deviation = self.config.initializer_range();
            self.weights.add_rows(self.config.word_table(), self.added_rows, deviation, &mut rng);
            self.added_rows = 0;
        }
    }
}

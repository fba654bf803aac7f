//! The model that texts are encoded with.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use ragtrainer::RagPretrainedModel;
use ragtrainer::config::Precision;
use ragtrainer::train::{OneProcess, Processes};

use crate::output::complain;
use crate::progress::fetched;

/// A trained model, the device it runs on, and the precision.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// Model directory or name on the hub, such as RUN/best.
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// Truncate vectors to their first N numbers and normalise them again, for models trained with train.dims. Not
    /// needed to search: queries get the size of the folder's documents.
    #[arg(long, value_name = "N", display_order = 99)]
    dim: Option<usize>,
    /// Backend and device: auto, flex, cuda, cuda:N, libtorch, libtorch:cuda:N, wgpu, wgpu:N.
    #[arg(long, value_name = "NAME", default_value = "auto", display_order = 100)]
    backend: String,
    /// Matmul precision: f32, tf32, bf16, f16 or auto (the fastest that the device supports). Lower precision changes
    /// vectors by about 1e-3.
    #[arg(long, value_name = "NAME", default_value = "f32", display_order = 101)]
    precision: Precision,
}

impl ModelArgs {
    /// Loads the model, from the hub if there is no such directory.
    pub(crate) fn load(&self) -> anyhow::Result<RagPretrainedModel> {
        self.load_with(&(Arc::new(OneProcess) as Arc<dyn Processes>))
    }

    /// The same in each of several processes, which encode together.
    pub(crate) fn load_with(&self, processes: &Arc<dyn Processes>) -> anyhow::Result<RagPretrainedModel> {
        fetched(&self.model)?;
        let model = RagPretrainedModel::from_pretrained_with(&self.model, &self.backend, Arc::clone(processes))?;
        let model = model.with_precision(self.precision);
        let (asked, had) = (self.precision, model.precision());
        if asked != Precision::Auto && asked != had {
            complain!("warning: this device does not multiply {asked} faster; using {had}");
        }
        Ok(match self.dim {
            Some(dim) => model.with_dim(dim)?,
            None => model,
        })
    }
}

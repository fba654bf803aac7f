//! The directory that training starts from: what a run plans by it, loads of it, and carries over into what it writes.

use std::fs;
use std::path::Path;

use colbert_config::{ArtifactMetadata, Options, Plan, TrainOptions, resolve};
use colbert_kernels::{KernelAutodiffBackend, KernelBackend};
use colbert_model::{
    Colbert, ColbertSettings, ColbertTokenizer, Export, HeadConfig, HostTensor, LoadReport, ModelError, Pretrained,
    PretrainedEncoder, TrainingMemory, check_onnx, export, named_parameters, rehearse_export,
};
use colbert_train::{Objective, TrainError, query_memory};

use crate::backend::Backend;
use crate::error::Error;
use crate::record::card::{ModelCard, Standing};
use crate::run::data::Prepared;
use crate::run::fit::computed::within_limit;
use crate::run::fit::tried::Fit;
use crate::run::objective::RunObjective;
use crate::source::read_model;

/// The directory that training starts from.
pub(crate) struct Start {
    pub(crate) pretrained: Pretrained,
    pub(crate) settings: ColbertSettings,
    pub(crate) tokenizer: ColbertTokenizer,
    pub(crate) head: HeadConfig,
}

impl Start {
    pub(crate) fn read(options: &Options) -> Result<Self, Error> {
        if options.pretrained_model_name.is_empty() {
            let hint =
                "name an encoder, a folder or a name on the hub, with --pretrained-model-name, or in the config file";
            return Err(Error::NotSet { option: "pretrained_model_name", hint });
        }
        let pretrained = read_model(&options.pretrained_model_name)?;
        let settings = pretrained.settings(&options.train);
        let tokenizer = pretrained.tokenizer(&settings)?;
        let head = pretrained.head(&settings)?;
        if options.export_onnx {
            check_onnx(&pretrained, &head, options.export_dtype)?;
        }
        Ok(Self { pretrained, settings, tokenizer, head })
    }

    /// The plan on a backend: a precision that the device gains by, and as many micro-batches as memory asks for.
    pub(crate) fn plan<O: Objective>(
        &self,
        options: &Options,
        backend: Backend,
        prepared: &Prepared,
        objective: &RunObjective<'_, O>,
    ) -> Result<Plan, Error> {
        let train = TrainOptions { precision: backend.precision(options.train.precision)?, ..options.train.clone() };
        let examples = prepared.set.examples.len();
        // What is wrong with the options is told before anything is tried out.
        let asked = resolve(&train, examples)?;
        let TrainOptions { query_maxlen, dim, .. } = train;
        let held = query_memory(prepared.queries_held(options), query_maxlen, dim);
        let (train, bytes) = if backend == Backend::Flex {
            // Where steps are tried out, what the data take is measured with them.
            let held = held + prepared.memory();
            within_limit(&train, TrainingMemory::of(&self.pretrained.config, &self.head), held)?
        } else {
            let Some(limit) = train.memory_limit else { return Ok(asked) };
            backend.run(Fit { start: self, options, train, objective, limit, held, keeps: backend.keeps_memory() })?
        };
        Ok(Plan { memory: Some(bytes), ..resolve(&train, examples)? })
    }

    pub(crate) fn model<B: KernelAutodiffBackend>(
        &self,
        options: &Options,
        device: &B::Device,
    ) -> Result<(Colbert<B, PretrainedEncoder<B>>, LoadReport), Error> {
        let train = &options.train;
        Ok(self.pretrained.model::<B>(&self.settings, train.dropout, train.seed, device)?)
    }
}

/// Writes model directories during a run.
pub(crate) struct ModelWriter<'a> {
    pub(crate) options: &'a Options,
    pub(crate) start: &'a Start,
    pub(crate) plan: &'a Plan,
    pub(crate) card: ModelCard<'a>,
}

impl ModelWriter<'_> {
    pub(crate) fn write<B: KernelBackend>(
        &self,
        tensors: &[(String, HostTensor)],
        path: &Path,
        device: &B::Device,
    ) -> Result<(), TrainError> {
        Ok(self.with_export(tensors, |directory| export::<B>(directory, path, true, device))?)
    }

    /// Writes the start into the output folder and removes it again, so that a model that cannot be written ends the run
    /// before its first step, and before an earlier run is replaced.
    ///
    /// # Errors
    /// The start cannot be written.
    pub(crate) fn rehearse<B: KernelAutodiffBackend>(
        &self,
        model: &Colbert<B, PretrainedEncoder<B>>,
        device: &B::Device,
    ) -> Result<(), Error> {
        let folder = &self.options.output;
        let is_new = !folder.exists();
        fs::create_dir_all(folder).map_err(|source| Error::Io { action: "create", path: folder.clone(), source })?;
        let parameters = named_parameters::<B, _>(model).into_iter();
        let tensors: Vec<_> = parameters.map(|(name, tensor)| (model.tensor_name(&name), tensor)).collect();
        let path = folder.join("last");
        let rehearsed = self
            .with_export(&tensors, |directory| rehearse_export::<B::InnerBackend>(directory, &path, device))
            .map_err(|source| Error::StartNotExportable { source });
        if rehearsed.is_err() && is_new {
            // The reason why the start cannot be written is the one to report.
            drop(fs::remove_dir(folder));
        }
        rehearsed
    }

    /// Calls `write` with everything that a model directory with these tensors is made of.
    fn with_export(
        &self,
        tensors: &[(String, HostTensor)],
        write: impl FnOnce(&Export<'_>) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let settings = &self.start.settings;
        let metadata = ArtifactMetadata {
            query_token_id: settings.query_token_id.clone(),
            doc_token_id: settings.doc_token_id.clone(),
            ..ArtifactMetadata::from_training(&self.options.train, self.plan, self.card.base)
        };
        let card = [("README.md", self.card.text(Standing::Underway))];
        write(&Export {
            tensors,
            settings,
            files: &self.start.pretrained.files,
            metadata: &metadata,
            dtype: self.options.export_dtype,
            onnx: self.options.export_onnx,
            extra: &card,
        })
    }
}

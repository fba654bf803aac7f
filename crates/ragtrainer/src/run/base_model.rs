//! The directory that training starts from: what a run loads of it, and carries over into what it writes.

use std::fs;
use std::path::Path;

use burn::module::Module;
use colbert_config::{ArtifactMetadata, ExportLayout, Options, Plan, Precision, TrainOptions, automatic_learning_rate};
use colbert_kernels::KernelAutodiffBackend;
use colbert_model::{
    Colbert, ColbertSettings, ColbertTokenizer, EncoderConfig, Export, HeadConfig, HostTensor, ModelError, Pretrained,
    SelfCheck, TrainingMemory, named_parameters,
};
use colbert_train::TrainError;

use crate::error::Error;
use crate::record::card::{ModelCard, Standing};
use crate::run::encoder::{InnerModel, RunEncoder, StartModel};
use crate::source::read_start;

/// The directory that training starts from, and the encoder of the run.
pub(crate) struct Start<'a, E> {
    pub(crate) encoder: &'a E,
    pub(crate) pretrained: Pretrained,
    pub(crate) settings: ColbertSettings,
    pub(crate) tokenizer: ColbertTokenizer,
    pub(crate) head: HeadConfig,
}

impl<'a, E: RunEncoder> Start<'a, E> {
    pub(crate) fn read(options: &Options, encoder: &'a E) -> Result<Self, Error> {
        if options.pretrained_model_name.is_empty() {
            let hint =
                "name an encoder, a folder or a name on the hub, with --pretrained-model-name, or in the config file";
            return Err(Error::NotSet { option: "pretrained_model_name", hint });
        }
        let pretrained = read_start(options)?;
        let settings = pretrained.settings(&options.train);
        let tokenizer = pretrained.tokenizer(&settings)?;
        pretrained.check_layout(&settings, options.export_layout)?;
        let head = encoder.head(&pretrained, &settings)?;
        match encoder.own_name() {
            Some(name) if options.export_onnx => {
                return Err(Error::OwnEncoder { name, option: "export_onnx", hint: "set it to false" });
            }
            Some(name) if options.train.dropout.is_some() => {
                return Err(Error::OwnEncoder { name, option: "train.dropout", hint: "leave it out" });
            }
            Some(name) if !options.train.head.0.is_empty() => {
                return Err(Error::OwnEncoder { name, option: "train.head", hint: "leave it out" });
            }
            Some(name) if options.export_layout == ExportLayout::SentenceTransformers => {
                return Err(Error::OwnEncoder { name, option: "export_layout", hint: "leave it out" });
            }
            None if options.export_onnx => pretrained.check_onnx(&settings, &head, options.export_dtype)?,
            _ => {}
        }
        Ok(Self { encoder, pretrained, settings, tokenizer, head })
    }

    /// The peak learning rate, and the reason where it is automatic.
    pub(crate) fn learning_rate(&self, options: &Options) -> (f64, Option<&'static str>) {
        match options.train.learning_rate {
            Some(rate) => (rate, None),
            None => {
                let is_trained = self.encoder.own_name().is_none() && self.pretrained.declared.dim.is_some();
                let (rate, reason) = automatic_learning_rate(is_trained);
                (rate, Some(reason))
            }
        }
    }

    pub(crate) fn model<B: KernelAutodiffBackend>(
        &self,
        train: &TrainOptions,
        device: &B::Device,
    ) -> Result<StartModel<E, B>, Error> {
        Ok(self.encoder.model::<B>(&self.pretrained, &self.settings, train, device)?)
    }

    /// Reads a model directory that the run has written.
    pub(crate) fn written<B: KernelAutodiffBackend>(
        &self,
        train: &TrainOptions,
        directory: &Path,
        device: &B::Device,
    ) -> Result<InnerModel<E, B>, Error> {
        Ok(self.encoder.written::<B>(&self.pretrained, &self.settings, train, directory, device)?)
    }

    /// The family of the encoder, if it is one that other programs may know.
    pub(crate) fn family(&self) -> Option<&EncoderConfig> {
        self.encoder.own_name().is_none().then_some(&self.pretrained.config)
    }

    /// Memory that training takes: of an encoder of another crate only what its parameters take is known.
    pub(crate) fn memory<B: KernelAutodiffBackend>(
        &self,
        model: &Colbert<B, E::Encoder<B>>,
        precision: Precision,
    ) -> TrainingMemory {
        match self.family() {
            Some(_) => self.known_memory(precision),
            None => {
                let parameters = 4 * model.num_params() as u64;
                TrainingMemory { parameters, per_token: 0, per_embedding: 0, largest: 0, row: 0 }
            }
        }
    }

    /// Memory that training takes with the encoder of the directory, in a precision of the backend.
    pub(crate) fn known_memory(&self, precision: Precision) -> TrainingMemory {
        let ColbertSettings { query_maxlen, doc_maxlen, dim, ref dims, .. } = self.settings;
        let (longest, halves) = (query_maxlen.max(doc_maxlen), precision == Precision::Bf16);
        let memory = TrainingMemory::of(&self.pretrained.config, &self.head, longest, halves);
        // Vectors that are cut to a size are copies of their own.
        let smaller: u64 = dims.iter().filter(|size| **size < dim).map(|size| *size as u64).sum();
        let per_embedding = memory.per_embedding + memory.per_embedding * smaller / dim.max(1) as u64;
        TrainingMemory { per_embedding, ..memory }
    }
}

/// Loads a directory and computes its self-check.
type Check<'a> = &'a dyn Fn(&Path) -> Result<SelfCheck, ModelError>;

/// Writes model directories during a run.
pub(crate) struct ModelWriter<'a, E> {
    pub(crate) options: &'a Options,
    pub(crate) start: &'a Start<'a, E>,
    pub(crate) plan: &'a Plan,
    pub(crate) card: ModelCard<'a>,
}

impl<E: RunEncoder> ModelWriter<'_, E> {
    pub(crate) fn write<B: KernelAutodiffBackend>(
        &self,
        tensors: &[(String, HostTensor)],
        path: &Path,
        device: &B::Device,
    ) -> Result<(), TrainError> {
        let write = |directory: &Export<'_>, check: Check<'_>| directory.write_checked(path, true, check);
        Ok(self.with_export::<B>(tensors, device, write)?)
    }

    /// Writes the start into the output folder and removes it again, so that a model that cannot be written ends the
    /// run before its first step, and before an earlier run is replaced.
    ///
    /// # Errors
    /// The start cannot be written.
    pub(crate) fn rehearse<B: KernelAutodiffBackend>(
        &self,
        model: &Colbert<B, E::Encoder<B>>,
        device: &B::Device,
    ) -> Result<(), Error> {
        let folder = &self.options.output;
        let is_new = !folder.exists();
        fs::create_dir_all(folder).map_err(|source| Error::Io { action: "create", path: folder.clone(), source })?;
        let parameters = named_parameters::<B, _>(model).into_iter();
        let tensors: Vec<_> = parameters.map(|(name, tensor)| (model.tensor_name(&name), tensor)).collect();
        let path = folder.join("last");
        let rehearsed = self
            .with_export::<B>(&tensors, device, |directory, check| directory.rehearse(&path, check))
            .map_err(|source| Error::StartNotExportable { source });
        if rehearsed.is_err() && is_new {
            // The reason why the start cannot be written is the one to report.
            drop(fs::remove_dir(folder));
        }
        rehearsed
    }

    /// Calls `write` with everything that a model directory with these tensors is made of, and with its check.
    fn with_export<B: KernelAutodiffBackend>(
        &self,
        tensors: &[(String, HostTensor)],
        device: &B::Device,
        write: impl FnOnce(&Export<'_>, Check<'_>) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let Start { encoder, pretrained, settings, tokenizer, .. } = self.start;
        let train = &self.options.train;
        let metadata = ArtifactMetadata {
            query_token_id: settings.query_token_id.clone(),
            doc_token_id: settings.doc_token_id.clone(),
            ..ArtifactMetadata::from_training(train, self.plan, self.card.base)
        };
        let card = [("README.md", self.card.text(Standing::Underway))];
        let directory = Export {
            tensors,
            settings,
            files: &pretrained.files,
            metadata: &metadata,
            layout: self.options.export_layout,
            dtype: self.options.export_dtype,
            onnx: self.options.export_onnx,
            own_encoder: encoder.own_name(),
            extra: &card,
        };
        let check = |written: &Path| encoder.self_check::<B>(pretrained, settings, train, tokenizer, written, device);
        write(&directory, &check)
    }
}

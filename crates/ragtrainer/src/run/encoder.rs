//! The encoder of a run: that of the directory that training starts from, or one of another crate.

use std::path::Path;

use burn::module::AutodiffModule;
use colbert_config::TrainOptions;
use colbert_kernels::KernelAutodiffBackend;
use colbert_model::{
    Colbert, ColbertSettings, ColbertTokenizer, HeadConfig, LoadReport, ModelError, Pretrained, PretrainedEncoder,
    SelfCheck, load_parameters, parameter_names,
};
use colbert_train::TrainableEncoder;

/// An encoder of another crate, for [`RagTrainer::with_encoder`](crate::RagTrainer::with_encoder).
///
/// The directory that training starts from gives tokenizer, markers and the longest length; its weights are there for
/// [`EncoderBuilder::build`] to use or to leave. The head is a new one of one matrix. Dropout is the encoder's own
/// affair: `train.dropout` is refused. The directories that the run writes name the encoder as their `model_type`, so
/// that no program takes them for another; [`load_parameters`] reads them back.
pub trait EncoderBuilder: Send + Sync {
    /// The encoder on a backend.
    type Encoder<B: KernelAutodiffBackend>: TrainableEncoder<B>;

    /// Builds the encoder. New parameters come from burn's generator, which `train.seed` has seeded, so that a run
    /// starts from the same ones each time.
    ///
    /// # Errors
    /// A file or a tensor that the encoder needs and that cannot be used.
    fn build<B: KernelAutodiffBackend>(
        &self,
        start: &Pretrained,
        device: &B::Device,
    ) -> Result<Self::Encoder<B>, ModelError>;

    /// Returns the size of a hidden vector, by default that of the directory's encoder.
    fn hidden_size(&self, start: &Pretrained) -> usize {
        start.config.hidden_size()
    }

    /// Returns the name of the encoder, by default that of the type.
    fn name(&self) -> &'static str {
        let path = std::any::type_name::<Self>().split('<').next().unwrap_or_default();
        path.rsplit("::").next().unwrap_or_default()
    }
}

/// The encoder of the directory that training starts from.
#[derive(Debug, Clone, Copy, Default)]
pub struct DirectoryEncoder;

/// A model without gradients, with the encoder of a run.
pub(crate) type InnerModel<E, B> = Colbert<
    <B as burn::tensor::backend::AutodiffBackend>::InnerBackend,
    <<E as RunEncoder>::Encoder<B> as AutodiffModule<B>>::InnerModule,
>;

/// The model that training starts from, and where its tensors came from.
pub(crate) type StartModel<E, B> = (Colbert<B, <E as RunEncoder>::Encoder<B>>, LoadReport);

/// An encoder that a run can have: [`DirectoryEncoder`], or any [`EncoderBuilder`].
pub trait RunEncoder {
    /// The encoder on a backend.
    type Encoder<B: KernelAutodiffBackend>: TrainableEncoder<B>;

    /// Returns the name of an encoder of another crate.
    fn own_name(&self) -> Option<&'static str>;

    /// Returns the head of the model.
    ///
    /// # Errors
    /// Settings that the directory's head does not have.
    fn head(&self, start: &Pretrained, settings: &ColbertSettings) -> Result<HeadConfig, ModelError>;

    /// Builds the model that training starts from.
    ///
    /// # Errors
    /// A tensor that cannot be used.
    fn model<B: KernelAutodiffBackend>(
        &self,
        start: &Pretrained,
        settings: &ColbertSettings,
        options: &TrainOptions,
        device: &B::Device,
    ) -> Result<StartModel<Self, B>, ModelError>
    where
        Self: Sized;

    /// Reads a directory that the run has written.
    ///
    /// # Errors
    /// A tensor that is missing or cannot be used.
    fn written<B: KernelAutodiffBackend>(
        &self,
        start: &Pretrained,
        settings: &ColbertSettings,
        options: &TrainOptions,
        directory: &Path,
        device: &B::Device,
    ) -> Result<InnerModel<Self, B>, ModelError>
    where
        Self: Sized;

    /// Computes the self-check of a directory that is being written.
    ///
    /// # Errors
    /// A directory that cannot be loaded, or vectors that are not finite.
    fn self_check<B: KernelAutodiffBackend>(
        &self,
        start: &Pretrained,
        settings: &ColbertSettings,
        options: &TrainOptions,
        tokenizer: &ColbertTokenizer,
        directory: &Path,
        device: &B::Device,
    ) -> Result<SelfCheck, ModelError>
    where
        Self: Sized,
    {
        let model = self.written::<B>(start, settings, options, directory, device)?;
        SelfCheck::of(&model, tokenizer, directory, device)
    }
}

impl RunEncoder for DirectoryEncoder {
    type Encoder<B: KernelAutodiffBackend> = PretrainedEncoder<B>;

    fn own_name(&self) -> Option<&'static str> {
        None
    }

    fn head(&self, start: &Pretrained, settings: &ColbertSettings) -> Result<HeadConfig, ModelError> {
        start.head(settings)
    }

    fn model<B: KernelAutodiffBackend>(
        &self,
        start: &Pretrained,
        settings: &ColbertSettings,
        options: &TrainOptions,
        device: &B::Device,
    ) -> Result<(Colbert<B, PretrainedEncoder<B>>, LoadReport), ModelError> {
        start.model::<B>(settings, options.dropout, options.seed, device)
    }

    fn written<B: KernelAutodiffBackend>(
        &self,
        _: &Pretrained,
        settings: &ColbertSettings,
        options: &TrainOptions,
        directory: &Path,
        device: &B::Device,
    ) -> Result<InnerModel<Self, B>, ModelError> {
        Ok(Pretrained::read(directory)?.model::<B::InnerBackend>(settings, None, options.seed, device)?.0)
    }

    /// Loads the directory as any other program would, with the settings that it declares.
    fn self_check<B: KernelAutodiffBackend>(
        &self,
        _: &Pretrained,
        _: &ColbertSettings,
        _: &TrainOptions,
        _: &ColbertTokenizer,
        directory: &Path,
        device: &B::Device,
    ) -> Result<SelfCheck, ModelError> {
        SelfCheck::compute::<B::InnerBackend>(directory, device)
    }
}

impl<T: EncoderBuilder> RunEncoder for T {
    type Encoder<B: KernelAutodiffBackend> = T::Encoder<B>;

    fn own_name(&self) -> Option<&'static str> {
        Some(self.name())
    }

    fn head(&self, start: &Pretrained, settings: &ColbertSettings) -> Result<HeadConfig, ModelError> {
        start.new_head(self.hidden_size(start), settings)
    }

    fn model<B: KernelAutodiffBackend>(
        &self,
        start: &Pretrained,
        settings: &ColbertSettings,
        options: &TrainOptions,
        device: &B::Device,
    ) -> Result<(Colbert<B, T::Encoder<B>>, LoadReport), ModelError> {
        B::seed(device, options.seed);
        let encoder = self.build::<B>(start, device)?;
        let model = start.model_with(encoder, settings, options.seed, device)?;
        let names = parameter_names(&model);
        let initialised = names.iter().map(|name| model.tensor_name(name)).collect();
        Ok((model, LoadReport { taken: 0, initialised, ignored: Vec::new() }))
    }

    fn written<B: KernelAutodiffBackend>(
        &self,
        start: &Pretrained,
        settings: &ColbertSettings,
        options: &TrainOptions,
        directory: &Path,
        device: &B::Device,
    ) -> Result<InnerModel<Self, B>, ModelError> {
        load_parameters(self.model::<B>(start, settings, options, device)?.0.valid(), directory)
    }
}

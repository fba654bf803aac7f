//! The first weights of a new head, from the encoder's token vectors on training texts.

use burn::module::AutodiffModule;
use colbert_config::{HeadInit, TrainOptions};
use colbert_data::TrainingSet;
use colbert_kernels::KernelAutodiffBackend;
use colbert_model::{EncodeOptions, Encoder, EncoderInput, HostTensor, SecondMoment};
use colbert_train::on_device;

use crate::backend::{Backend, Job};
use crate::error::Error;
use crate::run::base_model::Start;
use crate::run::encoder::RunEncoder;

/// Examples whose query and first document are encoded: with passages of 100 tokens, 30,000 vectors, for a matrix of
/// which base encoders have 768 columns.
const EXAMPLES: usize = 256;

/// Texts that are encoded at a time.
const AT_ONCE: usize = 16;

impl<E: RunEncoder> Start<'_, E> {
    /// Computes the first weights of the head, if options ask for that.
    ///
    /// # Errors
    /// The encoder or a text cannot be used, or the device fails.
    pub(crate) fn fit_head(&mut self, train: &TrainOptions, backend: Backend, set: &TrainingSet) -> Result<(), Error> {
        if train.head_init == HeadInit::Pca {
            let matrix = backend.run(FitHead { start: self, train, set })?;
            self.pretrained.set_new_head(matrix);
        }
        Ok(())
    }
}

struct FitHead<'a, E> {
    start: &'a Start<'a, E>,
    train: &'a TrainOptions,
    set: &'a TrainingSet,
}

impl<E: RunEncoder> Job for FitHead<'_, E> {
    type Output = Result<HostTensor, Error>;

    fn run<B: KernelAutodiffBackend>(self, device: &B::Device) -> Self::Output {
        let Self { start, train, set } = self;
        let components = || -> Result<HostTensor, Error> {
            let encoder = start.model::<B>(train, device)?.0.valid().encoder;
            let mut moment = SecondMoment::new(encoder.hidden_size());
            let examples = &set.examples;
            let count = examples.len().min(EXAMPLES);
            let chosen: Vec<usize> = (0..count).map(|place| place * examples.len() / count).collect();
            for places in chosen.chunks(AT_ONCE / 2) {
                let chosen = places.iter().map(|place| &examples[*place]);
                let queries: Vec<&str> = chosen.clone().map(|example| set.queries.text(example.query)).collect();
                let documents: Vec<&str> = chosen.map(|example| set.collection.text(example.documents[0])).collect();
                let mut sequences = start.tokenizer.queries(&queries)?;
                sequences.extend(start.tokenizer.documents(&documents)?);
                let input = EncoderInput::new(&sequences, EncodeOptions::default());
                moment.add(encoder.forward(&input, device));
            }
            Ok(moment.components(start.settings.dim))
        };
        on_device::<B, _>("the first weights of the head", components)?
    }
}

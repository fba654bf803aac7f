//! From options to a miner.

use std::path::Path;
use std::sync::Arc;

use burn::module::AutodiffModule;
use colbert_config::{Miner, Options, reference_miner_model};
use colbert_data::{Bm25Miner, NegativeMiner, Remining, TrainingSet};
use colbert_kernels::KernelAutodiffBackend;
use colbert_model::{Colbert, ColbertSettings, ColbertTokenizer};
use colbert_train::mining::{DenseMiner, LateInteractionMiner, SharedMiner};
use colbert_train::{Processes, RefreshExamples, TrainError, TrainableEncoder};

use crate::backend::{Backend, Job};
use crate::error::Error;
use crate::run::encoder::RunEncoder;
use crate::run::sharing::Sharing;
use crate::source::{model_folder, read_start};

/// The miner that the options ask for; for late interaction with the weights that training starts from. Nothing if
/// negatives are drawn at random, or if none are added.
///
/// # Errors
/// A model that is not given or cannot be read.
pub(crate) fn miner<E: RunEncoder>(
    options: &Options,
    sharing: Sharing<'_, E>,
) -> Result<Option<Arc<dyn NegativeMiner>>, Error> {
    Ok(match options.negatives.miner {
        _ if !options.negatives.mines() => None,
        Miner::LateInteraction => {
            let candidates = candidates(options, sharing.processes)?;
            Some(sharing.backend(&options.backend)?.run(ByStart { options, candidates, sharing })?)
        }
        _ => Some(candidates(options, sharing.processes)?),
    })
}

/// The miner without the model that is trained: what late interaction rescores, or the whole of another miner.
fn candidates(options: &Options, processes: &Arc<dyn Processes>) -> Result<Arc<dyn NegativeMiner>, Error> {
    let negatives = &options.negatives;
    match (&negatives.miner_model, negatives.miner) {
        (Some(directory), Miner::Dense | Miner::LateInteraction) => {
            Backend::of_process(&options.backend, processes.local_rank())?.run(ByEncoder {
                options,
                directory,
                processes,
            })
        }
        (None, Miner::Dense) => Err(Error::NoMinerModel {
            name: reference_miner_model(&options.language_code, negatives.hard_negative_model_size),
            language_code: options.language_code.clone(),
        }),
        _ => {
            let bm25 = Arc::new(Bm25Miner::new(&options.language_code));
            if processes.size() == 1 {
                return Ok(bm25);
            }
            Ok(Arc::new(SharedMiner::new(bm25, Arc::clone(processes))))
        }
    }
}

struct ByEncoder<'a> {
    options: &'a Options,
    directory: &'a Path,
    processes: &'a Arc<dyn Processes>,
}

impl Job for ByEncoder<'_> {
    type Output = Result<Arc<dyn NegativeMiner>, Error>;

    fn run<B: KernelAutodiffBackend>(self, device: &B::Device) -> Self::Output {
        let negatives = &self.options.negatives;
        let directory = model_folder(self.directory)?;
        let (query, document) = (negatives.miner_query_prefix.as_deref(), negatives.miner_document_prefix.as_deref());
        let miner = DenseMiner::<B::InnerBackend>::read(&directory, query, document, device)?;
        Ok(Arc::new(miner.with_processes(Arc::clone(self.processes))))
    }
}

struct ByStart<'a, E> {
    options: &'a Options,
    candidates: Arc<dyn NegativeMiner>,
    sharing: Sharing<'a, E>,
}

impl<E: RunEncoder> Job for ByStart<'_, E> {
    type Output = Result<Arc<dyn NegativeMiner>, Error>;

    fn run<B: KernelAutodiffBackend>(self, device: &B::Device) -> Self::Output {
        let Self { options, candidates, sharing: Sharing { encoder, processes } } = self;
        if options.pretrained_model_name.is_empty() {
            let hint = "negatives.miner = \"late_interaction\" ranks by the model that training starts from; name it with \
                        --pretrained-model-name";
            return Err(Error::NotSet { option: "pretrained_model_name", hint });
        }
        let pretrained = read_start(options)?;
        let declared = pretrained.declared_settings();
        let declared = declared.filter(|_| encoder.own_name().is_none());
        let dim = declared.map_or(options.train.dim, |declared| declared.dim);
        let settings = ColbertSettings { dim, ..pretrained.settings(&options.train) };
        let tokenizer = pretrained.tokenizer(&settings)?;
        let (model, _) = encoder.model::<B>(&pretrained, &settings, &options.train, device)?;
        let miner = LateInteractionMiner::new(model.valid(), tokenizer, candidates, device);
        Ok(Arc::new(miner.with_processes(Arc::clone(processes))))
    }
}

/// A choice of negatives at the start of every epoch but the first.
pub(crate) struct Refresher<'a, B: KernelAutodiffBackend> {
    remining: &'a Remining,
    set: &'a TrainingSet,
    /// None draws at random.
    candidates: Option<Arc<dyn NegativeMiner>>,
    by_late_interaction: bool,
    tokenizer: &'a ColbertTokenizer,
    device: &'a B::Device,
    processes: &'a Arc<dyn Processes>,
}

impl<'a, B: KernelAutodiffBackend> Refresher<'a, B> {
    /// Ranks with `own` if it is given, else with the miner that the options name.
    pub(crate) fn new(
        options: &Options,
        remining: &'a Remining,
        set: &'a TrainingSet,
        own: Option<&Arc<dyn NegativeMiner>>,
        tokenizer: &'a ColbertTokenizer,
        device: &'a B::Device,
        processes: &'a Arc<dyn Processes>,
    ) -> Result<Self, Error> {
        let mines = options.negatives.mines();
        let candidates = match own {
            _ if !mines => None,
            Some(own) => Some(Arc::clone(own)),
            None => Some(candidates(options, processes)?),
        };
        Ok(Self {
            remining,
            set,
            candidates,
            by_late_interaction: mines && own.is_none() && options.negatives.miner == Miner::LateInteraction,
            tokenizer,
            device,
            processes,
        })
    }
}

impl<B: KernelAutodiffBackend, E: TrainableEncoder<B>> RefreshExamples<B, E> for Refresher<'_, B> {
    fn examples(
        &mut self,
        model: Colbert<B::InnerBackend, E::InnerModule>,
        epoch: usize,
    ) -> Result<Vec<colbert_data::Example>, TrainError> {
        let miner: Option<Arc<dyn NegativeMiner>> = match &self.candidates {
            Some(candidates) if self.by_late_interaction => {
                let (tokenizer, candidates) = (self.tokenizer.clone(), Arc::clone(candidates));
                let miner = LateInteractionMiner::new(model, tokenizer, candidates, self.device);
                Some(Arc::new(miner.with_processes(Arc::clone(self.processes))))
            }
            other => other.clone(),
        };
        let (examples, _) = self.remining.examples(self.set, epoch, miner.as_deref(), &|_, _, _| ())?;
        Ok(examples)
    }
}

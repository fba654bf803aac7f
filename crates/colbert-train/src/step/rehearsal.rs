//! A rehearsal: a step that is computed only to measure its memory.

use colbert_config::{REFERENCE_LEARNING_RATE, TrainOptions};
use colbert_kernels::KernelAutodiffBackend;
use colbert_model::{Colbert, TokenSequence};

use crate::device::fault::guarded;
use crate::error::TrainError;
use crate::step::batch::{Batch, BatchPart};
use crate::step::objective::{Objective, Targets};
use crate::step::optimizer_step::Step;
use crate::step::trainable::TrainableEncoder;

/// An optimizer step on texts of the greatest length. It changes nothing: the model stays as it is, the optimizer is
/// its own, and dropout follows from a seed and not from earlier draws.
#[derive(Debug, Clone, Copy)]
pub struct Rehearsal<'a> {
    /// Lengths, documents per query, in-batch negatives; the precision is that of a plan.
    pub options: &'a TrainOptions,
    /// Queries of the step.
    pub queries: usize,
    /// Micro-batches of the step.
    pub accumsteps: usize,
}

impl Rehearsal<'_> {
    /// Computes the step.
    ///
    /// # Errors
    /// The device's memory does not suffice, or it failed otherwise.
    pub fn run<B: KernelAutodiffBackend, E: TrainableEncoder<B>>(
        self,
        model: &Colbert<B, E>,
        objective: &impl Objective,
        device: &B::Device,
    ) -> Result<(), TrainError> {
        let Self { options, queries, accumsteps } = self;
        let mut step = Step::of_options(options, options.precision, accumsteps, objective, device);
        let batch = self.batch(step.is_cached());
        let work = || {
            let gradient = step.gradient(model, &batch);
            let next = step.apply(model.clone(), gradient, REFERENCE_LEARNING_RATE);
            // Everything that the next step starts with is in memory, and any failure has shown.
            B::sync(device).map(|()| drop(next)).map_err(|error| error.to_string())
        };
        match guarded::<B, _>(work) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(said)) => Err(TrainError::Device { during: "a step before the first".to_owned(), said }),
            Err(fault) => Err(fault.in_step(0, queries, queries / accumsteps)),
        }
    }

    /// Makes a batch of token 0 throughout: the results are never used.
    fn batch(&self, whole: bool) -> Batch {
        let text = |length| TokenSequence { ids: vec![0; length], attended: length, scored: vec![true; length] };
        let nway = self.options.nway;
        let part = |queries: usize| BatchPart {
            queries: vec![text(self.options.query_maxlen); queries],
            documents: vec![text(self.options.doc_maxlen); queries * nway],
            targets: Targets {
                documents: (0..queries).map(|query| (query * nway..(query + 1) * nway).collect()).collect(),
                teacher: None,
                positives: (0..queries).map(|query| vec![query * nway]).collect(),
                block: None,
            },
        };
        let parts = if whole { 1 } else { self.accumsteps };
        Batch {
            step: 0,
            examples: Vec::new(),
            rows: Vec::new(),
            parts: (0..parts).map(|_| part(self.queries / parts)).collect(),
        }
    }
}

//! The loss of a run: the one that the options describe, or another crate's.

use burn::tensor::Tensor;
use colbert_data::Example;
use colbert_kernels::KernelBackend;
use colbert_model::Embeddings;
use colbert_train::{ColbertObjective, LearnedNumber, Loss, Objective, Targets, loss_over_sizes};

use crate::error::Error;

/// The loss of a run.
#[derive(Debug)]
pub(crate) enum RunObjective<'a, O> {
    /// colbert-ai's, as the options of training describe it.
    Configured(ColbertObjective),
    /// Another, by [`RagTrainer::with_objective`](crate::RagTrainer::with_objective).
    Own {
        /// The loss of one size of vectors.
        objective: &'a O,
        /// Sizes that it is summed over; none is the full size alone.
        dims: Vec<usize>,
    },
}

impl<O> RunObjective<'_, O> {
    /// Checks that the examples give the loss something to minimise.
    ///
    /// # Errors
    /// The weights of every part that the examples have are 0.
    pub(crate) fn check(&self, examples: &[Example]) -> Result<(), Error> {
        match self {
            Self::Configured(objective) if !objective.counts(examples) => Err(Error::NothingToMinimise {
                examples: examples.len(),
                scored: examples.iter().filter(|example| example.scores.is_some()).count(),
            }),
            _ => Ok(()),
        }
    }
}

impl<O: Objective> Objective for RunObjective<'_, O> {
    fn loss<B: KernelBackend>(&self, queries: &Embeddings<B>, documents: &Embeddings<B>, targets: &Targets) -> Loss<B> {
        match self {
            RunObjective::Configured(objective) => objective.loss(queries, documents, targets),
            RunObjective::Own { objective, dims } => {
                loss_over_sizes(dims, queries, documents, |q, d| objective.loss(q, d, targets))
            }
        }
    }

    fn couples_queries(&self) -> bool {
        match self {
            RunObjective::Configured(objective) => objective.couples_queries(),
            RunObjective::Own { objective, .. } => objective.couples_queries(),
        }
    }

    fn takes_blocks(&self) -> bool {
        match self {
            RunObjective::Configured(objective) => objective.takes_blocks(),
            RunObjective::Own { objective, .. } => objective.takes_blocks(),
        }
    }

    fn scorings(&self) -> usize {
        match self {
            RunObjective::Configured(objective) => objective.scorings(),
            RunObjective::Own { objective, dims } => objective.scorings() * dims.len().max(1),
        }
    }

    fn learned(&self) -> Vec<LearnedNumber> {
        match self {
            RunObjective::Configured(objective) => objective.learned(),
            RunObjective::Own { objective, .. } => objective.learned(),
        }
    }

    fn loss_with<B: KernelBackend>(
        &self,
        queries: &Embeddings<B>,
        documents: &Embeddings<B>,
        targets: &Targets,
        learned: &Tensor<B, 1>,
    ) -> Loss<B> {
        match self {
            RunObjective::Configured(objective) => objective.loss_with(queries, documents, targets, learned),
            RunObjective::Own { objective, dims } => {
                loss_over_sizes(dims, queries, documents, |q, d| objective.loss_with(q, d, targets, learned))
            }
        }
    }
}

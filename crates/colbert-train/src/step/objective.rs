//! The interface of losses over embeddings. [`ColbertObjective`](crate::ColbertObjective) is the one that options
//! describe.

use std::ops::Range;

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};
use colbert_kernels::KernelBackend;
use colbert_model::Embeddings;

use crate::step::own_rows::ints;

/// The targets of a batch: which documents belong to which query. Document numbers are places in the embeddings' list.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Targets {
    /// A row for each query: its own documents, positive first. Rows may differ in length.
    pub documents: Vec<Vec<usize>>,
    /// A row for each query: a teacher's score for each of its own documents; an empty row if there are none.
    pub teacher: Option<Vec<Vec<f32>>>,
    /// A row for each query: every document known to be relevant to it, its own positive included.
    pub positives: Vec<Vec<usize>>,
    /// Rows whose loss is requested: the embeddings of queries are those of these rows, the embeddings of documents
    /// those of all. None means all rows, and is the only value that an objective without [`Objective::takes_blocks`]
    /// receives.
    pub block: Option<Range<usize>>,
}

/// A loss and its parts. Every tensor has one element.
#[derive(Debug, Clone)]
pub struct Loss<B: Backend> {
    /// The number that is minimised, averaged over queries.
    pub total: Tensor<B, 1>,
    /// Named parts that add up to it.
    pub parts: Vec<(&'static str, Tensor<B, 1>)>,
    /// Mean score of the positives, without history.
    pub positive_score: Tensor<B, 1>,
    /// Mean score of the queries' own other documents, without history.
    pub negative_score: Tensor<B, 1>,
}

impl Targets {
    /// Returns the rows whose loss is requested.
    pub fn rows(&self) -> Range<usize> {
        self.block.clone().unwrap_or(0..self.documents.len())
    }

    /// Returns where each query's own documents are among those of the batch, positive first. A row that is shorter
    /// than the longest repeats its positive.
    ///
    /// # Shapes
    /// `[queries, nway]`.
    pub fn own<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2, Int> {
        let width = self.documents.iter().map(Vec::len).max().unwrap_or(0);
        let padded = self.documents.iter().flat_map(|own| (0..width).map(|place| *own.get(place).unwrap_or(&own[0])));
        Tensor::from_data(ints(&padded.collect::<Vec<_>>(), [self.documents.len(), width]), device)
    }

    /// Returns true for a document of the batch that is known to be relevant to a query, except its own positive: it is
    /// no negative of that query.
    ///
    /// # Shapes
    /// `[queries, documents]`.
    pub fn other_positives<B: Backend>(&self, documents: usize, device: &B::Device) -> Tensor<B, 2, Bool> {
        let queries = self.documents.iter().zip(&self.positives);
        let is_other = queries.flat_map(|(own, positives)| {
            (0..documents).map(move |document| document != own[0] && positives.contains(&document))
        });
        let is_other: Vec<bool> = is_other.collect();
        Tensor::from_data(TensorData::new(is_other, [self.documents.len(), documents]), device)
    }
}

impl<B: Backend> Loss<B> {
    /// Makes a loss of one part, with the mean scores of positives and of the queries' own other documents.
    ///
    /// # Shapes
    /// `total`: `[1]`; `scores`: `[queries, documents]`, as from MaxSim.
    pub fn new(name: &'static str, total: Tensor<B, 1>, scores: Tensor<B, 2>, targets: &Targets) -> Self {
        let own = targets.own::<B>(&scores.device());
        let [count, nway] = own.dims();
        let own = scores.detach().gather(1, own);
        Self {
            parts: vec![(name, total.clone())],
            total,
            positive_score: own.clone().slice([0..count, 0..1]).mean(),
            negative_score: own.slice([0..count, 1..nway]).mean(),
        }
    }
}

/// A number of a loss that is learned along with the weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearnedNumber {
    /// Its name in reports.
    pub name: &'static str,
    /// Its value before the first step.
    pub start: f64,
    /// The least and the largest value that it may take.
    pub bounds: [f64; 2],
}

/// A loss over the embeddings of a batch.
///
/// It must be a mean over queries, so that micro-batches can be averaged.
pub trait Objective: Send + Sync {
    /// Computes the loss of a batch. The method is generic, so that one objective serves every backend.
    ///
    /// # Shapes
    /// `queries`: one text per row of `targets`; `documents`: the texts that `targets.documents` counts.
    fn loss<B: KernelBackend>(&self, queries: &Embeddings<B>, documents: &Embeddings<B>, targets: &Targets) -> Loss<B>;

    /// Returns whether a query's loss depends on other queries' documents. If so, and the batch is split into
    /// micro-batches, embeddings and their gradients are cached so that the loss still sees the whole batch.
    fn couples_queries(&self) -> bool;

    /// Returns whether [`Objective::loss`] respects [`Targets::block`], so that a large batch never has all its scores
    /// in memory.
    fn takes_blocks(&self) -> bool {
        false
    }

    /// Returns how often the loss scores all queries with all documents: memory of a block is shared among them.
    fn scorings(&self) -> usize {
        1
    }

    /// Lists the numbers of the loss that are learned along with the weights.
    fn learned(&self) -> Vec<LearnedNumber> {
        Vec::new()
    }

    /// Computes the loss as [`Objective::loss`] does, with the learned numbers as they are at this step.
    ///
    /// # Shapes
    /// `learned`: `[numbers]`, in the order of [`Objective::learned`].
    fn loss_with<B: KernelBackend>(
        &self,
        queries: &Embeddings<B>,
        documents: &Embeddings<B>,
        targets: &Targets,
        _learned: &Tensor<B, 1>,
    ) -> Loss<B> {
        self.loss(queries, documents, targets)
    }
}

impl<O: Objective> Objective for &O {
    fn loss<B: KernelBackend>(&self, queries: &Embeddings<B>, documents: &Embeddings<B>, targets: &Targets) -> Loss<B> {
        (**self).loss(queries, documents, targets)
    }

    fn couples_queries(&self) -> bool {
        (**self).couples_queries()
    }

    fn takes_blocks(&self) -> bool {
        (**self).takes_blocks()
    }

    fn scorings(&self) -> usize {
        (**self).scorings()
    }

    fn learned(&self) -> Vec<LearnedNumber> {
        (**self).learned()
    }

    fn loss_with<B: KernelBackend>(
        &self,
        queries: &Embeddings<B>,
        documents: &Embeddings<B>,
        targets: &Targets,
        learned: &Tensor<B, 1>,
    ) -> Loss<B> {
        (**self).loss_with(queries, documents, targets, learned)
    }
}

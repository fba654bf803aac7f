//! Losses over embeddings.
//!
//! [`Objective`] is the seam for another loss; [`ColbertObjective`] is colbert-ai's: n-way cross-entropy or
//! distillation, plus in-batch negatives.

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};
use colbert_config::TrainOptions;
use colbert_kernels::KernelBackend;
use colbert_model::{Embeddings, maxsim};

/// Which documents belong to which query. Document numbers are places in the embeddings' list.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Targets {
    /// A row per query: its own documents, positive first; all rows equally long (nway).
    pub documents: Vec<Vec<usize>>,
    /// A row per query: a teacher's score for each of its own documents.
    pub teacher: Option<Vec<Vec<f32>>>,
    /// A row per query: every document known to be relevant to it, its own positive included.
    pub positives: Vec<Vec<usize>>,
}

/// A loss and what it is made of. Every tensor has one element.
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
    /// Where each query's own documents are among those of the batch, positive first.
    ///
    /// # Shapes
    /// `[queries, nway]`.
    pub fn own<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2, Int> {
        let shape = [self.documents.len(), self.documents.first().map_or(0, Vec::len)];
        Tensor::from_data(ints(&self.documents.concat(), shape), device)
    }

    /// True where a document of the batch is known to be relevant to a query, its own positive excepted: it is no
    /// negative of that query.
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
    /// A loss of one part, beside the mean scores of positives and of the queries' own other documents.
    ///
    /// # Shapes
    /// `total`: `[1]`; `scores`: `[queries, documents]`, as MaxSim gives them.
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

/// A loss over the embeddings of a batch.
///
/// It must be a mean over queries, so that micro-batches can be averaged.
pub trait Objective: Send + Sync {
    /// Computes the loss of a batch. The method is generic, so that one objective serves every backend.
    ///
    /// # Shapes
    /// `queries`: one text per row of `targets`; `documents`: the texts that `targets.documents` counts.
    fn loss<B: KernelBackend>(&self, queries: &Embeddings<B>, documents: &Embeddings<B>, targets: &Targets) -> Loss<B>;

    /// Whether a query's loss depends on other queries' documents. If so, and the batch is cut into micro-batches,
    /// embeddings and their gradients are cached so that the loss still sees the whole batch.
    fn couples_queries(&self) -> bool;
}

/// colbert-ai's loss (0.2.22, `training.py`, `colbert.py` `compute_ib_loss`).
///
/// With s the MaxSim scores of a query's own documents, positive first, and t the teacher's scores:
/// - labels: `-log softmax(s)[0]`;
/// - teacher: `sum softmax(alpha t) (log softmax(alpha t) - log softmax(s))`;
/// - in-batch: `-log softmax` of the positive among itself and all documents of all other queries.
///
/// First or second, plus the third if asked for, each a mean over queries.
#[derive(Debug, Clone, PartialEq)]
pub struct ColbertObjective {
    /// Add the in-batch loss.
    pub use_ib_negatives: bool,
    /// Leave a query's other known positives out of its in-batch negatives.
    pub ib_skip_known_positives: bool,
    /// Factor on teacher scores.
    pub distillation_alpha: f64,
    /// Use labels even where there are teacher scores.
    pub ignore_scores: bool,
}

impl From<&TrainOptions> for ColbertObjective {
    fn from(options: &TrainOptions) -> Self {
        Self {
            use_ib_negatives: options.use_ib_negatives,
            ib_skip_known_positives: options.ib_skip_known_positives,
            distillation_alpha: options.distillation_alpha,
            ignore_scores: options.ignore_scores,
        }
    }
}

impl<O: Objective> Objective for &O {
    fn loss<B: KernelBackend>(&self, queries: &Embeddings<B>, documents: &Embeddings<B>, targets: &Targets) -> Loss<B> {
        (**self).loss(queries, documents, targets)
    }

    fn couples_queries(&self) -> bool {
        (**self).couples_queries()
    }
}

impl Objective for ColbertObjective {
    fn loss<B: KernelBackend>(&self, queries: &Embeddings<B>, documents: &Embeddings<B>, targets: &Targets) -> Loss<B> {
        let scores = maxsim(queries, documents);
        let device = scores.device();
        let (count, nway) = (targets.documents.len(), targets.documents[0].len());
        let own = targets.documents.concat();
        // A document that stands in several places counts in each of them.
        let slots = scores.select(1, Tensor::<B, 1, Int>::from_data(ints(&own, [own.len()]), &device));
        let own_slots: Vec<usize> = (0..count * nway).collect();
        let own_scores = slots.clone().gather(1, Tensor::from_data(ints(&own_slots, [count, nway]), &device));

        let log_p = log_softmax(own_scores.clone(), 1);
        let first = match targets.teacher.as_ref().filter(|_| !self.ignore_scores) {
            None => ("cross_entropy", log_p.slice([0..count, 0..1]).mean().neg()),
            Some(teacher) => {
                let teacher = Tensor::<B, 2>::from_data(TensorData::new(teacher.concat(), [count, nway]), &device);
                let log_t = log_softmax(teacher.mul_scalar(self.distillation_alpha), 1);
                let divergence = (log_t.clone().exp() * (log_t - log_p)).sum();
                ("distillation", divergence.div_scalar(count as f64))
            }
        };
        let mut parts = vec![first];
        if self.use_ib_negatives {
            let left_out = self.left_out(targets, &device);
            let candidates = log_softmax(slots.mask_fill(left_out, f32::NEG_INFINITY), 1);
            let positive_slots: Vec<usize> = (0..count).map(|i| i * nway).collect();
            let positive = candidates.gather(1, Tensor::from_data(ints(&positive_slots, [count, 1]), &device));
            parts.push(("in_batch", positive.mean().neg()));
        }
        let total = parts.iter().map(|(_, part)| part.clone()).reduce(|a, b| a + b).expect("there is a first part");
        let own_scores = own_scores.detach();
        Loss {
            total,
            parts,
            positive_score: own_scores.clone().slice([0..count, 0..1]).mean(),
            negative_score: own_scores.slice([0..count, 1..nway]).mean(),
        }
    }

    fn couples_queries(&self) -> bool {
        self.use_ib_negatives
    }
}

impl ColbertObjective {
    /// True where a slot is no candidate for a query: `[queries, queries * nway]`.
    fn left_out<B: Backend>(&self, targets: &Targets, device: &B::Device) -> Tensor<B, 2, Bool> {
        let (count, nway) = (targets.documents.len(), targets.documents[0].len());
        let slots = targets.documents.concat();
        let mut left_out = vec![false; count * slots.len()];
        for query in 0..count {
            for (slot, document) in slots.iter().enumerate() {
                let own_positive = slot == query * nway;
                let own_negative = slot / nway == query && !own_positive;
                let known = self.ib_skip_known_positives && targets.positives[query].contains(document);
                left_out[query * slots.len() + slot] = own_negative || (known && !own_positive);
            }
        }
        Tensor::from_data(TensorData::new(left_out, [count, slots.len()]), device)
    }
}

fn ints<const D: usize>(values: &[usize], shape: [usize; D]) -> TensorData {
    TensorData::new(values.iter().map(|v| *v as i32).collect::<Vec<_>>(), shape)
}

//! MaxSim (Khattab and Zaharia 2020, section 3.3) of every query with every document, both packed.

use std::sync::Arc;

use burn::backend::Autodiff;
use burn::tensor::ops::{FloatTensor, IntTensor};
use burn::tensor::{Bool, Int, Tensor, TensorData};
use burn_autodiff::NodeId;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};

use crate::backend::Kernels;
use crate::backend::differentiable::KernelBackend;
use crate::operators::node::record;
use crate::operators::primitive::{floats, indices, primitive, tensor};

/// The similarity of a document without a scored token. Value: colbert-ai `colbert_score_reduce`.
pub(crate) const NEVER: f32 = -9999.0;

/// Document places, padding included, whose similarities the composed version holds at once.
const COMPOSED_BLOCK: usize = 4096;

/// Packed texts: the place of each, and which of its tokens take part in MaxSim. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ScoredTexts {
    starts: Arc<[usize]>,
    scored: Arc<[bool]>,
}

impl ScoredTexts {
    /// Describes texts of these lengths, in tokens, one after the other; `scored` has a flag for every token, true if
    /// it takes part in MaxSim.
    ///
    /// # Panics
    /// If the lengths do not add up to the number of flags, or one is 0.
    pub fn new(lengths: &[usize], scored: impl Into<Arc<[bool]>>) -> Self {
        let scored = scored.into();
        let mut starts = vec![0];
        for (i, length) in lengths.iter().enumerate() {
            assert!(*length > 0, "text {i} has no tokens");
            starts.push(starts[i] + length);
        }
        assert_eq!(starts[lengths.len()], scored.len(), "tokens of the lengths, and flags");
        Self { starts: starts.into(), scored }
    }

    /// Joins several lists into one, in their order.
    pub fn concatenated(lists: &[Self]) -> Self {
        let lengths: Vec<usize> = lists.iter().flat_map(|list| (0..list.count()).map(|i| list.rows(i).len())).collect();
        let scored: Vec<bool> = lists.iter().flat_map(|list| list.scored.iter().copied()).collect();
        Self::new(&lengths, scored)
    }

    /// Returns the number of texts.
    pub fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// Returns the number of tokens of all texts together.
    pub fn tokens(&self) -> usize {
        self.scored.len()
    }

    /// Returns the rows of text `i`.
    pub fn rows(&self, i: usize) -> std::ops::Range<usize> {
        self.starts[i]..self.starts[i + 1]
    }

    /// Returns the rows of the tokens of text `i` that take part.
    pub fn scored_rows(&self, i: usize) -> impl Iterator<Item = usize> {
        self.rows(i).filter(|row| self.scored[*row])
    }
}

/// Scores every query against every document: for each scored query token the largest product with a scored document
/// token, summed. Of equal products the first counts. A document without a scored token gets -9999 for each query
/// token, and no gradient.
///
/// # Shapes
/// - queries, documents: `[tokens, dim]`
/// - output: `[queries, docs]`
///
/// # Panics
/// If the tensors do not have the texts' tokens, or differ in `dim`.
pub fn maxsim<B: KernelBackend>(
    queries: Tensor<B, 2>,
    query_texts: &ScoredTexts,
    documents: Tensor<B, 2>,
    document_texts: &ScoredTexts,
) -> Tensor<B, 2> {
    assert_eq!(queries.dims(), [query_texts.tokens(), documents.dims()[1]], "tokens and dim of the queries");
    assert_eq!(documents.dims()[0], document_texts.tokens(), "tokens of the documents");
    let texts = [query_texts.clone(), document_texts.clone()];
    tensor(B::kernel_maxsim(primitive(queries), primitive(documents), texts))
}

/// A run of documents, padded to the longest of them.
struct Block<B: Kernels> {
    documents: std::ops::Range<usize>,
    length: usize,
    /// Row of each padded place; padding repeats the document's first.
    rows: Tensor<B, 1, Int>,
    /// True if a place takes no part, `[1, docs, length]`.
    hidden: Tensor<B, 3, Bool>,
    /// First row of each document, `[1, docs]`.
    starts: Tensor<B, 2, Int>,
    /// 1 where a document has a scored token, `[1, docs]`.
    alive: Tensor<B, 2>,
}

fn blocks<B: Kernels>(texts: &ScoredTexts, device: &B::Device) -> Vec<Block<B>> {
    let mut found = Vec::new();
    let mut start = 0;
    while start < texts.count() {
        let (mut end, mut length) = (start, 0);
        while end < texts.count() {
            let longer = length.max(texts.rows(end).len());
            if end > start && longer * (end + 1 - start) > COMPOSED_BLOCK {
                break;
            }
            (end, length) = (end + 1, longer);
        }
        let count = end - start;
        let mut rows = Vec::with_capacity(count * length);
        let mut hidden = Vec::with_capacity(count * length);
        for own in (start..end).map(|i| texts.rows(i)) {
            rows.extend((0..length).map(|p| own.start + if p < own.len() { p } else { 0 }));
            hidden.extend((0..length).map(|p| p >= own.len() || !texts.scored[own.start + p]));
        }
        let alive = (start..end).map(|i| f32::from(u8::from(texts.scored_rows(i).next().is_some()))).collect();
        found.push(Block {
            documents: start..end,
            length,
            rows: indices::<B>(rows.into_iter(), device),
            hidden: Tensor::from_data(TensorData::new(hidden, [1, count, length]), device),
            starts: indices::<B>((start..end).map(|i| texts.rows(i).start), device).unsqueeze(),
            alive: floats(alive, [1, count], device),
        });
        start = end;
    }
    found
}

/// Makes a matrix `[queries, query tokens]` that sums the scored tokens of each query.
fn sums<B: Kernels>(texts: &ScoredTexts, device: &B::Device) -> Tensor<B, 2> {
    let mut ones = vec![0.0; texts.count() * texts.tokens()];
    for i in 0..texts.count() {
        for row in texts.scored_rows(i) {
            ones[i * texts.tokens() + row] = 1.0;
        }
    }
    floats(ones, [texts.count(), texts.tokens()], device)
}

pub(crate) fn composed<B: Kernels>(
    queries: FloatTensor<B>,
    documents: FloatTensor<B>,
    [query_texts, document_texts]: &[ScoredTexts; 2],
) -> (FloatTensor<B>, IntTensor<B>) {
    let (queries, documents) = (tensor::<B, 2>(queries), tensor::<B, 2>(documents));
    let device = queries.device();
    let tokens = queries.dims()[0];
    let (mut best, mut winners) = (Vec::new(), Vec::new());
    for block in blocks::<B>(document_texts, &device) {
        let (count, length) = (block.documents.len(), block.length);
        let products = B::float32_product(queries.clone(), documents.clone().select(0, block.rows).transpose());
        let products = products.reshape([tokens, count, length]);
        let products = products.mask_fill(block.hidden.expand([tokens, count, length]), NEVER);
        let (most, place) = products.max_dim_with_indices(2);
        best.push(most.reshape([tokens, count]));
        winners.push(place.reshape([tokens, count]) + block.starts);
    }
    // A matmul with ones, as scores are sums over a query's few dozen tokens.
    let scores = B::float32_product(sums::<B>(query_texts, &device), Tensor::cat(best, 1));
    (primitive(scores), Tensor::cat(winners, 1).into_primitive())
}

pub(crate) fn composed_gradient<B: Kernels>(
    queries: FloatTensor<B>,
    documents: FloatTensor<B>,
    winners: IntTensor<B>,
    gradient: FloatTensor<B>,
    [query_texts, document_texts]: &[ScoredTexts; 2],
) -> [FloatTensor<B>; 2] {
    let (queries, documents) = (tensor::<B, 2>(queries), tensor::<B, 2>(documents));
    let winners = Tensor::<B, 2, Int>::new(winners);
    let device = queries.device();
    let tokens = queries.dims()[0];
    // Of the product of a query token and the winner of a document, `[query tokens, docs]`.
    let of_best = B::float32_product(sums::<B>(query_texts, &device).transpose(), tensor::<B, 2>(gradient));
    let mut of_queries = queries.zeros_like();
    let mut of_documents = Vec::new();
    for block in blocks::<B>(document_texts, &device) {
        let rows = document_texts.rows(block.documents.start).start..document_texts.rows(block.documents.end - 1).end;
        let own = documents.clone().slice([rows.clone()]);
        let of_best = of_best.clone().slice([0..tokens, block.documents.clone()]) * block.alive;
        let places = winners.clone().slice([0..tokens, block.documents.clone()]) - rows.start as i32;
        let of_products = Tensor::<B, 2>::zeros([tokens, rows.len()], &device).scatter(
            1,
            places,
            of_best,
            burn::tensor::IndexingUpdateOp::Add,
        );
        of_queries = of_queries + B::float32_product(of_products.clone(), own);
        of_documents.push(B::float32_product(of_products.transpose(), queries.clone()));
    }
    [primitive(of_queries), primitive(Tensor::cat(of_documents, 0))]
}

#[derive(Debug)]
struct Node;

/// The state that the backward pass needs.
#[derive(Debug, Clone)]
struct State<T, I> {
    queries: T,
    documents: T,
    winners: I,
    texts: [ScoredTexts; 2],
}

impl<B: Kernels> Backward<B, 2> for Node {
    type State = State<FloatTensor<B>, IntTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let State { queries, documents, winners, texts } = ops.state;
        let found = B::maxsim_gradient(queries, documents, winners, gradient, &texts);
        let nodes: [Option<NodeId>; 2] = ops.parents.map(|parent| parent.map(|node| node.id));
        for (node, found) in nodes.into_iter().zip(found) {
            if let Some(node) = node {
                gradients.register::<B>(node, found);
            }
        }
    }
}

pub(crate) fn differentiable<B: Kernels, C: CheckpointStrategy>(
    queries: FloatTensor<Autodiff<B, C>>,
    documents: FloatTensor<Autodiff<B, C>>,
    texts: [ScoredTexts; 2],
) -> FloatTensor<Autodiff<B, C>> {
    let (q, d) = (queries.primitive.clone(), documents.primitive.clone());
    let (scores, winners) = B::maxsim_forward(q.clone(), d.clone(), &texts);
    let state = State { queries: q, documents: d, winners, texts };
    record::<_, B, C, 2>(Node, [&queries, &documents], scores, state)
}

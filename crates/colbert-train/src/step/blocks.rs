//! A loss over a large batch, a block of queries at a time, so that its scores are never all in memory.

use std::ops::Range;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::{KernelAutodiffBackend, Kernels};
use colbert_model::{Embeddings, TokenSequence, scored_texts};

use crate::processes::Processes;
use crate::processes::exchange::{any, gather_tensors};
use crate::step::batch::BatchPart;
use crate::step::batch_loss::{BatchLoss, ScaledLoss, gather_learned, host_gradient};
use crate::step::device_sum::List;
use crate::step::objective::{Objective, Targets};
use crate::step::sum_of_pieces::SumOfPieces;

/// Winners of MaxSim that are held at once, a number for each query token and document: 256 MB. A batch of 1,024
/// queries of 32 tokens against 2,048 documents has exactly as many.
pub(crate) const MOST_WINNERS: usize = 1 << 26;

/// The gradient of a loss on embeddings, `[tokens, dim]` each, and on the learned numbers, on the host.
pub(crate) struct OnEmbeddings<B: KernelAutodiffBackend> {
    pub(crate) queries: Tensor<B::InnerBackend, 2>,
    pub(crate) documents: Tensor<B::InnerBackend, 2>,
    pub(crate) learned: Vec<f32>,
}

/// Number of queries from which the loss of a batch in pieces is computed for one piece's queries at a time: scores
/// grow with the square of the batch, so processes should share them. (With 256 queries of 32 tokens and two documents
/// of 200 each, computing all scores of a batch is a thirtieth of the work of encoding it with MiniLM-L6, and a fourth
/// of each process's share of that work if there are eight.)
const SPLIT_FROM: usize = 256;

/// Returns the number of queries in a block: as many as keep its winners below a number, one at least; all if they all
/// fit and are few. The number of processes does not matter, so that blocks, and with them the order of sums, do not
/// depend on it.
pub(crate) fn queries_at_once(part: &BatchPart, most_winners: usize, pieces: usize) -> usize {
    let longest = part.queries.iter().map(TokenSequence::len).max().unwrap_or(1);
    let each = longest.saturating_mul(part.documents.len()).max(1);
    let queries = part.queries.len().max(1);
    let most = if queries < SPLIT_FROM { queries } else { queries.div_ceil(pieces) };
    (most_winners / each).clamp(1, most)
}

/// Computes the loss of a batch and its gradient on the embeddings, `at_once` queries at a time. Both are those of the
/// whole batch except for the order of sums. Each process computes every `size`-th block.
pub(crate) fn loss_by_blocks<B: KernelAutodiffBackend>(
    objective: &impl Objective,
    part: &BatchPart,
    embeddings: [Embeddings<B::InnerBackend>; 2],
    scale: ScaledLoss<'_, B>,
    at_once: usize,
    processes: &dyn Processes,
) -> (BatchLoss, OnEmbeddings<B>) {
    let count = part.queries.len();
    let blocks: Vec<Range<usize>> =
        (0..count).step_by(at_once).map(|start| start..(start + at_once).min(count)).collect();
    let mut loss: Option<BatchLoss> = None;
    let mut of_queries = Vec::new();
    let mut of_documents = DocumentSum::new(processes, scale.device);
    let mut of_learned = vec![0.0; scale.learned.values().len()];
    for (first, round) in (0..).step_by(processes.size()).zip(blocks.chunks(processes.size())) {
        let own = blocks.get(first + processes.rank());
        let own = own.map(|block| loss_of_block::<B>(objective, part, &embeddings, scale, block.clone()));
        let (values, [queries, documents], learned) = match own {
            Some(OfBlock { loss, queries, documents, learned }) => (Some(loss), [Some(queries), documents], learned),
            None => (None, [None, None], Vec::new()),
        };
        for (block, values) in round.iter().zip(BatchLoss::gathered(processes, values)) {
            let share = block.len() as f64 / count as f64;
            match &mut loss {
                None => loss = Some(values.scaled(share)),
                Some(loss) => loss.add(values, 1.0 / share),
            }
        }
        let tokens = |block: &Range<usize>| rows_of_texts(&embeddings[0], block.clone()).len();
        let mut rows: Vec<usize> = round.iter().map(tokens).collect();
        rows.resize(processes.size(), 0);
        of_queries.extend(gathered(processes, queries, &rows, scale.device));
        of_documents.add(documents, &embeddings[1].vectors);
        for learned in gather_learned(processes, &learned) {
            of_learned.iter_mut().zip(learned).for_each(|(sum, more): (&mut f32, f32)| *sum += more);
        }
    }
    let mut loss = loss.expect("a batch has a query");
    loss.part_losses = vec![loss.total];
    let documents = of_documents.finish(&embeddings[1].vectors);
    (loss, OnEmbeddings { queries: Tensor::cat(of_queries, 0), documents, learned: of_learned })
}

/// Gathers the gradients on queries that the processes computed in a round, `[tokens, dim]` each, by rank; `rows` says
/// how many tokens each has.
fn gathered<B: Kernels>(
    processes: &dyn Processes,
    own: Option<Tensor<B, 2>>,
    rows: &[usize],
    device: &B::Device,
) -> Vec<Tensor<B, 2>> {
    if processes.size() == 1 {
        return own.into_iter().collect();
    }
    gather_tensors(processes, own, rows, device).into_iter().flatten().collect()
}

/// The sum of gradients on the documents, `[tokens, dim]`, over blocks of queries in their order.
enum DocumentSum<'a, B: Kernels> {
    Alone(Option<Tensor<B, 2>>),
    Shared { sum: SumOfPieces<'a, B>, processes: &'a dyn Processes, is_there: bool },
}

impl<'a, B: Kernels> DocumentSum<'a, B> {
    fn new(processes: &'a dyn Processes, device: &B::Device) -> Self {
        match processes.size() {
            1 => Self::Alone(None),
            _ => Self::Shared { sum: SumOfPieces::new(processes, device), processes, is_there: false },
        }
    }

    /// Adds what this process has of a round; `documents` are the embeddings.
    fn add(&mut self, own: Option<Tensor<B, 2>>, documents: &Tensor<B, 2>) {
        match self {
            Self::Alone(sum) => {
                *sum = match (sum.take(), own) {
                    (Some(sum), Some(more)) => Some(sum + more),
                    (sum, more) => sum.or(more),
                };
            }
            Self::Shared { sum, is_there, .. } => {
                *is_there |= own.is_some();
                let length = documents.shape().num_elements();
                sum.add(0, vec![List { length, values: own.map(|own| own.reshape([length])) }]);
            }
        }
    }

    /// Returns the sum; zeros if no block had a gradient.
    fn finish(self, documents: &Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::Alone(sum) => sum.unwrap_or_else(|| documents.zeros_like()),
            Self::Shared { mut sum, processes, is_there } if any(processes, is_there) => {
                sum.take(0).swap_remove(0).reshape(documents.shape())
            }
            Self::Shared { .. } => documents.zeros_like(),
        }
    }
}

/// The loss of a block, and its gradient on the block's queries, on all documents, and on the learned numbers.
struct OfBlock<B: KernelAutodiffBackend> {
    loss: BatchLoss,
    queries: Tensor<B::InnerBackend, 2>,
    documents: Option<Tensor<B::InnerBackend, 2>>,
    learned: Vec<f32>,
}

fn loss_of_block<B: KernelAutodiffBackend>(
    objective: &impl Objective,
    part: &BatchPart,
    [queries, documents]: &[Embeddings<B::InnerBackend>; 2],
    scale: ScaledLoss<'_, B>,
    block: Range<usize>,
) -> OfBlock<B> {
    let share = block.len() as f64 / part.queries.len() as f64;
    let query_leaf = Embeddings::<B>::leaf(rows_of(queries, &part.queries, block.clone()));
    let document_leaf = Embeddings::<B>::leaf(documents.clone());
    let learned = scale.learned.leaf::<B>(scale.device);
    let targets = Targets { block: Some(block), ..part.targets.clone() };
    let own = objective.loss_with(&query_leaf, &document_leaf, &targets, &learned);
    let loss = BatchLoss::of(&own);
    let gradients = own.total.mul_scalar(scale.factor * share).backward();
    let zeros = || query_leaf.vectors.clone().inner().zeros_like();
    OfBlock {
        loss,
        queries: query_leaf.vectors.grad(&gradients).unwrap_or_else(zeros),
        documents: document_leaf.vectors.grad(&gradients),
        learned: host_gradient(learned.grad(&gradients), scale.learned.values().len()),
    }
}
/// Selects the embeddings of some of the texts.
fn rows_of<B: Backend>(all: &Embeddings<B>, texts: &[TokenSequence], block: Range<usize>) -> Embeddings<B> {
    let rows = rows_of_texts(all, block.clone());
    Embeddings { vectors: all.vectors.clone().slice([rows]), texts: scored_texts(&texts[block]) }
}

/// Returns the rows of some of the texts, one at least.
fn rows_of_texts<B: Backend>(all: &Embeddings<B>, block: Range<usize>) -> Range<usize> {
    all.texts.rows(block.start).start..all.texts.rows(block.end - 1).end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(queries: usize, query_length: usize, documents: usize) -> BatchPart {
        let text = |length| TokenSequence { ids: vec![0; length], attended: length, scored: vec![true; length] };
        BatchPart {
            queries: vec![text(query_length); queries],
            documents: vec![text(3); documents],
            targets: Targets::default(),
        }
    }

    #[test]
    fn a_large_batch_in_pieces_has_blocks_of_a_piece() {
        for (queries, pieces, expected) in [(255, 8, 255), (256, 8, 32), (256, 1, 256), (512, 4, 128), (1024, 64, 16)] {
            let at_once = queries_at_once(&part(queries, 32, 2 * queries), MOST_WINNERS, pieces);
            assert_eq!(at_once, expected, "{queries} in {pieces}");
        }
    }

    #[test]
    fn a_block_never_has_more_winners_than_allowed() {
        assert_eq!(queries_at_once(&part(1024, 32, 2048), MOST_WINNERS, 1), 1024, "at once, as without blocks");
        for (queries, documents) in [(2048, 4096), (16_384, 32_768), (16_384, 131_072)] {
            let at_once = queries_at_once(&part(queries, 32, documents), MOST_WINNERS, 1);
            assert!(at_once < queries && at_once * 32 * documents <= MOST_WINNERS, "{queries}: {at_once}");
            assert!((at_once + 1) * 32 * documents > MOST_WINNERS, "{queries}: {at_once} is not the most");
        }
        assert_eq!(queries_at_once(&part(4, 32, 2048), 10, 1), 1, "one query at least");
    }
}

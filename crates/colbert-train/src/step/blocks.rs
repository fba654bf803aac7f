//! A loss over a large batch, a block of queries at a time, so that its scores are never all in memory.

use std::ops::Range;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::{KernelAutodiffBackend, ScoredTexts};
use colbert_model::{Embeddings, TokenSequence};

use crate::step::batch::BatchPart;
use crate::step::gradients::{BatchLoss, LossScale};
use crate::step::objective::Objective;

/// Winners of MaxSim that are held at once, a number for each query token and document: 256 MB. A batch of 1,024 queries
/// of 32 tokens against 2,048 documents just has them.
pub(crate) const MOST_WINNERS: usize = 1 << 26;

/// The gradient of a loss on embeddings, `[tokens, dim]` each, and on the learned numbers.
pub(crate) struct OnEmbeddings<B: KernelAutodiffBackend> {
    pub(crate) queries: Tensor<B::InnerBackend, 2>,
    pub(crate) documents: Tensor<B::InnerBackend, 2>,
    pub(crate) learned: Option<Tensor<B::InnerBackend, 1>>,
}

/// Queries of a block: as many as keep its winners below a number, one at least; all if they all fit.
pub(crate) fn queries_at_once(part: &BatchPart, most_winners: usize) -> usize {
    let longest = part.queries.iter().map(TokenSequence::len).max().unwrap_or(1);
    let each = longest.saturating_mul(part.documents.len()).max(1);
    (most_winners / each).clamp(1, part.queries.len().max(1))
}

/// The loss of a batch and its gradient on the embeddings, `at_once` queries at a time. Both are those of the whole batch
/// but for the order of sums.
pub(crate) fn loss_by_blocks<B: KernelAutodiffBackend>(
    objective: &impl Objective,
    part: &BatchPart,
    [queries, documents]: [Embeddings<B::InnerBackend>; 2],
    scale: LossScale<'_, B>,
    at_once: usize,
) -> (BatchLoss, OnEmbeddings<B>) {
    let count = part.queries.len();
    let mut targets = part.targets.clone();
    let mut loss: Option<BatchLoss> = None;
    let mut of_queries = Vec::new();
    let mut of_documents: Option<Tensor<B::InnerBackend, 2>> = None;
    let mut of_learned: Option<Tensor<B::InnerBackend, 1>> = None;
    for start in (0..count).step_by(at_once) {
        let block = start..(start + at_once).min(count);
        let share = block.len() as f64 / count as f64;
        let query_leaf = Embeddings::<B>::leaf(rows_of(&queries, &part.queries, block.clone()));
        let document_leaf = Embeddings::<B>::leaf(documents.clone());
        let learned = scale.learned.leaf::<B>(scale.device);
        targets.block = Some(block);
        let own = objective.loss_with(&query_leaf, &document_leaf, &targets, &learned);
        let values = BatchLoss::of(&own);
        let gradients = own.total.mul_scalar(scale.factor * share).backward();
        match &mut loss {
            None => loss = Some(values.scaled(share)),
            Some(loss) => loss.add(values, 1.0 / share),
        }
        let zeros = || query_leaf.vectors.clone().inner().zeros_like();
        of_queries.push(query_leaf.vectors.grad(&gradients).unwrap_or_else(zeros));
        of_documents = sum(of_documents, document_leaf.vectors.grad(&gradients));
        of_learned = sum(of_learned, learned.grad(&gradients));
    }
    let mut loss = loss.expect("a batch has a query");
    loss.part_losses = vec![loss.total];
    let documents = of_documents.unwrap_or_else(|| documents.vectors.zeros_like());
    (loss, OnEmbeddings { queries: Tensor::cat(of_queries, 0), documents, learned: of_learned })
}

fn sum<B: Backend, const D: usize>(sum: Option<Tensor<B, D>>, more: Option<Tensor<B, D>>) -> Option<Tensor<B, D>> {
    match (sum, more) {
        (Some(sum), Some(more)) => Some(sum + more),
        (sum, more) => sum.or(more),
    }
}

/// The embeddings of some of the texts.
fn rows_of<B: Backend>(all: &Embeddings<B>, texts: &[TokenSequence], block: Range<usize>) -> Embeddings<B> {
    let rows = all.texts.rows(block.start).start..all.texts.rows(block.end - 1).end;
    let own = &texts[block];
    let lengths: Vec<usize> = own.iter().map(TokenSequence::len).collect();
    let scored: Vec<bool> = own.iter().flat_map(|text| text.scored.iter().copied()).collect();
    Embeddings { vectors: all.vectors.clone().slice([rows]), texts: ScoredTexts::new(&lengths, scored) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::objective::Targets;

    fn part(queries: usize, query_length: usize, documents: usize) -> BatchPart {
        let text = |length| TokenSequence { ids: vec![0; length], attended: length, scored: vec![true; length] };
        BatchPart {
            queries: vec![text(query_length); queries],
            documents: vec![text(3); documents],
            targets: Targets::default(),
        }
    }

    #[test]
    fn a_block_never_has_more_winners_than_allowed() {
        assert_eq!(queries_at_once(&part(1024, 32, 2048), MOST_WINNERS), 1024, "at once, as without blocks");
        for (queries, documents) in [(2048, 4096), (16_384, 32_768), (16_384, 131_072)] {
            let at_once = queries_at_once(&part(queries, 32, documents), MOST_WINNERS);
            assert!(at_once < queries && at_once * 32 * documents <= MOST_WINNERS, "{queries}: {at_once}");
            assert!((at_once + 1) * 32 * documents > MOST_WINNERS, "{queries}: {at_once} is not the most");
        }
        assert_eq!(queries_at_once(&part(4, 32, 2048), 10), 1, "one query at least");
    }
}

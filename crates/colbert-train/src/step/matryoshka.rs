//! A loss summed over sizes of vectors, so that their first numbers can be used alone.

use burn::tensor::backend::Backend;
use colbert_model::Embeddings;

use crate::step::objective::Loss;

/// Sums a loss over vectors of full size and over their first `dims` numbers, brought back to unit length. Each size
/// counts alike (Kusupati et al. 2022, arXiv 2205.13147; sentence-transformers 6.2, `MatryoshkaLoss`, default weights).
///
/// Parts of the loss are summed by name; the scores that are reported are those of full size.
///
/// # Shapes
/// - queries, documents: `[tokens, dim]` each
/// - output: `[1]` for every tensor of the loss
pub fn loss_over_sizes<B: Backend>(
    dims: &[usize],
    queries: &Embeddings<B>,
    documents: &Embeddings<B>,
    loss: impl Fn(&Embeddings<B>, &Embeddings<B>) -> Loss<B>,
) -> Loss<B> {
    let mut sum = loss(queries, documents);
    for dim in dims.iter().copied().filter(|dim| *dim < queries.dim()) {
        let own = loss(&queries.truncated(dim), &documents.truncated(dim));
        sum.total = sum.total + own.total;
        for (name, part) in own.parts {
            match sum.parts.iter_mut().find(|(known, _)| *known == name) {
                Some((_, all)) => *all = all.clone() + part,
                None => sum.parts.push((name, part)),
            }
        }
    }
    sum
}

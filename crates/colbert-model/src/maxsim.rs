//! MaxSim (Khattab and Zaharia 2020, section 3.3): for every query token its best document token, summed.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};

use crate::embeddings::{EmbeddingGroup, Embeddings};

/// Stands in for the similarity of a token that takes no part. Real similarities are cosines, in [-1, 1], so it can
/// never win while a document has one token that counts, and [CLS] always does. Value: colbert-ai `colbert_score_reduce`.
const NEVER: f64 = -9999.0;

/// Query rows scored at once, so that the similarity block stays small.
const QUERY_BLOCK: usize = 64;

/// Score of every query against every document.
///
/// # Shapes
/// - output: `[queries, docs]`, in the order of the texts that were encoded
///
/// # Panics
/// If there are no queries or no documents.
pub fn maxsim<B: Backend>(queries: &Embeddings<B>, documents: &Embeddings<B>) -> Tensor<B, 2> {
    let mut rows = Vec::new();
    for group in &queries.groups {
        let [count, query_len, dim] = group.vectors.dims();
        for start in (0..count).step_by(QUERY_BLOCK) {
            let end = (start + QUERY_BLOCK).min(count);
            let vectors = group.vectors.clone().slice([start..end, 0..query_len, 0..dim]);
            let columns = documents.groups.iter().map(|d| best_similarities(vectors.clone(), d)).collect();
            // [queries, query_len, docs]
            let mut best = Tensor::cat(columns, 2);
            if !group.all_scored {
                let counted = group.scored.clone().slice([start..end, 0..query_len]).float();
                best = best * counted.unsqueeze_dim::<3>(2);
            }
            rows.push(best.sum_dim(1).squeeze_dim::<2>(1));
        }
    }
    let members = |embeddings: &Embeddings<B>| -> Vec<usize> {
        embeddings.groups.iter().flat_map(|group| group.members.iter().copied()).collect()
    };
    let scores = Tensor::cat(rows, 0);
    let scores = in_order(scores, 0, &members(queries));
    in_order(scores, 1, &members(documents))
}

/// Best similarity of each query token in each document of a group: `[queries, query_len, docs]`.
fn best_similarities<B: Backend>(queries: Tensor<B, 3>, documents: &EmbeddingGroup<B>) -> Tensor<B, 3> {
    let [count, query_len, dim] = queries.dims();
    let [docs, doc_len, _] = documents.vectors.dims();
    let rows = queries.reshape([count * query_len, dim]);
    let tokens = documents.vectors.clone().reshape([docs * doc_len, dim]);
    let mut similarities = rows.matmul(tokens.transpose()).reshape([count * query_len, docs, doc_len]);
    if !documents.all_scored {
        let hidden = documents.scored.clone().bool_not().unsqueeze::<3>();
        similarities = similarities.mask_fill(hidden.expand([count * query_len, docs, doc_len]), NEVER);
    }
    similarities.max_dim(2).reshape([count, query_len, docs])
}

/// Undoes a grouping: row or column i of the result is the one whose member is i.
fn in_order<B: Backend>(scores: Tensor<B, 2>, axis: usize, members: &[usize]) -> Tensor<B, 2> {
    if members.iter().enumerate().all(|(i, &member)| i == member) {
        return scores;
    }
    let mut place = vec![0i32; members.len()];
    for (i, &member) in members.iter().enumerate() {
        place[member] = i as i32;
    }
    let device = scores.device();
    scores.select(axis, Tensor::<B, 1, Int>::from_data(TensorData::new(place, [members.len()]), &device))
}

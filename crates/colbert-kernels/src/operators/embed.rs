//! The sum of word, position and token type embeddings of packed tokens (Devlin et al. 2018, figure 2).

use std::sync::Arc;

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn::tensor::ops::FloatTensor;
use burn_autodiff::NodeId;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};

use crate::backend::Kernels;
use crate::backend::differentiable::KernelBackend;
use crate::operators::node::record;
use crate::operators::primitive::{indices, primitive, tensor};

/// Rows to look up for every token.
#[derive(Debug, Clone)]
pub struct TokenRows {
    /// Rows of the word table.
    pub ids: Arc<[u32]>,
    /// Rows of the position table, one for each token.
    pub positions: Arc<[u32]>,
}

/// Embedding tables, `[rows, size]` each, of one size.
#[derive(Debug, Clone)]
pub struct Tables<T> {
    /// A row for each word.
    pub word: T,
    /// A row for each position in a sequence, if positions have embeddings.
    pub position: Option<T>,
    /// A row for each token type, if there are any; every token is of type 0.
    pub token_type: Option<T>,
}

/// Sums the rows of the word, the position and the first token type. The last two are optional.
///
/// # Shapes
/// - word, position, token_type: `[rows, size]`
/// - output: `[tokens, size]`
///
/// # Panics
/// If the tables differ in size, ids and positions in number, or one of them has no row in its table.
pub fn embed<B: KernelBackend>(tables: Tables<Tensor<B, 2>>, rows: &TokenRows) -> Tensor<B, 2> {
    let [words, size] = tables.word.dims();
    let rows_of = |table: &Option<Tensor<B, 2>>| {
        table.as_ref().map(|table| {
            let [rows, own] = table.dims();
            assert_eq!(own, size, "embedding tables of one size");
            rows
        })
    };
    let (positions, types) = (rows_of(&tables.position), rows_of(&tables.token_type));
    assert_ne!(types, Some(0), "a token type 0");
    assert_eq!(rows.ids.len(), rows.positions.len(), "ids and positions");
    for (name, of, count) in [("id", &rows.ids, Some(words)), ("position", &rows.positions, positions)] {
        let most = of.iter().copied().max().unwrap_or(0);
        let fits = count.is_none_or(|count| of.is_empty() || (most as usize) < count);
        assert!(fits, "{name} {most} in a table of {count:?} rows");
    }
    let Tables { word, position, token_type } = tables;
    let tables =
        Tables { word: primitive(word), position: position.map(primitive), token_type: token_type.map(primitive) };
    tensor(B::kernel_embed(tables, rows.clone()))
}

pub(crate) fn composed<B: Kernels>(tables: Tables<FloatTensor<B>>, rows: &TokenRows) -> FloatTensor<B> {
    let word = tensor::<B, 2>(tables.word);
    let device = word.device();
    let select = |table: Tensor<B, 2>, of: &Arc<[u32]>| {
        table.select(0, indices::<B>(of.iter().map(|row| *row as usize), &device))
    };
    let position = tables.position.map(|table| select(tensor::<B, 2>(table), &rows.positions));
    let token_type = tables.token_type.map(|table| tensor::<B, 2>(table).narrow(0, 0, 1));
    let word = select(word, &rows.ids);
    primitive(match (position, token_type) {
        (Some(position), Some(token_type)) => word + (position + token_type),
        (Some(beside), None) | (None, Some(beside)) => word + beside,
        (None, None) => word,
    })
}

/// Computes the gradient of a table with `count` rows, from which those in `of` were looked up.
pub(crate) fn composed_gradient<B: Kernels>(gradient: FloatTensor<B>, of: &Arc<[u32]>, count: usize) -> FloatTensor<B> {
    let gradient = tensor::<B, 2>(gradient);
    let (device, size) = (gradient.device(), gradient.dims()[1]);
    let zeros = Tensor::<B, 2>::zeros([count, size], &device);
    let rows = indices::<B>(of.iter().map(|row| *row as usize), &device);
    primitive(zeros.select_assign(0, rows, gradient, burn::tensor::IndexingUpdateOp::Add))
}

#[derive(Debug)]
struct Node;

/// The state that the backward pass needs: the number of rows of each table, none without a table, and the ids.
#[derive(Debug, Clone)]
struct State {
    counts: [Option<usize>; 3],
    rows: TokenRows,
}

impl<B: Kernels> Backward<B, 3> for Node {
    type State = State;

    fn backward(self, ops: Ops<State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [word, position, token_type]: [Option<NodeId>; 3] = ops.parents.map(|parent| parent.map(|node| node.id));
        let State { counts, rows } = ops.state;
        if let (Some(node), Some(count)) = (word, counts[0]) {
            gradients.register::<B>(node, B::embed_gradient(gradient.clone(), &rows.ids, count));
        }
        if let (Some(node), Some(count)) = (position, counts[1]) {
            gradients.register::<B>(node, B::embed_gradient(gradient.clone(), &rows.positions, count));
        }
        if let (Some(node), Some(count)) = (token_type, counts[2]) {
            let first = tensor::<B, 1>(B::sum_rows(gradient)).unsqueeze::<2>();
            // CUDA refuses to fill a tensor without numbers.
            let whole = match count - 1 {
                0 => first,
                others => {
                    let rest = Tensor::zeros([others, first.dims()[1]], &first.device());
                    Tensor::cat(vec![first, rest], 0)
                }
            };
            gradients.register::<B>(node, primitive(whole));
        }
    }
}

pub(crate) fn differentiable<B: Kernels, C: CheckpointStrategy>(
    tables: Tables<FloatTensor<Autodiff<B, C>>>,
    rows: TokenRows,
) -> FloatTensor<Autodiff<B, C>> {
    let Tables { word, position, token_type } = tables;
    let inside = |table: &Option<FloatTensor<Autodiff<B, C>>>| table.as_ref().map(|table| table.primitive.clone());
    let inner = Tables { word: word.primitive.clone(), position: inside(&position), token_type: inside(&token_type) };
    let count = |table: FloatTensor<B>| tensor::<B, 2>(table).dims()[0];
    let counts = [Some(inner.word.clone()), inner.position.clone(), inner.token_type.clone()];
    let counts = counts.map(|table| table.map(count));
    let output = B::embed_forward(inner, &rows);
    // The word table takes the place of missing tables.
    let parents = [&word, position.as_ref().unwrap_or(&word), token_type.as_ref().unwrap_or(&word)];
    record::<_, B, C, 3>(Node, parents, output, State { counts, rows })
}

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

use crate::backend::{KernelBackend, Kernels};
use crate::operators::node::record;
use crate::operators::primitive::{indices, primitive, tensor};

/// Rows to look up for every token.
#[derive(Debug, Clone)]
pub struct TokenRows {
    /// Rows of the word table.
    pub ids: Arc<[u32]>,
    /// Rows of the position table, as many.
    pub positions: Arc<[u32]>,
}

/// Embedding tables, `[rows, size]` each, of one size.
#[derive(Debug, Clone)]
pub struct Tables<T> {
    /// A row for each word.
    pub word: T,
    /// A row for each position in a sequence.
    pub position: T,
    /// A row for each token type; every token is of type 0.
    pub token_type: T,
}

/// Word, position and first token type row, summed.
///
/// # Shapes
/// - word, position, token_type: `[rows, size]`
/// - output: `[tokens, size]`
///
/// # Panics
/// If the tables differ in size, ids and positions in number, or one of them has no row in its table.
pub fn embed<B: KernelBackend>(tables: Tables<Tensor<B, 2>>, rows: &TokenRows) -> Tensor<B, 2> {
    let ([words, size], [positions, p], [types, t]) =
        (tables.word.dims(), tables.position.dims(), tables.token_type.dims());
    assert!(p == size && t == size && types > 0, "embedding tables of one size, with a token type 0");
    assert_eq!(rows.ids.len(), rows.positions.len(), "ids and positions");
    for (name, of, count) in [("id", &rows.ids, words), ("position", &rows.positions, positions)] {
        let most = of.iter().copied().max().unwrap_or(0);
        assert!(of.is_empty() || (most as usize) < count, "{name} {most} in a table of {count} rows");
    }
    let Tables { word, position, token_type } = tables;
    let tables = Tables { word: primitive(word), position: primitive(position), token_type: primitive(token_type) };
    tensor(B::kernel_embed(tables, rows.clone()))
}

pub(crate) fn composed<B: Kernels>(tables: Tables<FloatTensor<B>>, rows: &TokenRows) -> FloatTensor<B> {
    let word = tensor::<B, 2>(tables.word);
    let device = word.device();
    let select = |table: Tensor<B, 2>, of: &Arc<[u32]>| {
        table.select(0, indices::<B>(of.iter().map(|row| *row as usize), &device))
    };
    let token_type = tensor::<B, 2>(tables.token_type).narrow(0, 0, 1);
    primitive(select(word, &rows.ids) + (select(tensor::<B, 2>(tables.position), &rows.positions) + token_type))
}

/// Gradient of a table of `count` rows, of which `of` were looked up.
pub(crate) fn composed_gradient<B: Kernels>(gradient: FloatTensor<B>, of: &Arc<[u32]>, count: usize) -> FloatTensor<B> {
    let gradient = tensor::<B, 2>(gradient);
    let (device, size) = (gradient.device(), gradient.dims()[1]);
    let zeros = Tensor::<B, 2>::zeros([count, size], &device);
    let rows = indices::<B>(of.iter().map(|row| *row as usize), &device);
    primitive(zeros.select_assign(0, rows, gradient, burn::tensor::IndexingUpdateOp::Add))
}

#[derive(Debug)]
struct Node;

/// The state that the backward pass needs: rows of each table, and the ids that were looked up.
#[derive(Debug, Clone)]
struct State {
    counts: [usize; 3],
    rows: TokenRows,
}

impl<B: Kernels> Backward<B, 3> for Node {
    type State = State;

    fn backward(self, ops: Ops<State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [word, position, token_type]: [Option<NodeId>; 3] = ops.parents.map(|parent| parent.map(|node| node.id));
        let State { counts, rows } = ops.state;
        if let Some(node) = word {
            gradients.register::<B>(node, B::embed_gradient(gradient.clone(), &rows.ids, counts[0]));
        }
        if let Some(node) = position {
            gradients.register::<B>(node, B::embed_gradient(gradient.clone(), &rows.positions, counts[1]));
        }
        if let Some(node) = token_type {
            let first = tensor::<B, 1>(B::sum_rows(gradient)).unsqueeze::<2>();
            let rest = Tensor::zeros([counts[2] - 1, first.dims()[1]], &first.device());
            let whole = if counts[2] == 1 { first } else { Tensor::cat(vec![first, rest], 0) };
            gradients.register::<B>(node, primitive(whole));
        }
    }
}

pub(crate) fn differentiable<B: Kernels, C: CheckpointStrategy>(
    tables: Tables<FloatTensor<Autodiff<B, C>>>,
    rows: TokenRows,
) -> FloatTensor<Autodiff<B, C>> {
    let Tables { word, position, token_type } = tables;
    let inner = Tables {
        word: word.primitive.clone(),
        position: position.primitive.clone(),
        token_type: token_type.primitive.clone(),
    };
    let counts = [&inner.word, &inner.position, &inner.token_type].map(|table| tensor::<B, 2>(table.clone()).dims()[0]);
    let output = B::embed_forward(inner, &rows);
    record::<_, B, C, 3>(Node, [&word, &position, &token_type], output, State { counts, rows })
}

//! Recording of an operator with its own backward pass in the autodiff graph.

use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::ops::{Backward, OpsKind};

/// Puts `output`, computed from `parents`, into the graph; `state` is what `node` needs to go back.
///
/// The state holds tensors themselves and is never recomputed, whatever the checkpoint strategy.
pub(crate) fn record<N, B, C, const P: usize>(
    node: N,
    parents: [&FloatTensor<Autodiff<B, C>>; P],
    output: FloatTensor<B>,
    state: N::State,
) -> FloatTensor<Autodiff<B, C>>
where
    N: Backward<B, P>,
    B: Backend,
    C: CheckpointStrategy,
{
    match node.prepare::<C>(parents.map(|parent| parent.node.clone())).compute_bound().stateful() {
        OpsKind::Tracked(preparation) => preparation.finish(state, output),
        OpsKind::UnTracked(preparation) => preparation.finish(output),
    }
}

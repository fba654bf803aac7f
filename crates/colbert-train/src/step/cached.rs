//! The gradient of a loss that spans a whole batch, with the history of only one piece of the batch in memory (Gao et
//! al. 2021, "GradCache"); each of several processes holds that of its own pieces.

use burn::module::AutodiffModule;
use burn::optim::GradientsParams;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use colbert_kernels::KernelAutodiffBackend;
use colbert_model::{Colbert, Embeddings, EncodeOptions, TokenSequence, scored_texts};

use crate::processes::Processes;
use crate::processes::exchange::gather_floats;
use crate::step::batch::BatchPart;
use crate::step::batch_loss::{BatchGradient, BatchLoss, GradientPlan, ScaledLoss, add_gradients, host_gradient};
use crate::step::blocks::{OnEmbeddings, loss_by_blocks, queries_at_once};
use crate::step::loss_scale::unscaled;
use crate::step::objective::Objective;
use crate::step::ordered_sum::{GradientSum, host_values};
use crate::step::trainable::TrainableEncoder;

/// Encodes in pieces without keeping their history, takes the loss and its gradient on the embeddings of all, then
/// encodes each piece again, with the same dropout, and carries that gradient on into the weights.
///
/// Of several processes each encodes its own pieces, all of them see the embeddings of all, and each carries the
/// gradient on through its own pieces. A process with one piece of queries and one of documents keeps their history and
/// encodes them once.
pub(crate) fn cached<B: KernelAutodiffBackend, E: TrainableEncoder<B>>(
    model: &Colbert<B, E>,
    part: &BatchPart,
    options: EncodeOptions,
    objective: &impl Objective,
    plan: GradientPlan,
    scale: ScaledLoss<'_, B>,
    processes: &dyn Processes,
) -> BatchGradient {
    let (rank, size, device) = (processes.rank(), processes.size(), scale.device);
    let [queries, documents] = [&part.queries, &part.documents].map(|texts| pieces(texts, plan.pieces));
    let all: Vec<&[TokenSequence]> = queries.iter().chain(&documents).copied().collect();
    let place = |first: usize, piece: usize| options.child((first + piece) as u64);
    let keeps = size > 1 && plan.pieces == size;
    // On the inner backend, as the history of a piece would stay in memory until the next backward pass.
    let plain = model.valid();
    let mut kept: Vec<Option<Tensor<B, 2>>> = vec![None; all.len()];
    let mut encode = |pieces: &[&[TokenSequence]], first: usize| -> Vec<Embeddings<B::InnerBackend>> {
        let own = (rank..pieces.len()).step_by(size).map(|piece| {
            if keeps {
                let with_history = model.encode_with(pieces[piece], place(first, piece), device).vectors;
                kept[first + piece] = Some(with_history.clone());
                return with_history.inner();
            }
            plain.encode_with(pieces[piece], place(first, piece), device).vectors
        });
        let own: Vec<_> = own.collect();
        let of_all = if size == 1 { own } else { shared(processes, own, pieces, device) };
        let embeddings = of_all.into_iter().zip(pieces);
        embeddings.map(|(vectors, piece)| Embeddings { vectors, texts: scored_texts(piece) }).collect()
    };
    let (of_queries, of_documents) = (encode(&queries, 0), encode(&documents, queries.len()));
    let at_once = queries_at_once(part, plan.most_winners / objective.scorings().max(1), plan.pieces);
    let (values, mut gradient, of_numbers) = if objective.takes_blocks() && at_once < part.queries.len() {
        let embeddings = [of_queries, of_documents].map(|pieces| Embeddings::concatenated(&pieces));
        let (values, OnEmbeddings { queries: of_queries, documents: of_documents, learned }) =
            loss_by_blocks::<B>(objective, part, embeddings, scale, at_once, processes);
        let mut cut = cut(of_queries, &queries);
        cut.extend(self::cut(of_documents, &documents));
        (values, cut, learned)
    } else {
        loss_at_once(objective, part, [of_queries, of_documents], scale)
    };
    let mut of_learned = vec![0.0; scale.learned.values().len()];
    add_gradients(&mut of_learned, &[of_numbers], scale.factor);

    let mut gradients = GradientSum::new(processes);
    for first in (0..all.len()).step_by(size) {
        let piece = first + rank;
        let own = gradient.get_mut(piece).and_then(Option::take).map(|gradient| {
            let again = kept[piece].take();
            let again = again.unwrap_or_else(|| model.encode_with(all[piece], place(0, piece), device).vectors);
            let surrogate = (again * Tensor::from_inner(gradient)).sum();
            GradientsParams::from_grads(surrogate.backward(), model)
        });
        gradients.add(model, own);
    }
    let parameters = unscaled(model, gradients.finish(model, device), scale.factor);
    BatchGradient { loss: values, parameters, learned: of_learned }
}

/// Gathers the vectors of all pieces from those of each process.
fn shared<B: Backend>(
    processes: &dyn Processes,
    own: Vec<Tensor<B, 2>>,
    pieces: &[&[TokenSequence]],
    device: &B::Device,
) -> Vec<Tensor<B, 2>> {
    let own: Vec<f32> = own.into_iter().flat_map(host_values).collect();
    let gathered = gather_floats(processes, &own);
    let rows = |piece: &[TokenSequence]| piece.iter().map(TokenSequence::len).sum::<usize>();
    let dim = gathered.iter().map(Vec::len).sum::<usize>() / pieces.iter().map(|piece| rows(piece)).sum::<usize>();
    let mut taken = vec![0; gathered.len()];
    let of_piece = pieces.iter().enumerate().map(|(place, piece)| {
        let (rank, rows) = (place % gathered.len(), rows(piece));
        let start = taken[rank];
        taken[rank] += rows * dim;
        let values = gathered[rank][start..taken[rank]].to_vec();
        Tensor::from_data(TensorData::new(values, [rows, dim]), device)
    });
    of_piece.collect()
}

/// Gradients on the embeddings of pieces of texts, queries first.
type OnPieces<B> = Vec<Option<Tensor<B, 2>>>;

/// A loss, its gradients on pieces of texts, and its gradient on the numbers learned with it.
type LossAndGradients<B> = (BatchLoss, OnPieces<B>, Vec<f32>);

/// Computes the loss of a batch and its gradient on the embeddings, all scores at once.
fn loss_at_once<B: KernelAutodiffBackend>(
    objective: &impl Objective,
    part: &BatchPart,
    embeddings: [Vec<Embeddings<B::InnerBackend>>; 2],
    scale: ScaledLoss<'_, B>,
) -> LossAndGradients<B::InnerBackend> {
    let [queries, documents] =
        embeddings.map(|pieces| pieces.into_iter().map(Embeddings::<B>::leaf).collect::<Vec<_>>());
    let numbers = scale.learned.leaf::<B>(scale.device);
    let loss = objective.loss_with(
        &Embeddings::concatenated(&queries),
        &Embeddings::concatenated(&documents),
        &part.targets,
        &numbers,
    );
    let values = BatchLoss::of(&loss);
    let gradients = loss.total.mul_scalar(scale.factor).backward();
    let of_pieces = queries.iter().chain(&documents).map(|leaf| leaf.vectors.grad(&gradients)).collect();
    (values, of_pieces, host_gradient(numbers.grad(&gradients), scale.learned.values().len()))
}

/// Splits the rows of a gradient into the pieces that the texts were encoded in.
fn cut<B: Backend>(gradient: Tensor<B, 2>, pieces: &[&[TokenSequence]]) -> OnPieces<B> {
    let mut start = 0;
    let own = pieces.iter().map(|piece| {
        let rows = start..start + piece.iter().map(TokenSequence::len).sum::<usize>();
        start = rows.end;
        Some(gradient.clone().slice([rows]))
    });
    own.collect()
}

/// Cuts texts into at most `count` pieces.
fn pieces(sequences: &[TokenSequence], count: usize) -> Vec<&[TokenSequence]> {
    sequences.chunks(sequences.len().div_ceil(count)).collect()
}

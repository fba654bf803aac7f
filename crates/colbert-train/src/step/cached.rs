//! The gradient of a loss that spans a whole batch, with the history of only one piece of the batch in memory (Gao et
//! al. 2021, "GradCache"); each of several processes holds that of its own pieces.
//!
//! A piece has as many of the queries' tokens, and of the documents', as the others, as far as whole texts allow: the
//! processes wait for the one with the most work. What a piece has does not depend on the number of processes.

use std::ops::Range;

use burn::module::AutodiffModule;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use colbert_kernels::{KernelAutodiffBackend, Kernels};
use colbert_model::{Colbert, Embeddings, EncodeOptions, TokenSequence, scored_texts};

use crate::processes::Processes;
use crate::processes::exchange::gather_tensors;
use crate::step::batch::BatchPart;
use crate::step::batch_loss::{BatchGradient, BatchLoss, GradientPlan, ScaledLoss, add_gradients, host_gradient};
use crate::step::blocks::{OnEmbeddings, loss_by_blocks, queries_at_once};
use crate::step::gradient_sum::GradientSum;
use crate::step::loss_scale::unscaled;
use crate::step::objective::Objective;
use crate::step::trainable::TrainableEncoder;

/// Encodes in pieces without keeping their history, takes the loss and its gradient on the embeddings of all, then
/// encodes each piece again, with the same dropout, and carries that gradient on into the weights.
///
/// Of several processes each encodes its own pieces, all of them see the embeddings of all, and each carries the
/// gradient on through its own pieces. A process with one piece keeps its history and encodes it once. The queries and
/// the documents of a piece have one backward pass, so that their gradients travel together.
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
    let place = |first: usize, piece: usize| options.child((first + piece) as u64);
    let keeps = size > 1 && plan.pieces == size;
    // On the inner backend, as the history of a piece would stay in memory until the next backward pass.
    let plain = model.valid();
    let mut kept: Vec<Option<Tensor<B, 2>>> = vec![None; queries.len() + documents.len()];
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

    let mut gradients = GradientSum::new(processes, device);
    let sides = [(&queries, 0), (&documents, queries.len())];
    for first in (0..queries.len().max(documents.len())).step_by(size) {
        let piece = first + rank;
        let surrogates = sides.into_iter().filter_map(|(pieces, before)| {
            let texts = pieces.get(piece)?;
            let gradient = gradient[before + piece].take()?;
            let again = kept[before + piece].take();
            let again = again.unwrap_or_else(|| model.encode_with(texts, place(before, piece), device).vectors);
            Some((again * Tensor::from_inner(gradient)).sum())
        });
        let surrogate = surrogates.reduce(|queries, documents| queries + documents);
        gradients.add(model, surrogate.map(|surrogate| GradientsParams::from_grads(surrogate.backward(), model)));
    }
    let parameters = unscaled(model, gradients.finish(model), scale.factor);
    BatchGradient { loss: values, parameters, learned: of_learned }
}

/// Gathers the vectors of all pieces from those of each process.
fn shared<B: Kernels>(
    processes: &dyn Processes,
    own: Vec<Tensor<B, 2>>,
    pieces: &[&[TokenSequence]],
    device: &B::Device,
) -> Vec<Tensor<B, 2>> {
    let size = processes.size();
    let tokens = |piece: &[TokenSequence]| piece.iter().map(TokenSequence::len).sum::<usize>();
    let mut rows = vec![0; size];
    pieces.iter().enumerate().for_each(|(place, piece)| rows[place % size] += tokens(piece));
    let own = (!own.is_empty()).then(|| Tensor::cat(own, 0));
    let gathered = gather_tensors(processes, own, &rows, device);
    let mut taken = vec![0; size];
    let of_piece = pieces.iter().enumerate().map(|(place, piece)| {
        let taken = &mut taken[place % size];
        let rows = *taken..*taken + tokens(piece);
        *taken = rows.end;
        gathered[place % size].clone().expect("a piece has tokens").slice([rows])
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

/// Cuts texts into at most `count` pieces with about as many tokens each. A text is in the piece that its middle is in.
fn pieces(texts: &[TokenSequence], count: usize) -> Vec<&[TokenSequence]> {
    let all: usize = texts.iter().map(TokenSequence::len).sum();
    let mut pieces: Vec<Range<usize>> = Vec::with_capacity(count);
    let (mut before, mut last) = (0, None);
    for (place, text) in texts.iter().enumerate() {
        let middle = 2 * before + text.len();
        before += text.len();
        let piece = Some(middle * count / (2 * all).max(1));
        match pieces.last_mut() {
            Some(own) if piece == last => own.end = place + 1,
            _ => pieces.push(place..place + 1),
        }
        last = piece;
    }
    pieces.into_iter().map(|own| &texts[own]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(lengths: &[usize], count: usize) -> Vec<Vec<usize>> {
        let text =
            |length: &usize| TokenSequence { ids: vec![0; *length], attended: *length, scored: vec![true; *length] };
        let texts: Vec<TokenSequence> = lengths.iter().map(text).collect();
        let cut = pieces(&texts, count);
        cut.iter().map(|piece| piece.iter().map(TokenSequence::len).collect()).collect()
    }

    #[test]
    fn texts_of_one_length_are_cut_by_number() {
        for count in [1, 2, 3, 4, 6, 12] {
            assert!(lengths(&[5; 12], count).iter().all(|piece| piece.len() == 12 / count), "{count}");
        }
    }

    /// By number the first of two pieces would have 90 of 104 tokens.
    #[test]
    fn pieces_have_about_as_many_tokens_each() {
        assert_eq!(lengths(&[40, 10, 40, 4, 5, 5], 2), [vec![40, 10], vec![40, 4, 5, 5]]);
        let own: Vec<usize> = (0..200).map(|place| 3 + place * 37 % 250).collect();
        let all: usize = own.iter().sum();
        for count in [2, 3, 8, 16] {
            let cut = lengths(&own, count);
            assert_eq!((cut.len(), cut.concat()), (count, own.clone()));
            for piece in cut {
                let tokens: usize = piece.iter().sum();
                assert!(tokens.abs_diff(all / count) <= 252, "{tokens} of {all} in {count}");
            }
        }
    }

    #[test]
    fn a_piece_is_never_empty() {
        assert_eq!(lengths(&[1, 100, 1], 4), [vec![1], vec![100], vec![1]]);
        assert_eq!(lengths(&[7], 4), [vec![7]]);
        assert!(lengths(&[], 4).is_empty());
    }
}

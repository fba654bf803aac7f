//! Packed sequences with padding, those of similar lengths together, for attention on backends without a packed one.

use burn::tensor::ops::FloatTensor;
use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::backend::Kernels;
use crate::operators::attention::{Attended, AttentionPlan, NEVER, scale};
use crate::operators::dropout::Dropout;
use crate::operators::matmul;
use crate::operators::primitive::{floats, indices, primitive, tensor};
use crate::precision::Precision;
use crate::segments::Segment;

/// A sequence is laid out with others if the longest of them has at most this many times its tokens.
const LONGEST: f64 = 4.0 / 3.0;

/// Sequences of similar lengths, laid out as `[sequences, heads, length, head_size]`.
pub(crate) struct Padded<B: Kernels> {
    /// Row of each padded place; padding repeats the sequence's first.
    rows: Tensor<B, 1, Int>,
    /// Padded place of each row, sequence by sequence.
    places: Tensor<B, 1, Int>,
    /// 1 for a token, 0 for padding, `[sequences, 1, length, 1]`.
    real: Tensor<B, 4>,
    /// True where a key takes no part, `[sequences, 1, 1, length]`; with windows `[sequences, 1, length, length]`.
    pub(crate) hidden: Tensor<B, 4, Bool>,
    /// The value of a product that is hidden.
    never: f32,
    /// Factors of the weights, `[sequences, heads, length, length]`.
    dropped: Option<Tensor<B, 4>>,
    shape: [usize; 4],
    pub(crate) precision: Precision,
}

impl<B: Kernels> Padded<B> {
    fn new(segments: &[Segment], plan: &AttentionPlan, size: usize, device: &B::Device) -> Self {
        let (count, heads) = (segments.len(), plan.heads);
        let length = segments.iter().map(|segment| segment.length).max().unwrap_or(0);
        let mut rows = Vec::with_capacity(count * length);
        let mut places = Vec::with_capacity(count * length);
        let mut real = Vec::with_capacity(count * length);
        let mut hidden = Vec::with_capacity(count * length);
        for (i, segment) in segments.iter().enumerate() {
            places.extend((0..segment.length).map(|position| i * length + position));
            for position in 0..length {
                let within = position < segment.length;
                rows.push(segment.start + if within { position } else { 0 });
                real.push(f32::from(u8::from(within)));
                match plan.reach {
                    None => hidden.push(position >= segment.attended),
                    Some(reach) => {
                        hidden.extend((0..length).map(|key| key >= segment.attended || key.abs_diff(position) > reach))
                    }
                }
            }
        }
        let queries = if plan.reach.is_some() { length } else { 1 };
        let dropped = (!plan.dropout.is_none()).then(|| {
            // The rows of the sequences' masks; padding has those of the first token, as they are never read.
            let of_sequence = |segment: &Segment| -> (Dropout, Vec<usize>) {
                let position = |place: usize| if place < segment.length { place } else { 0 };
                let places = (0..heads).flat_map(|head| (0..length).map(move |place| (head, place)));
                let rows = places.map(|(head, place)| plan.weights_row(*segment, head, position(place)).1).collect();
                (plan.weights_row(*segment, 0, 0).0, rows)
            };
            let masks = segments.iter().map(of_sequence);
            let factors = |mask, rows: &[usize]| tensor::<B, 2>(B::dropout_factors(mask, rows, length, device));
            let factors = if plan.reach.is_none() {
                // One mask for all, made at once.
                factors(plan.dropout, &masks.flat_map(|(_, rows)| rows).collect::<Vec<usize>>())
            } else {
                Tensor::cat(masks.map(|(mask, rows)| factors(mask, &rows)).collect(), 0)
            };
            factors.reshape([count, heads, length, length])
        });
        Self {
            rows: indices::<B>(rows.into_iter(), device),
            places: indices::<B>(places.into_iter(), device),
            real: floats(real, [count, 1, length, 1], device),
            hidden: Tensor::from_data(TensorData::new(hidden, [count, 1, queries, length]), device),
            never: if plan.reach.is_some() { NEVER } else { f32::NEG_INFINITY },
            dropped,
            shape: [count, heads, length, size / heads],
            precision: plan.precision,
        }
    }

    pub(crate) fn head_size(&self) -> usize {
        self.shape[3]
    }

    /// Gathers the sequences' rows of `[tokens, heads * numbers]`.
    fn split(&self, packed: &FloatTensor<B>) -> Tensor<B, 4> {
        let [count, heads, length, _] = self.shape;
        let padded = tensor::<B, 2>(packed.clone()).select(0, self.rows.clone());
        let numbers = padded.dims()[1] / heads;
        padded.reshape([count, length, heads, numbers]).swap_dims(1, 2)
    }

    /// Goes back to `[tokens, heads * numbers]`, of these sequences alone.
    fn join(&self, split: Tensor<B, 4>) -> Tensor<B, 2> {
        let [count, heads, length, size] = split.dims();
        split.swap_dims(1, 2).reshape([count * length, heads * size]).select(0, self.places.clone())
    }

    pub(crate) fn product(&self, left: Tensor<B, 4>, right: Tensor<B, 4>) -> Tensor<B, 4> {
        matmul::composed::<B, 4>(left, right, self.precision)
    }

    /// Computes scaled products, with minus infinity or a number close to it for a key that takes no part.
    pub(crate) fn scaled(&self, query: Tensor<B, 4>, key: Tensor<B, 4>) -> Tensor<B, 4> {
        let [count, heads, length, head_size] = self.shape;
        let hidden = self.hidden.clone().expand([count, heads, length, length]);
        (self.product(query, key.swap_dims(2, 3)) * scale(head_size)).mask_fill(hidden, self.never)
    }

    /// Drops weights, or their gradients.
    pub(crate) fn drop(&self, weights: Tensor<B, 4>) -> Tensor<B, 4> {
        match &self.dropped {
            Some(factors) => weights * factors.clone(),
            None => weights,
        }
    }
}

/// The sequences in groups of similar lengths, the longest first, and for each row its place among the groups' rows.
struct Groups<B: Kernels> {
    groups: Vec<Padded<B>>,
    order: Tensor<B, 1, Int>,
}

impl<B: Kernels> Groups<B> {
    fn new(plan: &AttentionPlan, size: usize, device: &B::Device) -> Self {
        let mut sorted = plan.segments.as_slice().to_vec();
        sorted.sort_by_key(|segment| std::cmp::Reverse(segment.length));
        let mut order = vec![0; plan.segments.tokens()];
        let rows = sorted.iter().flat_map(|segment| segment.start..segment.start + segment.length);
        rows.enumerate().for_each(|(at, row)| order[row] = at);
        let mut groups = Vec::new();
        let mut left = sorted.as_slice();
        while let Some(first) = left.first() {
            let alike = |segment: &Segment| first.length as f64 <= segment.length as f64 * LONGEST;
            let (group, rest) = left.split_at(left.partition_point(alike));
            groups.push(Padded::new(group, plan, size, device));
            left = rest;
        }
        Self { groups, order: indices::<B>(order.into_iter(), device) }
    }

    /// Puts the results of the groups in the order of the packed rows.
    fn packed(&self, found: Vec<Tensor<B, 2>>) -> FloatTensor<B> {
        primitive(Tensor::cat(found, 0).select(0, self.order.clone()))
    }
}

/// Attends within the groups one after the other, by a function of query, key and value, `[sequences, heads, length,
/// head_size]`, that returns the output in the same shape and the log-sum-exp with one number in place of the last
/// axis.
pub(crate) fn by_length<B: Kernels>(
    qkv: [FloatTensor<B>; 3],
    plan: &AttentionPlan,
    attend: impl Fn([Tensor<B, 4>; 3], &Padded<B>) -> Attended<Tensor<B, 4>>,
) -> Attended<FloatTensor<B>> {
    let first = tensor::<B, 2>(qkv[0].clone());
    let groups = Groups::<B>::new(plan, first.dims()[1], &first.device());
    let found = groups.groups.iter().map(|padded| {
        let Attended { output, log_sum_exp } = attend(qkv.each_ref().map(|packed| padded.split(packed)), padded);
        (padded.join(output), padded.join(log_sum_exp))
    });
    let (outputs, sums): (Vec<_>, Vec<_>) = found.unzip();
    Attended { output: groups.packed(outputs), log_sum_exp: groups.packed(sums) }
}

/// Computes the gradients of query, key and value of the groups one after the other, by a function of these three, of
/// the forward pass's state, and of the gradient, which is 0 at padding.
pub(crate) fn gradient_by_length<B: Kernels>(
    qkv: [FloatTensor<B>; 3],
    forward: Attended<FloatTensor<B>>,
    gradient: FloatTensor<B>,
    plan: &AttentionPlan,
    go_back: impl Fn([Tensor<B, 4>; 3], Attended<Tensor<B, 4>>, Tensor<B, 4>, &Padded<B>) -> [Tensor<B, 4>; 3],
) -> [FloatTensor<B>; 3] {
    let output = tensor::<B, 2>(forward.output.clone());
    let groups = Groups::<B>::new(plan, output.dims()[1], &output.device());
    let mut found = [vec![], vec![], vec![]];
    for padded in &groups.groups {
        let qkv = qkv.each_ref().map(|packed| padded.split(packed));
        let output = padded.split(&forward.output);
        let log_sum_exp = padded.split(&forward.log_sum_exp);
        let gradient = padded.split(&gradient) * padded.real.clone();
        let gradients = go_back(qkv, Attended { output, log_sum_exp }, gradient, padded);
        found.iter_mut().zip(gradients).for_each(|(all, own)| all.push(padded.join(own)));
    }
    found.map(|all| groups.packed(all))
}

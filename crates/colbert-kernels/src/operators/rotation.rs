//! Rotary positions (Su et al. 2021, "RoFormer", section 3.4.2): pairs of a head's numbers are rotated by angles that
//! grow with the token's position.

use std::sync::Arc;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::operators::primitive::floats;
use crate::segments::Segments;

/// Cosines and sines of the angles of every position. Cheap to clone.
///
/// The numbers i and i + pairs of a head are one pair each; numbers after the pairs are left as they are.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// `[positions, pairs]`
    cos: Arc<[f32]>,
    /// `[positions, pairs]`
    sin: Arc<[f32]>,
    pairs: usize,
}

/// Rotates the heads of packed tokens by their positions, where [`packed_self_attention`](crate::packed_self_attention)
/// does not fit: queries and keys that are normalised before.
///
/// # Shapes
/// - input, output: `[tokens, heads * head_size]`, the sequences one after the other
///
/// # Panics
/// If the tokens are not the segments', or the rotation has too few positions or too many pairs.
pub fn rotate<B: Backend>(input: Tensor<B, 2>, rotation: &Rotation, segments: &Segments, heads: usize) -> Tensor<B, 2> {
    let [tokens, size] = input.dims();
    assert_eq!(tokens, segments.tokens(), "tokens of the tensor and of the segments");
    rotation.check(segments.max_length(), size / heads);
    rotation.composed(input, segments, heads, false)
}

impl Rotation {
    /// Rotates pair i of the token at position p, counted from 0, by `p * frequencies[i]` radians.
    pub fn new(frequencies: &[f32], positions: usize) -> Self {
        // In float32, as transformers computes them.
        let angles = || (0..positions).flat_map(|p| frequencies.iter().map(move |frequency| p as f32 * frequency));
        Self { cos: angles().map(f32::cos).collect(), sin: angles().map(f32::sin).collect(), pairs: frequencies.len() }
    }

    /// Returns the cosines and sines of a position.
    pub(crate) fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let own = position * self.pairs..(position + 1) * self.pairs;
        (&self.cos[own.clone()], &self.sin[own])
    }

    /// Returns the number of pairs of a head.
    #[cfg(feature = "cube")]
    pub(crate) fn pairs(&self) -> usize {
        self.pairs
    }

    /// Returns the cosines and sines of the positions below a length, `[length, pairs]` each.
    #[cfg(feature = "cube")]
    pub(crate) fn until(&self, length: usize) -> (&[f32], &[f32]) {
        let own = length * self.pairs;
        (&self.cos[..own], &self.sin[..own])
    }

    /// Fails if there are longer sequences than positions, or more pairs than a head's numbers make.
    pub(crate) fn check(&self, length: usize, head_size: usize) {
        assert!(length * self.pairs <= self.cos.len(), "angles for {length} positions");
        assert!(2 * self.pairs <= head_size, "{} pairs of a head of {head_size} numbers", self.pairs);
    }

    /// Rotates packed tokens `[tokens, heads * head_size]`; backwards, by the opposite angles.
    pub(crate) fn composed<B: Backend>(
        &self,
        input: Tensor<B, 2>,
        segments: &Segments,
        heads: usize,
        backwards: bool,
    ) -> Tensor<B, 2> {
        let [tokens, size] = input.dims();
        let (device, pairs, rest) = (input.device(), self.pairs, size / heads - 2 * self.pairs);
        let rows = |of: &Arc<[f32]>, sign: f32| {
            let row = |p: &u32| of[*p as usize * pairs..][..pairs].iter().map(move |x| sign * x);
            let values = segments.positions().iter().flat_map(row).collect();
            floats::<B, 3>(values, [tokens, 1, pairs], &device).expand([tokens, heads, pairs])
        };
        let (cos, sin) = (rows(&self.cos, 1.0), rows(&self.sin, if backwards { -1.0 } else { 1.0 }));
        let split = input.reshape([tokens, heads, size / heads]);
        let (first, second) = (split.clone().narrow(2, 0, pairs), split.clone().narrow(2, pairs, pairs));
        let mut parts = vec![first.clone() * cos.clone() - second.clone() * sin.clone(), second * cos + first * sin];
        if rest > 0 {
            parts.push(split.narrow(2, 2 * pairs, rest));
        }
        Tensor::cat(parts, 2).reshape([tokens, size])
    }
}

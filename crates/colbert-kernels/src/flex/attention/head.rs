//! One head of one sequence, and its tokens as factors of products.

use std::ops::Range;

use crate::flex::attention::rows::{Dropped, rotate_row};
use crate::flex::buffer::Buffer;
use crate::flex::level::Level;
use crate::flex::pack::{Numbers, Source, pairs_of_row, transpose, widen_row};
use crate::flex::tile::{Begin, Format, Left, Product, Right, Size};
use crate::operators::attention::AttentionPlan;
use crate::operators::rotation::Rotation;
use crate::segments::Segment;

/// Query rows in a block: a multiple of every level's rows of a tile.
pub(super) const ROWS: usize = 48;

/// Numbers of tokens, those of one every `stride` numbers.
#[derive(Clone, Copy)]
pub(crate) struct Tokens<'a> {
    pub(crate) data: Numbers<'a>,
    pub(crate) stride: usize,
}

impl<'a> Tokens<'a> {
    /// Returns tokens from the one at `position` on as rows of pairs, and the distance of rows, if they lie so.
    fn pairs(&self, position: usize, size: usize) -> Option<(&'a [f32], usize)> {
        let whole = self.stride.is_multiple_of(2) && size.is_multiple_of(2);
        Some((self.data.from(position * self.stride).pairs().filter(|_| whole)?, self.stride / 2))
    }
}

/// One head of one sequence, and how its factors are laid out.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(super) level: Level,
    pub(super) format: Format,
    pub(super) plan: &'a AttentionPlan,
    pub(super) segment: Segment,
    pub(super) head: usize,
    /// Numbers of a token.
    pub(super) size: usize,
}

impl Head<'_> {
    /// Returns where this head's numbers begin among those of all tokens, `stride` apart.
    pub(super) fn offset(&self, stride: usize) -> usize {
        self.segment.start * stride + self.head * self.size
    }

    /// Returns the numbers of this head and sequence.
    pub(super) fn own<'a>(&self, all: Tokens<'a>) -> Tokens<'a> {
        Tokens { data: all.data.from(self.offset(all.stride)), ..all }
    }

    /// Returns the numbers of the token at `position`.
    pub(super) fn row<'a>(&self, of: Tokens<'a>, position: usize) -> Numbers<'a> {
        of.data.from(position * of.stride).first(self.size)
    }

    /// Returns the keys that any query at these positions sees, starting with a whole panel of columns.
    pub(super) fn seen(&self, queries: Range<usize>) -> Range<usize> {
        let attended = self.segment.attended;
        match self.plan.reach {
            None => 0..attended,
            Some(reach) => {
                let first = queries.start.saturating_sub(reach);
                let end = queries.end.saturating_add(reach).min(attended);
                if first < end { first / self.level.columns() * self.level.columns()..end } else { 0..0 }
            }
        }
    }

    /// Returns the most keys that a block of queries sees, in whole panels.
    pub(super) fn most_seen(&self) -> usize {
        let attended = self.segment.attended;
        let width = self.level.columns();
        let most = self.plan.reach.map_or(attended, |reach| reach.saturating_mul(2).saturating_add(ROWS + width));
        attended.min(most).next_multiple_of(width)
    }

    /// Returns the keys that the query at `position` sees.
    pub(super) fn window(&self, position: usize) -> Range<usize> {
        let attended = self.segment.attended;
        match self.plan.reach {
            None => 0..attended,
            Some(reach) => {
                let end = position.saturating_add(reach).saturating_add(1).min(attended);
                position.saturating_sub(reach).min(end)..end
            }
        }
    }

    /// Returns the factors of a query's weights, from the key at `first` on.
    pub(super) fn dropped(&self, position: usize, first: usize) -> Option<Dropped> {
        (!self.plan.dropout.is_none()).then(|| {
            let (dropout, row) = self.plan.weights_row(self.segment, self.head, position);
            Dropped { row: dropout.row(row), first: first as u32 }
        })
    }

    /// Rotates the first `count` tokens by their positions into `aside`; without a rotation, returns them as they are.
    pub(super) fn rotated<'a>(
        &self,
        of: Tokens<'a>,
        count: usize,
        rotation: Option<&Rotation>,
        aside: &'a mut [f32],
    ) -> Tokens<'a> {
        let Some(rotation) = rotation else { return of };
        // Room for a token that was rounded.
        let (wide, aside) = aside.split_at_mut(self.size);
        for (position, to) in aside.chunks_exact_mut(self.size).take(count).enumerate() {
            let (cos, sin) = rotation.at(position);
            let row = match self.row(of, position) {
                Numbers::Single(row) => row,
                Numbers::Half(row) => {
                    widen_row(self.level, row, wide);
                    &*wide
                }
            };
            rotate_row(self.level, row, cos, sin, to);
        }
        Tokens { data: Numbers::Single(aside), stride: self.size }
    }

    /// Returns how many numbers [`left`](Self::left) writes.
    pub(super) fn left_size(&self) -> usize {
        match self.format {
            Format::Single => 0,
            Format::Pairs => ROWS * self.format.steps(self.size),
        }
    }

    /// Lays out `count` tokens from `position` on as the rows of a left factor, which lies in `of` or in `aside`.
    pub(super) fn left(&self, of: Tokens<'_>, position: usize, count: usize, aside: &mut [f32]) -> Left {
        let rows = self.level.rows();
        match self.format {
            Format::Single => {
                let start = of.data.from(position * of.stride).single().as_ptr();
                Left { start, group: rows * of.stride, row: of.stride, step: 1 }
            }
            Format::Pairs => {
                if let Some((pairs, row)) = of.pairs(position, self.size) {
                    return Left { start: pairs.as_ptr(), group: rows * row, row, step: 1 };
                }
                let steps = self.format.steps(self.size);
                for (i, to) in aside.chunks_exact_mut(steps).take(count).enumerate() {
                    pairs_of_row(self.level, self.row(of, position + i), to);
                }
                Left { start: aside.as_ptr(), group: rows * steps, row: steps, step: 1 }
            }
        }
    }

    /// Returns how many numbers [`as_rows`](Self::as_rows) of `tokens` tokens takes.
    pub(super) fn rows_size(&self, tokens: usize) -> usize {
        self.format.steps(tokens) * self.size.next_multiple_of(self.level.columns())
    }

    /// Packs the first `tokens` tokens as the rows of a right factor.
    pub(super) fn as_rows(&self, of: Tokens<'_>, tokens: usize, to: &mut [f32]) -> Right {
        let (width, steps) = (self.level.columns(), self.format.steps(tokens));
        assert!(to.len() >= self.rows_size(tokens), "room for the rows");
        let source = Source {
            level: self.level,
            format: self.format,
            data: of.data,
            stride: of.stride,
            depth: tokens,
            columns: self.size,
        };
        for step in 0..steps {
            // SAFETY: a step of each panel, for which there is room.
            unsafe { source.spread(step, width, to.as_mut_ptr().add(step * width), steps * width) };
        }
        Right { start: to.as_ptr(), panel: steps * width, step: width }
    }

    /// Returns the rows packed by [`as_rows`](Self::as_rows), from this token on. The token's position is even.
    ///
    /// # Safety
    /// The token must be among the packed ones.
    pub(super) unsafe fn rows_from(&self, rows: Right, token: usize) -> Right {
        debug_assert!(token.is_multiple_of(2), "pairs are not cut");
        // SAFETY: the caller's promise.
        Right { start: unsafe { rows.start.add(self.format.steps(token) * rows.step) }, ..rows }
    }

    /// Returns how many numbers [`as_columns`](Self::as_columns) of `tokens` tokens takes.
    pub(super) fn columns_size(&self, tokens: usize) -> usize {
        tokens.next_multiple_of(self.level.columns()) * self.format.steps(self.size)
    }

    /// Packs the first `tokens` tokens as the columns of a right factor.
    pub(super) fn as_columns(&self, of: Tokens<'_>, tokens: usize, to: &mut [f32]) -> Right {
        let (width, steps) = (self.level.columns(), self.format.steps(self.size));
        let packs = self.format == Format::Pairs && of.pairs(0, self.size).is_none();
        let mut aside = packs.then(|| Buffer::<f32>::new(width * steps));
        for (first, to) in (0..tokens).step_by(width).zip(to.chunks_exact_mut(width * steps)) {
            let count = width.min(tokens - first);
            let (from, row) = match (&mut aside, of.pairs(first, self.size)) {
                (Some(aside), _) => {
                    for (i, to) in aside.chunks_exact_mut(steps).take(count).enumerate() {
                        pairs_of_row(self.level, self.row(of, first + i), to);
                    }
                    (&aside[..], steps)
                }
                (None, Some(pairs)) => pairs,
                (None, None) => (of.data.from(first * of.stride).single(), of.stride),
            };
            transpose(from, row, count, steps, to, width);
        }
        Right { start: to.as_ptr(), panel: width * steps, step: width }
    }

    /// Returns the columns packed by [`as_columns`](Self::as_columns), from this token on, the first of a panel.
    ///
    /// # Safety
    /// The token must be among the packed ones.
    pub(super) unsafe fn columns_from(&self, columns: Right, token: usize) -> Right {
        debug_assert!(token.is_multiple_of(self.level.columns()), "panels are not cut");
        // SAFETY: the caller's promise.
        Right { start: unsafe { columns.start.add(token / self.level.columns() * columns.panel) }, ..columns }
    }

    /// Returns how many numbers the weights of a block of rows take as a left factor, `wide` of them in a row.
    pub(super) fn weights_size(&self, wide: usize) -> usize {
        match self.format {
            Format::Single => 0,
            Format::Pairs => ROWS.div_ceil(2) * wide,
        }
    }

    /// Lays out `rows` rows of weights, of which the first `seen` count, as the rows of a left factor.
    pub(super) fn weights_left(
        &self,
        weights: &[f32],
        wide: usize,
        rows: usize,
        seen: usize,
        aside: &mut [f32],
    ) -> Left {
        let group = self.level.rows();
        match self.format {
            Format::Single => Left { start: weights.as_ptr(), group: group * wide, row: wide, step: 1 },
            Format::Pairs => {
                let steps = self.format.steps(seen);
                for (row, to) in weights.chunks_exact(wide).take(rows).zip(aside.chunks_exact_mut(steps)) {
                    pairs_of_row(self.level, Numbers::Single(&row[..seen]), to);
                }
                Left { start: aside.as_ptr(), group: group * steps, row: steps, step: 1 }
            }
        }
    }

    /// Lays out the same with rows and columns exchanged.
    pub(super) fn weights_turned(&self, weights: &[f32], wide: usize, rows: usize, aside: &mut [f32]) -> Left {
        let group = self.level.rows();
        let start = match self.format {
            Format::Single => weights.as_ptr(),
            Format::Pairs => {
                let Self { level, format, .. } = *self;
                let data = Numbers::Single(weights);
                let source = Source { level, format, data, stride: wide, depth: rows, columns: wide };
                for (step, to) in aside.chunks_exact_mut(wide).take(format.steps(rows)).enumerate() {
                    // SAFETY: one place as wide as a row.
                    unsafe { source.spread(step, wide, to.as_mut_ptr(), wide) };
                }
                aside.as_ptr()
            }
        };
        Left { start, group, row: 1, step: wide }
    }

    /// Computes `left right` in this head's format.
    ///
    /// # Safety
    /// As [`Level::multiply`].
    pub(super) unsafe fn multiply(&self, size: Size, left: Left, right: Right, result: Product, from: Begin) {
        // SAFETY: the caller's promise.
        unsafe { self.level.multiply(self.format, size, left, right, result, from) }
    }
}

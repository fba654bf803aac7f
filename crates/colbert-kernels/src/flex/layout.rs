//! The factors of a large product, laid out once in the order in which they are read.

use crate::flex::amx::{self, Unit};
use crate::flex::buffer::{Buffer, Shared};
use crate::flex::level::Level;
use crate::flex::pack::{Numbers, PAIRS, Source, View, pairs_of_row, spread_pairs_of_row, transpose};
use crate::flex::parallel::for_each_block;
use crate::flex::tile::{Begin, Format, Left, Product, Right, Size};
use crate::precision::Precision;

/// Steps of depth that a thread packs at a time.
const STEPS: usize = 64;

/// Rows that a thread converts at a time.
const ROWS: usize = 32;

/// Who multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Multiplier {
    /// Vector registers.
    Registers(Format),
    /// AMX, pairs of bfloat16.
    Tiles(Unit),
}

/// The layout of factors, by the unit that multiplies them and the level's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) level: Level,
    pub(crate) multiplier: Multiplier,
}

impl Layout {
    /// Returns the fastest layout of the processor for a precision.
    pub(crate) fn of(precision: Precision) -> Self {
        let level = Level::detect();
        let multiplier = match (Format::of(precision, level), Unit::find()) {
            (Format::Pairs, Some(unit)) => Multiplier::Tiles(unit),
            (format, _) => Multiplier::Registers(format),
        };
        Self { level, multiplier }
    }

    /// Returns whether factors are pairs of bfloat16.
    pub(crate) fn has_pairs(self) -> bool {
        self.format() == Format::Pairs
    }

    fn format(self) -> Format {
        match self.multiplier {
            Multiplier::Registers(format) => format,
            Multiplier::Tiles(_) => Format::Pairs,
        }
    }

    /// Steps that a depth takes; those beyond it are zero.
    pub(crate) fn steps(self, depth: usize) -> usize {
        match self.multiplier {
            Multiplier::Registers(format) => format.steps(depth),
            Multiplier::Tiles(_) => Format::Pairs.steps(depth).next_multiple_of(amx::STEPS),
        }
    }

    /// Returns how many rows of the left factor lie together.
    pub(crate) fn rows(self) -> usize {
        match self.multiplier {
            Multiplier::Registers(_) => self.level.rows(),
            Multiplier::Tiles(_) => amx::ROWS,
        }
    }

    /// Returns how many columns a panel of the right factor has.
    pub(crate) fn columns(self) -> usize {
        match self.multiplier {
            Multiplier::Registers(_) => self.level.columns(),
            Multiplier::Tiles(_) => amx::COLUMNS,
        }
    }

    /// Steps of a block of depth. In registers, a row group of the left factor stays in the first cache (of 32 KiB or
    /// more) and a panel of the right in the second; for AMX, a panel of the right factor stays in the first (of 48
    /// KiB).
    pub(crate) fn block(self) -> usize {
        match self.multiplier {
            Multiplier::Registers(_) => 384,
            Multiplier::Tiles(_) => 192,
        }
    }

    /// Computes `result = from + left right`, on one thread.
    ///
    /// # Safety
    /// As [`Level::multiply`], the factors being of this layout.
    pub(crate) unsafe fn multiply(self, size: Size, left: Left, right: Right, result: Product, from: Begin) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.multiplier {
                Multiplier::Registers(format) => self.level.multiply(format, size, left, right, result, from),
                Multiplier::Tiles(unit) => amx::multiply(unit, size, left, right, result, from),
            }
        }
    }
}

/// The place of a factor's numbers or pairs.
enum Place<'a> {
    Given(&'a [f32]),
    Packed(Buffer),
}

impl Place<'_> {
    fn as_slice(&self) -> &[f32] {
        match self {
            Self::Given(numbers) => numbers,
            Self::Packed(numbers) => numbers,
        }
    }
}

/// A left factor: as it lies, in rows of pairs, in groups of a tile's rows, or in AMX's tiles.
pub(crate) struct LeftFactor<'a> {
    numbers: Place<'a>,
    /// Rows of a group.
    rows: usize,
    /// Distances as those of [`Left`].
    group: usize,
    row: usize,
    step: usize,
}

impl<'a> LeftFactor<'a> {
    /// Packs `[rows, depth]` on all threads, if it has to be.
    pub(crate) fn new(layout: Layout, left: View<'a>, rows: usize, depth: usize) -> Self {
        left.check(rows, depth);
        let (level, steps) = (layout.level, layout.steps(depth));
        match (layout.multiplier, left.column) {
            (Multiplier::Registers(Format::Single), 1) => {
                let (numbers, group) = (Place::Given(left.data.single()), level.rows());
                Self { numbers, rows: group, group: group * left.row, row: left.row, step: 1 }
            }
            (Multiplier::Registers(Format::Pairs), 1) => Self::rows_of_pairs(level, left, rows, depth),
            (Multiplier::Registers(format), _) => {
                let source = Source { level, format, data: left.data, stride: left.column, depth, columns: rows };
                Self::groups(&source, steps)
            }
            (Multiplier::Tiles(_), 1) => Self::tiles(level, left, rows, depth, steps),
            (Multiplier::Tiles(_), stride) => {
                let source = Source { level, format: Format::Pairs, data: left.data, stride, depth, columns: rows };
                Self::turned_tiles(&source, steps)
            }
        }
    }

    fn rows_of_pairs(level: Level, left: View<'a>, rows: usize, depth: usize) -> Self {
        let (group, steps) = (level.rows(), Format::Pairs.steps(depth));
        if let Some(pairs) = left.data.pairs().filter(|_| depth.is_multiple_of(2) && left.row.is_multiple_of(2)) {
            let row = left.row / 2;
            return Self { numbers: Place::Given(pairs), rows: group, group: group * row, row, step: 1 };
        }
        let mut packed = Buffer::new(rows * steps);
        let shared = Shared::new(&mut packed);
        for_each_block(rows, ROWS, |own| {
            for row in own {
                // SAFETY: this row's own pairs.
                let to = unsafe { std::slice::from_raw_parts_mut(shared.at(row * steps), steps) };
                pairs_of_row(level, left.row_of(row, depth), to);
            }
        });
        Self { numbers: Place::Packed(packed), rows: group, group: group * steps, row: steps, step: 1 }
    }

    fn groups(source: &Source<'_>, steps: usize) -> Self {
        let group = source.level.rows();
        let mut packed = Buffer::new(source.columns.next_multiple_of(group) * steps);
        let shared = Shared::new(&mut packed);
        for_each_block(steps, STEPS, |own| {
            for step in own {
                // SAFETY: this step of every group, which no other block writes.
                unsafe { source.spread(step, group, shared.at(step * group), steps * group) };
            }
        });
        Self { numbers: Place::Packed(packed), rows: group, group: group * steps, row: 1, step: group }
    }

    fn in_tiles(packed: Buffer, steps: usize) -> Self {
        let (numbers, rows) = (Place::Packed(packed), amx::ROWS);
        Self { numbers, rows, group: rows * steps, row: amx::STEPS, step: rows }
    }

    fn tiles(level: Level, left: View<'_>, rows: usize, depth: usize, steps: usize) -> Self {
        const { assert!(amx::STEPS == PAIRS, "a row of a tile is what is written at once") };
        let padded = rows.next_multiple_of(amx::ROWS);
        let mut packed = Buffer::new(padded * steps);
        let shared = Shared::new(&mut packed);
        for_each_block(padded, ROWS, |own| {
            for row in own {
                let numbers = if row < rows { left.row_of(row, depth) } else { Numbers::Single(&[]) };
                let first = row / amx::ROWS * amx::ROWS * steps + row % amx::ROWS * amx::STEPS;
                // SAFETY: this row of every tile of its group, which no other block writes.
                unsafe { spread_pairs_of_row(level, numbers, steps, shared.at(first), amx::ROWS * amx::STEPS) };
            }
        });
        Self::in_tiles(packed, steps)
    }

    fn turned_tiles(source: &Source<'_>, steps: usize) -> Self {
        /// Numbers of the tiles of a group of rows, one beside the other.
        const TILES: usize = amx::ROWS * amx::STEPS;
        let padded = source.columns.next_multiple_of(amx::ROWS);
        let mut packed = Buffer::new(padded * steps);
        let shared = Shared::new(&mut packed);
        for_each_block(steps / amx::STEPS, 1, |own| {
            let mut turned = Buffer::<f32>::new(padded * amx::STEPS);
            for step in 0..amx::STEPS {
                // SAFETY: a row of each group's square, for which there is room.
                unsafe {
                    let first = turned.as_mut_ptr().add(step * amx::ROWS);
                    source.spread(own.start * amx::STEPS + step, amx::ROWS, first, TILES);
                }
            }
            for (group, square) in turned.chunks_exact(TILES).enumerate() {
                let first = group * amx::ROWS * steps + own.start * TILES;
                // SAFETY: these tiles, which no other block writes.
                let to = unsafe { std::slice::from_raw_parts_mut(shared.at(first), TILES) };
                transpose(square, amx::ROWS, amx::STEPS, amx::ROWS, to, amx::STEPS);
            }
        });
        Self::in_tiles(packed, steps)
    }

    /// Returns the part from this row and step on; the row is a multiple of a group's rows, the step of a block's.
    pub(crate) fn at(&self, row: usize, step: usize) -> Left {
        let from = row / self.rows * self.group + step * self.step;
        let start = self.numbers.as_slice()[from..].as_ptr();
        Left { start, group: self.group, row: self.row, step: self.step }
    }
}

/// A right factor in blocks of depth, each of panels `[steps, columns of a tile]`, the last panel filled up with zeros.
pub(crate) struct RightFactor {
    packed: Buffer,
    /// Columns of all panels.
    padded: usize,
    /// Columns of a panel.
    width: usize,
    /// Steps of a block of depth.
    block: usize,
    steps: usize,
}

impl RightFactor {
    /// Packs `[depth, columns]` on all threads.
    pub(crate) fn new(layout: Layout, right: View<'_>, depth: usize, columns: usize) -> Self {
        right.check(depth, columns);
        let (level, format) = (layout.level, layout.format());
        let (width, steps, block) = (layout.columns(), layout.steps(depth), layout.block());
        let panels = columns.div_ceil(width);
        let padded = panels * width;
        let mut packed = Buffer::new(steps * padded);
        let shared = Shared::new(&mut packed);
        if right.column == 1 {
            let source = Source { level, format, data: right.data, stride: right.row, depth, columns };
            for_each_block(steps, STEPS, |own| {
                for step in own {
                    let start = step / block * block;
                    let within = block.min(steps - start);
                    // SAFETY: this step of every panel, which no other block writes.
                    unsafe {
                        let first = shared.at(start * padded + (step - start) * width);
                        source.spread(step, width, first, within * width);
                    }
                }
            });
        } else {
            for_each_block(panels, 1, |of_panels| {
                let first = of_panels.start * width;
                let count = width.min(columns - first);
                let own = View { data: right.data.from(first * right.column), row: right.column, column: 1 };
                let pairs = (format == Format::Pairs).then(|| pairs_of_rows(level, own, count, depth, steps));
                let (from, row) = match &pairs {
                    Some(pairs) => (&pairs[..], steps),
                    None => (own.data.single(), own.row),
                };
                for start in (0..steps).step_by(block) {
                    let within = block.min(steps - start);
                    let offset = start * padded + first * within;
                    // SAFETY: this panel of this block of depth, which no other call writes.
                    let to = unsafe { std::slice::from_raw_parts_mut(shared.at(offset), within * width) };
                    transpose(&from[start..], row, count, within, to, width);
                }
            });
        }
        Self { packed, padded, width, block, steps }
    }

    /// Returns the part from this column and step on; the column is a multiple of a tile's columns, the step of the
    /// block's.
    pub(crate) fn at(&self, column: usize, step: usize) -> Right {
        let within = self.block.min(self.steps - step);
        let from = step * self.padded + column * within;
        Right { start: self.packed[from..].as_ptr(), panel: self.width * within, step: self.width }
    }
}

/// Makes rows of pairs from a matrix's rows.
fn pairs_of_rows(level: Level, rows: View<'_>, count: usize, depth: usize, steps: usize) -> Buffer {
    let mut packed = Buffer::new(count * steps);
    for (row, to) in packed.chunks_exact_mut(steps.max(1)).enumerate() {
        pairs_of_row(level, rows.row_of(row, depth), to);
    }
    packed
}

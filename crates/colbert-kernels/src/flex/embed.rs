//! Lookup of rows, and the sum of their gradients.

use crate::flex::buffer::{Buffer, Shared};
use crate::flex::parallel::for_each_block;

/// Rows that a thread takes at a time.
const ROWS: usize = 64;

/// Rows of a table's gradient that a thread takes at a time.
const TABLE_ROWS: usize = 512;

/// Computes `word[ids[t]] + (position[positions[t]] + first)` for every token; tables other than the words are
/// optional.
pub(crate) fn embed(
    word: &[f32],
    size: usize,
    ids: &[u32],
    position: Option<(&[f32], &[u32])>,
    first: Option<&[f32]>,
) -> Buffer {
    assert!(position.is_none_or(|(_, positions)| positions.len() == ids.len()), "ids and positions");
    assert!(first.is_none_or(|first| first.len() == size), "a row of the same size");
    let mut output = Buffer::new(ids.len() * size);
    let shared = Shared::new(&mut output);
    for_each_block(ids.len(), ROWS, |own| {
        for token in own {
            let word = &word[ids[token] as usize * size..][..size];
            // SAFETY: this token's row, which this block alone writes.
            let output = unsafe { std::slice::from_raw_parts_mut(shared.at(token * size), size) };
            match position.map(|(table, positions)| &table[positions[token] as usize * size..][..size]) {
                Some(position) => output.copy_from_slice(position),
                None => output.fill(0.0),
            }
            if let Some(first) = first {
                output.iter_mut().zip(first).for_each(|(output, first)| *output += first);
            }
            output.iter_mut().zip(word).for_each(|(output, word)| *output += word);
        }
    });
    output
}

/// Sums rows: row r of the result is the sum of those rows of `gradient` whose entry in `rows` is r, first to last.
pub(crate) fn gradient(gradient: &[f32], rows: &[u32], count: usize, size: usize) -> Buffer {
    assert_eq!(gradient.len(), rows.len() * size, "a gradient for each token");
    let mut order: Vec<(u32, u32)> = rows.iter().copied().zip(0..).collect();
    order.sort_unstable();
    let mut output = Buffer::new(count * size);
    let shared = Shared::new(&mut output);
    for_each_block(count, TABLE_ROWS, |own| {
        // SAFETY: this block's own rows of the table.
        let output = unsafe { std::slice::from_raw_parts_mut(shared.at(own.start * size), own.len() * size) };
        output.fill(0.0);
        let from = order.partition_point(|(row, _)| (*row as usize) < own.start);
        for (row, token) in order[from..].iter().take_while(|(row, _)| (*row as usize) < own.end) {
            let to = &mut output[(*row as usize - own.start) * size..][..size];
            for (to, from) in to.iter_mut().zip(&gradient[*token as usize * size..][..size]) {
                *to += from;
            }
        }
    });
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flex::testing::random;

    #[test]
    fn rows_are_summed_and_gradients_go_back_to_them() {
        let (word, position, first) = (random(700 * 3, 1), random(9 * 3, 2), random(3, 3));
        let ids = [699, 0, 5, 5, 699, 512];
        let positions = [0, 1, 2, 8, 0, 1];
        let found = embed(&word, 3, &ids, Some((&position, &positions)), Some(&first));
        for token in 0..ids.len() {
            for i in 0..3 {
                let expected =
                    word[ids[token] as usize * 3 + i] + (position[positions[token] as usize * 3 + i] + first[i]);
                assert_eq!(found[token * 3 + i], expected);
            }
        }
        let back = random(ids.len() * 3, 4);
        let found = gradient(&back, &ids, 700, 3);
        let mut expected = vec![0.0; 700 * 3];
        for token in 0..ids.len() {
            for i in 0..3 {
                expected[ids[token] as usize * 3 + i] += back[token * 3 + i];
            }
        }
        assert_eq!(&found[..], expected);
        assert!(gradient(&[], &[], 2, 3).iter().all(|x| *x == 0.0));
    }
}

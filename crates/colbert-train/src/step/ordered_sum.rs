//! A sum of gradients over pieces of a batch, in the order of the pieces, whichever process computed them, on the hosts
//! of the processes.
//!
//! Float addition depends on its order: one process adds up `((g0 + g1) + g2) + g3`, and `(g0 + g1) + (g2 + g3)`, a sum
//! of the sums of two processes, is another number. So pieces are dealt out in turn, piece i to process `i mod size`,
//! and after each round every process adds up one part of the numbers of all pieces of the round, in order. At the end
//! the parts are gathered. No process holds more than its part of the sum until then.
//!
//! Blocks of zeros are not sent: in the word table only the rows of a batch's own words have a gradient, and the table
//! is half of MiniLM's parameters and most of mmBERT's.

use std::ops::Range;

use crate::processes::Processes;

/// Numbers that are sent at once, unless a parameter has more: 16 MiB.
pub(crate) const BUCKET: usize = 4 << 20;

/// Returns the bytes that a process holds at most while it adds up gradients with others, besides the gradients and the
/// sum: a bucket and a gradient on its way into it, and what is packed, sent, received and copied of the bucket without
/// its zeros. `parameters` and `largest` are the bytes of all parameters and of the largest one, `touched` those of the
/// rows of the word embeddings that have a gradient.
#[must_use]
pub fn exchange_memory(parameters: u64, largest: u64, touched: u64) -> u64 {
    let bucket = (4 * BUCKET as u64).min(parameters);
    2 * bucket.max(largest) + 4 * touched.clamp(bucket, bucket.max(largest))
}

/// The neutral number of addition: it does not even change the sign of a zero.
pub(crate) const NOTHING: f32 = -0.0;

/// Numbers that are sent or left out together.
const BLOCK: usize = 128;

/// A sum of lists of numbers. Some lists at a time, a bucket, are cut into a part for each process.
pub(crate) struct OrderedSum<'a> {
    processes: &'a dyn Processes,
    buckets: Vec<Bucket>,
    /// The parts of a bucket for each process, while they are sent. Kept so that their memory is reused.
    packed: Vec<Vec<u32>>,
}

/// Lists that travel together.
struct Bucket {
    lengths: Vec<usize>,
    /// The sums of this process's part.
    sums: Vec<f32>,
}

impl Bucket {
    /// Returns where the part of a process is: which lists, and which of their numbers.
    fn part(&self, rank: usize, size: usize) -> Vec<(usize, Range<usize>)> {
        let part = part(self.lengths.iter().sum(), rank, size);
        let mut end = 0;
        let own = self.lengths.iter().enumerate().map(|(list, length)| {
            let start = end;
            end += length;
            (list, part.start.clamp(start, end) - start..part.end.clamp(start, end) - start)
        });
        own.filter(|(_, numbers)| !numbers.is_empty()).collect()
    }
}

impl<'a> OrderedSum<'a> {
    pub(crate) fn new(processes: &'a dyn Processes) -> Self {
        Self { processes, buckets: Vec::new(), packed: vec![Vec::new(); processes.size()] }
    }

    /// Adds, to the lists of bucket `place`, the own numbers of this process and those of all others, by rank. Buckets
    /// are met in the same order in every round, and are alike for every process.
    pub(crate) fn add(&mut self, place: usize, own: &[Vec<f32>]) {
        let (rank, size) = (self.processes.rank(), self.processes.size());
        if place == self.buckets.len() {
            let lengths: Vec<usize> = own.iter().map(Vec::len).collect();
            let sums = vec![NOTHING; part(lengths.iter().sum(), rank, size).len()];
            self.buckets.push(Bucket { lengths, sums });
        }
        let bucket = &mut self.buckets[place];
        for (to, packed) in self.packed.iter_mut().enumerate() {
            packed.clear();
            if to != rank {
                bucket.part(to, size).into_iter().for_each(|(list, numbers)| pack(&own[list][numbers], packed));
            }
        }
        let parts: Vec<&[u32]> = self.packed.iter().map(Vec::as_slice).collect();
        let part = bucket.part(rank, size);
        for (from, packed) in self.processes.all_to_all(&parts).iter().enumerate() {
            let (mut packed, mut rest) = (packed.as_slice(), bucket.sums.as_mut_slice());
            for (list, numbers) in &part {
                let (sums, others) = rest.split_at_mut(numbers.len());
                rest = others;
                if from == rank {
                    sums.iter_mut().zip(&own[*list][numbers.clone()]).for_each(|(sum, value)| *sum += value);
                } else {
                    packed = add_packed(packed, sums);
                }
            }
        }
    }

    /// Returns the sums of the lists of bucket `place`.
    pub(crate) fn take(&mut self, place: usize) -> Vec<Vec<f32>> {
        let (rank, size) = (self.processes.rank(), self.processes.size());
        let sums = std::mem::take(&mut self.buckets[place].sums);
        let bucket = &self.buckets[place];
        let mut whole: Vec<Vec<f32>> = bucket.lengths.iter().map(|length| vec![0.0; *length]).collect();
        let packed = &mut self.packed[rank];
        packed.clear();
        let mut rest = sums.as_slice();
        for (list, numbers) in bucket.part(rank, size) {
            let (own, others) = rest.split_at(numbers.len());
            rest = others;
            pack(own, packed);
            whole[list][numbers].copy_from_slice(own);
        }
        let mut parts = vec![packed.as_slice(); size];
        parts[rank] = &[];
        for (from, packed) in self.processes.all_to_all(&parts).iter().enumerate().filter(|(from, _)| *from != rank) {
            let mut packed = packed.as_slice();
            for (list, numbers) in bucket.part(from, size) {
                packed = copy_packed(packed, &mut whole[list][numbers]);
            }
        }
        whole
    }
}

/// Appends numbers in blocks: a bit for each block that has another number than 0, 32 to a word, then these blocks.
fn pack(values: &[f32], packed: &mut Vec<u32>) {
    let blocks = values.len().div_ceil(BLOCK);
    let bits = packed.len();
    packed.resize(bits + blocks.div_ceil(32), 0);
    for (place, block) in values.chunks(BLOCK).enumerate() {
        // The sign counts too: a sum distinguishes 0 from -0.
        if block.iter().fold(0, |any, value| any | value.to_bits()) != 0 {
            packed[bits + place / 32] |= 1 << (place % 32);
            packed.extend(block.iter().map(|value| value.to_bits()));
        }
    }
}

/// Adds numbers that were packed to as many sums, and returns what was packed behind them.
fn add_packed<'p>(packed: &'p [u32], sums: &mut [f32]) -> &'p [u32] {
    each_block(packed, sums, |sums, block| match block {
        Some(block) => sums.iter_mut().zip(block).for_each(|(sum, bits)| *sum += f32::from_bits(*bits)),
        // It changes the sign of -0.
        None => sums.iter_mut().for_each(|sum| *sum += 0.0),
    })
}

/// Copies numbers that were packed to as many zeros, and returns what was packed behind them.
fn copy_packed<'p>(packed: &'p [u32], zeros: &mut [f32]) -> &'p [u32] {
    each_block(packed, zeros, |zeros, block| {
        if let Some(block) = block {
            zeros.iter_mut().zip(block).for_each(|(zero, bits)| *zero = f32::from_bits(*bits));
        }
    })
}

/// Calls `take` for each block of `into` with its numbers, or None where these are zeros.
fn each_block<'p>(packed: &'p [u32], into: &mut [f32], take: impl Fn(&mut [f32], Option<&[u32]>)) -> &'p [u32] {
    let blocks = into.len().div_ceil(BLOCK);
    let (bits, mut values) = packed.split_at(blocks.div_ceil(32));
    for (place, into) in into.chunks_mut(BLOCK).enumerate() {
        if bits[place / 32] >> (place % 32) & 1 == 0 {
            take(into, None);
            continue;
        }
        let (own, rest) = values.split_at(into.len());
        take(into, Some(own));
        values = rest;
    }
    values
}

/// Returns the part of `0..length` that belongs to a process.
pub(crate) fn part(length: usize, rank: usize, size: usize) -> Range<usize> {
    let each = length.div_ceil(size);
    (each * rank).min(length)..(each * (rank + 1)).min(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_everything_once() {
        for (length, size) in [(0, 3), (1, 3), (7, 3), (9, 3), (2, 4), (100, 7)] {
            let all: Vec<usize> = (0..size).flat_map(|rank| part(length, rank, size)).collect();
            assert!(all.into_iter().eq(0..length), "{length} {size}");
        }
    }

    #[test]
    fn parts_of_a_bucket_cover_its_lists_once() {
        let bucket = Bucket { lengths: vec![3, 0, 7, 1], sums: Vec::new() };
        for size in [1, 2, 3, 4, 20] {
            let parts: Vec<_> = (0..size).flat_map(|rank| bucket.part(rank, size)).collect();
            let numbers = parts.into_iter().flat_map(|(list, numbers)| numbers.map(move |number| (list, number)));
            let all = bucket.lengths.iter().enumerate().flat_map(|(list, length)| (0..*length).map(move |n| (list, n)));
            assert!(numbers.eq(all), "{size}");
        }
        assert_eq!(bucket.part(0, 2), [(0, 0..3), (2, 0..3)]);
    }

    #[test]
    fn packed_numbers_come_back_with_their_bits_and_zeros_do_not_travel() {
        for length in [0, 1, 127, 128, 129, 5000] {
            let mut values = vec![0.0_f32; length];
            for (place, value) in values.iter_mut().enumerate().filter(|(place, _)| place % 700 == 0) {
                *value = if place == 0 { -0.0 } else { place as f32 };
            }
            let mut packed = vec![7];
            pack(&values, &mut packed);
            assert!(packed.len() <= 3 + 8 * BLOCK, "{length}: {}", packed.len());
            packed.push(8);
            let mut back = vec![0.0; length];
            assert_eq!(copy_packed(&packed[1..], &mut back), [8]);
            assert!(back.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()), "{length}");
            let mut sums = vec![NOTHING; length];
            assert_eq!(add_packed(&packed[1..], &mut sums), [8]);
            assert!(sums.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()), "{length}");
        }
    }

    #[test]
    fn adding_nothing_changes_no_bit() {
        for value in [0.0_f32, -0.0, 1.5, -1e-45, f32::MAX, f32::NEG_INFINITY] {
            assert_eq!((value + NOTHING).to_bits(), value.to_bits());
            assert_eq!((NOTHING + value).to_bits(), value.to_bits());
        }
    }
}

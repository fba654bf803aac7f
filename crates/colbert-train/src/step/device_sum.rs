//! A sum of gradients over pieces of a batch, in the order of the pieces, on the devices of the processes.
//!
//! As on the hosts ([`ordered_sum`](crate::step::ordered_sum)), every process adds up one part of the numbers, piece
//! after piece, and the parts are gathered at the end: a library's own sum of all processes has an order of its own.
//! Zeros are sent too: to find them, a device would have to wait for the host.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use crate::processes::devices::DeviceExchange;
use crate::step::ordered_sum::NOTHING;

/// Numbers of a piece; without any, as many that change no sum.
pub(crate) struct List<B: Backend> {
    pub(crate) length: usize,
    pub(crate) values: Option<Tensor<B, 1>>,
}

/// A sum of lists of numbers, some lists at a time, a bucket.
pub(crate) struct DeviceSum<'a, B: Backend> {
    exchange: &'a dyn DeviceExchange<B>,
    size: usize,
    device: B::Device,
    buckets: Vec<Bucket<B>>,
}

/// Lists that travel together.
struct Bucket<B: Backend> {
    lengths: Vec<usize>,
    /// The sums of this process's part; none before and after.
    sums: Option<Tensor<B, 1>>,
}

impl<'a, B: Backend> DeviceSum<'a, B> {
    pub(crate) fn new(exchange: &'a dyn DeviceExchange<B>, size: usize, device: &B::Device) -> Self {
        Self { exchange, size, device: device.clone(), buckets: Vec::new() }
    }

    /// See [`SumOfPieces::add`](crate::step::sum_of_pieces::SumOfPieces::add).
    pub(crate) fn add(&mut self, place: usize, own: Vec<List<B>>) {
        let lengths: Vec<usize> = own.iter().map(|list| list.length).collect();
        let count: usize = lengths.iter().sum();
        let each = count.div_ceil(self.size);
        if place == self.buckets.len() {
            self.buckets.push(Bucket { lengths, sums: None });
        }
        let nothing = |length: usize| Tensor::from_data(TensorData::new(vec![NOTHING; length], [length]), &self.device);
        let mut lists: Vec<Tensor<B, 1>> =
            own.into_iter().map(|list| list.values.unwrap_or_else(|| nothing(list.length))).collect();
        // All parts have the same length.
        let missing = each * self.size - count;
        if missing > 0 {
            lists.push(nothing(missing));
        }
        let received = self.exchange.all_to_all(Tensor::cat(lists, 0));
        let mut sums = self.buckets[place].sums.take();
        for rank in 0..self.size {
            let part = rank * each..(rank + 1) * each;
            let more = received.clone().slice([part]);
            sums = Some(match sums {
                Some(sums) => sums + more,
                None => more,
            });
        }
        self.buckets[place].sums = sums;
    }

    /// See [`SumOfPieces::take`](crate::step::sum_of_pieces::SumOfPieces::take).
    pub(crate) fn take(&mut self, place: usize) -> Vec<Tensor<B, 1>> {
        let bucket = &mut self.buckets[place];
        let whole = self.exchange.all_gather(bucket.sums.take().expect("a bucket has a round, and is taken once"));
        let mut end = 0;
        let lists = bucket.lengths.iter().map(|length| {
            let numbers = end..end + length;
            end = numbers.end;
            whole.clone().slice([numbers])
        });
        lists.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, Mutex};

    use test_backend::{TestBackend, device};

    use super::*;
    use crate::processes::exchange::host_values;

    /// Threads in place of processes, that exchange numbers through the host.
    struct Group {
        given: Mutex<Vec<Vec<f32>>>,
        all: Barrier,
    }

    struct Member<'a> {
        rank: usize,
        group: &'a Group,
    }

    impl Member<'_> {
        /// Returns the numbers that all have given.
        fn exchange(&self, own: Tensor<TestBackend, 1>) -> Vec<Vec<f32>> {
            self.group.given.lock().unwrap()[self.rank] = host_values(own);
            self.group.all.wait();
            let all = self.group.given.lock().unwrap().clone();
            self.group.all.wait();
            assert!(all.iter().all(|given| given.len() == all[0].len()), "all give as many");
            all
        }
    }

    fn floats(values: Vec<f32>) -> Tensor<TestBackend, 1> {
        let count = values.len();
        Tensor::from_data(TensorData::new(values, [count]), &device())
    }

    impl DeviceExchange<TestBackend> for Member<'_> {
        fn all_to_all(&self, parts: Tensor<TestBackend, 1>) -> Tensor<TestBackend, 1> {
            let all = self.exchange(parts);
            let each = all[0].len() / all.len();
            floats(all.iter().flat_map(|given| given[self.rank * each..][..each].to_vec()).collect())
        }

        fn all_gather(&self, own: Tensor<TestBackend, 1>) -> Tensor<TestBackend, 1> {
            floats(self.exchange(own).concat())
        }
    }

    /// Sums of numbers whose order of addition shows, of zeros of both signs, and of a list that no piece has.
    #[test]
    fn every_process_gets_the_sums_in_the_order_of_the_pieces() {
        let lengths = [1, 5, 2, 130];
        let value = |piece: usize, list: usize, number: usize| match (list, number % 9) {
            (_, 0) => -0.0,
            (_, 1) if piece > 0 => 0.0,
            _ => (1.0 + piece as f32 * 0.37 + list as f32) * 10f32.powi((piece * 5 + number * 3) as i32 % 7 - 3),
        };
        let has = |piece: usize, list: usize| list != 2 && !(piece == 1 && list == 1);
        for (size, pieces) in [(1, 3), (2, 4), (3, 5), (4, 4), (7, 15)] {
            let group = Group { given: Mutex::new(vec![Vec::new(); size]), all: Barrier::new(size) };
            let sums = |rank: usize| {
                let member = Member { rank, group: &group };
                let mut sum = DeviceSum::new(&member, size, &device());
                for first in (0..pieces).step_by(size) {
                    let list = |list: usize| {
                        let there = first + rank < pieces && has(first + rank, list);
                        let own = || (0..lengths[list]).map(|number| value(first + rank, list, number)).collect();
                        List { length: lengths[list], values: there.then(|| floats(own())) }
                    };
                    sum.add(0, (0..3).map(list).collect());
                    sum.add(1, vec![list(3)]);
                }
                let taken = [sum.take(0), sum.take(1)].concat();
                taken.into_iter().map(|list| host_values(list).into_iter().map(f32::to_bits).collect()).collect()
            };
            let found: Vec<Vec<Vec<u32>>> = std::thread::scope(|scope| {
                let sums = &sums;
                let threads: Vec<_> = (0..size).map(|rank| scope.spawn(move || sums(rank))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let expected = lengths.iter().enumerate().map(|(list, length)| {
                let of_number = |number| {
                    let of_pieces = (0..pieces).filter(|piece| has(*piece, list));
                    of_pieces.fold(NOTHING, |sum, piece| sum + value(piece, list, number)).to_bits()
                };
                (0..*length).map(of_number).collect::<Vec<_>>()
            });
            let expected: Vec<_> = expected.collect();
            assert!(found.iter().all(|found| *found == expected), "{size} processes, {pieces} pieces");
        }
    }
}

//! Fitting a run into memory on flex: the smallest number of micro-batches that does, by what is known of its
//! operators.

use colbert_config::{IbScope, MemoryLimit, TrainOptions};
use colbert_model::TrainingMemory;
use colbert_train::{Processes, exchange_memory, memory};

use crate::error::Error;

/// Of the memory that is free when a run starts, how much `"auto"` takes.
pub(crate) const SHARE: f64 = 0.8;

/// Numbers of micro-batches that each of some processes can cut its share of a batch into, the fewest first, from those
/// that were asked for.
pub(crate) fn divided(options: &TrainOptions, processes: usize) -> impl Iterator<Item = usize> {
    let batch_size = options.batch_size;
    let most = batch_size / processes;
    (options.accumsteps..=most).filter(move |accumsteps| batch_size.is_multiple_of(accumsteps * processes))
}

/// Whether more micro-batches leave the loss as it is.
pub(crate) fn keeps_loss(options: &TrainOptions) -> bool {
    !options.use_ib_negatives || options.ib_scope == IbScope::Batch
}

/// The options with as many micro-batches as the limit asks for, and the bytes the run then takes at most: every text
/// is counted at its longest. `held` are bytes for other things than training steps. Both are of one process; an
/// automatic limit is its part of the machine's free memory.
///
/// # Errors
/// A limit that no number of micro-batches meets, or one that micro-batches would meet at the price of another loss.
pub(crate) fn within_limit(
    options: &TrainOptions,
    need: TrainingMemory,
    held: u64,
    processes: &dyn Processes,
) -> Result<(TrainOptions, u64), Error> {
    let with = |accumsteps: usize| TrainOptions { accumsteps, ..options.clone() };
    let bytes = |accumsteps: usize| {
        let (queries, documents) =
            (options.batch_size * options.query_maxlen, options.batch_size * options.nway * options.doc_maxlen);
        // The queries and the documents of a micro-batch have one backward pass.
        let tokens = queries + documents;
        let at_once = tokens.div_ceil(accumsteps * processes.size());
        let shared = processes.size() > 1;
        let exchanged = if shared { exchanged(need, tokens) } else { 0 };
        held + need.bytes(tokens, at_once, shared) + exchanged
    };
    let asked = bytes(options.accumsteps);
    let limit = match options.memory_limit {
        None => return Ok((options.clone(), asked)),
        Some(MemoryLimit::Bytes(bytes)) => bytes,
        Some(MemoryLimit::Auto) => {
            let free = memory::available().ok_or(Error::NoMemoryReading)? as f64;
            (free * SHARE / processes.local_size() as f64) as u64
        }
    };
    match divided(options, processes.size()).find(|accumsteps| bytes(*accumsteps) <= limit) {
        Some(accumsteps) if accumsteps == options.accumsteps => Ok((options.clone(), asked)),
        Some(accumsteps) if !keeps_loss(options) => Err(Error::LimitChangesLoss { limit, asked, accumsteps }),
        Some(accumsteps) => Ok((with(accumsteps), bytes(accumsteps))),
        None => Err(Error::LimitTooLow { limit, least: bytes(options.batch_size / processes.size()) }),
    }
}

/// Bytes of what a process of several holds while it exchanges numbers with the others: gradients, and the embeddings
/// of a batch of `tokens` tokens. Three copies of these are in transit while their own memory in a step, four numbers
/// for each, is hardly used yet; the process's own part, of half the tokens or less, is there twice more.
fn exchanged(need: TrainingMemory, tokens: usize) -> u64 {
    let touched = need.row * tokens as u64;
    exchange_memory(need.parameters, need.largest, touched) + need.per_embedding / 4 * tokens as u64
}

#[cfg(test)]
mod tests {
    use colbert_train::OneProcess;

    use super::*;

    const NEED: TrainingMemory =
        TrainingMemory { parameters: 1_000, per_token: 1_000, per_embedding: 10, largest: 400, row: 4 };

    /// The program itself, which every run needs.
    const PROGRAM: u64 = 250_000_000;

    fn options(limit: u64) -> TrainOptions {
        let memory_limit = Some(MemoryLimit::Bytes(limit));
        TrainOptions { batch_size: 8, query_maxlen: 10, doc_maxlen: 100, memory_limit, ..TrainOptions::default() }
    }

    #[test]
    fn micro_batches_are_as_few_as_fit() {
        // 80 query tokens and 1,600 document tokens, 10 bytes each beside what is held at once.
        for (limit, accumsteps, bytes) in
            [(1_701_800, 1, 1_701_800), (1_701_799, 2, 863_800), (500_000, 4, 443_800), (300_000, 8, 233_800)]
        {
            let (chosen, needed) = within_limit(&options(PROGRAM + limit), NEED, 0, &OneProcess).unwrap();
            assert_eq!((chosen.accumsteps, needed), (accumsteps, PROGRAM + bytes), "{limit}");
        }
    }

    #[test]
    fn more_micro_batches_than_asked_for_but_never_fewer() {
        let asked = TrainOptions { accumsteps: 4, ..options(PROGRAM + 5_000_000) };
        assert_eq!(within_limit(&asked, NEED, 0, &OneProcess).unwrap().0.accumsteps, 4);
    }

    /// One of two processes of a machine.
    #[derive(Debug)]
    struct OneOfTwo;

    impl Processes for OneOfTwo {
        fn rank(&self) -> usize {
            0
        }

        fn size(&self) -> usize {
            2
        }

        fn all_gather(&self, _: &[u8]) -> Vec<Vec<u8>> {
            unreachable!("nothing is exchanged before the first step")
        }

        fn all_to_all(&self, _: &[&[u32]]) -> Vec<Vec<u32>> {
            unreachable!("nothing is exchanged before the first step")
        }
    }

    #[test]
    fn what_processes_exchange_counts() {
        let free = TrainOptions { memory_limit: None, ..options(0) };
        let (_, alone) = within_limit(&TrainOptions { accumsteps: 2, ..free.clone() }, NEED, 0, &OneProcess).unwrap();
        let (_, shared) = within_limit(&free, NEED, 0, &OneOfTwo).unwrap();
        // One copy of the parameters less, as the sum is shared. A bucket holds all parameters, six times, and a number
        // of each embedding is on its way.
        assert_eq!(shared, alone - 1_000 + 6 * 1_000 + 1_680 * 2);
        // Of large word embeddings, only the rows of the batch's words travel.
        let words = TrainingMemory { parameters: 1 << 30, largest: 1 << 29, ..NEED };
        assert_eq!(exchanged(words, 100_000), 2 * (1 << 29) + 4 * (16 << 20) + 200_000);
        let many = TrainingMemory { row: 1 << 10, ..words };
        assert_eq!(exchanged(many, 100_000), 2 * (1 << 29) + 4 * 102_400_000 + 200_000);
    }

    #[test]
    fn a_limit_that_cannot_be_met_names_the_nearest() {
        let error = within_limit(&options(PROGRAM), NEED, 0, &OneProcess).unwrap_err().to_string();
        assert!(error.contains("250 MB") && error.contains("lower train.batch_size"), "{error}");
        let micro = TrainOptions { ib_scope: IbScope::MicroBatch, ..options(PROGRAM + 500_000) };
        let error = within_limit(&micro, NEED, 0, &OneProcess).unwrap_err().to_string();
        assert!(error.contains("accumsteps = 4"), "{error}");
    }
}

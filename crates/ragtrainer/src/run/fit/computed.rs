//! Fitting a run into memory on flex: the smallest number of micro-batches that does, by what is known of its
//! operators.

use colbert_config::{IbScope, MemoryLimit, TrainOptions};
use colbert_model::TrainingMemory;
use colbert_train::{Processes, memory};

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
        let cached = accumsteps > 1 && options.use_ib_negatives && options.ib_scope == IbScope::Batch;
        // Cached embeddings are made of queries and of documents in turn, micro-batches of both at once. A process with
        // one micro-batch keeps the history of both.
        let at_once = if cached { queries.max(documents) } else { queries + documents };
        held + need.bytes(queries + documents, at_once.div_ceil(accumsteps * processes.size()))
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

#[cfg(test)]
mod tests {
    use colbert_train::OneProcess;

    use super::*;

    const NEED: TrainingMemory = TrainingMemory { parameters: 1_000, per_token: 1_000, per_embedding: 10 };

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
            [(1_701_800, 1, 1_701_800), (1_701_799, 2, 823_800), (500_000, 4, 423_800), (300_000, 8, 223_800)]
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

    #[test]
    fn a_limit_that_cannot_be_met_names_the_nearest() {
        let error = within_limit(&options(PROGRAM), NEED, 0, &OneProcess).unwrap_err().to_string();
        assert!(error.contains("250 MB") && error.contains("lower train.batch_size"), "{error}");
        let micro = TrainOptions { ib_scope: IbScope::MicroBatch, ..options(PROGRAM + 500_000) };
        let error = within_limit(&micro, NEED, 0, &OneProcess).unwrap_err().to_string();
        assert!(error.contains("accumsteps = 4"), "{error}");
    }
}

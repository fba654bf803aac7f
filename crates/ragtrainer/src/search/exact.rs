//! Exact search: every passage is scored, on all threads of the CPU.

use colbert_kernels::{PackedQueries, Scratch};
use rayon::prelude::*;

use crate::error::Error;
use crate::search::ranking::EncodedSource;
use crate::search::text_vectors::TextVectors;
use crate::search::top::Top;

/// Places that a thread reads and scores at once: about 1.6 MB of documents of 100 vectors of 128 float32.
const PLACES: usize = 32;

/// The best `k` places for each query. In passages of fewer than `floored_below` vectors, no query token counts less
/// than 0.
///
/// Every thread reads its own blocks, so that memory does not grow with the documents, and keeps the best of its own.
/// Scores depend on query and passage alone, and equal scores are ordered by place, so the number of threads changes
/// nothing.
pub(crate) fn best(
    queries: &TextVectors,
    source: &dyn EncodedSource,
    k: usize,
    floored_below: usize,
) -> Result<Vec<Top>, Error> {
    let packed = PackedQueries::new(queries.values(), queries.offsets(), queries.dim());
    let count = source.places();
    let empty = || Worker { tops: vec![Top::new(k); packed.len()], ..Worker::default() };
    let work = |mut worker: Worker, block: usize| -> Result<Worker, Error> {
        let places = block * PLACES..count.min((block + 1) * PLACES);
        let found = source.block(places, &mut worker.buffer)?;
        worker.scores.resize(found.places.len() * packed.len(), 0.0);
        packed.score(found.rows, &found.offsets, floored_below, &mut worker.scratch, &mut worker.scores);
        for (place, scores) in found.places.iter().zip(worker.scores.chunks_exact(packed.len().max(1))) {
            worker.tops.iter_mut().zip(scores).for_each(|(top, score)| top.offer(*place, *score));
        }
        Ok(worker)
    };
    let merge = |mut a: Worker, b: Worker| {
        a.tops.iter_mut().zip(b.tops).for_each(|(a, b)| a.merge(b));
        Ok(a)
    };
    let blocks = (0..count.div_ceil(PLACES)).into_par_iter();
    Ok(blocks.try_fold(empty, work).try_reduce(empty, merge)?.tops)
}

/// The best `k` of the given places for each query.
pub(crate) fn best_of(
    queries: &TextVectors,
    source: &dyn EncodedSource,
    places: &[Vec<usize>],
    k: usize,
    floored_below: usize,
) -> Result<Vec<Top>, Error> {
    let search = |worker: &mut Worker, (query, places): (usize, &Vec<usize>)| -> Result<Top, Error> {
        let packed =
            PackedQueries::new(queries.rows(query), &[0, queries.rows(query).len() / queries.dim()], queries.dim());
        let mut places = places.clone();
        places.sort_unstable();
        places.dedup();
        let mut top = Top::new(k);
        // Neighbours are read at once.
        for run in places.chunk_by(|a, b| a + 1 == *b).flat_map(|run| run.chunks(PLACES)) {
            let found = source.block(run[0]..run[run.len() - 1] + 1, &mut worker.buffer)?;
            worker.scores.resize(found.places.len(), 0.0);
            packed.score(found.rows, &found.offsets, floored_below, &mut worker.scratch, &mut worker.scores);
            found.places.iter().zip(&worker.scores).for_each(|(place, score)| top.offer(*place, *score));
        }
        Ok(top)
    };
    places.par_iter().enumerate().map_init(Worker::default, search).collect()
}

/// Ranks encoded documents for queries that were encoded before, on all threads of the CPU: for each query the places
/// and scores of the best `k`, best first. With an index, those that it names are scored.
///
/// # Errors
/// Queries of another size than the documents' vectors, or documents that cannot be read.
pub fn search_vectors(
    queries: &TextVectors,
    documents: &dyn EncodedSource,
    k: usize,
) -> Result<Vec<Vec<(usize, f32)>>, Error> {
    if queries.dim() != documents.dim() {
        let (found, expected) = ((queries.len(), queries.dim()), (queries.len(), documents.dim()));
        return Err(Error::OtherVectors { found, expected });
    }
    let tops = match documents.candidates(queries, k, None)? {
        Some(candidates) => best_of(queries, documents, &candidates, k, 0)?,
        None => best(queries, documents, k, 0)?,
    };
    Ok(tops.into_iter().map(Top::into_sorted).collect())
}

/// Scores `[queries, documents]` of documents in memory, on all threads.
pub(crate) fn scores(queries: &TextVectors, documents: &TextVectors, floored_below: usize) -> Vec<f32> {
    let packed = PackedQueries::new(queries.values(), queries.offsets(), queries.dim());
    let (queries, count) = (packed.len(), documents.len());
    let mut by_document = vec![0.0; queries * count];
    by_document.par_chunks_mut(PLACES * queries.max(1)).enumerate().for_each_init(
        Scratch::default,
        |scratch, (i, to)| {
            let places = i * PLACES..count.min((i + 1) * PLACES);
            let block = documents.block(places);
            packed.score(block.rows, &block.offsets, floored_below, scratch, to);
        },
    );
    (0..queries).flat_map(|query| by_document.iter().skip(query).step_by(queries).copied()).collect()
}

/// The state of one thread.
#[derive(Default)]
struct Worker {
    tops: Vec<Top>,
    buffer: Vec<u8>,
    scratch: Scratch,
    scores: Vec<f32>,
}

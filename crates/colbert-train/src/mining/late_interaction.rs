//! Ranking by the ColBERT that is trained: candidates of another miner, rescored by MaxSim.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Int, Tensor, TensorData};
use colbert_data::{Collection, DataError, MiningPhase, MiningProgress, NegativeMiner, Queries, Ranked};
use colbert_kernels::{KernelBackend, ScoredTexts, maxsim};
use colbert_model::{Colbert, ColbertTokenizer, Embeddings, Encoder, TokenSequence, scored_texts};
use rayon::prelude::*;

use super::best::best_first;
use crate::best::scoring::not_finite;
use crate::error::TrainError;
use crate::processes::exchange::{gather_floats, host_values};
use crate::processes::{OneProcess, Processes};

/// Candidates requested for each wanted document, so that MaxSim chooses and not only sorts.
const CANDIDATES: usize = 2;

/// Queries whose embeddings are held at once: 16 KiB each with 32 tokens of 128 numbers. With more, documents are
/// encoded once for each such part.
const QUERIES: usize = 16_384;

/// Texts encoded at once.
const TEXTS: usize = 64;

/// Queries scored at once with one document, as their vectors are copied for it: a document may be a candidate of all.
const COPIED: usize = 64;

/// Ranks the candidates of another miner by MaxSim.
///
/// Each document that is a candidate of any query is encoded once, and scored only against the queries for which it is
/// a candidate.
#[derive(Debug)]
pub struct LateInteractionMiner<B: KernelBackend, E: Encoder<B>> {
    /// A model may be sent between threads, but not shared.
    model: Mutex<Colbert<B, E>>,
    tokenizer: ColbertTokenizer,
    candidates: Arc<dyn NegativeMiner>,
    device: B::Device,
    processes: Arc<dyn Processes>,
}

impl<B: KernelBackend, E: Encoder<B>> LateInteractionMiner<B, E> {
    /// Creates a miner that rescores what `candidates` ranks.
    pub fn new(
        model: Colbert<B, E>,
        tokenizer: ColbertTokenizer,
        candidates: Arc<dyn NegativeMiner>,
        device: &B::Device,
    ) -> Self {
        let processes = Arc::new(OneProcess);
        Self { model: Mutex::new(model), tokenizer, candidates, device: device.clone(), processes }
    }

    /// Encodes only a share of all texts; the others' vectors and scores come from the other processes, which call the
    /// miner with the same texts.
    #[must_use]
    pub fn with_processes(mut self, processes: Arc<dyn Processes>) -> Self {
        self.processes = processes;
        self
    }

    /// Scores of the candidates of some queries.
    fn rescored(
        &self,
        queries: &[&str],
        candidates: &[Vec<Ranked>],
        collection: &Collection,
        done: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<Ranked>>, TrainError> {
        // A thread that panicked while it encoded left nothing half changed.
        let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        let (rank, size) = (self.processes.rank(), self.processes.size());
        let mut embedded = Vec::new();
        let blocks: Vec<&[&str]> = queries.chunks(TEXTS).collect();
        for (first, round) in (0..).step_by(size).zip(blocks.chunks(size)) {
            let own = blocks.get(first + rank).map(|texts| {
                let part = model.encode(&self.tokenizer.queries(texts)?, &self.device);
                all_finite("query", texts, &part).map(|()| part)
            });
            if size == 1 {
                embedded.extend(own.transpose()?);
                continue;
            }
            let own = own.transpose()?.map_or_else(Vec::new, |own| host_values(own.vectors));
            for (texts, values) in round.iter().zip(gather_floats(&*self.processes, &own)) {
                let sequences = self.tokenizer.queries(texts)?;
                let tokens: usize = sequences.iter().map(TokenSequence::len).sum();
                let shape = [tokens, values.len() / tokens];
                let vectors = Tensor::from_data(TensorData::new(values, shape), &self.device);
                embedded.push(Embeddings { vectors, texts: scored_texts(&sequences) });
            }
        }
        let embedded = Embeddings::concatenated(&embedded);

        // (document, query), by document.
        let mut pairs: Vec<(u32, usize)> = candidates
            .iter()
            .enumerate()
            .flat_map(|(query, ranked)| ranked.iter().map(move |one| (one.pid, query)))
            .collect();
        pairs.sort_unstable();
        let of_documents: Vec<&[(u32, usize)]> = pairs.chunk_by(|a, b| a.0 == b.0).collect();
        let mut rankings: Vec<Vec<Ranked>> = candidates.iter().map(|ranked| Vec::with_capacity(ranked.len())).collect();
        let blocks: Vec<&[&[(u32, usize)]]> = of_documents.chunks(TEXTS).collect();
        for (first, round) in (0..).step_by(size).zip(blocks.chunks(size)) {
            let own = blocks.get(first + rank).map(|block| self.block_scores(&model, &embedded, block, collection));
            let own = own.transpose()?.unwrap_or_default();
            let of_all = if size == 1 { vec![own] } else { gather_floats(&*self.processes, &own) };
            for (block, scores) in round.iter().zip(of_all) {
                for (&(pid, query), score) in block.iter().flat_map(|pairs| pairs.iter()).zip(scores) {
                    rankings[query].push(Ranked { pid, score });
                }
                done(block.len());
            }
        }
        rankings.par_iter_mut().for_each(|ranking| ranking.sort_unstable_by(best_first));
        Ok(rankings)
    }

    /// Scores of some documents with the queries that each is a candidate of, one document after the other.
    fn block_scores(
        &self,
        model: &Colbert<B, E>,
        queries: &Embeddings<B>,
        block: &[&[(u32, usize)]],
        collection: &Collection,
    ) -> Result<Vec<f32>, TrainError> {
        let texts: Vec<&str> = block.iter().map(|pairs| collection.text(pairs[0].0)).collect();
        let sequences = self.tokenizer.documents(&texts)?;
        let documents = model.encode(&sequences, &self.device);
        all_finite("document", &texts, &documents)?;
        let scores: Vec<Vec<f32>> = (0..block.len())
            .into_par_iter()
            .map(|place| {
                let concerned: Vec<usize> = block[place].iter().map(|(_, query)| *query).collect();
                let parts = concerned.chunks(COPIED);
                parts
                    .flat_map(|part| score(queries, part, &documents, place, &sequences[place], &self.device))
                    .collect()
            })
            .collect();
        Ok(scores.concat())
    }
}

/// Refuses vectors that are not finite: a ranking by them would be the order of the collection.
pub(super) fn all_finite<B: KernelBackend>(
    what: &'static str,
    texts: &[&str],
    embeddings: &Embeddings<B>,
) -> Result<(), TrainError> {
    match not_finite(embeddings) {
        Some(place) => Err(TrainError::NonFiniteVectors { what, id: format!("\"{}\"", texts[place]) }),
        None => Ok(()),
    }
}

/// Scores of one document against some of the queries, in their order.
pub(super) fn score<B: KernelBackend>(
    all: &Embeddings<B>,
    queries: &[usize],
    documents: &Embeddings<B>,
    place: usize,
    sequence: &TokenSequence,
    device: &B::Device,
) -> Vec<f32> {
    let rows: Vec<i32> = queries.iter().flat_map(|&query| all.texts.rows(query)).map(|row| row as i32).collect();
    let lengths: Vec<usize> = queries.iter().map(|&query| all.texts.rows(query).len()).collect();
    // Every token of a query is scored.
    let query_texts = ScoredTexts::new(&lengths, vec![true; rows.len()]);
    let count = rows.len();
    let rows = Tensor::<B, 1, Int>::from_data(TensorData::new(rows, [count]), device);
    let document = documents.vectors.clone().slice([documents.texts.rows(place)]);
    let document_texts = ScoredTexts::new(&[sequence.len()], sequence.scored.clone());
    let scores = maxsim(all.vectors.clone().select(0, rows), &query_texts, document, &document_texts);
    scores.into_data().convert::<f32>().into_vec::<f32>().expect("the data was converted to f32")
}

impl<B: KernelBackend, E: Encoder<B>> NegativeMiner for LateInteractionMiner<B, E> {
    fn name(&self) -> String {
        format!("late interaction on {}", self.candidates.name())
    }

    fn rank(
        &self,
        queries: &Queries,
        collection: &Collection,
        depth: usize,
        progress: &MiningProgress<'_>,
    ) -> Result<Vec<Vec<Ranked>>, DataError> {
        let wanted = depth.saturating_mul(CANDIDATES).min(collection.len());
        let candidates = self.candidates.rank(queries, collection, wanted, progress)?;
        if candidates.len() != queries.len() {
            return Err(DataError::MinerContract {
                miner: self.candidates.name(),
                expected: format!("a ranking for each of the {} queries", queries.len()),
                found: candidates.len().to_string(),
            });
        }
        let distinct = |part: &[Vec<Ranked>]| part.iter().flatten().map(|one| one.pid).collect::<BTreeSet<_>>().len();
        let total: usize = candidates.chunks(QUERIES).map(distinct).sum();
        let mut scored = 0;
        let mut done = |documents: usize| {
            scored += documents;
            progress(MiningPhase::Rescoring, scored, total);
        };
        let texts: Vec<&str> = queries.iter().collect();
        let mut rankings = Vec::with_capacity(texts.len());
        for (texts, candidates) in texts.chunks(QUERIES).zip(candidates.chunks(QUERIES)) {
            let part = self.rescored(texts, candidates, collection, &mut done);
            rankings.extend(part.map_err(|source| DataError::Miner { miner: self.name(), source: Box::new(source) })?);
        }
        rankings.iter_mut().for_each(|ranking| ranking.truncate(depth));
        Ok(rankings)
    }
}

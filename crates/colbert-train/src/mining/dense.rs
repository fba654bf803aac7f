//! Ranking by a sentence encoder: one vector for each text, every query against every document, exactly.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Tensor, TensorData};
use colbert_data::{Collection, DataError, MiningPhase, MiningProgress, NegativeMiner, Queries, Ranked};
use colbert_kernels::{KernelBackend, Precision, linear};
use colbert_model::sentence::{Pooling, SentenceEncoder};
use colbert_model::{HostTensor, ModelError};
use rayon::prelude::*;

use super::best::Best;
use super::shared::merge_rankings;
use crate::error::TrainError;
use crate::processes::exchange::{gather_floats, host_values};
use crate::processes::{OneProcess, Processes};

/// Queries in one product with a block of documents.
const QUERIES: usize = 256;

/// Documents encoded and scored before their vectors are dropped again.
const DOCUMENTS: usize = 256;

/// Ranks by the product of sentence vectors.
///
/// Held in memory: the vectors of the queries, those of a block of documents, their products, and the best documents of
/// each query; never those of all documents.
#[derive(Debug)]
pub struct DenseMiner<B: KernelBackend> {
    /// A model may be sent between threads, but not shared.
    encoder: Mutex<SentenceEncoder<B>>,
    name: String,
    device: B::Device,
    processes: Arc<dyn Processes>,
}

impl<B: KernelBackend> DenseMiner<B> {
    /// Reads the sentence encoder in a directory. Prefixes that are given stand in place of those that the directory or
    /// its family has.
    ///
    /// # Errors
    /// As [`SentenceEncoder::read`].
    pub fn read(
        directory: &Path,
        query_prefix: Option<&str>,
        document_prefix: Option<&str>,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        let mut encoder = SentenceEncoder::<B>::read(directory, device)?;
        if let Some(prefix) = query_prefix {
            encoder.settings.query_prefix = prefix.to_owned();
        }
        if let Some(prefix) = document_prefix {
            encoder.settings.document_prefix = prefix.to_owned();
        }
        Ok(Self::new(encoder, device))
    }

    /// Creates a miner with an encoder on `device`.
    pub fn new(encoder: SentenceEncoder<B>, device: &B::Device) -> Self {
        let settings = &encoder.settings;
        let pooling = match settings.pooling {
            Pooling::Mean => "mean",
            Pooling::Cls => "CLS",
        };
        let similarity = if settings.unit_length { "cosine" } else { "product" };
        let mut name =
            format!("dense ({}, {pooling}, {similarity}, {} tokens", encoder.name(), settings.max_seq_length);
        for (side, prefix) in [("queries", &settings.query_prefix), ("documents", &settings.document_prefix)] {
            if !prefix.is_empty() {
                name.push_str(&format!(", {side} after \"{prefix}\""));
            }
        }
        name.push(')');
        Self { encoder: Mutex::new(encoder), name, device: device.clone(), processes: Arc::new(OneProcess) }
    }

    /// Encodes only a share of all texts; the others come from the other processes, which call the miner with the same
    /// texts.
    #[must_use]
    pub fn with_processes(mut self, processes: Arc<dyn Processes>) -> Self {
        self.processes = processes;
        self
    }

    fn best(
        &self,
        queries: &Queries,
        collection: &Collection,
        depth: usize,
        progress: &MiningProgress<'_>,
    ) -> Result<Vec<Vec<Ranked>>, TrainError> {
        // A thread that panicked while it encoded left nothing half changed.
        let encoder = self.encoder.lock().unwrap_or_else(PoisonError::into_inner);
        let total = queries.len() + collection.len();
        let (rank, size) = (self.processes.rank(), self.processes.size());
        let mut query_vectors = Vec::with_capacity(queries.len().div_ceil(QUERIES));
        let mut done = 0;
        progress(MiningPhase::Indexing, done, total);
        let query_blocks: Vec<_> = blocks(queries.len(), QUERIES).collect();
        for (first, round) in (0..).step_by(size).zip(query_blocks.chunks(size)) {
            let own = query_blocks.get(first + rank).cloned().map(|qids| {
                let texts: Vec<&str> = qids.map(|qid| queries.text(qid)).collect();
                all_finite("query", &texts, encoder.queries(&texts, &self.device)?)
            });
            for (qids, vectors) in round.iter().zip(self.gathered(own.transpose()?)) {
                query_vectors.push(self.on_device(vectors, qids.len()));
                done += qids.len();
            }
            progress(MiningPhase::Indexing, done, total);
        }
        let mut best = vec![Best::new(depth); queries.len()];
        for (place, pids) in blocks(collection.len(), DOCUMENTS).enumerate() {
            done += pids.len();
            if place % size != rank {
                continue;
            }
            let first = pids.start;
            let texts: Vec<&str> = pids.map(|pid| collection.text(pid)).collect();
            let documents = all_finite("document", &texts, encoder.documents(&texts, &self.device)?)?;
            let documents = self.on_device(documents.values, texts.len());
            for (vectors, best) in query_vectors.iter().zip(best.chunks_mut(QUERIES)) {
                let scores = host_values(linear(vectors.clone(), documents.clone(), None, Precision::F32));
                best.par_iter_mut().zip(scores.par_chunks(texts.len())).for_each(|(best, row)| best.offer(first, row));
            }
            progress(MiningPhase::Indexing, done, total);
        }
        let own = best.into_par_iter().map(Best::ranking).collect();
        Ok(merge_rankings(&*self.processes, own, depth))
    }

    /// Gathers the values of every process's vectors, by rank.
    fn gathered(&self, own: Option<HostTensor>) -> Vec<Vec<f32>> {
        let own = own.map_or_else(Vec::new, |own| own.values);
        if self.processes.size() == 1 { vec![own] } else { gather_floats(&*self.processes, &own) }
    }

    /// Puts vectors of texts, `[texts, size]`, on the device.
    fn on_device(&self, values: Vec<f32>, texts: usize) -> Tensor<B, 2> {
        let size = values.len() / texts;
        Tensor::from_data(TensorData::new(values, [texts, size]), &self.device)
    }
}

/// Refuses vectors of texts, `[texts, size]`, that are not finite: a ranking by them would be the order of the
/// collection.
fn all_finite(what: &'static str, texts: &[&str], vectors: HostTensor) -> Result<HostTensor, TrainError> {
    match vectors.values.iter().position(|value| !value.is_finite()) {
        Some(place) => {
            let id = format!("\"{}\"", texts[place / vectors.shape[1]]);
            Err(TrainError::NonFiniteVectors { what, id })
        }
        None => Ok(vectors),
    }
}

/// Splits `0..count` into ranges of `size`.
fn blocks(count: usize, size: usize) -> impl Iterator<Item = std::ops::Range<u32>> {
    (0..count).step_by(size).map(move |start| start as u32..(start + size).min(count) as u32)
}

impl<B: KernelBackend> NegativeMiner for DenseMiner<B> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn rank(
        &self,
        queries: &Queries,
        collection: &Collection,
        depth: usize,
        progress: &MiningProgress<'_>,
    ) -> Result<Vec<Vec<Ranked>>, DataError> {
        let depth = depth.min(collection.len());
        if depth == 0 || queries.is_empty() {
            return Ok(vec![Vec::new(); queries.len()]);
        }
        self.best(queries, collection, depth, progress)
            .map_err(|source| DataError::Miner { miner: self.name(), source: Box::new(source) })
    }
}

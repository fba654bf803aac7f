//! Ranking by a sentence encoder: one vector a text, every query against every document, exactly.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use burn::tensor::{Tensor, TensorData};
use colbert_data::{Collection, DataError, MiningPhase, MiningProgress, NegativeMiner, Queries, Ranked};
use colbert_kernels::{KernelBackend, Precision, linear};
use colbert_model::{HostTensor, ModelError, Pooling, SentenceEncoder};
use rayon::prelude::*;

use super::best::Best;
use crate::error::TrainError;

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

    /// A miner with an encoder on `device`.
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
        Self { encoder: Mutex::new(encoder), name, device: device.clone() }
    }

    fn best(
        &self,
        queries: &Queries,
        collection: &Collection,
        depth: usize,
        progress: &MiningProgress<'_>,
    ) -> Result<Vec<Vec<Ranked>>, TrainError> {
        // A thread that died while it encoded left nothing half changed.
        let encoder = self.encoder.lock().unwrap_or_else(PoisonError::into_inner);
        let total = queries.len() + collection.len();
        let mut query_vectors = Vec::with_capacity(queries.len().div_ceil(QUERIES));
        let mut done = 0;
        for qids in blocks(queries.len(), QUERIES) {
            let texts: Vec<&str> = qids.map(|qid| queries.text(qid)).collect();
            query_vectors.push(self.on_device("query", &texts, encoder.queries(&texts, &self.device)?)?);
            done += texts.len();
            progress(MiningPhase::Indexing, done, total);
        }
        let mut best = vec![Best::new(depth); queries.len()];
        for pids in blocks(collection.len(), DOCUMENTS) {
            let first = pids.start;
            let texts: Vec<&str> = pids.map(|pid| collection.text(pid)).collect();
            let documents = self.on_device("document", &texts, encoder.documents(&texts, &self.device)?)?;
            for (vectors, best) in query_vectors.iter().zip(best.chunks_mut(QUERIES)) {
                let scores =
                    linear(vectors.clone(), documents.clone(), None, Precision::F32).into_data().convert::<f32>();
                let scores = scores.into_vec::<f32>().expect("the data was converted to f32");
                best.par_iter_mut().zip(scores.par_chunks(texts.len())).for_each(|(best, row)| best.offer(first, row));
            }
            done += texts.len();
            progress(MiningPhase::Indexing, done, total);
        }
        Ok(best.into_par_iter().map(Best::ranking).collect())
    }

    /// Puts vectors of texts, `[texts, size]`, on the device, unless one is not finite: a ranking by it would be the
    /// order of the collection.
    fn on_device(&self, what: &'static str, texts: &[&str], vectors: HostTensor) -> Result<Tensor<B, 2>, TrainError> {
        let size = vectors.shape[1];
        if let Some(place) = vectors.values.iter().position(|value| !value.is_finite()) {
            return Err(TrainError::NonFiniteVectors { what, id: format!("\"{}\"", texts[place / size]) });
        }
        Ok(Tensor::from_data(TensorData::new(vectors.values, vectors.shape), &self.device))
    }
}

/// `0..count` in ranges of `size`.
fn blocks(count: usize, size: usize) -> impl Iterator<Item = std::ops::Range<u32>> {
    (0..count).step_by(size).map(move |start| start as u32..(start + size).min(count) as u32)
}

impl<B: KernelBackend> NegativeMiner for DenseMiner<B> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn rank(&self, queries: &Queries, collection: &Collection, depth: usize) -> Result<Vec<Vec<Ranked>>, DataError> {
        self.rank_with_progress(queries, collection, depth, &|_, _, _| ())
    }

    fn rank_with_progress(
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

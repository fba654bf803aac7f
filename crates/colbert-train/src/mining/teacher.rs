//! Teachers: a cross-encoder, and a ColBERT that is trained already.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use colbert_data::{DataError, Teacher};
use colbert_kernels::KernelBackend;
use colbert_model::sentence::CrossEncoder;
use colbert_model::{Colbert, ColbertTokenizer, Embeddings, Encoder};

use super::late_interaction::{all_finite, score};
use crate::error::TrainError;

/// Texts encoded at once.
const TEXTS: usize = 64;

/// A cross-encoder as a teacher. Its scores are those before any function over them: a sigmoid would bring the best
/// candidates of a query too close together.
#[derive(Debug)]
pub struct CrossEncoderTeacher<B: KernelBackend> {
    /// A model may be sent between threads, but not shared.
    model: Mutex<CrossEncoder<B>>,
    name: String,
    fingerprint: String,
    device: B::Device,
}

impl<B: KernelBackend> CrossEncoderTeacher<B> {
    /// Creates a teacher with a model on `device`.
    pub fn new(model: CrossEncoder<B>, device: &B::Device) -> Self {
        let name = format!("{} (cross-encoder, {} tokens)", model.name(), model.max_length());
        let fingerprint = model.fingerprint().to_owned();
        Self { model: Mutex::new(model), name, fingerprint, device: device.clone() }
    }
}

impl<B: KernelBackend> Teacher for CrossEncoderTeacher<B> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn scores(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, DataError> {
        // A thread that panicked while it encoded left nothing half changed.
        let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |source| DataError::Teacher { teacher: self.name.clone(), source: Box::new(source) };
        model.scores(pairs, &self.device).map_err(failed)
    }
}

/// A ColBERT as a teacher: MaxSim over its token vectors. Each text of a call is encoded once.
#[derive(Debug)]
pub struct ColbertTeacher<B: KernelBackend, E: Encoder<B>> {
    /// A model may be sent between threads, but not shared.
    model: Mutex<Colbert<B, E>>,
    tokenizer: ColbertTokenizer,
    name: String,
    fingerprint: String,
    device: B::Device,
}

impl<B: KernelBackend, E: Encoder<B>> ColbertTeacher<B, E> {
    /// Creates a teacher with a model on `device`, which `name` and `fingerprint` tell from others.
    pub fn new(
        model: Colbert<B, E>,
        tokenizer: ColbertTokenizer,
        name: &str,
        fingerprint: String,
        device: &B::Device,
    ) -> Self {
        let name = format!("{name} (ColBERT)");
        Self { model: Mutex::new(model), tokenizer, name, fingerprint, device: device.clone() }
    }

    fn maxsim(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, TrainError> {
        // A thread that died while it encoded left nothing half changed.
        let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        let (queries, query_of) = distinct(pairs.iter().map(|pair| pair.0));
        let (documents, document_of) = distinct(pairs.iter().map(|pair| pair.1));
        let mut embedded = Vec::new();
        for texts in queries.chunks(TEXTS) {
            let part = model.encode(&self.tokenizer.queries(texts)?, &self.device);
            all_finite("query", texts, &part)?;
            embedded.push(part);
        }
        let embedded = Embeddings::concatenated(&embedded);
        let mut pairs_of: Vec<Vec<usize>> = vec![Vec::new(); documents.len()];
        document_of.iter().enumerate().for_each(|(pair, &document)| pairs_of[document].push(pair));
        let mut scores = vec![0.0; pairs.len()];
        for (texts, pairs_of) in documents.chunks(TEXTS).zip(pairs_of.chunks(TEXTS)) {
            let sequences = self.tokenizer.documents(texts)?;
            let part = model.encode(&sequences, &self.device);
            all_finite("document", texts, &part)?;
            for (place, (sequence, pairs)) in sequences.iter().zip(pairs_of).enumerate() {
                let queries: Vec<usize> = pairs.iter().map(|&pair| query_of[pair]).collect();
                let found = score(&embedded, &queries, &part, place, sequence, &self.device);
                pairs.iter().zip(found).for_each(|(&pair, found)| scores[pair] = found);
            }
        }
        Ok(scores)
    }
}

impl<B: KernelBackend, E: Encoder<B>> Teacher for ColbertTeacher<B, E> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn scores(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, DataError> {
        let failed = |source| DataError::Teacher { teacher: self.name.clone(), source: Box::new(source) };
        self.maxsim(pairs).map_err(failed)
    }
}

/// Returns the distinct texts in order of first sight, and the place of each text among them.
fn distinct<'a>(texts: impl Iterator<Item = &'a str>) -> (Vec<&'a str>, Vec<usize>) {
    let (mut distinct, mut places) = (Vec::new(), HashMap::new());
    let place_of = texts.map(|text| {
        *places.entry(text).or_insert_with(|| {
            distinct.push(text);
            distinct.len() - 1
        })
    });
    let place_of = place_of.collect();
    (distinct, place_of)
}

//! A trained model on the device of a backend, whichever that is.

use std::fmt;

use burn::tensor::{Tensor, TensorData};
use colbert_config::Precision;
use colbert_data::Fingerprint;
use colbert_kernels::{KernelAutodiffBackend, KernelBackend, ScoredTexts};
use colbert_model::{
    Colbert, ColbertSettings, EncodeOptions, LoadReport, Pretrained, PretrainedEncoder, TokenSequence, named_parameters,
};

use crate::backend::Job;
use crate::error::Error;
use crate::search::text_vectors::TextVectors;

/// Numbers of document vectors that a GPU scores at once: 16 MiB.
pub(crate) const BLOCK_NUMBERS: usize = 4 << 20;

/// A model on a device of some backend.
pub(crate) trait OnDevice: fmt::Debug + Send {
    /// Vectors of the scored tokens of each text.
    fn encode(&self, sequences: &[TokenSequence], dim: usize, precision: Precision) -> TextVectors;

    /// MaxSim `[queries, documents]`.
    fn scores(&self, queries: &TextVectors, documents: &TextVectors) -> Vec<f32>;
}

#[derive(Debug)]
struct Loaded<B: KernelBackend> {
    model: Colbert<B, PretrainedEncoder<B>>,
    device: B::Device,
}

impl<B: KernelBackend> OnDevice for Loaded<B> {
    fn encode(&self, sequences: &[TokenSequence], dim: usize, precision: Precision) -> TextVectors {
        let options = EncodeOptions::in_precision(precision);
        let mut all = TextVectors::new(dim);
        for text in self.model.encode_with(sequences, options, &self.device).to_host() {
            all.push(&text.values);
        }
        all
    }

    fn scores(&self, queries: &TextVectors, documents: &TextVectors) -> Vec<f32> {
        let mut scores = vec![0.0; queries.len() * documents.len()];
        let mut start = 0;
        while start < documents.len() {
            let rows = &documents.offsets()[start..];
            let fits =
                rows.iter().skip(1).take_while(|end| (*end - rows[0]) * documents.dim() <= BLOCK_NUMBERS).count();
            let end = start + fits.max(1);
            let block = scores_of(self, queries, documents, start..end);
            for (query, row) in block.chunks(end - start).enumerate() {
                scores[query * documents.len() + start..query * documents.len() + end].copy_from_slice(row);
            }
            start = end;
        }
        scores
    }
}

/// Scores of a run of documents, `[queries, documents]`.
fn scores_of<B: KernelBackend>(
    on: &Loaded<B>,
    queries: &TextVectors,
    documents: &TextVectors,
    own: std::ops::Range<usize>,
) -> Vec<f32> {
    let dim = documents.dim();
    let tensor =
        |rows: &[f32]| Tensor::<B, 2>::from_data(TensorData::new(rows.to_vec(), [rows.len() / dim, dim]), &on.device);
    let texts = |offsets: &[usize]| {
        let lengths: Vec<usize> = offsets.windows(2).map(|pair| pair[1] - pair[0]).collect();
        ScoredTexts::new(&lengths, vec![true; lengths.iter().sum()])
    };
    let offsets = &documents.offsets()[own.start..=own.end];
    let rows = &documents.values()[offsets[0] * dim..offsets[offsets.len() - 1] * dim];
    let scores =
        colbert_kernels::maxsim(tensor(queries.values()), &texts(queries.offsets()), tensor(rows), &texts(offsets));
    scores.into_data().convert::<f32>().into_vec::<f32>().expect("the data was converted to f32")
}

/// Loads a model on a backend: with its report, and what tells it from other models.
pub(crate) struct Load<'a> {
    pub(crate) pretrained: &'a Pretrained,
    pub(crate) settings: &'a ColbertSettings,
}

impl Job for Load<'_> {
    type Output = Result<(Box<dyn OnDevice>, LoadReport, u64), Error>;

    fn run<B: KernelAutodiffBackend>(self, device: &B::Device) -> Self::Output {
        let (model, report) = self.pretrained.model::<B::InnerBackend>(self.settings, None, 0, device)?;
        let head: Vec<f32> = named_parameters(&model.head).into_iter().flat_map(|(_, tensor)| tensor.values).collect();
        // Training moves every number of the head, so it and the settings tell two models apart.
        let settings = serde_json::to_string(self.settings).expect("settings have a JSON form");
        let mut fingerprint = Fingerprint::new();
        fingerprint.add(settings.as_bytes());
        head.iter().for_each(|value| fingerprint.add(&value.to_le_bytes()));
        let loaded = Loaded { model, device: device.clone() };
        Ok((Box::new(loaded), report, fingerprint.finish()))
    }
}
